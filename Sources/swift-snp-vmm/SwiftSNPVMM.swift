// The command: its subcommands, and how a run becomes an exit status.

import ArgumentParser
import Attestation
import CProcess
import Glibc
import GuestImage
import GuestOwner
import SNPVMM

@main
struct SwiftSNPVMM: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "swift-snp-vmm",
        abstract: "Boots Linux as a SEV, SEV-ES or SNP guest through the KVM ABI: on an EPYC, or in software.",
        discussion: """
            Exit status: 0 power-off, 2 usage, 3 bad image or input, 4 host cannot, 5 launch or evidence refused, 6 guest \
            terminated or crashed.
            """,
        subcommands: [
            Run.self, Measure.self, Verify.self, Report.self, Certs.self, IDBlockCommand.self, Owner.self,
            Platform.self, Doctor.self, ExplainError.self,
            Attack.self,
            Version.self,
        ])

    /// Parses, runs, and ends the process with the status that the outcome has.
    static func main() {
        do {
            var command = try parseAsRoot()
            try command.run()
        } catch {
            end(with: error)
        }
    }

    private static func end(with error: any Error) -> Never {
        terminal_restore()
        switch error {
        case let failure as CommandFailure:
            StandardError.write(line: "swift-snp-vmm: \(failure.message)")
            Glibc.exit(failure.status.rawValue)
        case let failure as VMMError:
            StandardError.write(line: "swift-snp-vmm: \(failure)")
            if let code = failure.catalogueCode {
                StandardError.write(line: "  other causes: swift-snp-vmm explain \(code)")
            }
            Glibc.exit(failure.exitStatus.rawValue)
        case let failure as ImageError:
            StandardError.write(line: "swift-snp-vmm: \(failure)")
            Glibc.exit(VMMExitStatus.badInput.rawValue)
        case let error as OwnerError:
            StandardError.write(line: "swift-snp-vmm: \(error)")
            Glibc.exit(error.exitStatus.rawValue)
        case let error as AttestationError:
            StandardError.write(line: "swift-snp-vmm: \(error)")
            Glibc.exit(error.exitStatus.rawValue)
        case let code as ExitCode:
            Glibc.exit(code.rawValue)
        default:
            // Requests for help or the version end well; what is left is a wrong command line.
            let code = exitCode(for: error)
            if code == .success {
                print(fullMessage(for: error))
                Glibc.exit(VMMExitStatus.success.rawValue)
            }
            StandardError.write(line: fullMessage(for: error))
            Glibc.exit(VMMExitStatus.usage.rawValue)
        }
    }
}

/// A failure that the command finds itself, with the status it ends with.
struct CommandFailure: Error {
    let status: VMMExitStatus
    let message: String

    /// A value on the command line that cannot be used.
    static func usage(_ message: String) -> CommandFailure { CommandFailure(status: .usage, message: message) }
}
