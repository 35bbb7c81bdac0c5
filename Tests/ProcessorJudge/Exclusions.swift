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
    /// 32-bit code.
    var isCompatible: Bool
    /// The bytes behind the opcode and, for memory operands, the one behind ModRM tell system calls and selectors.
    var opcodeIndex: Int

    var isRegister: Bool { modrm >= 0xc0 }
    var field: Int { Int(modrm >> 3 & 7) }

    private static func isPrefix(_ b: UInt8) -> Bool {
        switch b {
        case 0x66, 0xf2, 0xf3, 0xf0, 0x64, 0x65, 0x26, 0x2e, 0x36, 0x3e, 0x67: true
        default: false
        }
    }

    /// Finds it behind the prefixes; nil: no opcode in sight.
    init?(_ bytes: [UInt8], compatible: Bool) {
        var i = 0
        isCompatible = compatible
        (has66, repeats, rexW, hasLock) = (false, 0, false, false)
        func at(_ i: Int) -> UInt8? { i < bytes.count ? bytes[i] : nil }
        while let b = at(i) {
            if Self.isPrefix(b) {
                switch b {
                case 0x66: has66 = true
                case 0xf2, 0xf3: repeats = b
                case 0xf0: hasLock = true
                default: break
                }
                rexW = false
            } else if !compatible, b & 0xf0 == 0x40 {
                rexW = b & 8 != 0
            } else {
                break
            }
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
        } else if first == 0xc5 || first == 0xc4, !compatible || (at(i) ?? 0) >= 0xc0 {
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
        opcodeIndex = i - 1
        modrm = at(i) ?? 0
    }
}

/// Instructions that are never run natively.
enum NotCovered {
    /// Name and reason; nil: the instruction is compared.
    static func reason(_ n: InstructionName, _ bytes: [UInt8]) -> String? {
        switch (n.map, n.opcode) {
        case (0, 0x62) where !n.isCompatible || n.isRegister:
            return "EVEX prefix: the host has AVX-512, the engine does not announce it"
        case (0, 0xcd) where n.modrm == 0x80: return "INT 80: a system call of the host"
        case (0, 0xf1): return "INT1: under a hypervisor RIP is where that one puts it"
        case (1, 0x05): return "SYSCALL: a system call of the host"
        case (1, 0x34), (1, 0x35): return "SYSENTER, SYSEXIT: the host's"
        case (1, 0x00) where n.field < 2: return "SLDT, STR: UMIP's faults, which Linux answers itself"
        case (1, 0x01) where n.isRegister:
            switch n.modrm {
            case 0xd0, 0xf9: return "XGETBV, RDTSCP: not a function of the state"
            case 0xd9, 0xc0...0xcf, 0xd4...0xd8, 0xda...0xdf, 0xfa, 0xfb, 0xfd...0xff:
                return "VMMCALL, MONITOR, SVM and later groups: as the host's hypervisor has it"
            case 0xe0...0xe7: return "SMSW: UMIP's fault, which Linux answers itself"
            case 0xe8...0xef: return "RDPKRU, WRPKRU and later groups: the host's protection keys"
            default: return nil
            }
        case (1, 0x01) where [0, 1, 4].contains(n.field):
            return "SGDT, SIDT, SMSW: UMIP's faults, which Linux answers itself"
        case (1, 0x01) where n.field == 5: return "group 7 /5: CET's, as the host has it"
        case (1, 0x31), (1, 0x33): return "RDTSC, RDPMC: not a function of the state"
        case (1, 0xa2): return "CPUID: not a function of the state"
        case (1, 0x1e) where n.repeats == 0xf3 && n.isRegister: return "CET's hints: as the host has it"
        case (1, 0xae) where n.isRegister && n.repeats == 0xf3 && n.field >= 4:
            return "CET, PTWRITE, UMONITOR: later groups"
        case (1, 0xc7) where n.isRegister && n.field >= 6: return "RDRAND, RDSEED, RDPID: not a function of the state"
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
}

/// Where less than everything is compared.
struct Tolerance {
    /// RFLAGS bits that the manual leaves undefined.
    var undefinedFlags: UInt64 = 0
    /// Units of the last place of ST(0) and ST(1). Transcendental functions are within one unit of the exact value
    /// [APM1 6.4.5.1], not rounded correctly: so is either side, and C1 says how a side rounded.
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
        case (0, 0x27) where n.isCompatible, (0, 0x2f) where n.isCompatible: undefinedFlags = of
        case (0, 0x37) where n.isCompatible, (0, 0x3f) where n.isCompatible: undefinedFlags = of | sf | zf | pf
        case (0, 0xd4) where n.isCompatible, (0, 0xd5) where n.isCompatible: undefinedFlags = of | af | cf
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
