// What the secure processor's firmware answers, as `sev_ret_code` names it in the kernel's header.

/// A firmware status [SNP 6.1], as `kvm_sev_cmd.error` and `sev_issue_cmd.error` carry it.
///
/// Open: a status that this module does not name survives and prints as hex. It means something only when the request
/// itself failed with `EIO`, or when the driver says that the firmware was called.
public struct FirmwareStatus: RawRepresentable, Hashable, Sendable, Error {
    public var rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// `SUCCESS`.
    public static let success = Self(rawValue: 0x00)
    /// `INVALID_PLATFORM_STATE`.
    public static let invalidPlatformState = Self(rawValue: 0x01)
    /// `INVALID_GUEST_STATE`.
    public static let invalidGuestState = Self(rawValue: 0x02)
    /// `INVALID_CONFIG`.
    public static let invalidConfig = Self(rawValue: 0x03)
    /// `INVALID_LEN`.
    public static let invalidLength = Self(rawValue: 0x04)
    /// `ALREADY_OWNED`.
    public static let alreadyOwned = Self(rawValue: 0x05)
    /// `INVALID_CERTIFICATE`.
    public static let invalidCertificate = Self(rawValue: 0x06)
    /// `POLICY_FAILURE`.
    public static let policyFailure = Self(rawValue: 0x07)
    /// `INACTIVE`.
    public static let inactive = Self(rawValue: 0x08)
    /// `INVALID_ADDRESS`.
    public static let invalidAddress = Self(rawValue: 0x09)
    /// `BAD_SIGNATURE`.
    public static let badSignature = Self(rawValue: 0x0a)
    /// `BAD_MEASUREMENT`.
    public static let badMeasurement = Self(rawValue: 0x0b)
    /// `ASID_OWNED`.
    public static let asidOwned = Self(rawValue: 0x0c)
    /// `INVALID_ASID`.
    public static let invalidASID = Self(rawValue: 0x0d)
    /// `WBINVD_REQUIRED`.
    public static let wbinvdRequired = Self(rawValue: 0x0e)
    /// `DFFLUSH_REQUIRED`.
    public static let dfFlushRequired = Self(rawValue: 0x0f)
    /// `INVALID_GUEST`.
    public static let invalidGuest = Self(rawValue: 0x10)
    /// `INVALID_COMMAND`.
    public static let invalidCommand = Self(rawValue: 0x11)
    /// `ACTIVE`.
    public static let active = Self(rawValue: 0x12)
    /// `HWSEV_RET_PLATFORM`.
    public static let hardwarePlatform = Self(rawValue: 0x13)
    /// `HWSEV_RET_UNSAFE`.
    public static let hardwareUnsafe = Self(rawValue: 0x14)
    /// `UNSUPPORTED`.
    public static let unsupported = Self(rawValue: 0x15)
    /// `INVALID_PARAM`.
    public static let invalidParameter = Self(rawValue: 0x16)
    /// `RESOURCE_LIMIT`.
    public static let resourceLimit = Self(rawValue: 0x17)
    /// `SECURE_DATA_INVALID`.
    public static let secureDataInvalid = Self(rawValue: 0x18)
    /// `INVALID_PAGE_SIZE`.
    public static let invalidPageSize = Self(rawValue: 0x19)
    /// `INVALID_PAGE_STATE`.
    public static let invalidPageState = Self(rawValue: 0x1a)
    /// `INVALID_MDATA_ENTRY`.
    public static let invalidMetadataEntry = Self(rawValue: 0x1b)
    /// `INVALID_PAGE_OWNER`.
    public static let invalidPageOwner = Self(rawValue: 0x1c)
    /// `AEAD_OFLOW`.
    public static let aeadOverflow = Self(rawValue: 0x1d)
    /// `EXIT_RING_BUFFER`.
    public static let exitRingBuffer = Self(rawValue: 0x1f)
    /// `RMP_INIT_REQUIRED`.
    public static let rmpInitRequired = Self(rawValue: 0x20)
    /// `BAD_SVN`.
    public static let badSVN = Self(rawValue: 0x21)
    /// `BAD_VERSION`.
    public static let badVersion = Self(rawValue: 0x22)
    /// `SHUTDOWN_REQUIRED`.
    public static let shutdownRequired = Self(rawValue: 0x23)
    /// `UPDATE_FAILED`.
    public static let updateFailed = Self(rawValue: 0x24)
    /// `RESTORE_REQUIRED`.
    public static let restoreRequired = Self(rawValue: 0x25)
    /// `RMP_INITIALIZATION_FAILED`.
    public static let rmpInitializationFailed = Self(rawValue: 0x26)
    /// `INVALID_KEY`.
    public static let invalidKey = Self(rawValue: 0x27)
    /// `SHUTDOWN_INCOMPLETE`.
    public static let shutdownIncomplete = Self(rawValue: 0x28)
    /// `INCORRECT_BUFFER_LENGTH`.
    public static let incorrectBufferLength = Self(rawValue: 0x30)
    /// `EXPAND_BUFFER_LENGTH_REQUEST`.
    public static let expandBufferLengthRequest = Self(rawValue: 0x31)
    /// `SPDM_REQUEST`.
    public static let spdmRequest = Self(rawValue: 0x32)
    /// `SPDM_ERROR`.
    public static let spdmError = Self(rawValue: 0x33)
    /// `ERR_IN_DEV_CONN`.
    public static let deviceConnectionError = Self(rawValue: 0x35)
    /// `INVALID_DEV_CTX`.
    public static let invalidDeviceContext = Self(rawValue: 0x36)
    /// `INVALID_TDI_CTX`.
    public static let invalidTDIContext = Self(rawValue: 0x37)
    /// `INVALID_TDI`.
    public static let invalidTDI = Self(rawValue: 0x38)
    /// `RECLAIM_REQUIRED`.
    public static let reclaimRequired = Self(rawValue: 0x39)
    /// `IN_USE`.
    public static let inUse = Self(rawValue: 0x3a)
    /// `INVALID_DEV_STATE`.
    public static let invalidDeviceState = Self(rawValue: 0x3b)
    /// `INVALID_TDI_STATE`.
    public static let invalidTDIState = Self(rawValue: 0x3c)
    /// `DEV_CERT_CHANGED`.
    public static let deviceCertificateChanged = Self(rawValue: 0x3d)
    /// `RESYNC_REQ`.
    public static let resyncRequest = Self(rawValue: 0x3e)
    /// `RESPONSE_TOO_LARGE`.
    public static let responseTooLarge = Self(rawValue: 0x3f)
    /// `NO_FW_CALL`: made by the kernel, the firmware was not called.
    public static let noFirmwareCall = Self(rawValue: 0xffff_ffff)
}

extension FirmwareStatus: CustomStringConvertible {
    /// The name in the kernel's header, or nil for a status it does not know.
    public var name: String? { Self.names[rawValue] }

    /// "INVALID_PARAM (0x16)".
    public var description: String {
        let number = "0x" + String(rawValue, radix: 16)
        return name.map { "\($0) (\(number))" } ?? "firmware status \(number)"
    }

    /// The status of a name such as `INVALID_PARAM`; nil for a name that is not known here.
    public init?(name: String) {
        guard let number = Self.names.first(where: { $0.value == name })?.key else { return nil }
        self.init(rawValue: number)
    }

    /// Every status that has a name.
    public static var named: [FirmwareStatus] { names.keys.sorted().map { FirmwareStatus(rawValue: $0) } }

    private static let names: [UInt32: String] = [
        0x00: "SUCCESS",
        0x01: "INVALID_PLATFORM_STATE",
        0x02: "INVALID_GUEST_STATE",
        0x03: "INVALID_CONFIG",
        0x04: "INVALID_LEN",
        0x05: "ALREADY_OWNED",
        0x06: "INVALID_CERTIFICATE",
        0x07: "POLICY_FAILURE",
        0x08: "INACTIVE",
        0x09: "INVALID_ADDRESS",
        0x0a: "BAD_SIGNATURE",
        0x0b: "BAD_MEASUREMENT",
        0x0c: "ASID_OWNED",
        0x0d: "INVALID_ASID",
        0x0e: "WBINVD_REQUIRED",
        0x0f: "DFFLUSH_REQUIRED",
        0x10: "INVALID_GUEST",
        0x11: "INVALID_COMMAND",
        0x12: "ACTIVE",
        0x13: "HWSEV_RET_PLATFORM",
        0x14: "HWSEV_RET_UNSAFE",
        0x15: "UNSUPPORTED",
        0x16: "INVALID_PARAM",
        0x17: "RESOURCE_LIMIT",
        0x18: "SECURE_DATA_INVALID",
        0x19: "INVALID_PAGE_SIZE",
        0x1a: "INVALID_PAGE_STATE",
        0x1b: "INVALID_MDATA_ENTRY",
        0x1c: "INVALID_PAGE_OWNER",
        0x1d: "AEAD_OFLOW",
        0x1f: "EXIT_RING_BUFFER",
        0x20: "RMP_INIT_REQUIRED",
        0x21: "BAD_SVN",
        0x22: "BAD_VERSION",
        0x23: "SHUTDOWN_REQUIRED",
        0x24: "UPDATE_FAILED",
        0x25: "RESTORE_REQUIRED",
        0x26: "RMP_INITIALIZATION_FAILED",
        0x27: "INVALID_KEY",
        0x28: "SHUTDOWN_INCOMPLETE",
        0x30: "INCORRECT_BUFFER_LENGTH",
        0x31: "EXPAND_BUFFER_LENGTH_REQUEST",
        0x32: "SPDM_REQUEST",
        0x33: "SPDM_ERROR",
        0x35: "ERR_IN_DEV_CONN",
        0x36: "INVALID_DEV_CTX",
        0x37: "INVALID_TDI_CTX",
        0x38: "INVALID_TDI",
        0x39: "RECLAIM_REQUIRED",
        0x3a: "IN_USE",
        0x3b: "INVALID_DEV_STATE",
        0x3c: "INVALID_TDI_STATE",
        0x3d: "DEV_CERT_CHANGED",
        0x3e: "RESYNC_REQ",
        0x3f: "RESPONSE_TOO_LARGE",
        0xffff_ffff: "NO_FW_CALL",
    ]
}
