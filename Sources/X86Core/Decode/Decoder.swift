// Bytes to uops: prefixes, ModRM, operands, and the emitter. The opcode tables are in Opcodes.swift, Opcodes0F.swift
// and OpcodesSIMD.swift.
//
// A block ends at a branch that is always taken, at an instruction that changes what later fetches mean, at the end of
// the page, or after 64 instructions. Conditional branches do not end it: not taken, execution falls through to the
// next uop.

import CX86State

/// A decoded memory operand, or a register.
struct MemoryOperand {
    var base: UInt16 = Slot.zero
    var index: UInt16 = Slot.zero
    var scale: UInt8 = 0
    var disp: Int32 = 0
    /// RIP-relative: `disp` is to be added to the address of the next instruction.
    var isRIPRelative = false

    /// RSP or RBP as base: a non-canonical address is #SS.
    var isOnStack: Bool { base == Slot.rsp || base == Slot.rbp || scale & 0x40 != 0 }
}

/// What an instruction does to flags, for dropping writes that nobody can see.
enum FlagEffect {
    /// Neither reads nor writes flags, and cannot fault.
    case transparent
    /// Writes all arithmetic flags, reads none, cannot fault.
    case overwrites
    /// Anything else.
    case barrier
}

struct Decoder {
    let processor: Processor
    let handlers: UnsafeMutablePointer<x86_handler>
    let bytes: UnsafePointer<UInt8>
    let available: Int
    /// Linear address of the block's first byte.
    let blockRIP: UInt64
    let crossing: Bool
    let out: UnsafeMutablePointer<x86_uop>
    var used = 0

    // The instruction being decoded.
    /// VEX: present, L, pp, and vvvv as a register number.
    var vex = false
    var vexL = false
    var vexPP: UInt8 = 0
    var vvvv = 0
    var modRMPosition = 0
    var start = 0
    var position = 0
    var overrun = false
    var firstUop = 0
    var rex: UInt8 = 0
    var hasREX = false
    /// 66 was there: a mandatory prefix, or the operand size.
    var prefix66 = false
    /// 66 without REX.W: 16-bit operands.
    var operand16 = false
    var address32 = false
    /// Outside 64-bit mode: 16-bit addresses.
    var address16 = false
    var lock = false
    /// 0, 0xF2 or 0xF3: the last one wins.
    var repeatPrefix: UInt8 = 0
    /// Slot of FS or GS base, or the zero slot.
    var segmentSlot: UInt16 = Slot.zero
    /// Outside 64-bit mode: the segment that a prefix names.
    var segmentOverride: SegmentIndex?
    /// The mode to decode for.
    let context: DecodeContext
    /// Neither 64-bit mode nor its rules: see LegacyOperands.swift.
    var legacy: Bool { !context.isLong }
    /// Other processors run at the same time: LOCK means something.
    let isShared: Bool
    var locks: Bool { lock && isShared }
    /// Outside 64-bit mode: the uop that checks this instruction's memory operand, or -1; the operand before it was cut
    /// and checked (or, in 64-bit mode, got its segment's base), and where its uops began.
    var pendingCheck = -1
    var unsettled = MemoryOperand()
    var unsettledUop = 0
    /// Outside 64-bit mode: the operand's segment.
    var operandSegment = SegmentIndex.ds
    var modrm: UInt8 = 0
    var memory = MemoryOperand()
    var ended = false
    var effect = FlagEffect.barrier
    /// The uop whose flag write can still be dropped, or -1.
    var deadCandidate = -1
    var newCandidate = -1
    /// The last instruction was CMP or TEST in one register uop: (uop, test, size index, immediate).
    var compare: (uop: Int, test: Bool, size: Int, immediate: Bool)?
    var newCompare: (uop: Int, test: Bool, size: Int, immediate: Bool)?
    var instructionCount: Int32 = 0
    /// The instruction's uops with a RIP-relative displacement, bit n for its n-th.
    var ripFixups: UInt32 = 0
    var immediateFixup = -1

    init(
        _ processor: Processor, bytes: UnsafePointer<UInt8>, available: Int, rip: UInt64, crossing: Bool,
        out: UnsafeMutablePointer<x86_uop>
    ) {
        self.processor = processor
        handlers = processor.handlers
        context = processor.decodeContext
        isShared = processor.s.pointee.shared != 0
        self.bytes = bytes
        self.available = available
        blockRIP = rip
        self.crossing = crossing
        self.out = out
    }

    /// The run loop must look around in front of the next instruction.
    var stopPending = false
    var stopCheck = false

    // MARK: Bytes

    mutating func byte() -> UInt8 {
        guard position < available, position &- start < 15 else {
            if position &- start >= 15 { tooLong = true }
            overrun = true
            return 0
        }
        let b = bytes[position]
        position &+= 1
        return b
    }
    var tooLong = false

    mutating func i8() -> Int64 { Int64(Int8(bitPattern: byte())) }
    mutating func u16() -> UInt16 { UInt16(byte()) | UInt16(byte()) &<< 8 }
    mutating func i32() -> Int64 { Int64(Int32(bitPattern: UInt32(u16()) | UInt32(u16()) &<< 16)) }
    mutating func u64() -> UInt64 {
        let low = UInt64(UInt32(truncatingIfNeeded: i32())), high = UInt64(UInt32(truncatingIfNeeded: i32()))
        return low | high &<< 32
    }
    /// An immediate of the operand size; 32 bits sign-extended for 64-bit operands.
    mutating func immediate(_ size: Int) -> UInt64 {
        switch size {
        case 0: return UInt64(bitPattern: i8())
        case 1: return UInt64(bitPattern: Int64(Int16(bitPattern: u16())))
        default: return UInt64(bitPattern: i32())
        }
    }

    // MARK: Operands

    /// 0 = 8 bits, 1 = 16, 2 = 32, 3 = 64.
    var operandSize: Int { rex & 8 != 0 ? 3 : operand16 ? 1 : 2 }
    /// Near branches, PUSH and POP: 64 bits, or 16 with a prefix.
    var stackSize: Int { operand16 ? 1 : legacy ? 2 : 3 }
    var isRegister: Bool { modrm >= 0xc0 }
    var regField: Int { Int((modrm &>> 3) & 7) }
    var reg: Int { regField | Int(rex & 4) &<< 1 }
    var rm: Int { Int(modrm & 7) | Int(rex & 1) &<< 3 }

    func slot(_ register: Int, _ size: Int) -> UInt16 {
        if size == 0 && !hasREX && register >= 4 { return UInt16(truncatingIfNeeded: (register &- 4) &* 8 &+ 1) }
        return Slot.gpr(register)
    }
    func regSlot(_ size: Int) -> UInt16 { slot(reg, size) }
    func rmSlot(_ size: Int) -> UInt16 { slot(rm, size) }

    mutating func readModRM() {
        hadModRM = true
        modrm = byte()
        memory = MemoryOperand()
        guard !isRegister else { return }
        let mod = modrm &>> 6, low = modrm & 7
        if address16 { return readModRM16(mod: mod, low: low) }
        if low == 4 {
            let sib = byte()
            let index = Int((sib &>> 3) & 7) | Int(rex & 2) &<< 2
            let base = Int(sib & 7) | Int(rex & 1) &<< 3
            if index != 4 {
                memory.index = Slot.gpr(index)
                memory.scale = sib &>> 6
            }
            if sib & 7 == 5 && mod == 0 {
                memory.disp = Int32(truncatingIfNeeded: i32())
            } else {
                memory.base = Slot.gpr(base)
            }
        } else if low == 5 && mod == 0 {
            memory.disp = Int32(truncatingIfNeeded: i32())
            memory.isRIPRelative = !legacy
        } else {
            memory.base = Slot.gpr(rm)
        }
        if mod == 1 { memory.disp = Int32(truncatingIfNeeded: i8()) }
        if mod == 2 { memory.disp = Int32(truncatingIfNeeded: i32()) }
        settleAddress()
    }

    /// Reduces segment bases, 32-bit addresses and far RIP-relative ones to "base + index << scale + disp".
    mutating func settleAddress() {
        if legacy { return settleLegacyAddress() }
        if memory.isRIPRelative {
            let here = blockRIP &+ UInt64(position) &+ UInt64(bitPattern: Int64(memory.disp))
            let fits = Int64(bitPattern: here) == Int64(Int32(truncatingIfNeeded: here))
            let later = here &+ 8
            let fitsLater = Int64(bitPattern: later) == Int64(Int32(truncatingIfNeeded: later))
            if !(fits && fitsLater) || address32 {
                immediateFixup = used
                emit(Handler.movRI &+ 3, dst: Slot.tmp(3), imm: UInt64(bitPattern: Int64(memory.disp)))
                memory = MemoryOperand()
                memory.base = Slot.tmp(3)
            }
        }
        if segmentSlot != Slot.zero || address32 {
            unsettled = memory
            unsettledUop = used
            let h = Handler.segmentAddress &+ (address32 ? 1 : 0)
            emitMemory(h, dst: Slot.tmp(3), src: segmentSlot)
            memory = MemoryOperand()
            memory.base = Slot.tmp(3)
        }
    }

    /// The absolute address operand of MOV AL, moffs.
    mutating func readOffset() {
        memory = MemoryOperand()
        if legacy {
            memory.disp = address16 ? Int32(u16()) : Int32(truncatingIfNeeded: i32())
            return settleLegacyAddress()
        }
        let a = address32 ? UInt64(UInt32(truncatingIfNeeded: i32())) : u64()
        emit(Handler.movRI &+ 3, dst: Slot.tmp(3), imm: a)
        memory.base = Slot.tmp(3)
        if segmentSlot != Slot.zero {
            emitMemory(Handler.segmentAddress, dst: Slot.tmp(3), src: segmentSlot)
            memory = MemoryOperand()
            memory.base = Slot.tmp(3)
        }
    }

    // MARK: Emitting

    mutating func emit(
        _ handler: Int, dst: UInt16 = 0, src: UInt16 = 0, base: UInt16 = 0, index: UInt16 = 0, scale: UInt8 = 0,
        disp: Int32 = 0, imm: UInt64 = 0
    ) {
        out[used] = x86_uop(
            fn: handlers[handler], dst: dst, src: src, base: base, index: index, scale: scale, len: 0,
            off: UInt16(truncatingIfNeeded: start), disp: disp, imm: imm)
        used &+= 1
    }

    /// A uop with the decoded memory operand.
    mutating func emitMemory(_ handler: Int, dst: UInt16 = 0, src: UInt16 = 0, imm: UInt64 = 0) {
        if memory.isRIPRelative { ripFixups |= 1 &<< UInt32(used &- firstUop) }
        emit(
            handler, dst: dst, src: src, base: memory.base, index: memory.index, scale: memory.scale, disp: memory.disp,
            imm: imm)
        if pendingCheck >= 0 && memory.base == Slot.tmp(3) {
            let (byteCount, write) = Self.access(ofHandler: handler)
            noteAccess(byteCount, write: write)
        }
    }

    /// The effective address into a temporary (for engine calls).
    mutating func emitAddress(_ tmp: Int) {
        emitMemory(Handler.lea &+ 2, dst: Slot.tmp(tmp))
    }

    mutating func emitSystem(
        _ op: SystemOperation, dst: UInt16 = 0, base: UInt16 = 0, index: UInt16 = 0, scale: UInt8 = 0, imm: UInt64 = 0,
        ends: Bool = false
    ) {
        emit(Handler.system, dst: dst, src: op.rawValue, base: base, index: index, scale: scale, imm: imm)
        if ends { ended = true }
    }

    /// A rare instruction with a memory operand, whose address goes to the first temporary.
    mutating func emitAddressed(_ op: SystemOperation, imm: UInt64 = 0) {
        let onStack = memory.isOnStack
        if pendingCheck >= 0 {
            let (byteCount, write) = access(of: op)
            noteAccess(byteCount, write: write)
        }
        emitAddress(0)
        emitSystem(op, dst: Slot.tmp(0), scale: onStack ? 0x40 : 0, imm: imm)
    }

    /// ModRM of an instruction to which every form is the register form.
    mutating func readRegisterModRM() {
        hadModRM = true
        modrm = byte() | 0xc0
    }

    /// #UD; whatever was emitted for the instruction goes.
    mutating func undefined() {
        used = firstUop
        ripFixups = 0
        immediateFixup = -1
        effect = .barrier
        newCandidate = -1
        newCompare = nil
        emitSystem(.undefined, ends: true)
    }
    mutating func unimplemented() { emitSystem(.unimplemented, ends: true) }

    /// The r/m operand as a readable register slot: itself, or a temporary loaded from memory.
    mutating func rmValue(_ size: Int, tmp: Int = 0) -> UInt16 {
        if isRegister { return rmSlot(size) }
        emitMemory(Handler.load &+ size, dst: Slot.tmp(tmp))
        return Slot.tmp(tmp)
    }

    /// Read-modify-write on r/m through a temporary: `body` gets the slot to work on. The load faults as the store would.
    mutating func modify(_ size: Int, _ body: (inout Decoder, UInt16) -> Void) {
        if isRegister { return body(&self, rmSlot(size)) }
        emitMemory(Handler.loadForWrite &+ size, dst: Slot.tmp(0))
        body(&self, Slot.tmp(0))
        emitMemory(Handler.store &+ size, src: Slot.tmp(0))
    }

    // MARK: Branches

    /// Emits a direct branch; `target` is a linear address.
    mutating func emitBranch(_ near: Int, to target: UInt64) {
        var distance = Int64(bitPattern: target &- blockRIP)
        if legacy { distance = Int64(Int32(truncatingIfNeeded: distance)) }  // Modulo 4 GiB, as the sum with RIP is.
        guard distance == Int64(Int32(truncatingIfNeeded: distance)) else { return unimplemented() }
        let sameP = !crossing && target & ~0xfff == blockRIP & ~0xfff
        emit(near &+ (sameP ? 0 : 1), disp: Int32(truncatingIfNeeded: distance))
        lastBranchIsNear = sameP
    }

    var lastBranchIsNear = false

    /// A conditional branch: when taken, the block's remaining instructions are given back to the budget.
    mutating func emitConditional(_ cc: Int, to target: UInt64) {
        if !overrun, let c = compare, c.uop == used &- 1, c.size != 1 {
            // CMP or TEST in front: one handler decides and branches.
            let width = c.size == 0 ? 0 : c.size &- 1
            let fusable = c.test ? [2, 4, 6, 7].contains(cc &>> 1) : cc &>> 1 != 0 && cc &>> 1 != 5
            if fusable {
                let near = !crossing && target & ~0xfff == blockRIP & ~0xfff
                let family = c.test ? Handler.testJcc : Handler.cmpJcc
                let h = family &+ ((width &* 2 &+ (c.immediate ? 1 : 0)) &* 16 &+ cc) &* 2 &+ (near ? 0 : 1)
                out[c.uop].fn = handlers[h]
            }
        }
        processor.conditionalUops[conditionalCount] = (Int32(used), instructionCount &+ 1)
        conditionalCount &+= 1
        emitBranch(Handler.jcc &+ cc &* 2, to: target)
    }
    var conditionalCount = 0

    /// The address behind this instruction.
    var nextRIP: UInt64 { blockRIP &+ UInt64(position) }

    // MARK: One instruction

    mutating func decodeInstruction() {
        start = position
        firstUop = used
        rex = 0
        hasREX = false
        prefix66 = false
        operand16 = false
        address32 = false
        address16 = false
        lock = false
        repeatPrefix = 0
        segmentSlot = Slot.zero
        segmentOverride = nil
        pendingCheck = -1
        effect = .barrier
        newCandidate = -1
        newCompare = nil
        ripFixups = 0
        immediateFixup = -1
        modrm = 0
        hadModRM = false
        vex = false
        vexL = false
        vvvv = 0
        var opcode = byte()
        prefixes: while !overrun {
            switch opcode {
            case 0x66: prefix66 = true
            case 0x67: address32 = true
            case 0xf0: lock = true
            case 0xf2, 0xf3: repeatPrefix = opcode
            case 0x64:
                segmentSlot = Slot.fsBase
                segmentOverride = .fs
            case 0x65:
                segmentSlot = Slot.gsBase
                segmentOverride = .gs
            case 0x26, 0x2e, 0x36, 0x3e:
                // Without meaning in 64-bit mode; FS and GS stay.
                if legacy { segmentOverride = SegmentIndex(rawValue: Int((opcode &>> 3) & 3)) }
            case 0x40...0x4f where !legacy:
                rex = opcode & 15
                hasREX = true
                opcode = byte()
                if opcode & 0xf0 == 0x40 || isLegacyPrefix(opcode) {
                    rex = 0
                    hasREX = false
                    continue prefixes
                }
                break prefixes
            default: break prefixes
            }
            opcode = byte()
        }
        operand16 = prefix66 && rex & 8 == 0
        if legacy {
            operand16 = prefix66 != context.is16Bit
            address16 = address32 != context.is16Bit
            address32 = !address16
            segmentSlot = Slot.zero
        }
        if !overrun {
            if opcode == 0x0f {
                opcodePosition = position
                decode0F(byte())
            } else {
                if !(legacy && decodeLegacy(opcode)) { decodeOneByte(opcode) }
            }
        }
        if lock && !overrun && !lockAllowed(opcode) {
            used = firstUop
            undefined()
        }
        finishInstruction()
    }

    private func isLegacyPrefix(_ b: UInt8) -> Bool {
        switch b {
        case 0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x64, 0x65, 0x26, 0x2e, 0x36, 0x3e: return true
        default: return false
        }
    }

    /// LOCK: only read-modify-write forms with a memory destination [APM3 1.2.5].
    private func lockAllowed(_ opcode: UInt8) -> Bool {
        guard modrm < 0xc0, hadModRM else { return false }
        switch opcode {
        case 0x00, 0x01, 0x08, 0x09, 0x10, 0x11, 0x18, 0x19, 0x20, 0x21, 0x28, 0x29, 0x30, 0x31, 0x86, 0x87: return true
        case 0x80, 0x81, 0x83: return regField != 7
        case 0x82: return legacy && regField != 7
        case 0xf6, 0xf7: return regField == 2 || regField == 3
        case 0xfe, 0xff: return regField < 2
        case 0x0f:
            switch bytes[opcodePosition] {
            case 0xab, 0xb3, 0xbb, 0xb0, 0xb1, 0xc0, 0xc1: return true
            case 0xba: return regField > 4
            case 0xc7: return regField == 1
            default: return false
            }
        default: return false
        }
    }
    var hadModRM = false
    var opcodePosition = 0

    /// Lengths, fix-ups, dead flags.
    private mutating func finishInstruction() {
        guard !overrun else { return }
        let length = UInt8(truncatingIfNeeded: position &- start)
        for i in firstUop..<used { out[i].len = length }
        if ripFixups != 0 {
            for i in firstUop..<used where ripFixups & (1 &<< UInt32(i &- firstUop)) != 0 {
                out[i].disp = Int32(truncatingIfNeeded: nextRIP &+ UInt64(bitPattern: Int64(out[i].disp)))
            }
        }
        if immediateFixup >= 0 { out[immediateFixup].imm = out[immediateFixup].imm &+ nextRIP }
        if used &- firstUop == 1 {
            switch effect {
            case .transparent: break
            case .overwrites:
                if deadCandidate >= 0 { out[deadCandidate].fn = handlers[deadHandler &+ 1] }
                deadCandidate = newCandidate
                deadHandler = newHandler
            case .barrier:
                deadCandidate = newCandidate
                deadHandler = newHandler
            }
        } else {
            deadCandidate = -1
        }
        compare = newCompare
        instructionCount &+= 1
    }

    // The variant without flags stands right behind the one with them in the table.
    var deadHandler = 0
    var newHandler = 0

    /// Emits a flag-writing uop that has a flagless twin.
    mutating func emitALU(_ handler: Int, dst: UInt16, src: UInt16 = 0, imm: UInt64 = 0, overwrites: Bool) {
        newCandidate = used
        if overwrites { effect = .overwrites }
        newHandler = handler
        emit(handler, dst: dst, src: src, imm: imm)
    }
}

extension Processor {
    /// Bytes of the first instruction in the buffer, as it would be decoded in the mode the processor is in now. nil: it
    /// is longer than 15 bytes, or does not end in the buffer.
    public func instructionLength(_ bytes: [UInt8]) -> Int? {
        bytes.withUnsafeBufferPointer { buffer in
            guard let base = buffer.baseAddress else { return nil }
            var d = Decoder(
                self, bytes: base, available: buffer.count, rip: s.pointee.rip, crossing: true, out: singleArena + 1)
            d.decodeInstruction()
            return d.overrun || d.tooLong ? nil : d.position
        }
    }

    /// Bytes of the code segment from a linear address on, as far as that matters to a page.
    func codeBytesLeft(at rip: UInt64) -> Int {
        guard s.pointee.legacy != 0 else { return 0x2000 }
        let pointer = instructionPointer(rip), limit = UInt64(s.pointee.cs.limit)
        return pointer > limit ? 0 : Int(min(limit &- pointer &+ 1, 0x2000))
    }

    /// Decodes the block at `rip` on host page `page` and registers it.
    /// With `single`, one instruction only, in a buffer of its own, followed by a look around; not registered.
    func decodeBlock(_ rip: UInt64, _ page: UInt, single: Bool = false) -> Block? {
        let offset = Int(rip & 0xfff)
        guard let base = UnsafePointer<UInt8>(bitPattern: page) else { return nil }
        let header = single ? singleArena : arena + arenaUsed
        let first = header + 1
        // What the code segment's limit leaves of the page.
        let limit = codeBytesLeft(at: rip)
        guard limit > 0 else {
            prepareException(13, error: 0, at: rip)
            return nil
        }
        let available = min(4096 &- offset, limit)
        var d = Decoder(
            self, bytes: base + offset, available: available, rip: rip, crossing: false, out: first)
        var secondPage: UInt = 0
        while !d.ended {
            let before = d
            d.decodeInstruction()
            if d.tooLong {
                d = before
                if d.instructionCount > 0 { break }
                d.emitSystem(.undefined, ends: true)
                prepareException(13, error: 0, at: rip)
                return nil
            }
            if d.overrun {
                d = before
                if d.instructionCount > 0 { break }
                if limit <= 4096 &- offset {
                    prepareException(13, error: 0, at: rip)
                    return nil
                }
                // The block's first instruction crosses into the next page: it alone makes the block.
                guard let next = executablePage(((rip | 0xfff) &+ 1) & s.pointee.rip_mask, at: rip),
                    let nextBase = UnsafePointer<UInt8>(bitPattern: next)
                else { return nil }
                guard single || mayDecode(next) else { return prepareAlone(at: rip, toDecode: true) }
                let inFirst = 4096 &- offset
                for i in 0..<inFirst { crossingBytes[i] = base[offset &+ i] }
                for i in 0..<16 { crossingBytes[inFirst &+ i] = nextBase[i] }
                d = Decoder(
                    self, bytes: UnsafePointer(crossingBytes), available: min(inFirst &+ 16, limit), rip: rip,
                    crossing: true,
                    out: first)
                d.decodeInstruction()
                if d.tooLong || d.overrun {
                    prepareException(13, error: 0, at: rip)
                    return nil
                }
                secondPage = next
                break
            }
            if single { break }
            if d.instructionCount >= 60 || d.used > 600 || d.position >= available { break }
        }
        if d.stopPending || single && !d.ended {
            d.start = d.position
            d.emit(Handler.stop &+ 1)
        } else if !d.ended {
            d.start = d.position
            d.emitBranch(Handler.jump, to: rip &+ UInt64(d.position))
        }
        d.out[d.used] = x86_uop(
            fn: h_stale, dst: 0, src: 0, base: 0, index: 0, scale: 0, len: 0, off: 0xffff, disp: 0, imm: 0)
        for i in 0..<d.conditionalCount {
            let (uop, done) = conditionalUops[i]
            d.out[Int(uop)].dst = UInt16(truncatingIfNeeded: d.instructionCount &- done)
        }
        header.pointee = x86_uop(
            fn: h_stale, dst: 0, src: 0, base: 0, index: 0, scale: 0, len: 0, off: 0xffff, disp: d.instructionCount,
            imm: rip)
        UnsafeMutableRawPointer(header).storeBytes(of: UInt64(page), toByteOffset: 8, as: UInt64.self)
        UnsafeMutableRawPointer(header).storeBytes(of: s.pointee.context, toByteOffset: 16, as: UInt32.self)
        if !single { arenaUsed &+= d.used &+ 2 }
        let block = Block(
            rip: rip, context: s.pointee.context, page: page, secondPage: secondPage, first: first, nextInHash: -1,
            nextInPage: -1,
            nextInSecondPage: -1, live: true)
        if !single { register(block) }
        return block
    }
}
