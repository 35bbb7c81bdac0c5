// What the decoder must know of the processor's mode, and the numbers that tell blocks of different modes apart.
//
// In 64-bit code it is nothing: RIP is a linear address and segments hardly exist. Elsewhere the same bytes mean other
// instructions with another default size, other code limits, other stack widths, and with segments that are flat or are
// not. Each such combination gets a number, blocks carry it, and so do the keys of the jump cache. Within all blocks
// `rip` is a linear address; EIP is what is left of it when the code segment's base is taken away.

import CX86State
import X86Defs

/// Everything outside the instruction's bytes that its uops depend on.
struct DecodeContext: Hashable {
    /// 64-bit code.
    var isLong = true
    /// CR0.PE = 0.
    var isReal = false
    /// Default operand and address size 16 bits (CS.D = 0).
    var is16Bit = false
    /// The stack pointer is SP, not ESP (SS.B = 0).
    var stack16 = false
    /// Segments (bit = encoding) with base 0 and no limit, writable: their offsets need no look.
    var flatSegments: UInt8 = 0
    var codeBase: UInt32 = 0
    var codeLimit: UInt32 = 0xffff_ffff

    func isFlat(_ segment: SegmentIndex) -> Bool { flatSegments & (1 &<< UInt8(segment.rawValue)) != 0 }
}

extension Processor {
    static let contextLimit = 0xffff

    /// Long mode is active: 64-bit or compatibility mode.
    var isLongModeActive: Bool { s.pointee.efer & EFER.lma != 0 }
    var isProtectedMode: Bool { s.pointee.cr0 & CR0.pe != 0 }
    /// The running code is 64-bit code.
    var is64BitCode: Bool { s.pointee.legacy == 0 }

    /// The architectural RIP, EIP or IP of a linear instruction address.
    func instructionPointer(_ linear: UInt64) -> UInt64 {
        s.pointee.legacy == 0 ? linear : (linear &- s.pointee.code_base) & 0xffff_ffff
    }

    /// The linear address of an instruction pointer in the current code segment.
    func linearInstruction(_ pointer: UInt64) -> UInt64 {
        s.pointee.legacy == 0 ? pointer : (s.pointee.code_base &+ pointer) & 0xffff_ffff
    }

    /// After a change of CS, SS, DS, ES, CR0 or EFER. True: code decoded for the old mode must not go on running.
    @discardableResult
    func updateContext() -> Bool {
        let s = self.s
        let before = s.pointee.context
        if isLongModeActive, s.pointee.cs.attributes & 0x200 != 0 {
            if s.pointee.legacy != 0 || !decodeContext.isLong {
                decodeContext = DecodeContext()
                (s.pointee.legacy, s.pointee.context) = (0, 0)
                (s.pointee.code_base, s.pointee.rip_mask) = (0, .max)
            }
            s.pointee.rip_mask = .max
            updateJumpKey()
            return before != 0
        }
        var context = DecodeContext()
        context.isLong = false
        context.isReal = !isProtectedMode
        context.is16Bit = s.pointee.cs.attributes & 0x400 == 0
        context.stack16 = s.pointee.ss.attributes & 0x400 == 0
        context.codeBase = UInt32(truncatingIfNeeded: s.pointee.cs.base)
        context.codeLimit = s.pointee.cs.limit
        func note(_ segment: x86_segment, _ index: SegmentIndex) {
            // Present, data, expand-up, writable.
            if segment.base == 0, segment.limit == 0xffff_ffff, segment.attributes & 0x9e == 0x92 {
                context.flatSegments |= 1 &<< UInt8(index.rawValue)
            }
        }
        note(s.pointee.es, .es)
        note(s.pointee.ss, .ss)
        note(s.pointee.ds, .ds)
        if !decodeContext.isLong, context == decodeContext, s.pointee.legacy != 0 {
            updateJumpKey()
            return false
        }
        if contexts[context] == nil {
            if contexts.count >= Self.contextLimit {
                contexts.removeAll()
                forgetAllCode()
            }
            contexts[context] = UInt32(contexts.count &+ 1)
        }
        decodeContext = context
        s.pointee.legacy = 1
        s.pointee.context = contexts[context] ?? 0
        s.pointee.code_base = UInt64(context.codeBase)
        s.pointee.rip_mask = 0xffff_ffff
        updateJumpKey()
        return true
    }
}
