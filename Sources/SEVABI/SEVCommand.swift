// Numbers of the firmware's commands and of its answers.

/// A command of the secure processor's mailbox [SEV 5, SNP 8].
public struct SEVCommand: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    public var rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// INIT
    public static let initialize = SEVCommand(rawValue: 0x01)
    /// SHUTDOWN
    public static let shutdown = SEVCommand(rawValue: 0x02)
    /// PLATFORM_RESET, the kernel's FACTORY_RESET
    public static let platformReset = SEVCommand(rawValue: 0x03)
    /// PLATFORM_STATUS
    public static let platformStatus = SEVCommand(rawValue: 0x04)
    /// PEK_GEN
    public static let pekGenerate = SEVCommand(rawValue: 0x05)
    /// PEK_CSR
    public static let pekCSR = SEVCommand(rawValue: 0x06)
    /// PEK_CERT_IMPORT
    public static let pekCertificateImport = SEVCommand(rawValue: 0x07)
    /// PDH_CERT_EXPORT
    public static let pdhCertificateExport = SEVCommand(rawValue: 0x08)
    /// PDH_GEN
    public static let pdhGenerate = SEVCommand(rawValue: 0x09)
    /// DF_FLUSH
    public static let dfFlush = SEVCommand(rawValue: 0x0a)
    /// DOWNLOAD_FIRMWARE
    public static let downloadFirmware = SEVCommand(rawValue: 0x0b)
    /// GET_ID
    public static let getID = SEVCommand(rawValue: 0x0c)
    /// INIT_EX
    public static let initializeEx = SEVCommand(rawValue: 0x0d)
    /// DECOMMISSION
    public static let decommission = SEVCommand(rawValue: 0x20)
    /// ACTIVATE
    public static let activate = SEVCommand(rawValue: 0x21)
    /// DEACTIVATE
    public static let deactivate = SEVCommand(rawValue: 0x22)
    /// GUEST_STATUS
    public static let guestStatus = SEVCommand(rawValue: 0x23)
    /// LAUNCH_START
    public static let launchStart = SEVCommand(rawValue: 0x30)
    /// LAUNCH_UPDATE_DATA
    public static let launchUpdateData = SEVCommand(rawValue: 0x31)
    /// LAUNCH_UPDATE_VMSA
    public static let launchUpdateVMSA = SEVCommand(rawValue: 0x32)
    /// LAUNCH_MEASURE
    public static let launchMeasure = SEVCommand(rawValue: 0x33)
    /// LAUNCH_UPDATE_SECRET
    public static let launchSecret = SEVCommand(rawValue: 0x34)
    /// LAUNCH_FINISH
    public static let launchFinish = SEVCommand(rawValue: 0x35)
    /// ATTESTATION
    public static let attestation = SEVCommand(rawValue: 0x36)
    /// SEND_START
    public static let sendStart = SEVCommand(rawValue: 0x40)
    /// SEND_UPDATE_DATA
    public static let sendUpdateData = SEVCommand(rawValue: 0x41)
    /// SEND_UPDATE_VMSA
    public static let sendUpdateVMSA = SEVCommand(rawValue: 0x42)
    /// SEND_FINISH
    public static let sendFinish = SEVCommand(rawValue: 0x43)
    /// SEND_CANCEL
    public static let sendCancel = SEVCommand(rawValue: 0x44)
    /// RECEIVE_START
    public static let receiveStart = SEVCommand(rawValue: 0x50)
    /// RECEIVE_UPDATE_DATA
    public static let receiveUpdateData = SEVCommand(rawValue: 0x51)
    /// RECEIVE_UPDATE_VMSA
    public static let receiveUpdateVMSA = SEVCommand(rawValue: 0x52)
    /// RECEIVE_FINISH
    public static let receiveFinish = SEVCommand(rawValue: 0x53)
    /// DBG_DECRYPT
    public static let debugDecrypt = SEVCommand(rawValue: 0x60)
    /// DBG_ENCRYPT
    public static let debugEncrypt = SEVCommand(rawValue: 0x61)
    /// SNP_INIT
    public static let snpInitialize = SEVCommand(rawValue: 0x81)
    /// SNP_SHUTDOWN
    public static let snpShutdown = SEVCommand(rawValue: 0x82)
    /// SNP_PLATFORM_STATUS
    public static let snpPlatformStatus = SEVCommand(rawValue: 0x83)
    /// SNP_DF_FLUSH
    public static let snpDFFlush = SEVCommand(rawValue: 0x84)
    /// SNP_INIT_EX
    public static let snpInitializeEx = SEVCommand(rawValue: 0x85)
    /// SNP_SHUTDOWN_EX
    public static let snpShutdownEx = SEVCommand(rawValue: 0x86)
    /// SNP_DECOMMISSION
    public static let snpDecommission = SEVCommand(rawValue: 0x90)
    /// SNP_ACTIVATE
    public static let snpActivate = SEVCommand(rawValue: 0x91)
    /// SNP_GUEST_STATUS
    public static let snpGuestStatus = SEVCommand(rawValue: 0x92)
    /// SNP_GCTX_CREATE
    public static let snpGuestContextCreate = SEVCommand(rawValue: 0x93)
    /// SNP_GUEST_REQUEST
    public static let snpGuestRequest = SEVCommand(rawValue: 0x94)
    /// SNP_ACTIVATE_EX
    public static let snpActivateEx = SEVCommand(rawValue: 0x95)
    /// SNP_LAUNCH_START
    public static let snpLaunchStart = SEVCommand(rawValue: 0xa0)
    /// SNP_LAUNCH_UPDATE
    public static let snpLaunchUpdate = SEVCommand(rawValue: 0xa1)
    /// SNP_LAUNCH_FINISH
    public static let snpLaunchFinish = SEVCommand(rawValue: 0xa2)
    /// SNP_DBG_DECRYPT
    public static let snpDebugDecrypt = SEVCommand(rawValue: 0xb0)
    /// SNP_DBG_ENCRYPT
    public static let snpDebugEncrypt = SEVCommand(rawValue: 0xb1)
    /// SNP_PAGE_RECLAIM
    public static let snpPageReclaim = SEVCommand(rawValue: 0xc7)
    /// SNP_PAGE_UNSMASH
    public static let snpPageUnsmash = SEVCommand(rawValue: 0xc8)
    /// SNP_CONFIG
    public static let snpConfig = SEVCommand(rawValue: 0xc9)
    /// SNP_COMMIT
    public static let snpCommit = SEVCommand(rawValue: 0xcb)
    /// SNP_VLEK_LOAD
    public static let snpVLEKLoad = SEVCommand(rawValue: 0xcd)

    /// The number in hexadecimal.
    public var description: String { "command 0x" + String(rawValue, radix: 16) }

    /// Every number that some firmware of ABI 1.55 knows, whether this project models it or not: those that are not
    /// modelled answer UNSUPPORTED, all others INVALID_COMMAND.
    public static func isAssigned(_ rawValue: UInt32) -> Bool {
        switch rawValue {
        case 0x01...0x0d, 0x20...0x23, 0x30...0x36, 0x40...0x44, 0x50...0x53, 0x60...0x61: true
        case 0x81...0x86, 0x90...0x95, 0xa0...0xa2, 0xb0...0xb1, 0xc0...0xc3, 0xc6...0xcb, 0xcd: true
        default: false
        }
    }
}

/// The firmware's answer to a command [SEV 4.5, SNP 8.1].
public struct SEVStatus: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    public var rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    public static let success = SEVStatus(rawValue: 0x00)
    public static let invalidPlatformState = SEVStatus(rawValue: 0x01)
    public static let invalidGuestState = SEVStatus(rawValue: 0x02)
    public static let invalidConfig = SEVStatus(rawValue: 0x03)
    public static let invalidLength = SEVStatus(rawValue: 0x04)
    public static let alreadyOwned = SEVStatus(rawValue: 0x05)
    public static let invalidCertificate = SEVStatus(rawValue: 0x06)
    public static let policyFailure = SEVStatus(rawValue: 0x07)
    public static let inactive = SEVStatus(rawValue: 0x08)
    public static let invalidAddress = SEVStatus(rawValue: 0x09)
    public static let badSignature = SEVStatus(rawValue: 0x0a)
    public static let badMeasurement = SEVStatus(rawValue: 0x0b)
    public static let asidOwned = SEVStatus(rawValue: 0x0c)
    public static let invalidASID = SEVStatus(rawValue: 0x0d)
    public static let wbinvdRequired = SEVStatus(rawValue: 0x0e)
    public static let dfFlushRequired = SEVStatus(rawValue: 0x0f)
    public static let invalidGuest = SEVStatus(rawValue: 0x10)
    public static let invalidCommand = SEVStatus(rawValue: 0x11)
    public static let active = SEVStatus(rawValue: 0x12)
    public static let hardwarePlatform = SEVStatus(rawValue: 0x13)
    public static let hardwareUnsafe = SEVStatus(rawValue: 0x14)
    public static let unsupported = SEVStatus(rawValue: 0x15)
    public static let invalidParameter = SEVStatus(rawValue: 0x16)
    public static let resourceLimit = SEVStatus(rawValue: 0x17)
    public static let secureDataInvalid = SEVStatus(rawValue: 0x18)
    public static let invalidPageSize = SEVStatus(rawValue: 0x19)
    public static let invalidPageState = SEVStatus(rawValue: 0x1a)
    public static let invalidMetadataEntry = SEVStatus(rawValue: 0x1b)
    public static let invalidPageOwner = SEVStatus(rawValue: 0x1c)
    public static let aeadOverflow = SEVStatus(rawValue: 0x1d)
    public static let ringBufferExit = SEVStatus(rawValue: 0x1f)
    public static let rmpInitRequired = SEVStatus(rawValue: 0x20)
    public static let badSVN = SEVStatus(rawValue: 0x21)
    public static let badVersion = SEVStatus(rawValue: 0x22)
    public static let shutdownRequired = SEVStatus(rawValue: 0x23)
    public static let updateFailed = SEVStatus(rawValue: 0x24)
    public static let restoreRequired = SEVStatus(rawValue: 0x25)
    public static let rmpInitializationFailed = SEVStatus(rawValue: 0x26)
    public static let invalidKey = SEVStatus(rawValue: 0x27)
    /// Written by the kernel, not by the firmware: the firmware was not called.
    public static let noFirmwareCall = SEVStatus(rawValue: 0xffff_ffff)

    /// Name and number: "POLICY_FAILURE (0x07)".
    public var description: String {
        let number = "0x" + (rawValue < 16 ? "0" : "") + String(rawValue, radix: 16)
        let names = [
            "SUCCESS", "INVALID_PLATFORM_STATE", "INVALID_GUEST_STATE", "INVALID_CONFIG", "INVALID_LEN",
            "ALREADY_OWNED", "INVALID_CERTIFICATE", "POLICY_FAILURE", "INACTIVE", "INVALID_ADDRESS", "BAD_SIGNATURE",
            "BAD_MEASUREMENT", "ASID_OWNED", "INVALID_ASID", "WBINVD_REQUIRED", "DFFLUSH_REQUIRED", "INVALID_GUEST",
            "INVALID_COMMAND", "ACTIVE", "HWSEV_RET_PLATFORM", "HWSEV_RET_UNSAFE", "UNSUPPORTED", "INVALID_PARAM",
            "RESOURCE_LIMIT", "SECURE_DATA_INVALID", "INVALID_PAGE_SIZE", "INVALID_PAGE_STATE", "INVALID_MDATA_ENTRY",
            "INVALID_PAGE_OWNER", "AEAD_OFLOW", "", "EXIT_RING_BUFFER", "RMP_INIT_REQUIRED", "BAD_SVN", "BAD_VERSION",
            "SHUTDOWN_REQUIRED", "UPDATE_FAILED", "RESTORE_REQUIRED", "RMP_INITIALIZATION_FAILED", "INVALID_KEY",
        ]
        if self == .noFirmwareCall { return "NO_FW_CALL (\(number))" }
        guard rawValue < UInt32(names.count), !names[Int(rawValue)].isEmpty else { return "firmware status \(number)" }
        return "\(names[Int(rawValue)]) (\(number))"
    }
}
