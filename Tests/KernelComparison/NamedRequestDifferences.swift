// Where the software kernel and a real one are known to answer requests differently, by name, with the reason. Whatever is
// not here is a fault of one of them.
//
// The software kernel is kvm_amd on an EPYC. The kernels that tests meet are others: an entry says on which it was seen,
// by the module that virtualises there.

import KVMABI

/// One known difference.
public struct NamedRequestDifference: Sendable {
    public var name: String
    public var reason: String
    /// Modules of kernels on which it was seen.
    public var modules: Set<String>
    var matches: @Sendable (RequestDifference) -> Bool

    init(
        _ name: String, _ reason: String, modules: Set<String> = ["kvm_pvm"],
        _ matches: @escaping @Sendable (RequestDifference) -> Bool
    ) {
        self.name = name
        self.reason = reason
        self.modules = modules
        self.matches = matches
    }

    /// The first entry that is about this difference.
    public static func of(_ difference: RequestDifference) -> NamedRequestDifference? {
        all.first { $0.matches(difference) }
    }

    public static let all: [NamedRequestDifference] =
        [
            NamedRequestDifference(
                "segments",
                "kvm_amd keeps a segment as the VMCB does: 12 bits of attributes, G by the limit, accessed data "
                    + "segments, a busy task register, P only where it is usable; this kernel keeps the structure as it was set"
            ) { difference in
                guard case .bytes(let offset) = difference.kind else { return false }
                return difference.isOfSpecialRegisters && offset < 0xc0 && offset % 24 >= 12
            },
            NamedRequestDifference(
                "CR0.ET", "the bit is always set in the processor; this kernel shows CR0 as it was set"
            ) {
                $0.isOfSpecialRegisters && $0.kind == .bytes(0xe0) && $0.words.map { $0 ^ $1 } == 0x10
            },
            NamedRequestDifference(
                "CR4 without the feature",
                "CR4 may have bits only of features that the vCPU's CPUID announces; here the processor's own CPUID decides"
            ) { difference in
                difference.isSetting([.setSpecialRegisters, .setSpecialRegisters2])
                    && difference.software == "EINVAL (22)" && difference.real == "= 0"
                    && difference.changes(0xf8..<0x100)
            },
            NamedRequestDifference("RFLAGS.VM", "this kernel has no virtual-8086 mode and takes the bit back") {
                $0.request == .getRegisters && $0.kind == .bytes(0x8a) && $0.words.map { $0 ^ $1 } == 0x2_0000
            },
            NamedRequestDifference(
                "TSC scaling",
                "an EPYC scales a guest's TSC below 2^31 kHz; this host cannot, so it takes what it does not need "
                    + "to do and refuses what is below its own frequency"
            ) { $0.request == .setTSCkHz && $0.kind == .outcome },
            NamedRequestDifference(
                "XSAVE components", "the software machine has x87, SSE, AVX and PKRU; this host AVX-512 and no PKRU"
            ) { difference in
                if difference.isSetting([.setXSave]) { return difference.changes(0x200..<0x208) }
                guard case .bytes(let offset) = difference.kind, difference.request == .getXSave else { return false }
                return 0x200..<0x208 ~= offset || offset >= 0x340
            },
            NamedRequestDifference("XCR0 components", "as for XSAVE: what XCR0 may have is the host's") {
                $0.isSetting([.setXCRs]) && $0.kind == .outcome && $0.changes(0x10..<0x18)
            },
            NamedRequestDifference(
                "interrupt shadow",
                "the VMCB has one bit for both kinds, and kvm_amd shows both; this kernel keeps which one was set"
            ) {
                $0.request == .getVCPUEvents && $0.kind == .bytes(0xb)
                    && $0.words.map { $0 >> 24 & 0xff == 3 && $1 >> 24 & 0xff != 0 } == true
            },
            NamedRequestDifference(
                "a vCPU without CPUID",
                "KVM takes it for Intel's, with 36 bits of physical addresses; no VMM leaves it so"
            ) {
                !$0.setup.hasCPUID && $0.kind == .outcome
                    && $0.isSetting([.setMSRs, .setSpecialRegisters, .setSpecialRegisters2])
            },
            NamedRequestDifference(
                "APIC id",
                "the software kernel's local APICs keep the id that their vCPU has; a real one's can be written"
            ) { difference in
                guard case .bytes(let offset) = difference.kind else { return false }
                return difference.request == .getLAPIC && 0x20..<0x24 ~= offset
            },
            NamedRequestDifference(
                "padding of x87 registers",
                "six bytes behind each: the software kernel has no place for them, a real one keeps them until the vCPU runs"
            ) { difference in
                guard case .bytes(let offset) = difference.kind else { return false }
                switch difference.request {
                case .getFPU: return offset < 128 && offset % 16 >= 10
                case .getXSave: return offset == 5 || 32..<160 ~= offset && offset % 16 >= 10
                default: return false
                }
            },
            NamedRequestDifference(
                "KVM_GET_XSAVE behind KVM_SET_FPU",
                "KVM does not mark x87 and SSE as used when KVM_SET_FPU sets them, and shows unused components as initial"
            ) { difference in
                guard difference.sequence.contains(where: { $0.request == .setFPU }) else { return false }
                // The vCPU's next run begins with what is initial, too.
                let hasRun = difference.sequence.contains { $0.request == .run }
                return difference.request == .getXSave || difference.request == .getFPU && hasRun
            },
            NamedRequestDifference(
                "the 8259's cascade",
                "KVM pulses the first chip's input for the second one; the software kernel holds it"
            ) { difference in
                guard difference.request == .getIRQChip, difference.kind == .bytes(8) else { return false }
                return difference.words.map { $0 ^ $1 } == 4
            },
            NamedRequestDifference(
                "undefined flags", "behind MUL, SHRD and BSF some are undefined; this kernel shows the host's own"
            ) { difference in
                let undefined: Set<UInt8> = [0xf7, 0xad, 0xbc]
                guard difference.request == .getRegisters, let code = difference.setup.code else { return false }
                return !undefined.isDisjoint(with: code) && difference.words.map { ($0 ^ $1) & ~0x8d5 } == 0
            },
            NamedRequestDifference(
                "undefined flags on a port", "the same, shown by the guest"
            ) { difference in
                difference.kind == .exit && difference.setup.code?.contains(0x9c) == true
                    && difference.software.hasPrefix("KVM_EXIT_IO out") && difference.real.hasPrefix("KVM_EXIT_IO out")
            },
            NamedRequestDifference(
                "paging outside long mode", "this kernel shadows 64-bit page tables only and takes CR0.PG back"
            ) { $0.isOfSpecialRegisters && $0.kind == .bytes(0xe3) && $0.words.map { $0 ^ $1 } == 0x8000_0000 },
            NamedRequestDifference(
                "messages that start processors",
                "kvm_pvm takes no INIT or SIPI by KVM_SIGNAL_MSI: the answer differs, and the state behind it"
            ) {
                $0.request == .signalMSI
                    && ($0.kind != .outcome || $0.software.hasPrefix("= ") && $0.real.hasPrefix("= "))
            },
            NamedRequestDifference(
                "the list of MSRs", "each vendor's module and each processor has its own: the count differs with it"
            ) { $0.request == .getMSRIndexList },
            NamedRequestDifference(
                "debug exits of emulated instructions",
                "kvm_amd reports DR7 with a #DB exit, and leaves at HLT with HLT's exit; an emulated instruction's trap has no DR7 "
                    + "and comes before HLT's exit, or one instruction late behind a port"
            ) { $0.kind == .exit && $0.setsGuestDebug && $0.real.hasPrefix("KVM_EXIT_DEBUG") },
        ]
        + msrs

    /// MSRs of the vendor's module, and of paravirtual features.
    private static let msrs: [NamedRequestDifference] = [
        msr(
            "paravirtual MSRs", "features that the software kernel does not offer and this one does",
            0x4b56_4d02...0x4b56_4d08),
        msr("patch level", "kvm_amd starts every vCPU with 0x01000065", 0x8b...0x8b),
        msr(
            "PLATFORM_INFO",
            "newer kernels refuse to change it once the vCPU has run; KVM's own tests of 6.1 change it then",
            0xce...0xce),
        msr("PAT types", "kvm_amd lets no memory type 2 or 3 in; this module takes every value", 0x277...0x277),
        msr("SYSENTER", "kvm_amd keeps 32 bits of the address", 0x175...0x176),
        msr("XSS", "this host offers no XSAVES", 0xda0...0xda0),
        msr("EFER.SVME", "kvm_amd has nested virtualization on", 0xc000_0080...0xc000_0080),
        msr(
            "VIRT_SPEC_CTRL", "kvm_amd keeps SSBD and refuses the rest; this module swallows all",
            0xc001_011f...0xc001_011f),
        NamedRequestDifference(
            "data of a refused MSR", "this kernel writes zeros to the entry at which KVM_GET_MSRS stops"
        ) { difference in
            if case .bytes = difference.kind { return difference.request == .getMSRs && difference.words?.1 == 0 }
            return false
        },
        msr("DE_CFG", "kvm_amd's: LFENCE serialises", 0xc001_1029...0xc001_1029),
    ]

    private static func msr(_ name: String, _ reason: String, _ numbers: ClosedRange<UInt32>) -> NamedRequestDifference
    {
        NamedRequestDifference(name, reason) { difference in
            [.getMSRs, .setMSRs].contains(difference.request)
                && difference.msrNumber.map { numbers.contains($0) } == true
        }
    }
}

extension RequestDifference {
    fileprivate var isOfSpecialRegisters: Bool { request == .getSpecialRegisters || request == .getSpecialRegisters2 }

    /// The words that differ.
    fileprivate var words: (UInt64, UInt64)? {
        guard let first = UInt64(software.dropFirst(2), radix: 16), let second = UInt64(real.dropFirst(2), radix: 16)
        else {
            return nil
        }
        return (first, second)
    }

    fileprivate func isSetting(_ requests: Set<IoctlRequest>) -> Bool {
        request == step.request && requests.contains(request)
    }

    /// The step changes bytes of its structure in this range.
    fileprivate func changes(_ range: Range<Int>) -> Bool {
        guard case .bytes(_, let changes) = step.argument else { return false }
        return changes.contains { $0.offset < range.upperBound && $0.offset + $0.byteCount > range.lowerBound }
    }

    /// Of an MSR list of one entry.
    fileprivate var msrNumber: UInt32? {
        guard case .bytes(.bytes(let bytes), _) = step.argument else { return nil }
        return KVMMSRList.decode(bytes).first?.index
    }

    fileprivate var setsGuestDebug: Bool { sequence.contains { $0.request == .setGuestDebug } }
}
