// x87, SSE and AVX state: kvm_fpu, and kvm_xsave in the standard format, whose first 512 bytes are FXSAVE's
// [APM1 11.4.4].
//
// For a sealed SNP vCPU the calls succeed and mean nothing: KVM does not mark its FPU state confidential. For a sealed
// SEV-ES vCPU they fail, or, in VMs of the old ES_INIT, do nothing.

import ABILayout
import KVMABI
import X86Defs

extension VirtualCPU {
    /// x87, SSE, AVX and PKRU.
    private static let enabledComponents: UInt64 = 7 | pkruComponent

    /// `fpstate_is_confidential`, without the exception for old VMs.
    func requireReachableFPU() throws(Errno) {
        if isSealed, vm.sev != nil, !isSealedByOldRules { throw .EINVAL }
    }

    var fpu: KVMFPU {
        var value = KVMFPU()
        if isSealedByOldRules { return value }
        for register in 0..<8 {
            for byte in 0..<8 {
                value.fpr[16 * register + byte] = UInt8(
                    truncatingIfNeeded: state.x87Significand[register] >> UInt64(8 * byte))
            }
            value.fpr[16 * register + 8] = UInt8(truncatingIfNeeded: state.x87Exponent[register])
            value.fpr[16 * register + 9] = UInt8(truncatingIfNeeded: state.x87Exponent[register] >> 8)
        }
        for byte in 0..<256 {
            value.xmm[byte] = UInt8(truncatingIfNeeded: state.xmm[byte >> 3] >> UInt64(8 * (byte & 7)))
        }
        value.fcw = state.fcw
        value.fsw = state.fsw
        value.ftwx = state.ftw
        value.lastOpcode = state.fop
        value.lastIP = state.fip
        value.lastDP = state.fdp
        // MXCSR has a place in the structure, and KVM has never used it.
        return value
    }

    func setFPU(_ value: KVMFPU) throws(Errno) {
        try requireReachableFPU()
        if isSealed { return }
        var state = state
        for register in 0..<8 {
            var significand: UInt64 = 0
            for byte in 0..<8 { significand |= UInt64(value.fpr[16 * register + byte]) << UInt64(8 * byte) }
            state.x87Significand[register] = significand
            state.x87Exponent[register] =
                UInt16(value.fpr[16 * register + 8]) | UInt16(value.fpr[16 * register + 9]) << 8
        }
        for word in 0..<32 {
            var bits: UInt64 = 0
            for byte in 0..<8 { bits |= UInt64(value.xmm[8 * word + byte]) << UInt64(8 * byte) }
            state.xmm[word] = bits
        }
        state.fcw = value.fcw
        state.fsw = value.fsw
        state.ftw = value.ftwx
        state.fop = value.lastOpcode
        state.fip = value.lastIP
        state.fdp = value.lastDP
        self.state = state
    }

    /// Quadwords: 0 FCW FSW FTW FOP, 1 FIP, 2 FDP, 3 MXCSR and its mask, 4…19 ST, 20…51 XMM, 58 the components that there
    /// are, 64 XSTATE_BV, 65 XCOMP_BV, 72…103 the upper halves of YMM, 304 PKRU.
    var xsave: KVMXSave {
        var value = KVMXSave()
        if isSealedByOldRules { return value }
        value.region[0] =
            UInt64(state.fcw) | UInt64(state.fsw) << 16 | UInt64(state.ftw) << 32 | UInt64(state.fop) << 48
        value.region[1] = state.fip
        value.region[2] = state.fdp
        value.region[3] = UInt64(state.mxcsr) | 0x2_ffff << 32
        for register in 0..<8 {
            value.region[4 + 2 * register] = state.x87Significand[register]
            value.region[5 + 2 * register] = UInt64(state.x87Exponent[register])
        }
        for word in 0..<32 { value.region[20 + word] = state.xmm[word] }
        // Where FXSAVE leaves room for software the kernel says what can be enabled.
        value.region[58] = Self.enabledComponents
        for word in 0..<32 { value.region[72 + word] = state.ymmUpper[word] }
        value.region[64] = 7
        if supportedXCR0 & Self.pkruComponent != 0 {
            value.region[64] |= Self.pkruComponent
            value.region[304] = UInt64(state.pkru)
        }
        return value
    }

    func setXSave(_ value: KVMXSave) throws(Errno) {
        try requireReachableFPU()
        if isSealed { return }
        let components = value.region[64]
        // What the host has, not what the vCPU was told of; nothing of the compacted format; reserved bytes zero.
        if components & ~Self.enabledComponents != 0 { throw .EINVAL }
        for word in 65..<72 where value.region[word] != 0 { throw .EINVAL }
        let mxcsr = UInt32(truncatingIfNeeded: value.region[3])
        if components & 2 != 0 && mxcsr & ~0x2_ffff != 0 { throw .EINVAL }
        var state = state
        let initial = ProcessorState()
        // A component whose bit is clear is in its initial configuration.
        if components & 1 != 0 {
            state.fcw = UInt16(truncatingIfNeeded: value.region[0])
            state.fsw = UInt16(truncatingIfNeeded: value.region[0] >> 16)
            state.ftw = UInt8(truncatingIfNeeded: value.region[0] >> 32)
            state.fop = UInt16(truncatingIfNeeded: value.region[0] >> 48)
            state.fip = value.region[1]
            state.fdp = value.region[2]
            for register in 0..<8 {
                state.x87Significand[register] = value.region[4 + 2 * register]
                state.x87Exponent[register] = UInt16(truncatingIfNeeded: value.region[5 + 2 * register])
            }
        } else {
            state.fcw = initial.fcw
            state.fsw = 0
            state.ftw = 0
            state.fop = 0
            state.fip = 0
            state.fdp = 0
            state.x87Significand = initial.x87Significand
            state.x87Exponent = initial.x87Exponent
        }
        if components & 2 != 0 {
            state.mxcsr = mxcsr
            for word in 0..<32 { state.xmm[word] = value.region[20 + word] }
        } else {
            state.mxcsr = initial.mxcsr
            state.xmm = initial.xmm
        }
        if components & 4 != 0 {
            for word in 0..<32 { state.ymmUpper[word] = value.region[72 + word] }
        } else {
            state.ymmUpper = initial.ymmUpper
        }
        // The one component that stays as it is when its bit is clear [KVM fpu_copy_uabi_to_guest_fpstate].
        if components & Self.pkruComponent != 0 { state.pkru = UInt32(truncatingIfNeeded: value.region[304]) }
        self.state = state
    }
}
