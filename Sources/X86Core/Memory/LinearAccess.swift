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
        deviceHit = nil
        guard isCanonical(a) else {
            prepareException(13, error: 0, at: rip)
            return nil
        }
        let watched = debugArmed && isWatched(a)
        guard let page = walk(a, access, user: user, at: rip), let found = hostPage(page, access, at: rip) else {
            return nil
        }
        guard case .memory(let p, let storable) = found else {
            if case .device(let gpa) = found { deviceHit = gpa }
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
        guard let p = linearPointer(a, .read, user: user, at: rip) else {
            guard let gpa = takeDeviceHit(), inFirst >= size else { return nil }
            return readDevice(gpa, size, at: rip).map { T(truncatingIfNeeded: $0) }
        }
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
        guard let p = linearPointer(a, .write, user: user, at: rip) else {
            guard let gpa = takeDeviceHit(), inFirst >= size else { return false }
            return writeDevice(gpa, size, UInt64(truncatingIfNeeded: value), at: rip)
        }
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

    // MARK: Devices

    /// The device that the last ``linearPointer(_:_:user:at:)`` met, which then counts as handled.
    func takeDeviceHit() -> UInt64? {
        guard let gpa = deviceHit else { return nil }
        deviceHit = nil
        s.pointee.leave = UInt32(X86_LEAVE_LOOKUP)
        return gpa
    }

    /// A load from a device: the value, or nil with the exit that asks for it; then the instruction is repeated.
    private func readDevice(_ gpa: UInt64, _ byteCount: Int, at rip: UInt64) -> UInt64? {
        var value: UInt64 = 0
        if deviceRead(gpa, byteCount, &value) { return value }
        prepareExit(.mmio(gpa: gpa, byteCount: byteCount, write: false, value: 0), at: rip)
        return nil
    }

    /// A store to a device. What the hypervisor must see leaves behind the instruction, so there can be only one.
    private func writeDevice(_ gpa: UInt64, _ byteCount: Int, _ value: UInt64, at rip: UInt64) -> Bool {
        if memory.deviceWrite(gpa: gpa, byteCount: byteCount, value: value) { return true }
        guard pendingMMIOWrite == nil else {
            pendingMMIOWrite = nil
            prepareUnimplemented("several stores to a device by one instruction", at: rip)
            return false
        }
        pendingMMIOWrite = .mmio(gpa: gpa, byteCount: byteCount, write: true, value: value)
        return true
    }
}
