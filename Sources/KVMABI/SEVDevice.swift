// /dev/sev: its one request, the command numbers, and the structures of status and configuration.

/// `sev_issue_cmd.cmd`.
public struct SEVDeviceCommand: RawRepresentable, Hashable, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// `SEV_FACTORY_RESET`.
    public static let factoryReset = Self(rawValue: 0)
    /// `SEV_PLATFORM_STATUS`: ``SEVUserStatus``.
    public static let platformStatus = Self(rawValue: 1)
    /// `SEV_PEK_GEN`.
    public static let pekGenerate = Self(rawValue: 2)
    /// `SEV_PEK_CSR`.
    public static let pekCSR = Self(rawValue: 3)
    /// `SEV_PDH_GEN`.
    public static let pdhGenerate = Self(rawValue: 4)
    /// `SEV_PDH_CERT_EXPORT`.
    public static let pdhCertificateExport = Self(rawValue: 5)
    /// `SEV_PEK_CERT_IMPORT`.
    public static let pekCertificateImport = Self(rawValue: 6)
    /// `SEV_GET_ID`: deprecated.
    public static let getID = Self(rawValue: 7)
    /// `SEV_GET_ID2`.
    public static let getID2 = Self(rawValue: 8)
    /// `SNP_PLATFORM_STATUS`: ``SNPUserStatus``.
    public static let snpPlatformStatus = Self(rawValue: 9)
    /// `SNP_COMMIT`.
    public static let snpCommit = Self(rawValue: 10)
    /// `SNP_SET_CONFIG`: ``SNPUserConfig``.
    public static let snpSetConfig = Self(rawValue: 11)
    /// `SNP_VLEK_LOAD`.
    public static let snpVLEKLoad = Self(rawValue: 12)
}

extension SEVDeviceCommand: CustomStringConvertible {
    /// The kernel's name, or the number.
    public var description: String { Self.names[rawValue] ?? "SEV platform command \(rawValue)" }

    private static let names: [UInt32: String] = [
        0: "SEV_FACTORY_RESET", 1: "SEV_PLATFORM_STATUS", 2: "SEV_PEK_GEN", 3: "SEV_PEK_CSR", 4: "SEV_PDH_GEN",
        5: "SEV_PDH_CERT_EXPORT", 6: "SEV_PEK_CERT_IMPORT", 7: "SEV_GET_ID", 8: "SEV_GET_ID2", 9: "SNP_PLATFORM_STATUS",
        10: "SNP_COMMIT", 11: "SNP_SET_CONFIG", 12: "SNP_VLEK_LOAD",
    ]
}

/// `sev_issue_cmd`, 16 bytes, packed: the address is not aligned.
public struct SEVIssueCommand: KernelStructure {
    public var command: UInt32 = 0  // 0x00, SEVDeviceCommand
    public var dataLow: UInt32 = 0  // 0x04
    public var dataHigh: UInt32 = 0  // 0x08
    /// Out: ``FirmwareStatus``.
    public var error: UInt32 = 0  // 0x0c

    /// Address of the command's own structure in this process.
    public var data: UInt64 {
        get { UInt64(dataHigh) << 32 | UInt64(dataLow) }
        set {
            dataLow = UInt32(truncatingIfNeeded: newValue)
            dataHigh = UInt32(truncatingIfNeeded: newValue >> 32)
        }
    }

    public init(_ command: SEVDeviceCommand = .platformStatus, data: UInt64 = 0) {
        self.command = command.rawValue
        self.data = data
    }
}

/// `sev_user_data_status`, 12 bytes, packed.
public struct SEVUserStatus: KernelStructure {
    public var apiMajor: UInt8 = 0  // 0x00
    public var apiMinor: UInt8 = 0  // 0x01
    /// 0 uninitialised, 1 initialised, 2 working.
    public var state: UInt8 = 0  // 0x02
    /// Little-endian, not aligned; see ``flags``.
    public var flagBytes: [4 of UInt8] = .init(repeating: 0)  // 0x03
    public var build: UInt8 = 0  // 0x07
    public var guestCount: UInt32 = 0  // 0x08

    /// Bit 0 owned, bit 8 SEV-ES configured.
    public var flags: UInt32 {
        get { (0..<4).reduce(0) { $0 | UInt32(flagBytes[$1]) << UInt32(8 * $1) } }
        set { for i in 0..<4 { flagBytes[i] = UInt8(truncatingIfNeeded: newValue >> UInt32(8 * i)) } }
    }

    public init() {}
}

/// `sev_user_data_snp_status`, 32 bytes [SNP 8.3].
public struct SNPUserStatus: KernelStructure {
    public var apiMajor: UInt8 = 0  // 0x00
    public var apiMinor: UInt8 = 0  // 0x01
    /// 0 uninitialised, 1 initialised.
    public var state: UInt8 = 0  // 0x02
    /// Bit 0: the RMP is initialised.
    public var rmpFlags: UInt8 = 0  // 0x03
    public var buildID: UInt32 = 0  // 0x04
    /// Bit 0 mask chip id, 1 mask chip key, 2 VLEK in use, 3 feature info, 4 RAPL off, 5 and 6 ciphertext hiding
    /// possible and on.
    public var flags: UInt32 = 0  // 0x08
    public var guestCount: UInt32 = 0  // 0x0c
    /// TCB_VERSION; its layout depends on the product.
    public var currentTCB: UInt64 = 0  // 0x10
    public var reportedTCB: UInt64 = 0  // 0x18

    public init() {}
}

/// `sev_user_data_snp_config`, 64 bytes [SNP 8.6].
public struct SNPUserConfig: KernelStructure {
    public var reportedTCB: UInt64 = 0  // 0x00
    /// Bit 0 mask chip id, bit 1 mask chip key.
    public var flags: UInt32 = 0  // 0x08
    public var rsvd1: [52 of UInt8] = .init(repeating: 0)  // 0x0c

    public init() {}
}
