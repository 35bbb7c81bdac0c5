// One failure, told so that its reader can act: what was tried, on what, what came back, why that usually is, what next.

import HostDiagnosis
import KVMABI

/// What a run ends with, as a process exit status.
public struct VMMExitStatus: RawRepresentable, Hashable, Sendable {
    public let rawValue: Int32
    public init(rawValue: Int32) { self.rawValue = rawValue }

    /// The guest powered off, or the command did what it was asked for.
    public static let success = Self(rawValue: 0)
    /// The command line is wrong.
    public static let usage = Self(rawValue: 2)
    /// An image or another input cannot be used.
    public static let badInput = Self(rawValue: 3)
    /// The host cannot do what is asked.
    public static let hostCannot = Self(rawValue: 4)
    /// The kernel or the firmware refused the launch.
    public static let launchRefused = Self(rawValue: 5)
    /// The guest terminated itself or crashed.
    public static let guestFailed = Self(rawValue: 6)
}

extension VMMExitStatus {
    /// The status for whoever has to do something about a refusal.
    init(_ outcome: ErrorCatalogue.Outcome) {
        self =
            switch outcome {
            case .hostCannot: .hostCannot
            case .launchRefused: .launchRefused
            case .guestFailed: .guestFailed
            }
    }
}

/// A failure of the host, of the launch or of the guest.
public struct VMMError: Error, Equatable, Sendable {
    /// How the process ends when nobody handles this.
    public var exitStatus: VMMExitStatus
    /// What was being done: "load the kernel".
    public var step: String
    /// The request on the seam, in the kernel's spelling: `KVM_SEV_SNP_LAUNCH_UPDATE`.
    public var request: String
    /// What the request was about: "NORMAL, 512 pages at 0x1000000".
    public var context: String
    /// The kernel's answer, when it refused.
    public var errno: Errno?
    /// The firmware's answer, when it was asked.
    public var firmwareStatus: FirmwareStatus?
    /// What was found, when that is not a refusal: "API version 11, expected 12".
    public var finding: String?
    public var likelyCause: String
    public var nextStep: String

    /// A failure with its cause told by the caller.
    public init(
        _ exitStatus: VMMExitStatus, step: String, request: String, context: String = "", errno: Errno? = nil,
        firmwareStatus: FirmwareStatus? = nil, finding: String? = nil, likelyCause: String, nextStep: String
    ) {
        self.exitStatus = exitStatus
        self.step = step
        self.request = request
        self.context = context
        self.errno = errno
        self.firmwareStatus = firmwareStatus
        self.finding = finding
        self.likelyCause = likelyCause
        self.nextStep = nextStep
    }

    /// A refused request, explained by `HostDiagnosis.ErrorCatalogue`.
    public init(
        step: String, request: String, context: String = "", errno: Errno, firmwareStatus: FirmwareStatus? = nil
    ) {
        let entry = ErrorCatalogue.explain(request: request, errno: errno, firmwareStatus: firmwareStatus)
        self.init(
            VMMExitStatus(entry.outcome), step: step, request: request, context: context, errno: errno,
            firmwareStatus: firmwareStatus, likelyCause: entry.likelyCause, nextStep: entry.nextStep)
    }
}

extension VMMError: CustomStringConvertible {
    /// "EIO (5), firmware status INVALID_PARAM (0x16)".
    public var cameBack: String {
        var parts: [String] = []
        if let finding { parts.append(finding) }
        if let errno { parts.append(errno.description) }
        if let firmwareStatus { parts.append("firmware: \(firmwareStatus)") }
        return parts.isEmpty ? "nothing" : parts.joined(separator: ", ")
    }

    /// Five short lines.
    public var description: String {
        """
        could not \(step)
          tried:        \(request)\(context.isEmpty ? "" : ": \(context)")
          came back:    \(cameBack)
          likely cause: \(likelyCause)
          next step:    \(nextStep)
        """
    }
}

/// `0x…` in lower case.
func hex<T: BinaryInteger>(_ value: T) -> String { "0x" + String(value, radix: 16) }

/// A byte count for people.
func readable(byteCount: UInt64) -> String {
    if byteCount >= 1 << 20, byteCount & 0xf_ffff == 0 { return "\(byteCount >> 20) MiB" }
    if byteCount >= 1 << 10, byteCount & 0x3ff == 0 { return "\(byteCount >> 10) KiB" }
    return "\(byteCount) bytes"
}
