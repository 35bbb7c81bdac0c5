// KVM_CAP_SYNC_REGS: registers that travel in the run page instead of by requests [KVM KVM_CAP_SYNC_REGS].

import KVMABI

extension VirtualCPU {
    /// The register sets that a VMM may ask for: none where the state is the guest's own.
    private var synchronizable: UInt64 { UInt64(Capability.syncRegisters.value(vmType: vm.type)) }

    /// Before the guest runs: what the VMM has changed. EINVAL for a set that does not exist, or values that no processor
    /// can have.
    func takeSynchronizedRegisters() throws(Errno) {
        let dirty = runPage.dirtyRegisters
        if (runPage.validRegisters | dirty) & ~synchronizable != 0 { throw .EINVAL }
        if dirty & RunPage.generalRegisterSet != 0 {
            registers = runPage.synchronizedRegisters
            runPage.dirtyRegisters &= ~RunPage.generalRegisterSet
        }
        if dirty & RunPage.specialRegisterSet != 0 {
            try setSpecialRegisters(runPage.synchronizedSpecialRegisters)
            runPage.dirtyRegisters &= ~RunPage.specialRegisterSet
        }
        if dirty & RunPage.eventSet != 0 {
            try setEvents(runPage.synchronizedEvents)
            runPage.dirtyRegisters &= ~RunPage.eventSet
        }
    }

    /// On the way back to the VMM.
    func publishSynchronizedRegisters() {
        let valid = runPage.validRegisters & synchronizable
        if valid == 0 || isSealed { return }
        if valid & RunPage.generalRegisterSet != 0 { runPage.synchronizedRegisters = registers }
        if valid & RunPage.specialRegisterSet != 0 { runPage.synchronizedSpecialRegisters = specialRegisters }
        if valid & RunPage.eventSet != 0 { runPage.synchronizedEvents = events }
    }
}
