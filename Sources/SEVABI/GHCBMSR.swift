// The protocol that a guest speaks through MSR 0xC0010130 before it has a GHCB page.

/// A value of the GHCB MSR: a code in bits 11:0 and data in bits 63:12 [GHCB 2.3.1].
public struct GHCBMSR: RawRepresentable, Hashable, Sendable {
    /// The MSR's number.
    public static let number: UInt32 = 0xc001_0130

    public var rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    /// Bits 11:0.
    public struct Code: RawRepresentable, Hashable, Sendable {
        public var rawValue: UInt16
        public init(rawValue: UInt16) { self.rawValue = rawValue }

        /// The MSR holds the guest physical address of a GHCB.
        public static let ghcbAddress = Code(rawValue: 0x000)
        public static let sevInfoResponse = Code(rawValue: 0x001)
        public static let sevInfoRequest = Code(rawValue: 0x002)
        public static let cpuidRequest = Code(rawValue: 0x004)
        public static let cpuidResponse = Code(rawValue: 0x005)
        public static let apResetHoldRequest = Code(rawValue: 0x006)
        public static let apResetHoldResponse = Code(rawValue: 0x007)
        public static let preferredGHCBRequest = Code(rawValue: 0x010)
        public static let preferredGHCBResponse = Code(rawValue: 0x011)
        public static let registerGHCBRequest = Code(rawValue: 0x012)
        public static let registerGHCBResponse = Code(rawValue: 0x013)
        public static let pageStateChangeRequest = Code(rawValue: 0x014)
        public static let pageStateChangeResponse = Code(rawValue: 0x015)
        public static let runVMPLRequest = Code(rawValue: 0x016)
        public static let runVMPLResponse = Code(rawValue: 0x017)
        public static let hypervisorFeaturesRequest = Code(rawValue: 0x080)
        public static let hypervisorFeaturesResponse = Code(rawValue: 0x081)
        public static let terminationRequest = Code(rawValue: 0x100)
    }

    public init(_ code: Code, data: UInt64 = 0) { rawValue = data &<< 12 | UInt64(code.rawValue) }

    public var code: Code { Code(rawValue: UInt16(truncatingIfNeeded: rawValue & 0xfff)) }
    /// Bits 63:12, shifted down.
    public var data: UInt64 { rawValue &>> 12 }

    /// SEV information, also the MSR's value at vCPU reset: the protocol versions offered and where the C-bit is.
    public static func sevInfo(maximumVersion: UInt16, minimumVersion: UInt16 = 1, cBit: UInt8) -> GHCBMSR {
        GHCBMSR(
            rawValue: UInt64(maximumVersion) &<< 48 | UInt64(minimumVersion) &<< 32 | UInt64(cBit) &<< 24
                | UInt64(Code.sevInfoResponse.rawValue))
    }

    /// CPUID request: the function (leaf).
    public var cpuidFunction: UInt32 { UInt32(truncatingIfNeeded: rawValue &>> 32) }
    /// CPUID request: 0 EAX, 1 EBX, 2 ECX, 3 EDX.
    public var cpuidRegister: Int { Int(truncatingIfNeeded: rawValue &>> 30 & 3) }

    /// CPUID response: one register of the asked leaf.
    public static func cpuidResponse(register: Int, value: UInt32) -> GHCBMSR {
        GHCBMSR(
            rawValue: UInt64(value) &<< 32 | UInt64(truncatingIfNeeded: register & 3) &<< 30
                | UInt64(Code.cpuidResponse.rawValue))
    }

    /// Page state change request: guest frame number, bits 51:12.
    public var pageStateFrame: UInt64 { rawValue &>> 12 & 0xff_ffff_ffff }
    /// Page state change request: bits 55:52.
    public var pageStateOperation: PageStateOperation {
        PageStateOperation(rawValue: UInt8(truncatingIfNeeded: rawValue &>> 52 & 15))
    }

    /// Page state change response: 0, or an error in bits 63:32.
    public static func pageStateChangeResponse(error: UInt32) -> GHCBMSR {
        GHCBMSR(rawValue: UInt64(error) &<< 32 | UInt64(Code.pageStateChangeResponse.rawValue))
    }

    /// Termination request: reason code set, bits 15:12.
    public var terminationReasonSet: UInt8 { UInt8(truncatingIfNeeded: rawValue &>> 12 & 15) }
    /// Termination request: reason code, bits 23:16.
    public var terminationReason: UInt8 { UInt8(truncatingIfNeeded: rawValue &>> 16) }
}

/// Hypervisor feature bits of the features response and event [GHCB 2.3.1].
public struct HypervisorFeatures: OptionSet, Hashable, Sendable {
    public var rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    public static let snp = HypervisorFeatures(rawValue: 1 << 0)
    public static let apCreation = HypervisorFeatures(rawValue: 1 << 1)
    public static let restrictedInjection = HypervisorFeatures(rawValue: 1 << 2)
    public static let restrictedInjectionTimer = HypervisorFeatures(rawValue: 1 << 3)
    public static let apicIDList = HypervisorFeatures(rawValue: 1 << 4)
    public static let multiVMPL = HypervisorFeatures(rawValue: 1 << 5)
}
