// The machine that this process runs on.

import CProcess
import KVMABI

/// The real thing.
public struct LocalMachine: AgentMachine {
    public init() {}

    /// For a process that will hold secrets: it leaves no core file, and other processes cannot read its memory.
    public static func forbidDumps() { process_forbid_dumps() }

    public func driver() throws(AgentError) -> any SEVGuestDriver { try LinuxSEVGuestDriver() }

    public func connect(to owner: OwnerAddress) throws(AgentError) -> any OwnerStream { try OwnerConnection(owner) }

    public func write(_ bytes: [UInt8], to path: String) throws(AgentError) {
        do {
            try LocalFile(path).replace(by: bytes)
        } catch {
            throw AgentError(
                .badInput, attempt: "write a file", subject: path, found: "\(error)",
                likelyCause: "a missing folder, or a missing permission", nextStep: "choose another path")
        }
    }

    public func run(_ program: [String], input: [UInt8]) throws(AgentError) -> Int32 {
        switch runProgram(program, input: input) {
        case .exited(let status): return status
        case .signalled(let number):
            throw AgentError(
                .badInput, attempt: "hand over the secret", subject: program[0],
                found: "it was ended by signal \(number)",
                likelyCause: "a fault of that program", nextStep: "run it by itself")
        case .notStarted(let errno):
            throw AgentError(
                .badInput, attempt: "hand over the secret", subject: program[0], found: "\(errno)",
                likelyCause: "there is no such program on PATH", nextStep: "check its name")
        }
    }

    public func say(_ text: String) { Self.write(text, to: 1) }

    /// A message for people.
    public static func complain(_ text: String) { write("snp-guest-agent: " + text + "\n", to: 2) }

    private static func write(_ text: String, to descriptor: Int32) {
        let bytes = Array(text.utf8)
        _ = withKernelAddress(of: bytes) { file_write(descriptor, $0, UInt64(bytes.count)) }
    }
}
