// The structures of the SEV and SEV-ES commands of KVM_MEMORY_ENCRYPT_OP [KVM-SEV]. LAUNCH_UPDATE_VMSA, LAUNCH_FINISH and
// the old INITs have none. Field order is table order; every reserved byte is a field, so there is no padding.

/// `kvm_sev_launch_start`, 40 bytes.
public struct KVMSEVLaunchStart: KernelStructure {
    /// In: 0 for a new key. Out: the firmware's handle of the guest.
    public var handle: UInt32 = 0  // 0x00
    /// Guest policy [SEV 3].
    public var policy: UInt32 = 0  // 0x04
    /// The owner's Diffie-Hellman certificate; 0 without a session.
    public var certificateAddress: UInt64 = 0  // 0x08, dh_uaddr
    public var certificateByteCount: UInt32 = 0  // 0x10, dh_len
    public var pad0: UInt32 = 0  // 0x14
    /// The launch session blob; 0 without a session.
    public var sessionAddress: UInt64 = 0  // 0x18, session_uaddr
    public var sessionByteCount: UInt32 = 0  // 0x20, session_len
    public var pad1: UInt32 = 0  // 0x24

    public init() {}
}

/// `kvm_sev_launch_update_data`, 16 bytes.
public struct KVMSEVLaunchUpdateData: KernelStructure {
    /// Where the guest's memory lies in this process: it is encrypted in place.
    public var userAddress: UInt64 = 0  // 0x00, uaddr
    /// A multiple of 16.
    public var byteCount: UInt32 = 0  // 0x08, len
    public var pad0: UInt32 = 0  // 0x0c

    public init(userAddress: UInt64 = 0, byteCount: UInt32 = 0) {
        self.userAddress = userAddress
        self.byteCount = byteCount
    }
}

/// `kvm_sev_launch_measure`, 16 bytes.
public struct KVMSEVLaunchMeasure: KernelStructure {
    /// Gets the measurement: 32 bytes of HMAC, 16 of nonce.
    public var userAddress: UInt64 = 0  // 0x00, uaddr
    /// In: room; 0 asks for the length. Out: the length.
    public var byteCount: UInt32 = 0  // 0x08, len
    public var pad0: UInt32 = 0  // 0x0c

    public init(userAddress: UInt64 = 0, byteCount: UInt32 = 0) {
        self.userAddress = userAddress
        self.byteCount = byteCount
    }
}

/// `kvm_sev_launch_secret`, 48 bytes.
public struct KVMSEVLaunchSecret: KernelStructure {
    /// The packet's header.
    public var headerAddress: UInt64 = 0  // 0x00, hdr_uaddr
    public var headerByteCount: UInt32 = 0  // 0x08, hdr_len
    public var pad0: UInt32 = 0  // 0x0c
    /// Where the secret goes: the guest's memory as it lies in this process, inside one page.
    public var guestAddress: UInt64 = 0  // 0x10, guest_uaddr
    public var guestByteCount: UInt32 = 0  // 0x18, guest_len
    public var pad1: UInt32 = 0  // 0x1c
    /// The packet's payload, encrypted for transport.
    public var transportAddress: UInt64 = 0  // 0x20, trans_uaddr
    public var transportByteCount: UInt32 = 0  // 0x28, trans_len
    public var pad2: UInt32 = 0  // 0x2c

    public init() {}
}

/// `kvm_sev_guest_status`, 12 bytes.
public struct KVMSEVGuestStatus: KernelStructure {
    public var handle: UInt32 = 0  // 0x00
    public var policy: UInt32 = 0  // 0x04
    /// 0 invalid, 1 launching, 2 secret, 3 running, 4 receiving, 5 sending.
    public var state: UInt32 = 0  // 0x08

    public init() {}
}

/// `kvm_sev_dbg`, 24 bytes.
public struct KVMSEVDebug: KernelStructure {
    public var sourceAddress: UInt64 = 0  // 0x00, src_uaddr
    public var destinationAddress: UInt64 = 0  // 0x08, dst_uaddr
    public var byteCount: UInt32 = 0  // 0x10, len
    public var pad0: UInt32 = 0  // 0x14

    public init(sourceAddress: UInt64 = 0, destinationAddress: UInt64 = 0, byteCount: UInt32 = 0) {
        self.sourceAddress = sourceAddress
        self.destinationAddress = destinationAddress
        self.byteCount = byteCount
    }
}

/// `kvm_sev_attestation_report`, 32 bytes.
public struct KVMSEVAttestationReport: KernelStructure {
    /// The caller's nonce, which the report repeats.
    public var nonce: [16 of UInt8] = .init(repeating: 0)  // 0x00, mnonce
    public var userAddress: UInt64 = 0  // 0x10, uaddr
    /// In: room; 0 asks for the length. Out: the length.
    public var byteCount: UInt32 = 0  // 0x18, len
    public var pad0: UInt32 = 0  // 0x1c

    public init() {}
}

/// `sev_user_data_pdh_cert_export`, 24 bytes, packed: the second address is not aligned.
public struct SEVUserPDHExport: KernelStructure {
    public var certificateAddress: UInt64 = 0  // 0x00, pdh_cert_address
    /// In: room; 0 asks for both lengths. Out: the length.
    public var certificateByteCount: UInt32 = 0  // 0x08, pdh_cert_len
    public var chainAddressLow: UInt32 = 0  // 0x0c, cert_chain_address
    public var chainAddressHigh: UInt32 = 0  // 0x10
    public var chainByteCount: UInt32 = 0  // 0x14, cert_chain_len

    /// Gets PEK, OCA and CEK behind each other.
    public var chainAddress: UInt64 {
        get { UInt64(chainAddressHigh) << 32 | UInt64(chainAddressLow) }
        set {
            chainAddressLow = UInt32(truncatingIfNeeded: newValue)
            chainAddressHigh = UInt32(truncatingIfNeeded: newValue >> 32)
        }
    }

    public init() {}
}
