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
            if case .device(let gpa) = found { deviceHit = (gpa, s.pointee.rip) }
            prepareUnimplemented("a device access by this instruction", at: rip)
            return nil
        }
        let hostPage = UInt(bitPattern: p)
        if isCodePage(hostPage) {
            if access == .write {
                guard !othersRun else { return prepareAlone(at: rip) }
                forgetCodePageEverywhere(hostPage)
            }
        } else if !watched {
            let tag = a & ~0xfff
            e.pointee = x86_tlb_entry(
                read: tag, write: storable ? tag : 1, global: page.isGlobal ? 1 : 0,
                addend: UInt64(UInt(bitPattern: p)) &- tag)
        }
        return p + Int(a & 0xfff)
    }

    /// Where one page's part of an access goes.
    private enum Place {
        case memory(UnsafeMutableRawPointer)
        case device(UInt64)
    }

    /// nil: an exception has been prepared.
    private func place(_ a: UInt64, _ access: Access, user: Bool, at rip: UInt64) -> Place? {
        if let p = linearPointer(a, access, user: user, at: rip) { return .memory(p) }
        return takeDeviceHit().map { .device($0) }
    }

    func read<T: Word>(_ a: UInt64, as type: T.Type = T.self, user: Bool, at rip: UInt64) -> T? {
        let size = MemoryLayout<T>.size
        let inFirst = Int(0x1000 &- (a & 0xfff))
        if inFirst < size, !endsInside(a, size, at: rip) { return nil }
        guard let first = place(a, .read, user: user, at: rip) else { return nil }
        if debugArmed { noteDataAccess(a, size, write: false) }
        if inFirst >= size {
            switch first {
            case .memory(let p): return p.loadUnaligned(as: T.self)
            case .device(let gpa): return readDevice(gpa, size, at: rip).map { T(truncatingIfNeeded: $0) }
            }
        }
        guard let second = place(a &+ UInt64(inFirst), .read, user: user, at: rip),
            let low = readPart(first, inFirst, at: rip), let high = readPart(second, size &- inFirst, at: rip)
        else { return nil }
        return T(truncatingIfNeeded: low | high &<< UInt64(8 &* inFirst))
    }

    func write<T: Word>(_ a: UInt64, _ value: T, user: Bool, at rip: UInt64) -> Bool {
        let size = MemoryLayout<T>.size
        let inFirst = Int(0x1000 &- (a & 0xfff))
        if inFirst < size, !endsInside(a, size, at: rip) { return false }
        guard let first = place(a, .write, user: user, at: rip) else { return false }
        if debugArmed { noteDataAccess(a, size, write: true) }
        if inFirst >= size {
            switch first {
            case .memory(let p): p.storeBytes(of: value, as: T.self)
            case .device(let gpa): writeDevice(gpa, size, UInt64(truncatingIfNeeded: value))
            }
            return true
        }
        guard let second = place(a &+ UInt64(inFirst), .write, user: user, at: rip) else { return false }
        let value = UInt64(truncatingIfNeeded: value)
        writePart(first, inFirst, value)
        writePart(second, size &- inFirst, value &>> UInt64(8 &* inFirst))
        return true
    }

    /// Fewer than 8 bytes at the end or the start of a page.
    private func readPart(_ place: Place, _ byteCount: Int, at rip: UInt64) -> UInt64? {
        switch place {
        case .memory(let p):
            var value: UInt64 = 0
            withUnsafeMutableBytes(of: &value) { $0.baseAddress!.copyMemory(from: p, byteCount: byteCount) }
            return value
        case .device(let gpa): return readDevice(gpa, byteCount, at: rip)
        }
    }

    private func writePart(_ place: Place, _ byteCount: Int, _ value: UInt64) {
        switch place {
        case .memory(let p): withUnsafeBytes(of: value) { p.copyMemory(from: $0.baseAddress!, byteCount: byteCount) }
        case .device(let gpa): writeDevice(gpa, byteCount, value & ((1 &<< UInt64(8 &* byteCount)) &- 1))
        }
    }

    /// Outside 64-bit mode flat segments end at 4 GiB.
    private func endsInside(_ a: UInt64, _ size: Int, at rip: UInt64) -> Bool {
        if s.pointee.legacy == 0 || (a &+ UInt64(size &- 1)) &>> 32 == 0 { return true }
        prepareException(13, error: 0, at: rip)
        return false
    }

    var userMode: Bool { s.pointee.cpl == 3 }

    // MARK: Devices

    /// The device that the last ``linearPointer(_:_:user:at:)`` met, which then counts as handled.
    func takeDeviceHit() -> UInt64? {
        guard let (gpa, blockRIP) = deviceHit else { return nil }
        deviceHit = nil
        // As if no exit had been prepared: while a block runs, RIP is its start.
        s.pointee.rip = blockRIP
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

    /// A store to a device. What the hypervisor must see leaves behind the instruction.
    func writeDevice(_ gpa: UInt64, _ byteCount: Int, _ value: UInt64) {
        if memory.deviceWrite(gpa: gpa, byteCount: byteCount, value: value) {
            // It may have raised an interrupt for this very processor.
            return endSlice()
        }
        let exit = VMExit.mmio(gpa: gpa, byteCount: byteCount, write: true, value: value)
        if pendingMMIOWrite == nil { pendingMMIOWrite = exit } else { laterMMIOWrites.append(exit) }
    }
}
