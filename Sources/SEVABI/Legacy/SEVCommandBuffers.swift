// The command buffers of SEV's platform: `sev_data_*` of the kernel's driver [SEV 5]. Addresses are system physical.
//
// As in CommandBuffers.swift, each type reads the bytes it names and ignores what a longer buffer holds. Reserved fields
// are not looked at and are written as zeroes. Where a length is in and out, the firmware writes the buffer back.

/// Flags of INIT and INIT_EX.
public struct SEVInitFlags: OptionSet, Sendable {
    public var rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// SEV-ES guests are possible: the firmware needs its trusted memory region.
    public static let sevES = SEVInitFlags(rawValue: 1)
}

/// INIT, 20 bytes [SEV 5.1].
public struct SEVInit: Equatable, Sendable {
    public static let byteCount = 20

    /// ``SEVInitFlags``.
    public var flags: UInt32  // 0x00
    /// The trusted memory region of SEV-ES: at least 1 MiB, a multiple of 1 MiB.
    public var tmrAddress: SPA  // 0x08
    public var tmrByteCount: UInt32  // 0x10

    public init(flags: UInt32 = 0, tmrAddress: SPA = .zero, tmrByteCount: UInt32 = 0) {
        self.flags = flags
        self.tmrAddress = tmrAddress
        self.tmrByteCount = tmrByteCount
    }

    public init?(bytes: [UInt8]) {
        guard bytes.count >= Self.byteCount else { return nil }
        flags = bytes.field(0)
        tmrAddress = SPA(rawValue: bytes.field(8))
        tmrByteCount = bytes.field(16)
    }

    public var bytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes.setField(0, flags)
        bytes.setField(8, tmrAddress.rawValue)
        bytes.setField(16, tmrByteCount)
        return bytes
    }
}

/// INIT_EX, 36 bytes: INIT with a place for the firmware's persistent state in host memory.
public struct SEVInitEx: Equatable, Sendable {
    public static let byteCount = 36

    /// The structure's own length.
    public var length: UInt32  // 0x00
    /// ``SEVInitFlags``.
    public var flags: UInt32  // 0x04
    public var tmrAddress: SPA  // 0x08
    public var tmrByteCount: UInt32  // 0x10
    /// Where the persistent state is; 0 = in the chip's own storage.
    public var nvAddress: SPA  // 0x18
    public var nvByteCount: UInt32  // 0x20

    public init(
        length: UInt32 = 36, flags: UInt32 = 0, tmrAddress: SPA = .zero, tmrByteCount: UInt32 = 0,
        nvAddress: SPA = .zero, nvByteCount: UInt32 = 0
    ) {
        self.length = length
        self.flags = flags
        self.tmrAddress = tmrAddress
        self.tmrByteCount = tmrByteCount
        self.nvAddress = nvAddress
        self.nvByteCount = nvByteCount
    }

    public init?(bytes: [UInt8]) {
        guard bytes.count >= Self.byteCount else { return nil }
        length = bytes.field(0)
        flags = bytes.field(4)
        tmrAddress = SPA(rawValue: bytes.field(8))
        tmrByteCount = bytes.field(16)
        nvAddress = SPA(rawValue: bytes.field(24))
        nvByteCount = bytes.field(32)
    }

    public var bytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes.setField(0, length)
        bytes.setField(4, flags)
        bytes.setField(8, tmrAddress.rawValue)
        bytes.setField(16, tmrByteCount)
        bytes.setField(24, nvAddress.rawValue)
        bytes.setField(32, nvByteCount)
        return bytes
    }
}

/// PEK_CSR and GET_ID, 12 bytes: where to write, and how much fits; the needed length comes back.
public struct SEVOutputBuffer: Equatable, Sendable {
    public static let byteCount = 12

    public var address: SPA  // 0x00
    public var byteCount: UInt32  // 0x08

    public init(address: SPA = .zero, byteCount: UInt32 = 0) {
        self.address = address
        self.byteCount = byteCount
    }

    public init?(bytes: [UInt8]) {
        guard bytes.count >= Self.byteCount else { return nil }
        address = SPA(rawValue: bytes.field(0))
        byteCount = bytes.field(8)
    }

    public var bytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes.setField(0, address.rawValue)
        bytes.setField(8, byteCount)
        return bytes
    }
}

/// PEK_CERT_IMPORT, 28 bytes [SEV 5.10].
public struct SEVPEKCertificateImport: Equatable, Sendable {
    public static let byteCount = 28

    public var pekAddress: SPA  // 0x00
    public var pekByteCount: UInt32  // 0x08
    public var ocaAddress: SPA  // 0x10
    public var ocaByteCount: UInt32  // 0x18

    public init(pekAddress: SPA, pekByteCount: UInt32, ocaAddress: SPA, ocaByteCount: UInt32) {
        self.pekAddress = pekAddress
        self.pekByteCount = pekByteCount
        self.ocaAddress = ocaAddress
        self.ocaByteCount = ocaByteCount
    }

    public init?(bytes: [UInt8]) {
        guard bytes.count >= Self.byteCount else { return nil }
        pekAddress = SPA(rawValue: bytes.field(0))
        pekByteCount = bytes.field(8)
        ocaAddress = SPA(rawValue: bytes.field(16))
        ocaByteCount = bytes.field(24)
    }

    public var bytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes.setField(0, pekAddress.rawValue)
        bytes.setField(8, pekByteCount)
        bytes.setField(16, ocaAddress.rawValue)
        bytes.setField(24, ocaByteCount)
        return bytes
    }
}

/// PDH_CERT_EXPORT, 28 bytes [SEV 5.12]; the needed lengths come back.
public struct SEVPDHCertificateExport: Equatable, Sendable {
    public static let byteCount = 28

    public var pdhAddress: SPA  // 0x00
    public var pdhByteCount: UInt32  // 0x08
    /// PEK ‖ OCA ‖ CEK.
    public var chainAddress: SPA  // 0x10
    public var chainByteCount: UInt32  // 0x18

    public init(
        pdhAddress: SPA = .zero, pdhByteCount: UInt32 = 0, chainAddress: SPA = .zero, chainByteCount: UInt32 = 0
    ) {
        self.pdhAddress = pdhAddress
        self.pdhByteCount = pdhByteCount
        self.chainAddress = chainAddress
        self.chainByteCount = chainByteCount
    }

    public init?(bytes: [UInt8]) {
        guard bytes.count >= Self.byteCount else { return nil }
        pdhAddress = SPA(rawValue: bytes.field(0))
        pdhByteCount = bytes.field(8)
        chainAddress = SPA(rawValue: bytes.field(16))
        chainByteCount = bytes.field(24)
    }

    public var bytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes.setField(0, pdhAddress.rawValue)
        bytes.setField(8, pdhByteCount)
        bytes.setField(16, chainAddress.rawValue)
        bytes.setField(24, chainByteCount)
        return bytes
    }
}
