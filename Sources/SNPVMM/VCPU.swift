// One virtual processor: its descriptor, its run page, and its state before the launch.

import KVMABI
import X86Defs

/// A vCPU.
final class VCPU: Sendable {
    let handle: KernelHandle
    let run: RunPage
    private let kernel: any HostKernel

    /// Creates the vCPU and gives it its CPUID list and its state, in this order: the kernel takes the C-bit of CR3 only
    /// from a vCPU whose CPUID has leaf 0x8000001F.
    init(
        kernel: any HostKernel, vm: KernelHandle, system: KernelHandle, id: Int, cpuid: [CPUIDLeaf],
        state: ProcessorState
    ) throws(VMMError) {
        self.kernel = kernel
        let step = "create vCPU \(id)"
        handle = KernelHandle(
            rawValue: try request(step, "KVM_CREATE_VCPU") { () throws(Errno) in
                try kernel.call(vm, .createVCPU, value: UInt64(id))
            })
        let byteCount = try request(step, "KVM_GET_VCPU_MMAP_SIZE") { () throws(Errno) in
            try kernel.call(system, .getVCPUMmapSize)
        }
        guard byteCount >= RunPage.byteCount else {
            throw VMMError(
                .hostCannot, step: step, request: "KVM_GET_VCPU_MMAP_SIZE",
                finding: "\(byteCount) bytes, expected at least \(RunPage.byteCount)",
                likelyCause: "a kernel that is not Linux's KVM", nextStep: "use a current kernel")
        }
        let (vcpu, mappedByteCount) = (handle, Int(byteCount))
        run = RunPage(
            try request(step, "mmap", "kvm_run") { () throws(Errno) in
                try kernel.map(vcpu, offset: 0, byteCount: mappedByteCount)
            })
        try setState(
            state, cpuid: ProcessorCPUID.list(cpuid, apicID: UInt32(truncatingIfNeeded: id)), "set up vCPU \(id)")
    }

    deinit { kernel.close(handle) }

    private func setState(_ state: ProcessorState, cpuid: [KVMCPUIDEntry], _ step: String) throws(VMMError) {
        try request(step, "KVM_SET_CPUID2", "\(cpuid.count) entries") { () throws(Errno) in
            var bytes = KVMCPUIDList.encode(cpuid)
            try kernel.call(handle, .setCPUID2, bytes: &bytes)
        }
        var special = KVMSpecialRegisters()
        try request(step, "KVM_GET_SREGS") { () throws(Errno) in
            try kernel.call(handle, .getSpecialRegisters, &special)
        }
        special.set(state)
        try request(
            step, "KVM_SET_SREGS", "CR0 \(hex(state.cr0)), CR3 \(hex(state.cr3)), CR4 \(hex(state.cr4))"
        ) { () throws(Errno) in
            try kernel.call(handle, .setSpecialRegisters, &special)
        }
        try request(step, "KVM_SET_REGS", "RIP \(hex(state.rip))") { () throws(Errno) in
            try kernel.call(handle, .setRegisters, reading: KVMRegisters(state))
        }
        try setMSRs(ProcessorMSRs.list(state), step)
        try setUncommonState(state, step)
    }

    /// Sets these, and behind them the one that a vCPU can do without.
    private func setMSRs(_ list: [KVMMSREntry], _ step: String) throws(VMMError) {
        let count = try request(step, "KVM_SET_MSRS", "\(list.count + 1) MSRs") { () throws(Errno) in
            var bytes = KVMMSRList.encode(list + [ProcessorMSRs.timeStampFrequency])
            return try kernel.call(handle, .setMSRs, bytes: &bytes)
        }
        guard count == list.count || count == list.count + 1 else {
            // The kernel stops at the first MSR that it does not take, and says how far it came.
            let refused = count >= 0 && count < list.count ? list[Int(count)] : KVMMSREntry()
            throw VMMError(
                .hostCannot, step: step, request: "KVM_SET_MSRS",
                context: "MSR \(hex(refused.index)) = \(hex(refused.data))",
                finding: "\(count) of \(list.count) MSRs taken",
                likelyCause: "an MSR that this kernel does not let the VMM set",
                nextStep: "report the kernel version together with --launch-log")
        }
    }

    /// Registers that most plans leave as the kernel makes them.
    private func setUncommonState(_ state: ProcessorState, _ step: String) throws(VMMError) {
        let initial = ProcessorState()
        guard state.pkru == 0 else {
            throw VMMError(
                .badInput, step: step, request: "the register state of the plan", context: "PKRU \(hex(state.pkru))",
                finding: "a register that KVM cannot set before the launch", likelyCause: "a VMSA made by another VMM",
                nextStep: "use an image whose VMSA leaves PKRU at 0")
        }
        if state.xcr0 != initial.xcr0 {
            var registers = KVMXCRs()
            registers.count = 1
            registers.xcrs[0] = KVMXCR(xcr: 0, value: state.xcr0)
            try request(step, "KVM_SET_XCRS", "XCR0 \(hex(state.xcr0))") { () throws(Errno) in
                try kernel.call(handle, .setXCRs, reading: registers)
            }
        }
        if !state.hasInitialFPU {
            var area = KVMXSave()
            try request(step, "KVM_GET_XSAVE") { () throws(Errno) in try kernel.call(handle, .getXSave, &area) }
            area.setFPU(state)
            try request(step, "KVM_SET_XSAVE", "MXCSR \(hex(state.mxcsr)), FCW \(hex(state.fcw))") { () throws(Errno) in
                try kernel.call(handle, .setXSave, reading: area)
            }
        }
        if state.dr6 != initial.dr6 || state.dr7 != initial.dr7 || state.dr0 | state.dr1 | state.dr2 | state.dr3 != 0 {
            var registers = KVMDebugRegisters()
            registers.db = [state.dr0, state.dr1, state.dr2, state.dr3]
            registers.dr6 = state.dr6
            registers.dr7 = state.dr7
            try request(step, "KVM_SET_DEBUGREGS") { () throws(Errno) in
                try kernel.call(handle, .setDebugRegisters, reading: registers)
            }
        }
    }
}
