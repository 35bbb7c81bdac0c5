// The state behind the lock: bytes, RMP entries, key tags, keys, free pages.

import Crypto
import Glibc
import SEVABI

/// What the bytes of a page are. 4 bytes per page; all zero for a page that was never used.
struct PageContents: BitwiseCopyable {
    var rawValue: UInt32 = 0

    /// Index of the key whose plaintext the bytes are; 0 = the bytes are what DRAM holds.
    var key: Int {
        get { Int(rawValue & 0xffff) }
        set { rawValue = rawValue & ~0xffff | UInt32(truncatingIfNeeded: newValue & 0xffff) }
    }
    /// The bytes may differ from zero.
    var isWritten: Bool {
        get { rawValue >> 31 != 0 }
        set { rawValue = newValue ? rawValue | 1 << 31 : rawValue & ~(1 << 31) }
    }
    /// The processor keeps an integrity value of the page: a VMSA of a guest without RMP.
    var isIntegrityKept: Bool {
        get { rawValue &>> 30 & 1 != 0 }
        set { rawValue = newValue ? rawValue | 1 << 30 : rawValue & ~(1 << 30) }
    }
}

/// A key and how many pages are tagged with it: it stays as long as there is one.
final class MemoryKey {
    let cipher: AESXTS
    var pageCount = 0
    var isInSlot = true

    init(_ key: [UInt8]) { cipher = AESXTS(key: key) }
}

/// Only used under `SystemMemory.store`'s lock, which is why it may say `@unchecked Sendable`. Page numbers here are
/// indices from the base, checked by `index(_:)`.
@safe
struct PageStore: @unchecked Sendable {
    let base: SPA
    let pageCount: Int
    // SAFETY: one mapping, pageCount pages, then as many entries, then as many tags; made in init and unmapped by the
    // owner's deinit. Indices are checked by index(_:) before they get here.
    private let mappingByteCount: Int
    private let bytes: UnsafeMutableRawPointer
    private let rmp: UnsafeMutablePointer<RMPEntry>
    let contents: UnsafeMutablePointer<PageContents>
    /// Key index per ASID, 0 = none.
    private var slots: [Int]
    /// Keys by index; index 0 is never used.
    private var keys: [MemoryKey?] = [nil]
    /// 2 MiB entries that exist: none in the usual machine, and then look-ups need not think of them.
    private var largeEntryCount = 0
    /// Integrity values of VMSA pages without RMP, by page.
    var integrity: [Int: VMSAIntegrity] = [:]
    let hasher = SHA2Hasher(.sha256)
    var allocator: PageAllocator

    static let pageByteCount = Int(SPA.pageByteCount)
    /// Reads of pages that were never written come from here.
    private static let zeroPage = [UInt8](repeating: 0, count: pageByteCount)

    init(pageCount: Int, base: SPA, asidCount: Int, usesLargePages: Bool) throws(SystemMemoryError) {
        let memoryByteCount = pageCount * Self.pageByteCount
        let entriesByteCount = pageCount * MemoryLayout<RMPEntry>.stride
        mappingByteCount = memoryByteCount + entriesByteCount + pageCount * MemoryLayout<PageContents>.stride
        // Memory first: its alignment is a page, the entries' and tags' follow from it.
        let mapping = unsafe mmap(
            nil, mappingByteCount, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        guard let mapping = unsafe mapping, unsafe mapping != MAP_FAILED else {
            throw SystemMemoryError(byteCount: UInt64(mappingByteCount), errno: errno)
        }
        let advised = usesLargePages ? memoryByteCount : 0
        _ = unsafe madvise(mapping + advised, mappingByteCount - advised, MADV_NOHUGEPAGE)
        if usesLargePages { _ = unsafe madvise(mapping, memoryByteCount, MADV_HUGEPAGE) }
        // The bytes of guests lie here as their processor sees them. A core file shall not have them.
        _ = unsafe madvise(mapping, memoryByteCount, MADV_DONTDUMP)
        unsafe bytes = unsafe mapping
        unsafe rmp = unsafe (mapping + memoryByteCount).bindMemory(to: RMPEntry.self, capacity: pageCount)
        unsafe contents = unsafe (mapping + memoryByteCount + entriesByteCount)
            .bindMemory(to: PageContents.self, capacity: pageCount)
        self.base = base
        self.pageCount = pageCount
        slots = [Int](repeating: 0, count: asidCount)
        allocator = PageAllocator(pageCount: pageCount)
    }

    func unmap() {
        unsafe munmap(bytes, mappingByteCount)
    }

    // MARK: Addresses

    /// The page of an address, or nil outside memory.
    @inline(__always)
    func index(_ spa: SPA) -> Int? {
        let page = (spa.rawValue &- base.rawValue) &>> 12
        return spa.rawValue >= base.rawValue && page < UInt64(pageCount) ? Int(page) : nil
    }

    func address(_ page: Int) -> SPA { base + UInt64(page) &* SPA.pageByteCount }

    /// The page's bytes: plaintext of its tag's key. Only for the CPU of that key, and inside this file.
    @inline(__always)
    func pointer(_ page: Int) -> UnsafeMutableRawPointer { unsafe bytes + page &* Self.pageByteCount }

    // MARK: RMP entries

    /// The stored entry.
    @inline(__always)
    func rawEntry(_ page: Int) -> RMPEntry { unsafe rmp[page] }

    /// The entry that governs a page: its own, or what the 2 MiB entry at the head of its region says.
    @inline(__always)
    func entry(_ page: Int) -> RMPEntry {
        if largeEntryCount == 0 { return unsafe rmp[page] }
        return largeAwareEntry(page)
    }

    private func largeAwareEntry(_ page: Int) -> RMPEntry {
        let head = page & ~511
        var entry = unsafe rmp[head]
        guard entry.is2MiB else { return unsafe rmp[page] }
        entry.gpa = entry.gpa &+ UInt64(page &- head) &* SPA.pageByteCount
        return entry
    }

    mutating func setEntry(_ page: Int, _ entry: RMPEntry) {
        let wasLarge = unsafe rmp[page].is2MiB
        if wasLarge != entry.is2MiB { largeEntryCount += entry.is2MiB ? 1 : -1 }
        unsafe rmp[page] = entry
    }

    /// Zeroes every entry, and gives their memory back.
    mutating func resetEntries() {
        let byteCount = pageCount * MemoryLayout<RMPEntry>.stride
        if unsafe madvise(rmp, byteCount, MADV_DONTNEED) != 0 { unsafe memset(rmp, 0, byteCount) }
        largeEntryCount = 0
    }

    // MARK: Keys

    /// Key index of an ASID, 0 = none.
    @inline(__always)
    func key(asid: UInt32) -> Int { Int(asid) < slots.count ? slots[Int(asid)] : 0 }

    /// Puts a key into an ASID's slot. Returns false when the ASID has no slot or the slot is taken.
    mutating func installKey(asid: UInt32, _ key: [UInt8]) -> Bool {
        guard asid > 0, Int(asid) < slots.count, slots[Int(asid)] == 0 else { return false }
        let index: Int
        if let free = keys.indices.dropFirst().first(where: { keys[$0] == nil }) {
            index = free
            keys[free] = MemoryKey(key)
        } else {
            guard keys.count < 0xffff else { return false }
            index = keys.count
            keys.append(MemoryKey(key))
        }
        slots[Int(asid)] = index
        return true
    }

    /// Empties an ASID's slot. The key lives on while pages still hold its ciphertext.
    mutating func removeKey(asid: UInt32) {
        let index = key(asid: asid)
        guard index != 0, let key = keys[index] else { return }
        slots[Int(asid)] = 0
        key.isInSlot = false
        if key.pageCount == 0 { keys[index] = nil }
    }

    // MARK: Contents

    func contents(_ page: Int) -> PageContents { unsafe contents[page] }

    private mutating func setTag(_ page: Int, _ index: Int) {
        let old = unsafe contents[page].key
        guard old != index else { return }
        if old != 0, let key = keys[old] {
            key.pageCount &-= 1
            if key.pageCount == 0, !key.isInSlot { keys[old] = nil }
        }
        if index != 0 { keys[index]?.pageCount &+= 1 }
        unsafe contents[page].key = index
    }

    private func cipher(_ page: Int) -> AESXTS? { unsafe keys[contents[page].key]?.cipher }

    /// Makes the bytes what DRAM holds (tag 0): the ciphertext of a page whose owner is gone.
    mutating func materialise(_ page: Int) {
        guard unsafe contents[page].key != 0 else { return }
        keepIntegrity(page)
        if let cipher = cipher(page) {
            let pointer = unsafe pointer(page)
            unsafe cipher.encrypt(
                UnsafeRawBufferPointer(start: pointer, count: Self.pageByteCount), to: pointer,
                tweak: address(page).rawValue)
            unsafe contents[page].isWritten = true
        }
        setTag(page, 0)
    }

    /// Makes the bytes what the CPU with key `index` reads: for bytes of another origin that is garbage.
    mutating func decipher(_ page: Int, key index: Int) {
        guard unsafe contents[page].key != index else { return }
        materialise(page)
        if let cipher = keys[index]?.cipher {
            let pointer = unsafe pointer(page)
            unsafe cipher.decrypt(
                UnsafeRawBufferPointer(start: pointer, count: Self.pageByteCount), to: pointer,
                tweak: address(page).rawValue)
            unsafe contents[page].isWritten = true
        }
        setTag(page, index)
    }

    /// The page may be written through a pointer from now on.
    @inline(__always)
    mutating func markWritten(_ page: Int) { unsafe contents[page].isWritten = true }

    /// Says that the bytes, as they are, are plaintext under key `index`: the firmware encrypted them in place.
    mutating func encryptInPlace(_ page: Int, key index: Int) {
        materialise(page)
        setTag(page, index)
    }

    /// Zero plaintext under key `index` (0 = plain zeroes). Untouched pages stay untouched.
    mutating func zero(_ page: Int, key index: Int) {
        keepIntegrity(page)
        if unsafe contents[page].isWritten {
            unsafe memset(pointer(page), 0, Self.pageByteCount)
        }
        setTag(page, index)
    }

    /// Plaintext `source` (one page or less, from the page's start) under key `index`.
    mutating func replace(_ page: Int, with source: [UInt8], key index: Int) {
        zero(page, key: index)
        unsafe source.withUnsafeBytes {
            unsafe pointer(page).copyMemory(from: $0.baseAddress!, byteCount: min($0.count, Self.pageByteCount))
        }
        unsafe contents[page].isWritten = true
    }

    /// What DRAM holds, without changing anything: part of one page.
    func copyDRAM(_ page: Int, _ range: Range<Int>, to destination: UnsafeMutableRawPointer) {
        let state = unsafe contents[page]
        if state.key == 0 {
            if state.isWritten {
                unsafe destination.copyMemory(from: pointer(page) + range.lowerBound, byteCount: range.count)
            } else {
                unsafe memset(destination, 0, range.count)
            }
            return
        }
        var ciphertext = [UInt8](repeating: 0, count: Self.pageByteCount)
        guard let cipher = cipher(page) else { preconditionFailure("page \(page) is tagged with a key that is gone") }
        unsafe ciphertext.withUnsafeMutableBytes { output in
            if state.isWritten {
                unsafe cipher.encrypt(
                    UnsafeRawBufferPointer(start: pointer(page), count: Self.pageByteCount), to: output.baseAddress!,
                    tweak: address(page).rawValue)
            } else {
                unsafe Self.zeroPage.withUnsafeBytes {
                    unsafe cipher.encrypt($0, to: output.baseAddress!, tweak: address(page).rawValue)
                }
            }
            unsafe destination.copyMemory(from: output.baseAddress! + range.lowerBound, byteCount: range.count)
        }
    }

    /// Stores to DRAM: the page stops being anybody's plaintext.
    mutating func writeDRAM(_ page: Int, _ range: Range<Int>, from source: UnsafeRawPointer) {
        keepIntegrity(page)
        if range.count == Self.pageByteCount { setTag(page, 0) } else { materialise(page) }
        unsafe (pointer(page) + range.lowerBound).copyMemory(from: source, byteCount: range.count)
        unsafe contents[page].isWritten = true
    }

    /// Reads DRAM in place: the page is materialised first.
    mutating func withDRAM<Result>(_ page: Int, _ body: (UnsafeRawBufferPointer) -> Result) -> Result {
        materialise(page)
        if unsafe contents[page].isWritten {
            return unsafe body(UnsafeRawBufferPointer(start: pointer(page), count: Self.pageByteCount))
        }
        return unsafe Self.zeroPage.withUnsafeBytes { unsafe body($0) }
    }

    /// Gives the memory of freed pages back to the kernel: they are zero and untouched again.
    mutating func scrub(_ pages: Range<Int>) {
        for page in pages {
            setTag(page, 0)
            if unsafe contents[page].isIntegrityKept { integrity[page] = nil }
            unsafe contents[page] = PageContents()
        }
        let byteCount = pages.count * Self.pageByteCount
        if unsafe madvise(pointer(pages.lowerBound), byteCount, MADV_DONTNEED) != 0 {
            unsafe memset(pointer(pages.lowerBound), 0, byteCount)
        }
    }
}
