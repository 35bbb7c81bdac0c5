// The page tables the boot processor starts with.

import X86Defs

/// An identity map of the first 4 GiB with 2 MiB pages: one PML4, one PDPT, four page directories [APM2 5.3].
public struct PageTables: Sendable {
    /// Six pages, PML4 first, for ``GuestAddressMap/pageTables``.
    public let bytes: [UInt8]
    /// What goes into CR3.
    public let cr3: UInt64

    /// Makes the tables.
    ///
    /// - Parameter cBit: The C-bit's position; set in CR3, in table pointers and in every leaf. Nil for a plain guest.
    public init(cBit: UInt8?) {
        let base = GuestAddressMap.pageTables
        let encrypted: UInt64 = cBit.map { 1 << UInt64($0) } ?? 0
        // Accessed and dirty are set from the start: no walk ever needs to write to a table.
        let pointer = encrypted | PageTableEntry.present | PageTableEntry.writable | PageTableEntry.accessed
        let leaf = pointer | PageTableEntry.dirty | PageTableEntry.largePage
        var bytes = [UInt8](repeating: 0, count: 6 * 4096)
        bytes.store((base + 0x1000) | pointer, at: 0)
        for directory in 0..<4 {
            bytes.store((base + 0x2000 + UInt64(directory) * 0x1000) | pointer, at: 0x1000 + 8 * directory)
        }
        for page in 0..<2048 { bytes.store((UInt64(page) << 21) | leaf, at: 0x2000 + 8 * page) }
        self.bytes = bytes
        cr3 = base | encrypted
    }
}
