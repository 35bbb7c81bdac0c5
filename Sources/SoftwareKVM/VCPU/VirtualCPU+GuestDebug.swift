// KVM_SET_GUEST_DEBUG: the VMM's breakpoints and single steps, in place of the guest's [KVM KVM_SET_GUEST_DEBUG].

import KVMABI
import X86Core

extension VirtualCPU {
    func setGuestDebug(_ value: KVMGuestDebug) throws(Errno) {
        // Bits that KVM does not know are no errors [KVM kvm_arch_vcpu_ioctl_set_guest_debug].
        if isSealed { throw .EINVAL }
        if value.control & (KVMGuestDebug.injectDebug | KVMGuestDebug.injectBreakpoint) != 0 {
            if queuedException != nil { throw .EBUSY }
            exceptionRecord = ExceptionRecord()
            exceptionRecord.isPending = true
            exceptionRecord.number = value.control & KVMGuestDebug.injectDebug != 0 ? 1 : 3
            queuedException = (value.control & KVMGuestDebug.injectDebug != 0 ? 1 : 3, nil)
        }
        guestDebugControl = value.control & KVMGuestDebug.enable != 0 ? value.control : 0
        guestDebugRegisters = value.debugRegisters
        if let processor { paused { applyGuestDebug(to: processor) } }
    }

    /// What the processor intercepts, and what it arms.
    func applyGuestDebug(to processor: Processor) {
        let usesBreakpoints = guestDebugControl & KVMGuestDebug.useBreakpoints != 0
        let steps = guestDebugControl & KVMGuestDebug.singleStep != 0
        var intercepts: UInt32 = 0
        if usesBreakpoints || steps { intercepts |= 1 << 1 }
        if guestDebugControl & KVMGuestDebug.useSoftwareBreakpoints != 0 { intercepts |= 1 << 3 }
        processor.exceptionIntercepts = intercepts
        processor.singleSteps = steps
        processor.hostBreakpoints =
            usesBreakpoints
            ? HostBreakpoints(addresses: .init { guestDebugRegisters[$0] }, dr7: guestDebugRegisters[7]) : nil
    }

    /// KVM_EXIT_DEBUG.
    func reportDebugException(_ vector: UInt8, _ processor: Processor) {
        runPage.debug = RunPage.DebugExit(
            exception: UInt32(vector), pc: processor.state.cs.base &+ processor.rip,
            dr6: vector == 1 ? processor.interceptedDebugStatus : 0,
            dr7: vector == 1 ? processor.hostBreakpoints?.dr7 ?? processor.state.dr7 : 0)
    }
}
