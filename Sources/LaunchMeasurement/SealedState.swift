// The VMSA page that KVM measures for a processor, written straight from the field table of the architecture manual.
//
// SoftwarePSP and SEVABI have code of their own for these bytes; this file shares none of it, so that two equal digests
// say something.

import X86Defs

/// The page of register state that SNP_LAUNCH_FINISH seals for one processor [APM2 B.4].
public struct SealedState: Sendable {
    /// 4096 bytes.
    public let page: [UInt8]

    /// The page in lower-case digits, without the zeroes at its end.
    public var digits: String { Self.digits(of: page) }

    /// The same for any page.
    public static func digits(of page: [UInt8]) -> String {
        hexText(Array(page.prefix((page.lastIndex { $0 != 0 } ?? -1) + 1)))
    }

    /// What KVM adds to the state that the VMM has set: EFER.SVME (without it VMRUN refuses the state) and the host's
    /// CR4.MCE (set on every host that runs Linux).
    public static let addedEFER: UInt64 = 1 << 12
    public static let addedCR4: UInt64 = 1 << 6

    /// Writes the page.
    ///
    /// - Parameters:
    ///   - state: As the VMM sets it with KVM's register calls; ``addedEFER`` and ``addedCR4`` may be there already.
    ///   - guestFeatures: SEV_FEATURES.
    public init(of state: ProcessorState, guestFeatures: UInt64) {
        var page = [UInt8](repeating: 0, count: 4096)
        func put<T: FixedWidthInteger & UnsignedInteger>(_ offset: Int, _ value: T) {
            for index in 0..<(T.bitWidth / 8) {
                page[offset + index] = UInt8(truncatingIfNeeded: value &>> T(truncatingIfNeeded: 8 * index))
            }
        }
        func put(_ offset: Int, _ segment: SegmentRegister) {
            put(offset, segment.selector)
            put(offset + 2, segment.attributes)
            put(offset + 4, segment.limit)
            put(offset + 8, segment.base)
        }
        func put(_ offset: Int, _ table: DescriptorTableRegister) {
            put(offset, SegmentRegister(limit: UInt32(table.limit), base: table.base))
        }
        put(0x000, state.es)
        put(0x010, state.cs)
        put(0x020, state.ss)
        put(0x030, state.ds)
        put(0x040, state.fs)
        put(0x050, state.gs)
        put(0x060, state.gdtr)
        put(0x070, state.ldtr)
        put(0x080, state.idtr)
        put(0x090, state.tr)
        // VMPL 0x0CA is 0. CPL 0x0CB is the DPL of SS.
        put(0x0cb, UInt8(truncatingIfNeeded: state.ss.attributes &>> 5) & 3)
        put(0x0d0, state.efer | Self.addedEFER)
        put(0x140, state.xss)
        put(0x148, state.cr4 | Self.addedCR4)
        put(0x150, state.cr3)
        put(0x158, state.cr0)
        put(0x160, state.dr7)
        put(0x168, state.dr6)
        put(0x170, state.rflags)
        put(0x178, state.rip)
        put(0x180, state.dr0)
        put(0x188, state.dr1)
        put(0x190, state.dr2)
        put(0x198, state.dr3)
        let general = state.generalRegisters
        put(0x1d8, general[4])
        put(0x1f8, general[0])
        put(0x200, state.star)
        put(0x208, state.lstar)
        put(0x210, state.cstar)
        put(0x218, state.sfmask)
        put(0x220, state.kernelGSBase)
        put(0x228, state.sysenterCS)
        put(0x230, state.sysenterESP)
        put(0x238, state.sysenterEIP)
        put(0x240, state.cr2)
        put(0x268, state.pat)
        put(0x2e8, state.pkru)
        put(0x2ec, UInt32(truncatingIfNeeded: state.tscAux))
        put(0x308, general[1])
        put(0x310, general[2])
        put(0x318, general[3])
        put(0x328, general[5])
        put(0x330, general[6])
        put(0x338, general[7])
        for register in 8..<16 { put(0x340 + 8 * (register - 8), general[register]) }
        put(0x3b0, guestFeatures)
        put(0x3e8, state.xcr0)
        put(0x400, state.fdp)
        put(0x408, state.mxcsr)
        put(0x40c, UInt16(state.ftw))
        put(0x40e, state.fsw)
        put(0x410, state.fcw)
        put(0x412, state.fop)
        // X87_DS 0x414 and X87_CS 0x416 are zero on these processors.
        put(0x418, state.fip)
        // The eight x87 significands come first, their signs and exponents after them.
        for register in 0..<8 {
            put(0x420 + 8 * register, state.x87Significand[register])
            put(0x460 + 2 * register, state.x87Exponent[register])
        }
        for half in 0..<32 { put(0x470 + 8 * half, state.xmm[half]) }
        self.page = page
    }
}
