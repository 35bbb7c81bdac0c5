// What the host cannot judge, by name, and where a comparison is looser than equality, by manual.

/// The parts of an instruction that say which one it is.
struct InstructionName: Hashable {
    /// 0 one byte, 1 0F, 2 0F 38, 3 0F 3A; 4…6 the same maps with VEX.
    var map: Int
    var opcode: UInt8
    var modrm: UInt8
    var has66: Bool
    var repeats: UInt8
    var rexW: Bool
    var hasLock: Bool
    var hasFSGS: Bool

    var isRegister: Bool { modrm >= 0xc0 }
    var field: Int { Int(modrm >> 3 & 7) }

    /// Finds it behind the prefixes; nil: no opcode in sight.
    init?(_ bytes: [UInt8]) {
        var i = 0
        (has66, repeats, rexW, hasLock, hasFSGS) = (false, 0, false, false, false)
        func at(_ i: Int) -> UInt8? { i < bytes.count ? bytes[i] : nil }
        while let b = at(i) {
            switch b {
            case 0x66: has66 = true
            case 0xf2, 0xf3: repeats = b
            case 0xf0: hasLock = true
            case 0x64, 0x65: hasFSGS = true
            case 0x26, 0x2e, 0x36, 0x3e, 0x67: break
            case 0x40...0x4f:
                rexW = b & 8 != 0
                i += 1
                if let next = at(i),
                    [0x66, 0xf2, 0xf3, 0xf0, 0x64, 0x65, 0x26, 0x2e, 0x36, 0x3e, 0x67].contains(next)
                        || next & 0xf0 == 0x40
                {
                    rexW = false
                    continue
                }
                break
            default: break
            }
            let isPrefix = [0x66, 0xf2, 0xf3, 0xf0, 0x64, 0x65, 0x26, 0x2e, 0x36, 0x3e, 0x67].contains(b)
            if !isPrefix { break }
            i += 1
        }
        guard let first = at(i) else { return nil }
        map = 0
        opcode = first
        i += 1
        if first == 0x0f {
            guard let second = at(i) else { return nil }
            map = 1
            opcode = second
            i += 1
            if second == 0x38 || second == 0x3a {
                guard let third = at(i) else { return nil }
                map = second == 0x38 ? 2 : 3
                opcode = third
                i += 1
            }
        } else if first == 0xc5 || first == 0xc4 {
            let three = first == 0xc4
            guard let second = at(i), let code = at(i + (three ? 2 : 1)) else { return nil }
            map = three ? (second & 31 == 0 ? 7 : 3 + Int(second & 31)) : 4
            let last = three ? at(i + 1)! : second
            rexW = three && last & 0x80 != 0
            has66 = last & 3 == 1
            repeats = last & 3 == 2 ? 0xf3 : last & 3 == 3 ? 0xf2 : 0
            opcode = code
            i += three ? 3 : 2
        }
        modrm = at(i) ?? 0
    }
}

/// Instructions that are never run natively.
enum NotCovered {
    /// Name and reason; nil: the instruction is compared.
    static func reason(_ n: InstructionName) -> String? {
        switch (n.map, n.opcode) {
        case (0, 0x62): return "EVEX prefix: the host has AVX-512, the engine does not announce it"
        case (0, 0x8e): return "MOV to a segment register: the child runs on its segments"
        case (0, 0xca), (0, 0xcb): return "RETF: leaves 64-bit code"
        case (0, 0xcf): return "IRET: leaves the child's segments"
        case (0, 0xcd): return "INT n: system calls of the host"
        case (0, 0xf1): return "INT1: the host's debug exception"
        case (0, 0xff) where n.field == 3 || n.field == 5: return "CALL and JMP far: leave 64-bit code"
        case (0, 0x9c), (1, 0xa0), (1, 0xa8): return "PUSHF, PUSH FS, PUSH GS: the child's own flags and selectors"
        case (0, 0x9d): return "POPF: may set TF"
        case (0, 0x8c): return "MOV from a segment register: the child's selectors"
        case (1, 0x05): return "SYSCALL: a system call of the host"
        case (1, 0x34), (1, 0x35): return "SYSENTER, SYSEXIT: the host's"
        case (1, 0x00): return "SLDT, STR, LLDT, LTR, VERR, VERW: the host's descriptor tables, UMIP"
        case (1, 0x01): return "group 7 (SGDT, SIDT, SMSW, XGETBV, VMMCALL, RDTSCP, SWAPGS …): the host's system state"
        case (1, 0x02), (1, 0x03): return "LAR, LSL: the host's descriptor tables"
        case (1, 0x31), (1, 0x33): return "RDTSC, RDPMC: not a function of the state"
        case (1, 0xa2): return "CPUID: not a function of the state"
        case (1, 0xa1), (1, 0xa9): return "POP FS, POP GS"
        case (1, 0xb2), (1, 0xb4), (1, 0xb5): return "LSS, LFS, LGS: the child runs on its segments"
        case (1, 0xc7) where n.isRegister && n.field >= 6: return "RDRAND, RDSEED, RDPID: not a function of the state"
        case (1, 0xc7) where !n.isRegister && n.field >= 3 && n.field <= 5:
            return "XSAVEC, XSAVES, XRSTORS: the host's AVX-512 components"
        case (1, 0xae) where n.isRegister && n.repeats == 0xf3: return "FSGSBASE: the child's bases"
        case (1, 0xae) where !n.isRegister && n.field >= 4 && n.field <= 6 && !n.has66:
            return "XSAVE, XRSTOR, XSAVEOPT: the host's AVX-512 components"
        case (1, 0xae) where !n.isRegister && n.field < 2: return "FXSAVE, FXRSTOR: reserved bytes of the area"
        case (4, 0x41...0x4b), (4, 0x90...0x93), (4, 0x98), (4, 0x99), (6, 0x30...0x33):
            return "AVX-512 mask instructions: the host has them, the engine does not announce them"
        case (2, 0xcf), (3, 0xce), (3, 0xcf), (5, 0xcf), (6, 0xce), (6, 0xcf):
            return "GFNI: the host has it, the engine does not announce it"
        case (5, 0x50...0x53): return "AVX-VNNI and kin: later processors"
        case (5, 0xb4), (5, 0xb5): return "AVX-IFMA: later processors"
        case (2, 0x82): return "INVPCID: privileged"
        case (7..., _): return "VEX maps that do not exist"
        default: return nil
        }
    }

    /// FS and GS have other bases in the child.
    static let segmentReason = "FS and GS prefixes with memory operands: the child's bases"
}

/// Where less than everything is compared.
struct Tolerance {
    /// RFLAGS bits that the manual leaves undefined.
    var undefinedFlags: UInt64 = 0
    /// Units of the last place of ST(0) and ST(1) (x87 transcendentals [APM1 6.4.5.1]).
    var x87Units: UInt64 = 0
    /// Relative error of the approximations in binary32 elements [APM4 RCPPS: 1.5 × 2^-12].
    var approximates = false

    init(_ n: InstructionName) {
        let cf: UInt64 = 1, pf: UInt64 = 4, af: UInt64 = 0x10, zf: UInt64 = 0x40, sf: UInt64 = 0x80, of: UInt64 = 0x800
        switch (n.map, n.opcode) {
        // APM3, "rFLAGS Affected" of each instruction.
        case (0, 0xc0), (0, 0xc1), (0, 0xd0...0xd3):
            undefinedFlags = n.field < 4 ? of : of | af  // OF only after counts other than 1.
        case (1, 0xa4), (1, 0xa5), (1, 0xac), (1, 0xad):
            // Everything is undefined when the count exceeds 16-bit operands.
            undefinedFlags = n.has66 && !n.rexW ? of | af | cf : of | af
        case (0, 0x69), (0, 0x6b), (1, 0xaf): undefinedFlags = sf | zf | af | pf
        case (0, 0xf6), (0, 0xf7):
            if n.field == 4 || n.field == 5 { undefinedFlags = sf | zf | af | pf }
            if n.field > 5 { undefinedFlags = cf | of | sf | zf | af | pf }
        case (1, 0xbc), (1, 0xbd): undefinedFlags = n.repeats == 0xf3 ? of | sf | af | pf : cf | of | sf | af | pf
        case (5, 0xf7) where !n.has66 && n.repeats == 0: undefinedFlags = sf | af | pf  // BEXTR
        case (5, 0xf2), (5, 0xf3), (5, 0xf5): undefinedFlags = af | pf
        case (1, 0x52), (1, 0x53), (4, 0x52), (4, 0x53): approximates = true
        case (0, 0xd9) where n.modrm >= 0xf0:
            switch n.modrm {
            case 0xf0...0xf3, 0xf9, 0xfb, 0xfe, 0xff: x87Units = 2
            default: break
            }
        default: break
        }
    }
}
