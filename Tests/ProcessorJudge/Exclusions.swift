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
        for rule in UndefinedFlags.rules where rule.applies(n) { undefinedFlags = rule.flags.rawValue }
        switch (n.map, n.opcode) {
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

/// Arithmetic bits of RFLAGS.
package struct ArithmeticFlags: OptionSet, Sendable {
    package let rawValue: UInt64
    package init(rawValue: UInt64) { self.rawValue = rawValue }
    package static let cf = Self(rawValue: 1), pf = Self(rawValue: 4), af = Self(rawValue: 0x10)
    package static let zf = Self(rawValue: 0x40), sf = Self(rawValue: 0x80), of = Self(rawValue: 0x800)

    /// "OF, AF", in the order of the manual's tables.
    package var names: String {
        let all: [(Self, String)] = [
            (.of, "OF"), (.sf, "SF"), (.zf, "ZF"), (.af, "AF"), (.pf, "PF"), (.cf, "CF"),
        ]
        return all.filter { contains($0.0) }.map(\.1).joined(separator: ", ")
    }
}

/// Flags that an instruction leaves undefined: "rFLAGS Affected" of its page in APM3. A page of X86Core's documentation
/// shows the same table, which a test compares.
package struct UndefinedFlags: Sendable {
    /// Mnemonics and what limits them.
    package let instructions: String
    package let flags: ArithmeticFlags
    let applies: @Sendable (InstructionName) -> Bool

    private init(
        _ instructions: String, _ flags: ArithmeticFlags, _ applies: @escaping @Sendable (InstructionName) -> Bool
    ) {
        (self.instructions, self.flags, self.applies) = (instructions, flags, applies)
    }

    private static func isShift(_ n: InstructionName) -> Bool {
        n.map == 0 && (n.opcode == 0xc0 || n.opcode == 0xc1 || (0xd0...0xd3).contains(n.opcode))
    }
    private static func isDoubleShift(_ n: InstructionName) -> Bool {
        n.map == 1 && [0xa4, 0xa5, 0xac, 0xad].contains(n.opcode)
    }
    private static func isDecimal(_ n: InstructionName, _ opcodes: UInt8...) -> Bool {
        n.map == 0 && n.isCompatible && opcodes.contains(n.opcode)
    }
    private static func isGroup3(_ n: InstructionName) -> Bool { n.map == 0 && (n.opcode == 0xf6 || n.opcode == 0xf7) }
    private static func isBitScan(_ n: InstructionName) -> Bool { n.map == 1 && (n.opcode == 0xbc || n.opcode == 0xbd) }

    package static let rules: [UndefinedFlags] = [
        UndefinedFlags("ROL, ROR, RCL, RCR by counts other than 1", .of) { isShift($0) && $0.field < 4 },
        UndefinedFlags("SHL, SHR, SAR (OF by counts other than 1)", [.of, .af]) { isShift($0) && $0.field >= 4 },
        UndefinedFlags("SHLD, SHRD (OF by counts other than 1)", [.of, .af]) {
            isDoubleShift($0) && (!$0.has66 || $0.rexW)
        },
        UndefinedFlags("SHLD, SHRD of 16 bits, by counts above 16", [.of, .af, .cf]) {
            isDoubleShift($0) && $0.has66 && !$0.rexW
        },
        UndefinedFlags("DAA, DAS", .of) { isDecimal($0, 0x27, 0x2f) },
        UndefinedFlags("AAA, AAS", [.of, .sf, .zf, .pf]) { isDecimal($0, 0x37, 0x3f) },
        UndefinedFlags("AAM, AAD", [.of, .af, .cf]) { isDecimal($0, 0xd4, 0xd5) },
        UndefinedFlags("IMUL with two or three operands", [.sf, .zf, .af, .pf]) {
            $0.map == 0 && ($0.opcode == 0x69 || $0.opcode == 0x6b) || $0.map == 1 && $0.opcode == 0xaf
        },
        UndefinedFlags("MUL, IMUL", [.sf, .zf, .af, .pf]) { isGroup3($0) && ($0.field == 4 || $0.field == 5) },
        UndefinedFlags("DIV, IDIV", [.of, .sf, .zf, .af, .pf, .cf]) { isGroup3($0) && $0.field > 5 },
        UndefinedFlags("BSF, BSR", [.of, .sf, .af, .pf, .cf]) { isBitScan($0) && $0.repeats != 0xf3 },
        UndefinedFlags("TZCNT, LZCNT", [.of, .sf, .af, .pf]) { isBitScan($0) && $0.repeats == 0xf3 },
        UndefinedFlags("BEXTR", [.sf, .af, .pf]) { $0.map == 5 && $0.opcode == 0xf7 && !$0.has66 && $0.repeats == 0 },
        UndefinedFlags("ANDN, BLSR, BLSMSK, BLSI, BZHI", [.af, .pf]) {
            $0.map == 5 && ($0.opcode == 0xf2 || $0.opcode == 0xf3 || $0.opcode == 0xf5 && $0.repeats == 0)
        },
    ]
}
