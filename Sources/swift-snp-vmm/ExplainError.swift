// `explain`: an error of this command, of a kernel or of another VMM, looked up in the catalogue.

import ArgumentParser
import HostDiagnosis
import SNPVMM

struct ExplainError: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "explain",
        abstract: "Says what an error usually means, how to check it, and what to do.",
        discussion: """
            CODE is what a log shows: a request (SNP_LAUNCH_START, KVM_CREATE_VM, /dev/sev), an errno (EINVAL, -22), a firmware \
            status (INVALID_PARAM, 0x16), an exit (KVM_EXIT_MEMORY_FAULT), a termination (1/2, or the GHCB MSR), or several.

            Example: swift-snp-vmm explain KVM_CREATE_VM EINVAL
            Example: swift-snp-vmm explain SNP_LAUNCH_START ret=-22 fw_error=0
            Example: swift-snp-vmm explain KVM_EXIT_INTERNAL_ERROR suberror=1
            """)

    @Argument(parsing: .allUnrecognized, help: ArgumentHelp("What came back.", valueName: "code"))
    var code: [String] = []
    @Flag(help: "Prints one JSON object.")
    var json = false

    func run() throws {
        let question: ErrorQuestion
        do { question = try ErrorQuestion(code.joined(separator: " ")) } catch {
            throw CommandFailure.usage(
                (error.word.isEmpty ? "explain: nothing to look up" : "explain: \"\(error.word)\" is not known")
                    + "; expected a request, an errno, a firmware status, an exit or a termination, for example "
                    + "KVM_CREATE_VM EINVAL")
        }
        let answer = ErrorAnswer(question)
        StandardOutput.write(line: json ? answer.json.text : answer.text)
    }
}

extension VMMError {
    /// The words under which `explain` has more than the message says; nil where the likeliest cause is the only one.
    var catalogueCode: String? {
        guard let errno, let name = errno.name else { return nil }
        let entry = ErrorCatalogue.explain(request: request, errno: errno, firmwareStatus: firmwareStatus)
        guard entry.request == request, entry.causes.count > 1 else { return nil }
        let path = request.hasPrefix("open ") ? String(request.dropFirst(5)) : request
        return ([path, name] + (firmwareStatus.map { ["fw_error=\($0.rawValue)"] } ?? [])).joined(separator: " ")
    }
}
