// The structures of /dev/sev's commands that manage the platform's identity [SEV 5]: packed, so that an address may lie
// at a multiple of 4 only.

/// An address of this process at an offset that is a multiple of 4, 8 bytes.
public struct PackedAddress: KernelStructure, Hashable {
    public var low: UInt32
    public var high: UInt32

    public init(_ value: UInt64 = 0) {
        low = UInt32(truncatingIfNeeded: value)
        high = UInt32(truncatingIfNeeded: value >> 32)
    }

    public var value: UInt64 { UInt64(high) << 32 | UInt64(low) }
}

/// `sev_user_data_pek_csr`, 12 bytes.
public struct SEVUserPEKCSR: KernelStructure {
    public var address = PackedAddress()  // 0x00
    /// In: 0 asks for the length. Out: the length.
    public var byteCount: UInt32 = 0  // 0x08, length

    public init(address: UInt64 = 0, byteCount: UInt32 = 0) {
        self.address = PackedAddress(address)
        self.byteCount = byteCount
    }
}

/// `sev_user_data_pek_cert_import`, 24 bytes: the signed CSR, and the owner's certificate that signed it.
public struct SEVUserPEKCertificateImport: KernelStructure {
    public var pekAddress = PackedAddress()  // 0x00, pek_cert_address
    public var pekByteCount: UInt32 = 0  // 0x08, pek_cert_len
    public var ocaAddress = PackedAddress()  // 0x0c, oca_cert_address
    public var ocaByteCount: UInt32 = 0  // 0x14, oca_cert_len

    public init() {}
}

/// `sev_user_data_get_id`, 128 bytes: deprecated, since no chip has an ID of fixed length.
public struct SEVUserGetID: KernelStructure {
    public var socket1: [64 of UInt8] = .init(repeating: 0)  // 0x00
    public var socket2: [64 of UInt8] = .init(repeating: 0)  // 0x40

    public init() {}
}

/// `sev_user_data_get_id2`, 12 bytes.
public struct SEVUserGetID2: KernelStructure {
    public var address = PackedAddress()  // 0x00
    /// In and out: bytes at the address; 0 asks for the length.
    public var byteCount: UInt32 = 0  // 0x08, length

    public init(address: UInt64 = 0, byteCount: UInt32 = 0) {
        self.address = PackedAddress(address)
        self.byteCount = byteCount
    }
}

/// `sev_user_data_snp_vlek_load`, 16 bytes [SNP 8.32].
public struct SNPUserVLEKLoad: KernelStructure {
    /// This structure's length.
    public var byteCount: UInt32 = 16  // 0x00, len
    /// Must be 0.
    public var version: UInt8 = 0  // 0x04, vlek_wrapped_version
    public var rsvd: [3 of UInt8] = .init(repeating: 0)  // 0x05
    /// The wrapped hashstick, 432 bytes.
    public var address: UInt64 = 0  // 0x08, vlek_wrapped_address

    public init(address: UInt64 = 0) { self.address = address }

    /// `sev_user_data_snp_wrapped_vlek_hashstick`.
    public static let hashstickByteCount = 432
}
