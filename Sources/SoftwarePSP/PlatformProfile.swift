// What kind of machine the firmware finds itself on.

import SEVABI

/// Versions, capabilities and limits of a platform.
public struct PlatformProfile: Sendable, Equatable {
    /// Firmware ABI version; a guest's policy may ask for a newer one and is refused then.
    public var apiMajor: UInt8 = 1
    public var apiMinor: UInt8 = 55
    public var build: UInt8 = 29
    /// ASIDs that SNP and SEV-ES guests may use: those below the first plain SEV one.
    public var snpASIDs: ClosedRange<UInt32> = 1...99
    /// ASIDs of plain SEV guests.
    public var sevASIDs: ClosedRange<UInt32> = 100...509
    /// SEV and SEV-ES guests that the firmware has room for, active or not.
    public var maximumSEVGuestCount = 1024
    public var smtEnabled = true
    public var socketCount = 1
    public var raplDisabled = false
    public var ciphertextHiding = false
    public var supportsAES256 = true
    /// CPUID 1 EAX, which the secrets page tells the guest.
    public var fms: UInt32 = 0x00a0_0f11
    public var currentTCB = TCBVersion(bootLoader: 4, tee: 0, snp: 24, microcode: 219)
    /// What a guest's CPUID page is compared with.
    public var cpuid: CPUIDProfile

    /// A Milan with firmware ABI 1.55, SMT on, one socket.
    public static func milan(cpuid: CPUIDProfile) -> PlatformProfile { PlatformProfile(cpuid: cpuid) }

    init(cpuid: CPUIDProfile) { self.cpuid = cpuid }
}
