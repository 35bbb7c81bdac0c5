// The guest owner as the launch sees it: somebody outside who gives a session before START and secrets after MEASURE, or
// refuses. Whether that is a file, a process behind a socket or a test is not the launch's affair.

import GuestImage
import SEVABI

/// What the owner is told before it gives a session.
public struct SessionRequest: Sendable {
    public var technology: GuestTechnology
    /// The policy that the VMM would launch with.
    public var policy: SEVPolicy
    /// The platform's certificates: PDH, and PEK, OCA and CEK behind each other.
    public var platform: SEVPlatformCertificates
    /// The firmware's version, which the measurement covers.
    public var version: FirmwareVersion
}

/// What the owner is told before it gives secrets.
public struct SecretRequest: Sendable {
    public var technology: GuestTechnology
    /// The policy that the guest was launched with.
    public var policy: SEVPolicy
    /// What the firmware answered to LAUNCH_MEASURE.
    public var measurement: SEVMeasurement
    /// The firmware's version, which the measurement covers.
    public var version: FirmwareVersion
    /// Where secrets go; nil when the image has no place for them.
    public var area: LaunchPlan.SecretArea?
}

/// A guest owner during a launch of a SEV or SEV-ES guest [SEV 1.2].
///
/// The owner refuses by throwing: the launch stops there, and the VM is destroyed.
public protocol LaunchOwner: AnyObject {
    /// Called before LAUNCH_START.
    /// - Returns: Certificate and session for LAUNCH_START, and the policy that they are made for; nil to launch without
    ///   a session: then nobody can check the measurement.
    func session(for request: SessionRequest) throws(VMMError) -> SEVLaunchSession?

    /// Called after LAUNCH_MEASURE, when the firmware takes no more updates.
    /// - Returns: What LAUNCH_SECRET gets, in this order; empty for none.
    func secrets(after request: SecretRequest) throws(VMMError) -> [SEVSecretPacket]
}
