// LAUNCH_UPDATE_VMSA: what stops it, and what can still be done with a sealed vCPU [KVM-SEV].

import KVMABI
import Testing

@Suite struct SEVSealTests {
    private func errno(_ body: () throws(Errno) -> Void) -> Errno? {
        do throws(Errno) { try body() } catch { return error }
        return nil
    }

    private func setDR7(_ value: UInt64, _ machine: SEVMachine) throws {
        var registers = KVMDebugRegisters()
        try machine.kernel.call(machine.vcpu, .getDebugRegisters, &registers)
        registers.dr7 = value
        try machine.kernel.call(machine.vcpu, .setDebugRegisters, &registers)
    }

    @Test(arguments: KernelUnderTest.withSEV, [SEVKind.sevES, .oldES])
    func `a vCPU that is being debugged cannot be sealed`(_ candidate: KernelUnderTest, _ kind: SEVKind) throws {
        let machine = try SEVMachine.at(.launching, candidate.start(), kind)
        var debug = KVMGuestDebug()
        debug.control = 1
        try machine.kernel.call(machine.vcpu, .setGuestDebug, &debug)
        #expect(machine.command(.launchUpdateVMSA) == .refused(.EINVAL))
        debug.control = 0
        try machine.kernel.call(machine.vcpu, .setGuestDebug, &debug)
        try setDR7(0x401, machine)
        #expect(machine.command(.launchUpdateVMSA) == .refused(.EINVAL))
        try setDR7(0x400, machine)
        #expect(machine.command(.launchUpdateVMSA) == .success)
        #expect(machine.command(.launchUpdateVMSA) == .refused(.EINVAL), "once")
    }

    @Test(arguments: KernelUnderTest.withSEV, [SEVKind.sevES, .oldES])
    func `registers of a sealed vCPU`(_ candidate: KernelUnderTest, _ kind: SEVKind) throws {
        let machine = try SEVMachine.at(.running, candidate.start(), kind)
        let (kernel, vcpu) = (machine.kernel, machine.vcpu)
        let refusal: Errno? = kind.isOld ? nil : .EINVAL
        func check<S: KernelStructure>(_ request: IoctlRequest, _ value: S, _ expected: Errno?) {
            var value = value
            #expect(errno { () throws(Errno) in try kernel.call(vcpu, request, &value) } == expected, "\(request)")
        }
        check(.getRegisters, KVMRegisters(), refusal)
        check(.setRegisters, KVMRegisters(), refusal)
        check(.getSpecialRegisters, KVMSpecialRegisters(), refusal)
        check(.getSpecialRegisters2, KVMSpecialRegisters2(), refusal)
        check(.getDebugRegisters, KVMDebugRegisters(), refusal)
        check(.getXCRs, KVMXCRs(), refusal)
        check(.getFPU, KVMFPU(), refusal)
        check(.setFPU, KVMFPU(), refusal)
        check(.getXSave, KVMXSave(), refusal)
        check(.setXSave, KVMXSave(), refusal)
        check(.setGuestDebug, KVMGuestDebug(), .EINVAL)
        check(.getVCPUEvents, KVMVCPUEvents(), nil)
        check(.getMPState, KVMMPState.runnable, nil)
    }

    @Test(arguments: KernelUnderTest.withSEV)
    func `registers of a SEV guest stay the host's`(_ candidate: KernelUnderTest) throws {
        for kind: SEVKind in [.sev, .oldSEV] {
            let machine = try SEVMachine.at(.running, candidate.start(), kind)
            var registers = KVMRegisters()
            registers.rax = 0x1234
            registers.rflags = 2
            try machine.kernel.call(machine.vcpu, .setRegisters, &registers)
            var read = KVMRegisters()
            try machine.kernel.call(machine.vcpu, .getRegisters, &read)
            #expect(read.rax == 0x1234)
        }
    }
}
