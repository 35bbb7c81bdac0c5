// IN, OUT, INS, OUTS. With encrypted state each is a #VC (the guest's handler does the rest through the GHCB); a plain
// guest leaves the processor once per element, and the repeated instruction finds the completed value.

import CX86State
import X86Defs

extension Processor {
    /// May this privilege touch the port? I/O permission bitmap of the TSS when CPL > IOPL [APM2 12.2.4].
    private func mayAccess(_ port: UInt16, _ byteCount: Int, at rip: UInt64) -> Bool? {
        if !isProtectedMode || s.pointee.cpl <= iopl { return true }
        guard s.pointee.tr.limit >= 103 else { return false }
        guard let mapBase: UInt16 = read(s.pointee.tr.base &+ 102, user: false, at: rip) else { return nil }
        let byte = UInt64(mapBase) &+ UInt64(port &>> 3)
        guard byte &+ 1 <= UInt64(s.pointee.tr.limit) else { return false }
        guard let bits: UInt16 = read(s.pointee.tr.base &+ byte, user: false, at: rip) else { return nil }
        let wanted = UInt16((1 &<< byteCount) &- 1) &<< (port & 7)
        return bits & wanted == 0
    }

    /// `imm`: the port or 0x10000 for DX; `scale`: bytes.
    func portIO(_ ip: IP, at rip: UInt64) -> Bool {
        let u = ip.pointee
        let byteCount = Int(u.scale)
        let port = u.imm & 0x1_0000 != 0 ? get(s, Slot.gpr(2), as: UInt16.self) : UInt16(truncatingIfNeeded: u.imm)
        guard let allowed = mayAccess(port, byteCount, at: rip) else { return false }
        guard allowed else {
            prepareException(13, error: 0, at: rip)
            return false
        }
        if configuration.encryptedState {
            prepareVC(0x7b, at: rip)
            return false
        }
        let write = u.src == SystemOperation.outPort.rawValue
        if let value = completedIO {
            completedIO = nil
            if debugArmed { notePortAccess(port, byteCount) }
            if !write { putSized(0, UInt64(value), byteCount) }
            return true
        }
        let value = get(s, 0, as: UInt32.self) & (byteCount == 4 ? .max : (1 &<< UInt32(byteCount &* 8)) &- 1)
        prepareExit(.io(IOAccess(port: port, byteCount: byteCount, write: write, value: write ? value : 0)), at: rip)
        return false
    }

    /// One element per visit. `scale` bytes, `imm` 1 = REP, `dst` slot of the source segment's base or `index` the segment
    /// + 1, `base` 4 or 2 for that address size.
    func stringIO(_ ip: IP, at rip: UInt64) -> Bool {
        let u = ip.pointee
        let byteCount = Int(u.scale)
        let port: UInt16 = get(s, Slot.gpr(2))
        let input = u.src == SystemOperation.ins.rawValue
        let width = u.base == 0 ? 8 : Int(u.base)
        let mask: UInt64 = width == 8 ? .max : width == 4 ? 0xffff_ffff : 0xffff
        guard let allowed = mayAccess(port, byteCount, at: rip) else { return false }
        guard allowed else {
            prepareException(13, error: 0, at: rip)
            return false
        }
        if configuration.encryptedState {
            prepareVC(0x7b, at: rip)
            return false
        }
        let count = get(s, Slot.gpr(1), as: UInt64.self) & mask
        if u.imm != 0 && count == 0 { return true }
        let slot = Slot.gpr(input ? 7 : 6)
        let pointer = get(s, slot, as: UInt64.self) & mask
        var linear = input ? pointer : pointer &+ get(s, u.dst, as: UInt64.self)
        if u.index != 0 {
            guard
                let a = self.linear(input ? 0 : Int(u.index) &- 1, pointer, byteCount, write: input, at: rip)
            else { return false }
            linear = a
        }
        let done = completedIO
        completedIO = nil
        if done != nil, debugArmed { notePortAccess(port, byteCount) }
        if done == nil {
            var value: UInt64 = 0
            if input {
                // The store must be possible before the port is read.
                for place in [linear, linear &+ UInt64(byteCount &- 1)]
                where linearPointer(place, .write, user: userMode, at: rip) == nil && takeDeviceHit() == nil {
                    return false
                }
            } else {
                guard let v = readInteger(linear, byteCount, at: rip) else { return false }
                value = v
            }
            var elements = 1
            if input, u.imm != 0 {
                // As far as the page goes: nobody can say yet whether the next one can be written.
                let isDown = s.pointee.system_flags & RFLAGS.df != 0
                let room = isDown ? Int(linear & 0xfff) : 4096 &- Int(linear & 0xfff)
                elements = max(1, min(room / byteCount, 1024 / byteCount, Int(clamping: count)))
            }
            prepareExit(
                .io(
                    IOAccess(
                        port: port, byteCount: byteCount, write: !input, value: UInt32(truncatingIfNeeded: value),
                        elementCount: elements)),
                at: rip)
            return false
        }
        if input {
            let v = UInt64(done ?? 0)
            let stored: Bool
            switch byteCount {
            case 1: stored = write(linear, UInt8(truncatingIfNeeded: v), user: userMode, at: rip)
            case 2: stored = write(linear, UInt16(truncatingIfNeeded: v), user: userMode, at: rip)
            default: stored = write(linear, UInt32(truncatingIfNeeded: v), user: userMode, at: rip)
            }
            guard stored else { return false }
        }
        let step = s.pointee.system_flags & RFLAGS.df != 0 ? 0 &- UInt64(byteCount) : UInt64(byteCount)
        let moved = (pointer &+ step) & mask
        putSized(slot, moved, width)
        guard u.imm != 0 else { return true }
        let left = (count &- 1) & mask
        putSized(Slot.gpr(1), left, width)
        if left == 0 { return true }
        if let exit = pendingMMIOWrite {
            pendingMMIOWrite = nil
            prepareExit(exit, at: rip)
            return false
        }
        s.pointee.rip = rip
        s.pointee.link = nil
        s.pointee.leave = UInt32(X86_LEAVE_CHECK)
        return false
    }
}
