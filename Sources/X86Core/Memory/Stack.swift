// The stack as far transfers and event delivery see it: any segment, width and privilege; nothing moves until it is
// known that all of it works.

import CX86State
import X86Defs

/// A stack that is written or read ahead of its registers.
struct StackView {
    var segment: x86_segment
    var pointer: UInt64
    /// 0xffff, 0xffff_ffff, or all ones for a 64-bit stack.
    var mask: UInt64
    var user: Bool
    /// What #SS reports: 0 for the current stack, a selector for one that a transfer switches to.
    var errorCode: UInt32 = 0
}

extension Processor {
    var currentStack: StackView {
        StackView(segment: s.pointee.ss, pointer: get(s, Slot.rsp), mask: stackMask, user: userMode)
    }

    /// The width of the stack pointer.
    var stackMask: UInt64 {
        is64BitCode ? .max : s.pointee.ss.attributes & 0x400 != 0 ? 0xffff_ffff : 0xffff
    }

    /// A stack pointer in its segment's width: the rest of RSP stays.
    func setStackPointer(_ value: UInt64, mask: UInt64) {
        switch mask {
        case 0xffff: put(s, Slot.rsp, UInt16(truncatingIfNeeded: value))
        case 0xffff_ffff: put(s, Slot.rsp, UInt32(truncatingIfNeeded: value))
        default: put(s, Slot.rsp, value)
        }
    }

    /// The linear address of stack bytes; nil: #SS has been prepared.
    func stackAddress(_ stack: StackView, _ pointer: UInt64, _ byteCount: Int, write: Bool, at rip: UInt64) -> UInt64? {
        let misaligned = stack.user && alignmentChecking && pointer & UInt64(byteCount &- 1) != 0
        if stack.mask == .max {
            guard isCanonical(pointer), isCanonical(pointer &+ UInt64(byteCount &- 1)) else {
                prepareException(12, error: stack.errorCode, at: rip)
                return nil
            }
            if misaligned { prepareException(17, error: 0, at: rip) }
            return misaligned ? nil : pointer
        }
        guard allows(stack.segment, pointer, byteCount, write: write) else {
            prepareException(12, error: stack.errorCode, at: rip)
            return nil
        }
        if misaligned { prepareException(17, error: 0, at: rip) }
        return misaligned ? nil : (stack.segment.base &+ pointer) & 0xffff_ffff
    }

    func push(_ stack: inout StackView, _ value: UInt64, _ byteCount: Int, at rip: UInt64) -> Bool {
        let pointer = (stack.pointer &- UInt64(byteCount)) & stack.mask
        guard let a = stackAddress(stack, pointer, byteCount, write: true, at: rip) else { return false }
        let done: Bool
        switch byteCount {
        case 2: done = write(a, UInt16(truncatingIfNeeded: value), user: stack.user, at: rip)
        case 4: done = write(a, UInt32(truncatingIfNeeded: value), user: stack.user, at: rip)
        default: done = write(a, value, user: stack.user, at: rip)
        }
        stack.pointer = stack.pointer & ~stack.mask | pointer
        return done
    }

    func pop(_ stack: inout StackView, _ byteCount: Int, at rip: UInt64) -> UInt64? {
        let pointer = stack.pointer & stack.mask
        guard let a = stackAddress(stack, pointer, byteCount, write: false, at: rip) else { return nil }
        let value: UInt64?
        switch byteCount {
        case 2: value = read(a, as: UInt16.self, user: stack.user, at: rip).map { UInt64($0) }
        case 4: value = read(a, as: UInt32.self, user: stack.user, at: rip).map { UInt64($0) }
        default: value = read(a, as: UInt64.self, user: stack.user, at: rip)
        }
        stack.pointer = stack.pointer & ~stack.mask | (pointer &+ UInt64(byteCount)) & stack.mask
        return value
    }

    /// Takes over the stack pointer of a view of the current stack.
    func commit(_ stack: StackView) { setStackPointer(stack.pointer, mask: stack.mask) }
}
