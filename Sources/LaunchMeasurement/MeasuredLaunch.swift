// The launch digest of a plan, with every step on the way.

import GuestImage
import SEVABI
import X86Defs

/// What the firmware's launch digest will be when a plan is executed by KVM.
public struct MeasuredLaunch: Sendable {
    /// One region or one processor of the plan.
    public struct Step: Sendable {
        /// The region's label, or "VMSA n".
        public var label: String
        public var pageType: PageType
        /// Of the first page.
        public var gpa: UInt64
        public var pageCount: UInt64
        /// LD after the last page.
        public var digest: LaunchDigest
        /// SHA-384 of the page, for a VMSA.
        public var contentsDigest: LaunchDigest?
    }

    /// In launch order.
    public let steps: [Step]

    /// LD after everything: what SNP_LAUNCH_FINISH compares with an ID block and what a report shows as MEASUREMENT.
    public var digest: LaunchDigest { steps.last?.digest ?? LaunchDigest() }

    /// Measures a plan; no kernel and no firmware is asked.
    public init(of plan: LaunchPlan) {
        var running = RunningLaunchDigest()
        var steps: [Step] = []
        for region in plan.regions {
            running.extend(region)
            steps.append(
                Step(
                    label: region.label, pageType: region.pageType, gpa: region.gpa, pageCount: region.byteCount >> 12,
                    digest: running.digest))
        }
        for (index, processor) in plan.processors.enumerated() {
            let hash = running.extend(SealedState(of: processor, guestFeatures: plan.guestFeatures))
            steps.append(
                Step(
                    label: "VMSA \(index)", pageType: .vmsa, gpa: RunningLaunchDigest.vmsaGPA, pageCount: 1,
                    digest: running.digest, contentsDigest: hash))
        }
        self.steps = steps
    }
}
