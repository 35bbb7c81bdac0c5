// Loads and stores by the engine itself: descriptor tables, stacks, string instructions. Slow but complete: any
// alignment, page-crossing, code pages. nil or false: an exception or exit has been prepared.

import CX86State
import X86Defs

extension Processor {
    /// The host address of up to a page's rest of bytes at `a`, for one access of at most `size` bytes within the page.
    func linearPointer(_ a: UInt64, _ access: Access, user: Bool, at rip: UInt64) -> UnsafeMutableRawPointer? {
        let table = user ? userTLB : s.pointee.cpl == 3 ? supervisorTLB : supervisorTable
        let e = table + Int((a &>> 12) & UInt64(X86_TLB_SIZE - 1))
        if (access == .write ? e.pointee.write : e.pointee.read) == a & ~0xfff { return host(a &+ e.pointee.addend) }
        guard isCanonical(a) else {
            prepareException(13, error: 0, at: rip)
            return nil
        }
        let watched = debugArmed && isWatched(a)
        guard let page = walk(a, access, user: user, at: rip), let found = hostPage(page, access, at: rip) else {
            return nil
        }
        guard case .memory(let p, let storable) = found else {
            prepareUnimplemented("a device access by this instruction", at: rip)
            return nil
        }
        let hostPage = UInt(bitPattern: p)
        if isCodePage(hostPage) {
            if access == .write { forgetCodePageEverywhere(hostPage) }
        } else if !watched {
            let tag = a & ~0xfff
            e.pointee = x86_tlb_entry(
                read: tag, write: storable ? tag : 1, unused: 0, addend: UInt64(UInt(bitPattern: p)) &- tag)
        }
        return p + Int(a & 0xfff)
    }

    func read<T: Word>(_ a: UInt64, as type: T.Type = T.self, user: Bool, at rip: UInt64) -> T? {
        let size = MemoryLayout<T>.size
        let inFirst = Int(0x1000 &- (a & 0xfff))
        guard let p = linearPointer(a, .read, user: user, at: rip) else { return nil }
        if debugArmed { noteDataAccess(a, size, write: false) }
        if inFirst >= size { return p.loadUnaligned(as: T.self) }
        guard let q = linearPointer(a &+ UInt64(inFirst), .read, user: user, at: rip) else { return nil }
        var value: T = 0
        withUnsafeMutableBytes(of: &value) {
            $0.baseAddress!.copyMemory(from: p, byteCount: inFirst)
            ($0.baseAddress! + inFirst).copyMemory(from: q, byteCount: size &- inFirst)
        }
        return value
    }

    func write<T: Word>(_ a: UInt64, _ value: T, user: Bool, at rip: UInt64) -> Bool {
        let size = MemoryLayout<T>.size
        let inFirst = Int(0x1000 &- (a & 0xfff))
        guard let p = linearPointer(a, .write, user: user, at: rip) else { return false }
        if debugArmed { noteDataAccess(a, size, write: true) }
        if inFirst >= size {
            p.storeBytes(of: value, as: T.self)
            return true
        }
        guard let q = linearPointer(a &+ UInt64(inFirst), .write, user: user, at: rip) else { return false }
        withUnsafeBytes(of: value) {
            p.copyMemory(from: $0.baseAddress!, byteCount: inFirst)
            q.copyMemory(from: $0.baseAddress! + inFirst, byteCount: size &- inFirst)
        }
        return true
    }

    var userMode: Bool { s.pointee.cpl == 3 }
}
