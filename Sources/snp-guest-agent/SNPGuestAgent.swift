// The guest's agent as a program: one static binary without Foundation.

import Glibc
import GuestAgent

@main
enum SNPGuestAgent {
    static func main() {
        LocalMachine.forbidDumps()
        do throws(AgentError) {
            let command = try AgentCommand(Array(CommandLine.arguments.dropFirst()))
            exit(try Agent(on: LocalMachine()).run(command))
        } catch {
            LocalMachine.complain("\(error)")
            exit(error.status.rawValue)
        }
    }
}
