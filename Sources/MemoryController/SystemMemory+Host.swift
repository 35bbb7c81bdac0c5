// Physical memory as the host sees it: its own pages, ciphertext of everybody else's, and no way to write those.

import SEVABI
import Synchronization

extension SystemMemory {
    // MARK: Page allocation

    /// Takes consecutive pages from the host kernel's free memory. They are zero, not resident, and the hypervisor's.
    ///
    /// - Parameter alignment: In pages; 512 for a 2 MiB page.
    /// - Returns: The first page, or nil when memory is full.
    public func allocatePages(_ count: Int = 1, alignment: Int = 1) -> SPA? {
        precondition(count > 0 && alignment > 0, "a number of pages")
        return store.withLock { store in
            (store.allocator.allocate(count, alignment: alignment)).map { store.address($0) }
        }
    }

    /// Gives consecutive pages back. They are scrubbed, as by a kernel that clears what it frees, and cost no memory.
    ///
    /// - Returns: False, and nothing is freed, unless every page was allocated and is in the hypervisor state: a kernel
    ///   that cannot get a page back from the RMP leaks it.
    public func freePages(_ first: SPA, _ count: Int = 1) -> Bool {
        guard count > 0 else { return true }
        return store.withLock { store in
            guard first.isPageAligned, let start = store.index(first),
                count <= (store.pageCount - start)
            else { return false }
            let pages = start..<(start + count)
            for page in pages where store.entry(page).pageState != .hypervisor { return false }
            guard store.allocator.free(pages) else { return false }
            store.scrub(pages)
            return true
        }
    }

    // MARK: Reading and writing

    /// What the host reads at an address: its own bytes, or the ciphertext of a page that a guest owns or left behind.
    public func hostRead(_ spa: SPA, byteCount: Int) throws(HostAccessFault) -> [UInt8] {
        guard let bytes = hostSnapshot(spa: spa, byteCount: byteCount) else { throw .outside(spa) }
        return bytes
    }

    /// As ``hostRead(_:byteCount:)``; nil when the range is not wholly memory. Pages are read one after the other: a
    /// running guest may change later ones while earlier ones are copied.
    public func hostSnapshot(spa: SPA, byteCount: Int) -> [UInt8]? {
        guard contains(spa, byteCount) else { return nil }
        return unsafe [UInt8](unsafeUninitializedCapacity: byteCount) { buffer, count in
            // SAFETY: the pieces cover 0..<byteCount of the buffer exactly once.
            if let start = buffer.baseAddress {
                let destination = UnsafeMutableRawPointer(start)
                forEachPiece(spa, byteCount) { page, range, offset in
                    store.withLock { store in
                        unsafe store.copyDRAM(store.index(page)!, range, to: destination + offset)
                    }
                }
            }
            count = byteCount
        }
    }

    /// Stores bytes, if the RMP lets the host write every page of the range; otherwise nothing is written.
    ///
    /// The check is that of a store by the hypervisor [APM2 15.36.10]: an assigned page faults. Pages that left a guest
    /// keep the rest of their ciphertext.
    public func hostWrite(_ spa: SPA, _ bytes: [UInt8]) throws(HostAccessFault) {
        let result: Result<Void, HostAccessFault> = unsafe bytes.withUnsafeBytes { buffer in
            do throws(HostAccessFault) {
                try unsafe hostWrite(spa, from: buffer)
                return .success(())
            } catch {
                return .failure(error)
            }
        }
        try result.get()
    }

    /// As ``hostWrite(_:_:)``, from memory of this process.
    @unsafe
    public func hostWrite(_ spa: SPA, from source: UnsafeRawBufferPointer) throws(HostAccessFault) {
        guard let start = source.baseAddress else { return }
        guard contains(spa, source.count) else { throw .outside(spa) }
        let refusal: HostAccessFault? = store.withLock { store in
            var refusal: HostAccessFault?
            forEachPiece(spa, source.count) { page, _, _ in
                let state = store.entry(store.index(page)!).pageState
                if refusal == nil, state != .hypervisor, state != .hypervisorFixed { refusal = .rmp(page, state) }
            }
            guard refusal == nil else { return refusal }
            forEachPiece(spa, source.count) { page, range, offset in
                // SAFETY: offset + range.count is at most source.count.
                unsafe store.writeDRAM(store.index(page)!, range, from: start + offset)
            }
            return nil
        }
        if let refusal { throw refusal }
    }

    /// True when the RMP lets the host write every page of the range.
    public func hostMayWrite(_ spa: SPA, byteCount: Int) -> Bool {
        guard contains(spa, byteCount) else { return false }
        return store.withLock { store in
            var allowed = true
            forEachPiece(spa, byteCount) { page, _, _ in
                let state = store.entry(store.index(page)!).pageState
                if state != .hypervisor, state != .hypervisorFixed { allowed = false }
            }
            return allowed
        }
    }

    // MARK: Ranges

    /// True when the whole range is memory.
    func contains(_ spa: SPA, _ byteCount: Int) -> Bool {
        let offset = spa.rawValue &- base.rawValue
        return byteCount >= 0 && spa >= base && offset <= self.byteCount && UInt64(byteCount) <= self.byteCount - offset
    }

    /// Cuts a range that is wholly memory at page borders: page address, range inside the page, offset in the whole.
    func forEachPiece(_ spa: SPA, _ byteCount: Int, _ body: (SPA, Range<Int>, Int) -> Void) {
        var offset = 0
        while offset < byteCount {
            let address = spa + UInt64(offset)
            let start = Int(address.rawValue & (SPA.pageByteCount - 1))
            let count = min(Int(SPA.pageByteCount) - start, byteCount - offset)
            body(SPA(rawValue: address.rawValue - UInt64(start)), start..<(start + count), offset)
            offset += count
        }
    }
}
