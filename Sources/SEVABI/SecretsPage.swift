// The secrets page: what the firmware tells a guest in private memory.

/// The secrets page [SNP 8.17.2.5], 4096 bytes.
///
/// ```
/// 0x000 version   0x004 bit 0 IMI_EN   0x008 FMS   0x010 GOSVW 16   0x020 VMPCK0…3, 32 each
/// 0x0A0 96 bytes for the guest OS      0x100 VMSA tweak bitmap 64   0x140 SVSM fields   0x160 TSC_FACTOR
/// ```
public struct SecretsPage: Equatable, Sendable {
    public static let byteCount = 4096
    public static let keyByteCount = 32

    public private(set) var bytes: [UInt8]

    /// All zero but for the version.
    public init(version: UInt32 = 3) {
        bytes = [UInt8](repeating: 0, count: Self.byteCount)
        self.version = version
    }

    /// Returns nil unless there are exactly 4096 bytes.
    public init?(bytes: [UInt8]) {
        guard bytes.count == Self.byteCount else { return nil }
        self.bytes = bytes
    }

    public var version: UInt32 {
        get { bytes.field(0) }
        set { bytes.setField(0, newValue) }
    }
    /// IMI_EN: the guest was started with an initial migration image.
    public var isIMIEnabled: Bool {
        get { bytes[4] & 1 != 0 }
        set { bytes[4] = newValue ? 1 : 0 }
    }
    /// FMS: family, model, stepping as in CPUID 1 EAX.
    public var fms: UInt32 {
        get { bytes.field(8) }
        set { bytes.setField(8, newValue) }
    }
    /// GOSVW: guest OS visible workarounds, 16 bytes.
    public var gosvw: [UInt8] {
        get { Array(bytes[0x10..<0x20]) }
        set { bytes.setBytes(0x10, Array(newValue.prefix(16))) }
    }
    /// TSC_FACTOR: how far the mean TSC frequency is below the nominal one, in 1/100000.
    public var tscFactor: UInt32 {
        get { bytes.field(0x160) }
        set { bytes.setField(0x160, newValue) }
    }

    /// VMPCK0 to VMPCK3: the keys of guest messages, 32 bytes each.
    public func vmpck(_ index: Int) -> [UInt8] {
        let start = 0x20 &+ 32 &* (index & 3)
        return Array(bytes[start..<(start &+ 32)])
    }

    /// Sets VMPCK `index`; the first 32 bytes of `key` count.
    public mutating func setVMPCK(_ index: Int, _ key: [UInt8]) {
        bytes.setBytes(0x20 &+ 32 &* (index & 3), Array(key.prefix(32)))
    }
}
