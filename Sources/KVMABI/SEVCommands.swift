// KVM_MEMORY_ENCRYPT_OP: the envelope, the command numbers, and the structures of INIT2, of the SNP launch and of
// regions [KVM-SEV]. Those of SEV and SEV-ES guests: SEVLaunchCommands.swift, SEVMigrationCommands.swift.
// Field order is table order; every reserved byte is a field, so there is no padding.

/// `kvm_sev_cmd.id`.
public struct SEVCommandID: RawRepresentable, Hashable, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// `KVM_SEV_INIT`: deprecated, default VM type only.
    public static let initialize = Self(rawValue: 0)
    /// `KVM_SEV_ES_INIT`: deprecated, default VM type only.
    public static let initializeES = Self(rawValue: 1)
    /// `KVM_SEV_LAUNCH_START`: SEV and SEV-ES.
    public static let launchStart = Self(rawValue: 2)
    /// `KVM_SEV_LAUNCH_UPDATE_DATA`.
    public static let launchUpdateData = Self(rawValue: 3)
    /// `KVM_SEV_LAUNCH_UPDATE_VMSA`.
    public static let launchUpdateVMSA = Self(rawValue: 4)
    /// `KVM_SEV_LAUNCH_SECRET`.
    public static let launchSecret = Self(rawValue: 5)
    /// `KVM_SEV_LAUNCH_MEASURE`.
    public static let launchMeasure = Self(rawValue: 6)
    /// `KVM_SEV_LAUNCH_FINISH`.
    public static let launchFinish = Self(rawValue: 7)
    /// `KVM_SEV_SEND_START`.
    public static let sendStart = Self(rawValue: 8)
    /// `KVM_SEV_SEND_UPDATE_DATA`.
    public static let sendUpdateData = Self(rawValue: 9)
    /// `KVM_SEV_SEND_UPDATE_VMSA`: numbered, never implemented.
    public static let sendUpdateVMSA = Self(rawValue: 10)
    /// `KVM_SEV_SEND_FINISH`.
    public static let sendFinish = Self(rawValue: 11)
    /// `KVM_SEV_RECEIVE_START`.
    public static let receiveStart = Self(rawValue: 12)
    /// `KVM_SEV_RECEIVE_UPDATE_DATA`.
    public static let receiveUpdateData = Self(rawValue: 13)
    /// `KVM_SEV_RECEIVE_UPDATE_VMSA`: never implemented.
    public static let receiveUpdateVMSA = Self(rawValue: 14)
    /// `KVM_SEV_RECEIVE_FINISH`.
    public static let receiveFinish = Self(rawValue: 15)
    /// `KVM_SEV_GUEST_STATUS`.
    public static let guestStatus = Self(rawValue: 16)
    /// `KVM_SEV_DBG_DECRYPT`.
    public static let debugDecrypt = Self(rawValue: 17)
    /// `KVM_SEV_DBG_ENCRYPT`.
    public static let debugEncrypt = Self(rawValue: 18)
    /// `KVM_SEV_CERT_EXPORT`: never implemented.
    public static let certificateExport = Self(rawValue: 19)
    /// `KVM_SEV_GET_ATTESTATION_REPORT`: SEV and SEV-ES.
    public static let getAttestationReport = Self(rawValue: 20)
    /// `KVM_SEV_SEND_CANCEL`.
    public static let sendCancel = Self(rawValue: 21)
    /// `KVM_SEV_INIT2`.
    public static let initialize2 = Self(rawValue: 22)
    /// `KVM_SEV_SNP_LAUNCH_START`.
    public static let snpLaunchStart = Self(rawValue: 100)
    /// `KVM_SEV_SNP_LAUNCH_UPDATE`.
    public static let snpLaunchUpdate = Self(rawValue: 101)
    /// `KVM_SEV_SNP_LAUNCH_FINISH`.
    public static let snpLaunchFinish = Self(rawValue: 102)
    /// `KVM_SEV_SNP_ENABLE_REQ_CERTS`.
    public static let snpEnableCertificateRequests = Self(rawValue: 103)
}

extension SEVCommandID: CustomStringConvertible {
    /// The kernel's name, or the number.
    public var description: String { Self.names[rawValue] ?? "SEV command \(rawValue)" }

    private static let names: [UInt32: String] = [
        0: "KVM_SEV_INIT", 1: "KVM_SEV_ES_INIT", 2: "KVM_SEV_LAUNCH_START", 3: "KVM_SEV_LAUNCH_UPDATE_DATA",
        4: "KVM_SEV_LAUNCH_UPDATE_VMSA", 5: "KVM_SEV_LAUNCH_SECRET", 6: "KVM_SEV_LAUNCH_MEASURE",
        7: "KVM_SEV_LAUNCH_FINISH", 8: "KVM_SEV_SEND_START", 9: "KVM_SEV_SEND_UPDATE_DATA",
        10: "KVM_SEV_SEND_UPDATE_VMSA", 11: "KVM_SEV_SEND_FINISH", 12: "KVM_SEV_RECEIVE_START",
        13: "KVM_SEV_RECEIVE_UPDATE_DATA", 14: "KVM_SEV_RECEIVE_UPDATE_VMSA", 15: "KVM_SEV_RECEIVE_FINISH",
        16: "KVM_SEV_GUEST_STATUS", 17: "KVM_SEV_DBG_DECRYPT", 18: "KVM_SEV_DBG_ENCRYPT", 19: "KVM_SEV_CERT_EXPORT",
        20: "KVM_SEV_GET_ATTESTATION_REPORT", 21: "KVM_SEV_SEND_CANCEL", 22: "KVM_SEV_INIT2",
        100: "KVM_SEV_SNP_LAUNCH_START", 101: "KVM_SEV_SNP_LAUNCH_UPDATE", 102: "KVM_SEV_SNP_LAUNCH_FINISH",
        103: "KVM_SEV_SNP_ENABLE_REQ_CERTS",
    ]
}

/// `kvm_sev_cmd`, 24 bytes: the argument of `KVM_MEMORY_ENCRYPT_OP`.
public struct KVMSEVCommand: KernelStructure {
    public var id: UInt32 = 0  // 0x00, SEVCommandID
    public var pad0: UInt32 = 0  // 0x04
    /// Address of the command's own structure in this process; 0 where it has none.
    public var data: UInt64 = 0  // 0x08
    /// Out: ``FirmwareStatus``; also written back on `EIO`.
    public var error: UInt32 = 0  // 0x10
    /// An open `/dev/sev`, where the command needs one.
    public var sevHandle: UInt32 = 0  // 0x14, sev_fd

    public init() {}

    public init(id: SEVCommandID, data: UInt64 = 0, sevHandle: KernelHandle? = nil) {
        self.id = id.rawValue
        self.data = data
        self.sevHandle = sevHandle.map { UInt32(bitPattern: $0.rawValue) } ?? 0
    }
}

/// `kvm_sev_init`, 48 bytes: the data of `KVM_SEV_INIT2`.
public struct KVMSEVInit: KernelStructure {
    /// SEV_FEATURES for every VMSA, without bit 0: KVM adds that for SNP.
    public var vmsaFeatures: UInt64 = 0  // 0x00
    /// Must be 0.
    public var flags: UInt32 = 0  // 0x08
    /// The highest GHCB protocol offered; 0 = default (2).
    public var ghcbVersion: UInt16 = 0  // 0x0c
    public var pad1: UInt16 = 0  // 0x0e
    public var pad2: [8 of UInt32] = .init(repeating: 0)  // 0x10

    public init() {}
}

/// `kvm_sev_snp_launch_start`, 64 bytes.
public struct KVMSNPLaunchStart: KernelStructure {
    /// Guest policy [SNP 4.3].
    public var policy: UInt64 = 0  // 0x00
    /// Guest OS visible workarounds; ends up in the secrets page.
    public var gosvw: [16 of UInt8] = .init(repeating: 0)  // 0x08
    /// Must be 0.
    public var flags: UInt16 = 0  // 0x18
    public var pad0: [6 of UInt8] = .init(repeating: 0)  // 0x1a
    public var pad1: [4 of UInt64] = .init(repeating: 0)  // 0x20

    public init() {}
}

/// `kvm_sev_snp_launch_update`, 64 bytes. All of `gfnStart`, `userAddress` and `byteCount` come back advanced.
public struct KVMSNPLaunchUpdate: KernelStructure {
    /// In and out: the next guest frame, 4 KiB units.
    public var gfnStart: UInt64 = 0  // 0x00
    /// In and out: the plaintext in this process; ignored and not advanced for ZERO pages.
    public var userAddress: UInt64 = 0  // 0x08, uaddr
    /// In and out: bytes left; 0 = all done. A multiple of 4096.
    public var byteCount: UInt64 = 0  // 0x10, len
    /// Page type: 1 NORMAL, 3 ZERO, 4 UNMEASURED, 5 SECRETS, 6 CPUID.
    public var type: UInt8 = 0  // 0x18
    public var pad0: UInt8 = 0  // 0x19
    /// Must be 0.
    public var flags: UInt16 = 0  // 0x1a
    public var pad1: UInt32 = 0  // 0x1c
    public var pad2: [4 of UInt64] = .init(repeating: 0)  // 0x20

    public init() {}
}

/// `kvm_sev_snp_launch_finish`, 88 bytes.
public struct KVMSNPLaunchFinish: KernelStructure {
    /// 96 bytes [SNP 8.18.2].
    public var idBlockAddress: UInt64 = 0  // 0x00
    /// 4096 bytes [SNP 8.18.3].
    public var idAuthAddress: UInt64 = 0  // 0x08
    /// Non-zero: use the ID block.
    public var idBlockEnabled: UInt8 = 0  // 0x10
    /// Looked at only with `idBlockEnabled`.
    public var authorKeyEnabled: UInt8 = 0  // 0x11
    /// Non-zero: the guest may then use only a VLEK.
    public var vcekDisabled: UInt8 = 0  // 0x12
    /// Goes to the report unmeasured.
    public var hostData: [32 of UInt8] = .init(repeating: 0)  // 0x13
    public var pad0: [3 of UInt8] = .init(repeating: 0)  // 0x33
    /// Must be 0.
    public var flags: UInt16 = 0  // 0x36
    public var pad1: [4 of UInt64] = .init(repeating: 0)  // 0x38

    public init() {}
}

/// `kvm_enc_region`, 16 bytes: user memory to pin (SEV and SEV-ES; allowed but not needed for SNP).
public struct KVMEncryptedRegion: KernelStructure {
    public var address: UInt64 = 0  // 0x00
    public var byteCount: UInt64 = 0  // 0x08

    public init(address: UInt64 = 0, byteCount: UInt64 = 0) {
        self.address = address
        self.byteCount = byteCount
    }
}
