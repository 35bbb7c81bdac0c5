// What refusals usually mean, as data: one row per request, errno and firmware status that has causes of its own. The most
// specific row that fits explains the refusal, and every refusal has one: the last rows fit everything.
//
//     request   in the kernel's spelling: KVM_CREATE_VM, KVM_SEV_SNP_LAUNCH_START, SNP_PLATFORM_STATUS, or "open /dev/kvm"
//     errno     what the call came back with
//     status    the firmware's, which means something only with EIO
//
// The rows: HostErrors (devices, VM, memory), ProcessorErrors (vCPUs), SNPErrors, SEVErrors, PlatformErrors (/dev/sev),
// FirmwareErrors (every status, whatever was asked), GeneralErrors (every errno, whatever was asked).

import KVMABI

/// Causes, checks and next steps by request, errno and firmware status.
public enum ErrorCatalogue {
    /// Who has to do something about it: it becomes the exit status.
    public enum Outcome: String, Sendable, CaseIterable {
        /// The host cannot do what is asked.
        case hostCannot
        /// The kernel or the firmware refused this launch; another may do.
        case launchRefused
        /// The guest ended itself or broke a protocol.
        case guestFailed
    }

    /// One of the causes that a refusal can have.
    public struct Cause: Sendable, Equatable {
        public var text: String
        /// How to find out whether it is this one; nil where the cause follows from the answer.
        public var check: String?
        public var nextStep: String

        public init(_ text: String, check: String? = nil, next nextStep: String) {
            (self.text, self.check, self.nextStep) = (text, check, nextStep)
        }
    }

    /// A row. A nil field fits everything.
    public struct Entry: Sendable {
        public var request: String?
        public var errno: Errno?
        public var firmwareStatus: FirmwareStatus?
        public var outcome: Outcome
        /// The likeliest first; never empty.
        public var causes: [Cause]

        public var likelyCause: String { causes[0].text }
        public var nextStep: String { causes[0].nextStep }

        /// More named fields, closer fit. The request says more than the status, the status more than the errno.
        var specificity: Int {
            (request == nil ? 0 : 4) + (firmwareStatus == nil ? 0 : 2) + (errno == nil ? 0 : 1)
        }

        func fits(_ request: String, _ errno: Errno, _ firmwareStatus: FirmwareStatus?) -> Bool {
            (self.request == nil || self.request == request) && (self.errno == nil || self.errno == errno)
                && (self.firmwareStatus == nil || self.firmwareStatus == firmwareStatus)
        }
    }

    /// The row that explains a refusal. Earlier rows win among equals.
    public static func explain(request: String, errno: Errno, firmwareStatus: FirmwareStatus? = nil) -> Entry {
        var best = fallback
        var bestSpecificity = -1
        for entry in entries where entry.fits(request, errno, firmwareStatus) && entry.specificity > bestSpecificity {
            best = entry
            bestSpecificity = entry.specificity
        }
        // A row without a request cannot know at what stage the launch was: the request does.
        if best.request == nil, best.firmwareStatus == nil { best.outcome = stage(of: request) }
        return best
    }

    /// How a refusal of `request` ends the process when no row of its own says otherwise.
    static func stage(of request: String) -> Outcome {
        request.hasPrefix("KVM_SEV_SNP_LAUNCH") || request.hasPrefix("KVM_SEV_LAUNCH") ? .launchRefused : .hostCannot
    }

    static let fallback = row(
        nil, nil, .hostCannot, "not known for this combination of request and answer",
        "look at the host kernel's log (dmesg) and run again with --launch-log")

    /// All rows.
    public static let entries: [Entry] =
        deviceEntries + vmEntries + memoryEntries + processorEntries + snpEntries + sevEntries + platformEntries
        + firmwareEntries + generalEntries

    /// A row for any firmware status.
    static func row(
        _ request: String?, _ errno: Errno?, _ outcome: Outcome, _ likelyCause: String, check: String? = nil,
        _ nextStep: String, or others: Cause...
    ) -> Entry {
        Entry(
            request: request, errno: errno, outcome: outcome,
            causes: [Cause(likelyCause, check: check, next: nextStep)] + others)
    }

    /// A row for one.
    static func row(
        _ request: String?, _ errno: Errno?, _ firmwareStatus: FirmwareStatus, _ outcome: Outcome,
        _ likelyCause: String,
        check: String? = nil, _ nextStep: String, or others: Cause...
    ) -> Entry {
        Entry(
            request: request, errno: errno, firmwareStatus: firmwareStatus, outcome: outcome,
            causes: [Cause(likelyCause, check: check, next: nextStep)] + others)
    }

    /// The next step where the VMM asked for what it should not.
    static let reportIt = "this is a bug of the VMM: please report it with --launch-log"
    /// The next step where a launch cannot be mended.
    static let launchAnew = "throw the VM away and launch anew"
}
