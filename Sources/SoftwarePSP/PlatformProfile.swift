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
    /// Layout of TCB versions, chip ID and certificates.
    public var product = ProcessorProduct.milan
    /// CPUID 1 EAX, which secrets page and reports tell.
    public var fms: UInt32 = ProcessorProduct.milan.fms
    /// In the product's layout.
    public var currentTCB = TCBVersion(bootLoader: 4, tee: 0, snp: 24, microcode: 219)
    /// What cannot be rolled back any more, and is reported, until SNP_COMMIT and SNP_CONFIG; nil is the current one.
    public var committedTCB: TCBVersion?
    /// Version of attestation reports: 2, 3 or 5.
    public var reportVersion: UInt32 = 3
    /// CURRENT_MIT_VECTOR: which mitigations the firmware has on; known to reports of version 5.
    public var mitigationVector: UInt64 = 0
    /// Nominal TSC frequency, in kHz.
    public var tscKHz: UInt32 = 1_000_000
    /// TSC_FACTOR: how far the mean frequency is below the nominal one, in 1/100000.
    public var tscFactor: UInt32 = 0
    /// What a guest's CPUID page is compared with.
    public var cpuid: CPUIDProfile

    /// A Milan with firmware ABI 1.55, SMT on, one socket.
    public static func milan(cpuid: CPUIDProfile) -> PlatformProfile { PlatformProfile(cpuid: cpuid) }

    /// A Genoa with firmware ABI 1.55, SMT on, one socket.
    public static func genoa(cpuid: CPUIDProfile) -> PlatformProfile {
        var profile = PlatformProfile(cpuid: cpuid)
        profile.product = .genoa
        profile.fms = ProcessorProduct.genoa.fms
        profile.build = 40
        profile.currentTCB = TCBVersion(bootLoader: 10, tee: 0, snp: 23, microcode: 84)
        return profile
    }

    /// A Turin with firmware ABI 1.58 and reports of version 5, SMT on, one socket.
    public static func turin(cpuid: CPUIDProfile) -> PlatformProfile {
        var profile = PlatformProfile(cpuid: cpuid)
        profile.product = .turin
        profile.fms = ProcessorProduct.turin.fms
        profile.apiMinor = 58
        profile.build = 1
        profile.currentTCB = TCBVersion(fmc: 1, bootLoader: 1, tee: 1, snp: 4, microcode: 82)
        profile.reportVersion = 5
        return profile
    }

    /// A machine of a product with firmware that makes reports of a version.
    ///
    /// - Parameter reportVersion: 2, 3 or 5; nil for what the product's usual firmware makes. Others are a programmer error.
    public static func machine(
        of product: ProcessorProduct, reportVersion: UInt32? = nil, cpuid: CPUIDProfile
    ) -> PlatformProfile {
        var profile =
            switch product {
            case .milan: milan(cpuid: cpuid)
            case .genoa: genoa(cpuid: cpuid)
            case .turin: turin(cpuid: cpuid)
            }
        guard let reportVersion, reportVersion != profile.reportVersion else { return profile }
        profile.reportVersion = reportVersion
        // Where such reports have been seen; the firmwares of Turin before 1.55 were never in the field.
        let firmware: (minor: UInt8, build: UInt8) =
            switch (reportVersion, product) {
            case (2, .milan): (52, 4)
            case (2, .genoa): (54, 6)
            case (2, .turin): (54, 1)
            case (3, _): (55, 37)
            case (5, .genoa): (55, 43)
            case (5, _): (58, 1)
            default: preconditionFailure("a report version of 2, 3 or 5")
            }
        (profile.apiMinor, profile.build) = firmware
        return profile
    }

    /// What a platform's storage says of product, firmware and versions takes the place of what was here.
    public mutating func adopt(_ settings: PlatformSettings) {
        product = settings.product
        fms = settings.product.fms
        (apiMajor, apiMinor, build) = (settings.apiMajor, settings.apiMinor, settings.build)
        reportVersion = settings.reportVersion
        currentTCB = settings.currentTCB
        committedTCB = settings.committedTCB
    }

    init(cpuid: CPUIDProfile) { self.cpuid = cpuid }
}
