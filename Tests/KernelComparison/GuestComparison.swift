// One flat guest on both kernels, and in what their transcripts differ.

import GuestImage
import KVMABI
import LinuxKVM
import SNPVMM
import SoftwareKVM
import TestSupport

/// A flat guest of Firmware/ on two kernels.
public struct GuestComparison: Sendable {
    public var software: GuestTranscript
    public var real: GuestTranscript

    /// What was found in comparing two transcripts, line by line.
    public struct Verdict: Sendable {
        /// Lines that are the same.
        public var equalCount = 0
        /// Names of the known differences that were met.
        public var names: Set<String> = []
        /// What nobody knows a reason for.
        public var unknown: [String] = []
        /// Why the rest was not compared, if it was not.
        public var end: String?
    }

    /// Compares, knowing of this guest's named differences.
    public func verdict(guest: String) -> Verdict {
        let known = NamedGuestDifference.all.filter { $0.guest == guest }
        var verdict = Verdict()
        var real = self.real.lines
        var software = self.software.lines
        // Where the real kernel gave up, the rest of the guest is not compared.
        if let end = real.firstIndex(where: { $0.hasPrefix("KVM_EXIT_INTERNAL_ERROR") }) {
            verdict.end = "not emulated: " + real[end]
            // With several vCPUs another one may have been stopped by it.
            let count = min(end, real.firstIndex { $0.hasPrefix("end ") } ?? end)
            real = Array(real.prefix(count))
            software = Array(software.prefix(count))
        }
        var position = 0
        while position < min(real.count, software.count) {
            let (ours, others) = (software[position], real[position])
            position += 1
            if ours == others {
                verdict.equalCount += 1
                continue
            }
            // The guest found faults, and so ends otherwise.
            if !verdict.names.isEmpty, GuestLine.isEnding(ours), GuestLine.isEnding(others) { return verdict }
            guard let difference = known.first(where: { $0.matches(ours) }) else {
                verdict.unknown.append("SoftwareKVM \(ours), LinuxKVM \(others)")
                if verdict.unknown.count > 20 { return verdict }
                continue
            }
            verdict.names.insert(difference.name)
            if ours.hasPrefix("| "), !GuestLine.isPass(ours) {
                verdict.unknown.append("the software kernel fails, too: \(ours)")
            }
            if difference.endsComparison {
                verdict.end = "\(difference.name): \(difference.reason)"
                return verdict
            }
        }
        if real.count != software.count, verdict.names.isEmpty, verdict.end == nil {
            verdict.unknown.append("\(software.count) lines and \(real.count)")
        }
        return verdict
    }

    /// Runs the guest on SoftwareKVM and on the machine's own kernel.
    ///
    /// - Parameter assisted: What the real kernel cannot emulate is executed for it.
    public static func run(image: [UInt8], processorCount: Int = 1, assisted: Bool = true) throws -> GuestComparison {
        let software = try SoftwareKVM()
        let real = LinuxKVM()
        let cpuid = try CommonCPUID.guestList(software, real)
        let first = try transcript(image, TranscribingKernel(software, cpuid: cpuid), processorCount)
        let assistant = assisted ? try InstructionAssistant() : nil
        let second = try transcript(
            image, TranscribingKernel(real, cpuid: cpuid, assistant: assistant), processorCount)
        return GuestComparison(software: first, real: second)
    }

    private static func transcript(
        _ image: [UInt8], _ kernel: TranscribingKernel, _ processorCount: Int
    ) throws -> GuestTranscript {
        let host = try Host(kernel)
        var description = MachineDescription(
            memoryByteCount: 32 << 20, processorCount: processorCount, technology: nil)
        description.cpuid = try host.guestCPUID(processorCount: processorCount, technology: nil)
        guard case .kernel(let program) = try GuestImage.identify(image) else { throw Errno.ENOEXEC }
        let plan = try DirectBoot.plan(BootPayload(kernel: program), on: description)
        defer { kernel.closeProcessors() }
        let machine = try Machine(
            host: host,
            configuration: MachineConfiguration(
                technology: nil, memoryByteCount: description.memoryByteCount, plan: plan, cpuid: description.cpuid),
            console: { _ in })
        let outcome = machine.run()
        var transcript = try kernel.transcript()
        transcript.lines.append("outcome: \(outcome.exitStatus)")
        return transcript
    }
}
