// Whose register values a VMSA is measured with: VMMs differ in what they leave in a processor after reset.

import X86Defs

/// The conventions of one VMM for processors that start at a firmware's reset vector.
public enum VMMProfile: String, Sendable, CaseIterable {
    /// QEMU on a Linux host with KVM_SEV_INIT2, and this VMM.
    case qemu
    /// Amazon EC2. CPUID pages come after all other metadata sections.
    case ec2
    /// Google Compute Engine. The firmware's memory sections are UNMEASURED instead of ZERO.
    case gce

    /// The reset vector of the boot processor.
    public static let resetVector: UInt32 = 0xffff_fff0

    /// The state of a processor that starts in real mode at `entry`, as the VMM sets it.
    ///
    /// KVM adds EFER.SVME and CR4.MCE when it seals the state.
    /// - Parameter signature: What RDX holds under QEMU; the other two leave 0x600 there whatever the processor.
    public func resetState(entry: UInt32, signature: ProcessorSignature) -> ProcessorState {
        var state = ProcessorState()
        let isResetVector = entry == Self.resetVector
        let data = SegmentRegister(attributes: 0x93, limit: 0xffff)
        state.ds = data
        state.es = data
        state.fs = data
        state.gs = data
        state.ss = SegmentRegister(attributes: self == .ec2 ? 0x92 : 0x93, limit: 0xffff)
        state.cs = SegmentRegister(
            selector: 0xf000, attributes: self == .ec2 && isResetVector ? 0x9a : 0x9b, limit: 0xffff,
            base: UInt64(entry & 0xffff_0000))
        state.rip = UInt64(entry & 0xffff)
        state.ldtr = SegmentRegister(attributes: 0x82, limit: 0xffff)
        state.tr = SegmentRegister(attributes: self == .ec2 ? 0x83 : 0x8b, limit: 0xffff)
        // RDX.
        state.generalRegisters[2] = self == .qemu ? UInt64(signature.rawValue) : 0x600
        if self == .gce { state.pat = 0x0007_0106 }
        if self != .qemu {
            state.mxcsr = 0
            state.fcw = 0
        }
        return state
    }
}
