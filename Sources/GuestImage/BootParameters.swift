// boot_params, the page that RSI points to at the kernel's 64-bit entry.

/// The "zero page" [Linux x86/zero-page.rst]. Everything not named here is zero: no video, no EFI, no disks.
public struct BootParameters: Sendable {
    /// The page.
    public private(set) var bytes = [UInt8](repeating: 0, count: 4096)

    /// e820_entries is one byte, and the table has room for 128.
    static let maximumE820EntryCount = 128

    /// Fills the page.
    ///
    /// - Parameters:
    ///   - setupHeader: The bzImage's bytes from 0x1F1 on; empty for an ELF kernel, which gets a header of protocol 2.15
    ///     with nothing but what is set here.
    ///   - initrd: Where the initrd lies; empty when there is none.
    ///   - setupData: The first setup_data node; 0 for none.
    public init(
        setupHeader: [UInt8], memoryMap: [E820Entry], initrd: Range<UInt64>, commandLine: UInt64, setupData: UInt64,
        rsdp: UInt64
    ) {
        precondition(memoryMap.count <= Self.maximumE820EntryCount, "the map is made here and has few entries")
        bytes.store(setupHeader, at: 0x1f1)
        bytes.store(UInt16(0xaa55), at: 0x1fe)
        bytes.store(Array("HdrS".utf8), at: 0x202)
        if setupHeader.isEmpty { bytes.store(UInt16(0x020f), at: 0x206) }
        bytes.store(rsdp, at: 0x070)
        bytes.store(UInt32(truncatingIfNeeded: initrd.lowerBound >> 32), at: 0x0c0)
        bytes.store(UInt32(truncatingIfNeeded: UInt64(initrd.count) >> 32), at: 0x0c4)
        bytes.store(UInt32(truncatingIfNeeded: commandLine >> 32), at: 0x0c8)
        bytes.store(UInt8(memoryMap.count), at: 0x1e8)
        // type_of_loader: no assigned number.
        bytes.store(UInt8(0xff), at: 0x210)
        // loadflags: LOADED_HIGH; the file's own bits but the low four are the loader's business.
        bytes.store(UInt8(1), at: 0x211)
        bytes.store(UInt32(truncatingIfNeeded: initrd.lowerBound), at: 0x218)
        bytes.store(UInt32(truncatingIfNeeded: initrd.count), at: 0x21c)
        bytes.store(UInt32(truncatingIfNeeded: commandLine), at: 0x228)
        bytes.store(setupData, at: 0x250)
        for (index, entry) in memoryMap.enumerated() {
            let offset = 0x2d0 + 20 * index
            bytes.store(entry.base, at: offset)
            bytes.store(entry.byteCount, at: offset + 8)
            bytes.store(entry.kind.rawValue, at: offset + 16)
        }
    }
}
