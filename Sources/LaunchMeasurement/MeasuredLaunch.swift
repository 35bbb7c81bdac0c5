// The launch digest of a plan, with every step on the way.

import Crypto
import GuestImage
import SEVABI
import X86Defs

/// What the firmware's launch digest will be when a plan is executed by KVM.
public struct MeasuredLaunch: Sendable {
    /// One region or one processor of the plan.
    public struct Step: Sendable {
        /// The region's label, or "VMSA n".
        public var label: String
        /// NORMAL for everything that SEV and SEV-ES measure but the VMSAs.
        public var pageType: PageType
        /// Of the first byte. SEV and SEV-ES do not measure it; their VMSAs have none, which is 0 here.
        public var gpa: UInt64
        /// A multiple of 4096 for SNP, of 16 for SEV and SEV-ES.
        public var byteCount: UInt64
        /// LD after the last byte: 48 bytes for SNP, 32 for SEV and SEV-ES.
        public var digestBytes: [UInt8]
        /// The digest of the page alone, for a VMSA: SHA-384.
        public var contentsDigest: LaunchDigest?

        /// Pages, the last one perhaps in part.
        public var pageCount: UInt64 { (byteCount &+ 0xfff) >> 12 }
        /// LD in lower-case hexadecimal digits.
        public var digestText: String { hexText(digestBytes) }
        /// LD after the last page of an SNP plan; asking for one of another technology is a programmer's error.
        public var digest: LaunchDigest { snpDigest(digestBytes) }
    }

    /// The plan's; a plain guest has no launch digest.
    public let technology: GuestTechnology
    /// In launch order.
    public let steps: [Step]
    /// LD after everything: 48 bytes for SNP, 32 for SEV and SEV-ES.
    public let digestBytes: [UInt8]

    /// LD of an SNP plan: what SNP_LAUNCH_FINISH compares with an ID block and what a report shows as MEASUREMENT. Asking
    /// for one of another technology is a programmer's error.
    public var digest: LaunchDigest { snpDigest(digestBytes) }

    /// LD in lower-case hexadecimal digits: 96, or 64.
    public var digestText: String { hexText(digestBytes) }

    /// Measures a plan; no kernel and no firmware is asked. A plain plan is a programmer's error.
    public init(of plan: LaunchPlan) {
        guard let technology = plan.technology else { preconditionFailure("nobody measures a plain guest") }
        self.technology = technology
        let (steps, empty) =
            technology == .snp ? Self.snpSteps(of: plan) : Self.contentsSteps(of: plan, technology)
        self.steps = steps
        digestBytes = steps.last?.digestBytes ?? empty
    }

    /// One PAGE_INFO per page, the VMSAs last [SNP 8.17]; and LD before the first step.
    private static func snpSteps(of plan: LaunchPlan) -> ([Step], empty: [UInt8]) {
        var running = RunningLaunchDigest()
        let empty = running.digest.array
        var steps: [Step] = []
        for region in plan.regions {
            running.extend(region)
            steps.append(
                Step(
                    label: region.label, pageType: region.pageType, gpa: region.gpa, byteCount: region.byteCount,
                    digestBytes: running.digest.array))
        }
        for (index, processor) in plan.processors.enumerated() {
            let hash = running.extend(SealedState(of: processor, guestFeatures: plan.guestFeatures))
            steps.append(
                Step(
                    label: "VMSA \(index)", pageType: .vmsa, gpa: RunningLaunchDigest.vmsaGPA, byteCount: 4096,
                    digestBytes: running.digest.array, contentsDigest: hash))
        }
        return (steps, empty)
    }

    /// All plaintext in one hash; the VMSAs last, and only for SEV-ES [SEV 6.3, 6.4].
    private static func contentsSteps(
        of plan: LaunchPlan, _ technology: GuestTechnology
    ) -> ([Step], empty: [UInt8]) {
        let running = RunningContentsDigest()
        let empty = running.digestBytes
        var steps: [Step] = []
        for region in plan.regions {
            running.extend(region)
            steps.append(
                Step(
                    label: region.label, pageType: region.pageType, gpa: region.gpa, byteCount: region.byteCount,
                    digestBytes: running.digestBytes))
        }
        guard technology.encryptsState else { return (steps, empty) }
        for (index, processor) in plan.processors.enumerated() {
            let state = SealedState(of: processor, guestFeatures: plan.guestFeatures)
            running.extend(state)
            steps.append(
                Step(
                    label: "VMSA \(index)", pageType: .vmsa, gpa: 0, byteCount: 4096,
                    digestBytes: running.digestBytes, contentsDigest: LaunchDigest(SHA384.hash(state.page))))
        }
        return (steps, empty)
    }
}

/// 48 bytes as LD of an SNP guest.
private func snpDigest(_ bytes: [UInt8]) -> LaunchDigest {
    guard let digest = LaunchDigest(bytes) else { preconditionFailure("SEV and SEV-ES digests have 32 bytes") }
    return digest
}

/// Two lower-case digits per byte.
func hexText(_ bytes: [UInt8]) -> String {
    let digits = Array("0123456789abcdef".utf8)
    return String(decoding: bytes.flatMap { [digits[Int($0 &>> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
}
