// Texts about a host that strangers wrote: facts, scenarios, and what somebody pasted from a log.

import HostDiagnosis
import SEVABI
import SNPVMM
import SoftwareKVM
import TestSupport

let hostFuzzers = [
    Fuzzer(
        name: "host-facts", summary: "facts of a host with changed text, examined", smokeIterations: 2_000,
        generate: { changed(Samples.facts, &$0) }, check: checkFacts),
    Fuzzer(
        name: "host-scenarios", summary: "scenarios with changed text, and the machine they make", smokeIterations: 100,
        generate: { changed(Samples.scenario, &$0) }, check: checkScenario),
    Fuzzer(
        name: "error-questions", summary: "questions to the catalogue of errors with changed text",
        smokeIterations: 5_000,
        generate: { changed(Array(Samples.questions[$0.below(Samples.questions.count)].utf8), &$0) },
        check: checkQuestion),
]

private enum Samples {
    static let facts: [UInt8] = {
        guard let kernel = try? SoftwareKVM() else { return [] }
        var facts = kernel.systemFacts
        facts.merge(HostProbe.facts(of: kernel, chipID: true))
        return Array(facts.json.text.utf8)
    }()

    static let scenario = Array(
        """
        {"name":"h","stops":"snp","vmTypes":["plain","sev","snp"],"closedNodes":{"/dev/mem":"EACCES"},"deviceAttributes":2,
        "withoutCapabilities":["KVM_CAP_XSAVE2"],"acceptedPolicyBits":"0x7ffff","lockedMemory":65536,"memory":8388608,
        "pagesPerUpdate":3,"asids":{"snp":9,"sev":41,"inUse":false},"firmware":{"api":"1.49","build":3,"reportedTCB":"0x1",
        "initialisesSNP":false,"refusedCPUID":[{"leaf":7,"register":"ebx","bits":"0x20"}]},"answers":[{"request":"KVM_CREATE_VM",
        "errno":"EAGAIN","firmwareStatus":"SUCCESS","after":1,"times":3,"every":2}],"facts":{"msr.rmpBase":"0x0"}}
        """.utf8)

    static let questions = [
        "SNP_LAUNCH_START ret=-22 fw_error=0 ''", "KVM_CREATE_VM: EINVAL (22)", "1/2", "0x21100", "/dev/sev EACCES",
        "KVM_EXIT_INTERNAL_ERROR suberror=1", "-5 fw_error=0x16",
    ]
}

private func checkFacts(_ input: [UInt8]) -> Outcome {
    do throws(HostFacts.Failure) {
        let facts = try HostFacts(json: input)
        for technology in [nil, .sev, .sevES, .snp] as [GuestTechnology?] {
            let examination = HostExamination(facts, for: technology)
            if examination.text(coloured: false).unicodeScalars.contains(where: { $0.value < 0x20 && $0 != "\n" }) {
                return .impossible("a control character on its way to the terminal")
            }
        }
        guard let again = try? HostFacts(json: Array(facts.json.text.utf8)), again == facts else {
            return .impossible("facts that do not survive being written")
        }
        return .fine("facts")
    } catch { return error.description.hasPrefix("line") ? .uninteresting("no JSON") : .fine("refused") }
}

private func checkScenario(_ input: [UInt8]) -> Outcome {
    do throws(HostScenario.FileError) {
        var configuration = SoftwareKVM.Configuration()
        configuration.scenario = try HostScenario(json: input)
        guard let kernel = try? SoftwareKVM(configuration: configuration) else { return .fine("no machine") }
        var facts = kernel.systemFacts
        facts.merge(HostProbe.facts(of: kernel))
        return .fine(HostExamination(facts, for: .snp).cause?.id ?? "nothing red")
    } catch { return error.description.hasPrefix("line") ? .uninteresting("no JSON") : .fine("refused") }
}

private func checkQuestion(_ input: [UInt8]) -> Outcome {
    guard let question = try? ErrorQuestion(String(decoding: input, as: UTF8.self)) else {
        return .uninteresting("a word")
    }
    return ErrorAnswer(question).sections.isEmpty ? .fine("nothing known") : .fine("answered")
}
