// One launch as somebody planned, saved, logged or reported it: what two launches are compared by.

import ABILayout
import Attestation
import GuestImage
import LaunchMeasurement
import SEVABI

/// What is known of one launch. A plan knows all, a report little more than the digest.
public struct LaunchRecord: Sendable {
    /// Pages of one type at consecutive addresses, in launch order.
    public struct Run: Sendable {
        public var label: String
        public var pageType: PageType
        public var gpa: UInt64
        public var byteCount: UInt64
        /// Plaintext; nil when only digests are known, or nothing.
        public var contents: [UInt8]?
        /// One per page, as ``PageDigests`` has them; nil when they are not known.
        public var pageDigests: [UInt64]?
        /// LD after it, lower-case digits.
        public var launchDigest: String?

        /// Where it ends; the largest address when it would be beyond.
        var end: UInt64 {
            let (end, overflow) = gpa.addingReportingOverflow(byteCount)
            return overflow ? .max : end
        }
    }

    /// For people: "plan of guest.img".
    public var name: String
    public var technology: GuestTechnology?
    public var policy: UInt64?
    public var hostData: String?
    /// Nil when nothing is known of what was launched.
    public var runs: [Run]?
    /// VMSA pages in vCPU order, at least 0x670 bytes of each; nil when they are not known.
    public var states: [[UInt8]]?
    /// LD after everything, lower-case digits.
    public var launchDigest: String?
    /// CPUID of the processor that a report names.
    public var processor: AttestationReport.Processor?

    init(name: String) { self.name = name }

    /// A plan: everything is known.
    public init(_ plan: LaunchPlan, name: String) {
        self.init(name: name)
        let measured = plan.technology.map { _ in MeasuredLaunch(of: plan) }
        technology = plan.technology
        policy = plan.policy
        launchDigest = measured?.digestText
        var runs: [Run] = []
        for (index, region) in plan.regions.enumerated() {
            runs.append(
                Run(
                    label: region.label, pageType: region.pageType, gpa: region.gpa, byteCount: region.byteCount,
                    contents: region.pageType.measuresContents ? region.contents : nil,
                    launchDigest: measured?.steps[index].digestText))
        }
        // A VMSA that a plan has as a page is a register state all the same.
        let pages = runs.filter { $0.pageType == .vmsa }.compactMap(\.contents)
        self.runs = runs.filter { $0.pageType != .vmsa }
        states =
            plan.technology?.encryptsState == true
            ? pages + plan.processors.map { SealedState(of: $0, guestFeatures: plan.guestFeatures).page } : []
    }

    /// A report: the digest, the policy, the processor.
    public init(_ report: AttestationReport, name: String) {
        self.init(name: name)
        technology = .snp
        policy = report.policy.rawValue
        hostData = hexText(report.hostData)
        launchDigest = hexText(report.measurement)
        processor = report.processor
    }

    /// LD before the first VMSA.
    var digestBeforeStates: LaunchDigest? {
        guard technology == .snp, let runs else { return nil }
        guard let last = runs.last else { return LaunchDigest() }
        return last.launchDigest.flatMap { ABILayout.bytes(hexadecimal: $0) }.flatMap { LaunchDigest($0) }
    }
}
