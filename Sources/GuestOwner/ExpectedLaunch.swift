// The launch that the owner wants, computed from its own files.

import GuestImage
import LaunchMeasurement
import SEVABI

/// What the firmware must have measured.
public struct ExpectedLaunch: Sendable {
    /// A launch that is not the wanted one, to tell what somebody changed.
    public struct Alternative: Sendable {
        /// Completes "the firmware measured …": "2 vCPUs instead of 4".
        public var label: String
        /// 32 bytes.
        public var digest: [UInt8]

        public init(label: String, digest: [UInt8]) {
            self.label = label
            self.digest = digest
        }
    }

    public let technology: GuestTechnology
    /// The launch digest, 32 bytes.
    public let digest: [UInt8]
    private let plan: LaunchPlan?

    /// From a plan: the same one that the VMM has to execute.
    public init(_ plan: LaunchPlan) throws(OwnerError) {
        guard let technology = plan.technology, technology != .snp else {
            throw OwnerError(
                .technology, attempt: "compute the expected measurement", subject: "the launch plan",
                field: "technology", expected: "SEV or SEV-ES", found: plan.technology?.displayName ?? "a plain guest",
                likelyCause: "SEV-SNP has no LAUNCH_MEASURE: its digest is in the attestation report",
                nextStep: "choose sev or sev-es, or use `measure` for SEV-SNP")
        }
        self.technology = technology
        digest = MeasuredLaunch(of: plan).digestBytes
        self.plan = plan
    }

    /// From a digest that was computed elsewhere; 32 bytes, or it is refused.
    public init(technology: GuestTechnology, digest: [UInt8]) throws(OwnerError) {
        guard digest.count == 32 else {
            throw OwnerError(
                .measurement, attempt: "use a launch digest", subject: "the digest", field: "length",
                expected: "32 bytes (SHA-256)", found: "\(digest.count)",
                likelyCause: digest.count == 48 ? "a digest of SEV-SNP" : "a value that was cut off",
                nextStep: "compute it with `measure` for the technology of the guest")
        }
        self.technology = technology
        self.digest = digest
        plan = nil
    }

    /// Where the plan lets the owner's secrets go; nil without one, or without a plan.
    public var secretArea: LaunchPlan.SecretArea? { plan?.secretArea }
    /// The digest comes from a plan, and so has alternatives.
    public var hasPlan: Bool { plan != nil }

    /// Other launches that somebody could have made from the same files. Each one hashes the whole plan.
    ///
    /// A changed command line or kernel is not among them: nobody can guess what it was changed to.
    public func alternatives() -> [Alternative] {
        var result: [Alternative] = []
        func add(_ label: String, _ change: (inout LaunchPlan) -> Void) {
            guard var other = plan else { return }
            change(&other)
            let digest = MeasuredLaunch(of: other).digestBytes
            if digest != self.digest { result.append(Alternative(label: label, digest: digest)) }
        }
        if let plan {
            let other: GuestTechnology = technology == .sev ? .sevES : .sev
            add("a \(other.displayName) guest instead of \(technology.displayName)") { $0.technology = other }
            for count in 1...Self.maximumProcessorCount where count != plan.processors.count && technology == .sevES {
                guard let last = plan.processors.last, count < plan.processors.count || plan.processors.count > 1 else {
                    continue
                }
                add("\(counted(count, "VMSA")) instead of \(plan.processors.count): another number of vCPUs") {
                    changed in
                    changed.processors = (0..<count).map {
                        $0 < plan.processors.count ? plan.processors[$0] : last
                    }
                }
            }
            for (index, region) in plan.regions.prefix(Self.maximumRegionCount).enumerated() {
                add("the image without its \(region.label)") { $0.regions.remove(at: index) }
                add("zeroes in the place of its \(region.label)") { changed in
                    changed.regions[index].contents = [UInt8](repeating: 0, count: region.contents.count)
                }
                if index + 1 < plan.regions.count {
                    add("\(plan.regions[index + 1].label) before \(region.label)") {
                        $0.regions.swapAt(index, index + 1)
                    }
                }
            }
        }
        // SHA-256 of nothing.
        if let plan {
            var empty = plan
            empty.regions = []
            empty.processors = []
            result.append(Alternative(label: "nothing at all", digest: MeasuredLaunch(of: empty).digestBytes))
        }
        return result
    }

    private static let maximumProcessorCount = 16
    /// Each one costs two or three hashes of everything.
    private static let maximumRegionCount = 64
}
