// The structures of the migration commands of KVM_MEMORY_ENCRYPT_OP [KVM-SEV]; SEND_FINISH, SEND_CANCEL and RECEIVE_FINISH
// have none. Field order is table order; every reserved byte is a field, so there is no padding.

/// `kvm_sev_send_start`, 72 bytes.
public struct KVMSEVSendStart: KernelStructure {
    /// Out.
    public var policy: UInt32 = 0  // 0x00
    public var pad0: UInt32 = 0  // 0x04
    /// The target platform's PDH certificate.
    public var certificateAddress: UInt64 = 0  // 0x08, pdh_cert_uaddr
    public var certificateByteCount: UInt32 = 0  // 0x10, pdh_cert_len
    public var pad1: UInt32 = 0  // 0x14
    /// Its chain, PEK ‖ OCA ‖ CEK.
    public var platformCertificatesAddress: UInt64 = 0  // 0x18, plat_certs_uaddr
    public var platformCertificatesByteCount: UInt32 = 0  // 0x20, plat_certs_len
    public var pad2: UInt32 = 0  // 0x24
    /// ASK ‖ ARK.
    public var amdCertificatesAddress: UInt64 = 0  // 0x28, amd_certs_uaddr
    public var amdCertificatesByteCount: UInt32 = 0  // 0x30, amd_certs_len
    public var pad3: UInt32 = 0  // 0x34
    public var sessionAddress: UInt64 = 0  // 0x38, session_uaddr
    /// In: 0 asks for the length. Out: the length.
    public var sessionByteCount: UInt32 = 0  // 0x40, session_len
    public var pad4: UInt32 = 0  // 0x44

    public init() {}
}

/// `kvm_sev_receive_start`, 40 bytes.
public struct KVMSEVReceiveStart: KernelStructure {
    /// In: 0 for a new guest. Out: the firmware's handle.
    public var handle: UInt32 = 0  // 0x00
    public var policy: UInt32 = 0  // 0x04
    /// The source platform's PDH certificate.
    public var certificateAddress: UInt64 = 0  // 0x08, pdh_uaddr
    public var certificateByteCount: UInt32 = 0  // 0x10, pdh_len
    public var pad0: UInt32 = 0  // 0x14
    public var sessionAddress: UInt64 = 0  // 0x18, session_uaddr
    public var sessionByteCount: UInt32 = 0  // 0x20, session_len
    public var pad1: UInt32 = 0  // 0x24

    public init() {}
}

/// `kvm_sev_send_update_data` and `kvm_sev_receive_update_data`, 48 bytes each: a packet's header, its payload on the
/// wire, and where it is in guest memory.
public struct KVMSEVMigrationPacket: KernelStructure {
    public var headerAddress: UInt64 = 0  // 0x00, hdr_uaddr
    public var headerByteCount: UInt32 = 0  // 0x08, hdr_len
    public var pad0: UInt32 = 0  // 0x0c
    /// Where the plaintext is: inside one page.
    public var guestAddress: UInt64 = 0  // 0x10, guest_uaddr
    public var guestByteCount: UInt32 = 0  // 0x18, guest_len
    public var pad1: UInt32 = 0  // 0x1c
    public var transportAddress: UInt64 = 0  // 0x20, trans_uaddr
    public var transportByteCount: UInt32 = 0  // 0x28, trans_len
    public var pad2: UInt32 = 0  // 0x2c

    public init() {}
}
