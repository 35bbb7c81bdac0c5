// KVM_MEMORY_ENCRYPT_OP: every rule and errno of the launch [KVM amd-memory-encryption.rst], in the order the kernel
// checks them.

import KVMABI
import SEVABI
import SoftwareKVM
import Testing

@Suite struct LaunchStateMachineTests {
    @Test func nullArgumentProbesForSEV() throws {
        let vm = try TestVM()
        #expect(try vm.kernel.call(vm.vm, .memoryEncryptOp, value: 0) == 0)
    }

    @Test func vmTypes() throws {
        let vm = try TestVM()
        #expect(try vm.kernel.call(vm.kvm, .checkExtension, value: 235) == 0b11101)
        for type: UInt64 in [1, 5, 31, 32, 1 << 32] {
            #expect(errno { try vm.kernel.call(vm.kvm, .createVM, value: type) } == .EINVAL)
        }
    }

    @Test func initialize2Rules() throws {
        let plain = try TestVM(type: .plain)
        var argument = KVMSEVInit()
        #expect(plain.command(.initialize2, &argument).errno == .EINVAL)

        let vm = try TestVM()
        for bit in 0..<32 {
            argument = KVMSEVInit()
            argument.flags = 1 << UInt32(bit)
            #expect(vm.command(.initialize2, &argument).errno == .EINVAL)
        }
        for bit in 0..<64 {
            argument = KVMSEVInit()
            argument.vmsaFeatures = 1 << UInt64(bit)
            #expect(vm.command(.initialize2, &argument).errno == .EINVAL, "feature bit \(bit)")
        }
        for version: UInt16 in [1, 3, 0xffff] {
            argument = KVMSEVInit()
            argument.ghcbVersion = version
            #expect(vm.command(.initialize2, &argument).errno == .EINVAL)
        }
        argument = KVMSEVInit()
        let good = vm.command(.initialize2, &argument)
        #expect(good.errno == nil)
        #expect(good.status == 0)
        // A second one, and every command below 100.
        for id: UInt32 in 0..<100 {
            #expect(vm.command(SEVCommandID(rawValue: id), &argument).errno == .EPERM)
        }
        for id: UInt32 in [104, 1000, .max] {
            #expect(vm.command(SEVCommandID(rawValue: id), &argument).errno == .EINVAL)
        }
    }

    @Test func initialize2AfterAVCPU() throws {
        let vm = try TestVM()
        try vm.addVCPU()
        var argument = KVMSEVInit()
        #expect(vm.command(.initialize2, &argument).errno == .EINVAL)
        // Without it the vCPU does not run.
        #expect(errno { try vm.kernel.call(vm.vcpu, .run) } == .EINVAL)
    }

    @Test func badPointers() throws {
        let vm = try TestVM()
        for address: UInt64 in [0, 8, 0xffff_8000_0000_0000, 0x7fff_ffff_f000 - 8] {
            var envelope = KVMSEVCommand(id: .initialize2, data: address, sevHandle: vm.sev)
            #expect(errno { try vm.kernel.call(vm.vm, .memoryEncryptOp, &envelope) } == .EFAULT)
        }
    }

    @Test func asidsRunOutAndComeBack() throws {
        let first = try TestVM()
        let kernel = first.kernel
        var argument = KVMSEVInit()
        var handles: [KernelHandle] = []
        var refused: Errno?
        while refused == nil && handles.count < 2000 {
            let vm = KernelHandle(rawValue: try kernel.call(first.kvm, .createVM, value: 4))
            handles.append(vm)
            refused = withKernelAddress(of: &argument) { address in
                errno {
                    var envelope = KVMSEVCommand(id: .initialize2, data: address)
                    try kernel.call(vm, .memoryEncryptOp, &envelope)
                }
            }
        }
        #expect(refused == .EBUSY)
        #expect(handles.count > 16)
        for handle in handles { kernel.close(handle) }
        try first.initialize2()
    }

    @Test func startRules() throws {
        let vm = try TestVM()
        #expect(vm.start().errno == .ENOTTY)
        try vm.initialize2()
        for policy: UInt64 in [0, 0x10000, 0x30000 | 1 << 18, 0x30000 | 1 << 21, 0x30000 | 1 << 26, 0x30000 | 1 << 63] {
            #expect(vm.start(policy: policy).errno == .EINVAL, "policy 0x\(String(policy, radix: 16))")
        }
        var argument = KVMSNPLaunchStart()
        argument.policy = 0x30000
        argument.flags = 1
        #expect(vm.command(.snpLaunchStart, &argument).errno == .EINVAL)
        argument.flags = 0
        // Not open, and open but something else.
        #expect(vm.command(.snpLaunchStart, &argument, sev: KernelHandle(rawValue: 999)).errno == .EBADF)
        #expect(vm.command(.snpLaunchStart, &argument, sev: vm.kvm).errno == .EBADF)
        // A minimum firmware version that this one does not reach: the context is torn down, START may come again.
        let tooNew = vm.start(policy: 0x30000 | 0xff00)
        #expect(tooNew.errno == .EIO)
        #expect(tooNew.status == SEVStatus.policyFailure.rawValue)
        #expect(vm.start().errno == nil)
        #expect(vm.start().errno == .EINVAL)
    }

    @Test func updateRules() throws {
        let vm = try TestVM()
        let source = try vm.pages([UInt8](repeating: 0xa5, count: 3 * 4096))
        #expect(vm.update(.normal, gpa: 0, pages: 1, source: source).errno == .EINVAL)
        try vm.initialize2()
        #expect(vm.update(.normal, gpa: 0, pages: 1, source: source).errno == .EINVAL)
        #expect(vm.start().errno == nil)
        // No slot yet.
        #expect(vm.update(.normal, gpa: 0, pages: 1, source: source).errno == .EINVAL)
        try vm.addMemory()

        #expect(vm.update(.normal, gpa: 0, pages: 0, source: source).errno == .EINVAL)
        #expect(vm.update(.normal, gpa: 0, pages: 1, source: source, sourceOffset: 8).errno == .EINVAL)
        for type: UInt8 in [0, 2, 7, 255] {
            #expect(vm.update(PageType(rawValue: type), gpa: 0, pages: 1, source: source).errno == .EINVAL)
        }
        // Shared by attribute: the kernel itself refuses.
        let notPrivate = vm.update(.normal, gpa: 0, pages: 1, source: source)
        #expect(notPrivate.errno == .EIO)
        #expect(notPrivate.status == TestVM.notWritten)

        try vm.setPrivate(0, 2 * 4096)
        // Three pages asked, two are private: progress.
        let partial = vm.update(.normal, gpa: 0, pages: 3, source: source)
        #expect(partial.errno == nil)
        #expect(partial.argument.gfnStart == 2)
        #expect(partial.argument.byteCount == 4096)
        #expect(partial.argument.userAddress == source.address + 2 * 4096)
        // What stopped it shows on the next call.
        #expect(vm.update(.normal, gpa: 2 << 12, pages: 1, source: source).errno == .EIO)
        // A page loaded twice.
        #expect(vm.update(.zero, gpa: 0, pages: 1, source: nil).errno == .EIO)
        // A source that is not there.
        try vm.setPrivate(0, 16 * 4096)
        let bad = vm.update(.normal, gpa: 3 << 12, pages: 1, source: nil)
        #expect(bad.errno == .EIO)
        #expect(bad.status == TestVM.notWritten)
        // ZERO neither reads nor advances the source.
        let zero = vm.update(.zero, gpa: 4 << 12, pages: 2, source: source)
        #expect(zero.errno == nil)
        #expect(zero.argument.userAddress == source.address)
        #expect(zero.argument.byteCount == 0)
    }

    @Test func updateStopsAtTheEndOfTheSlot() throws {
        let vm = try TestVM(readyForLaunch: true)
        #expect(vm.start().errno == nil)
        let pages = UInt64(TestVM.memoryByteCount >> 12)
        let result = vm.update(.zero, gpa: UInt64(TestVM.memoryByteCount) - 4096, pages: 5, source: nil)
        #expect(result.errno == nil)
        #expect(result.argument.gfnStart == pages)
        #expect(result.argument.byteCount == 4 * 4096)
        #expect(vm.update(.zero, gpa: pages << 12, pages: 4, source: nil).errno == .EINVAL)
        #expect(vm.update(.zero, gpa: .max << 12, pages: 1, source: nil).errno == .EINVAL)
    }

    @Test func cpuidPageComesBackCorrected() throws {
        let vm = try TestVM(readyForLaunch: true)
        #expect(vm.start().errno == nil)
        var page = [UInt8](repeating: 0, count: 4096)
        page[0] = 1
        // Leaf 1 with every feature bit.
        page[16] = 1
        for byte in 24..<64 { page[byte] = byte < 56 ? 0xff : 0 }
        let source = try vm.pages(page)
        let before = vm.kernel.launchDigest(of: vm.vm)
        let refused = vm.update(.cpuid, gpa: 0x5000, pages: 1, source: source)
        #expect(refused.errno == .EIO)
        #expect(refused.status == SEVStatus.invalidParameter.rawValue)
        #expect(vm.kernel.launchDigest(of: vm.vm) == before)
        #expect(source.copyBytes(at: 0, count: 4096) != page)
        // The corrected page is acceptable, at the same GPA.
        #expect(vm.update(.cpuid, gpa: 0x5000, pages: 1, source: source).errno == nil)
        #expect(vm.kernel.launchDigest(of: vm.vm) != before)
    }

    @Test func finishRules() throws {
        let vm = try TestVM()
        #expect(vm.finish().errno == .ENOTTY)
        try vm.initialize2()
        #expect(vm.finish().errno == .EINVAL)
        try vm.addVCPU()
        #expect(vm.start().errno == nil)
        var argument = KVMSNPLaunchFinish()
        argument.flags = 1
        #expect(vm.command(.snpLaunchFinish, &argument).errno == .EINVAL)

        var debug = KVMGuestDebug()
        debug.control = 1
        try vm.kernel.call(vm.vcpu, .setGuestDebug, reading: debug)
        #expect(vm.finish().errno == .EINVAL)
        debug.control = 0
        try vm.kernel.call(vm.vcpu, .setGuestDebug, reading: debug)
        #expect(vm.finish().errno == nil)
        // Sealed: not again.
        #expect(vm.finish().errno == .EINVAL)
    }

    @Test func refusedIDBlockSpendsTheVM() throws {
        let vm = try TestVM(readyForLaunch: true)
        #expect(vm.start().errno == nil)
        let block = [UInt8](repeating: 0, count: 96)
        let authentication = [UInt8](repeating: 0, count: 4096)
        var argument = KVMSNPLaunchFinish()
        argument.idBlockEnabled = 1
        withKernelAddress(of: block) { blockAddress in
            withKernelAddress(of: authentication) { authAddress in
                argument.idBlockAddress = blockAddress
                argument.idAuthAddress = authAddress
                let refused = vm.command(.snpLaunchFinish, &argument)
                #expect(refused.errno == .EIO)
                #expect(refused.status != 0)
            }
        }
        #expect(vm.finish().errno == .EINVAL)
    }

    @Test func nullIDBlock() throws {
        let vm = try TestVM()
        try vm.initialize2()
        #expect(vm.start().errno == nil)
        var argument = KVMSNPLaunchFinish()
        argument.idBlockEnabled = 1
        #expect(vm.command(.snpLaunchFinish, &argument).errno == .EINVAL)
        argument.idBlockAddress = 8
        #expect(vm.command(.snpLaunchFinish, &argument).errno == .EFAULT)
    }

    @Test func closedSEVHandle() throws {
        let vm = try TestVM(readyForLaunch: true)
        #expect(vm.start().errno == nil)
        vm.kernel.close(vm.sev)
        // The kernel could not reach the firmware: an error without a status.
        let update = vm.update(.zero, gpa: 0, pages: 1, source: nil)
        #expect(update.errno == .EIO)
        #expect(update.status == TestVM.notWritten)
        #expect(vm.finish().errno == .EBADF)
    }

    @Test func stateIsUnreachableAfterFinish() throws {
        let vm = try TestVM(readyForLaunch: true)
        #expect(vm.start().errno == nil)
        #expect(vm.finish().errno == nil)
        let kernel = vm.kernel
        var regs = KVMRegisters()
        var sregs = KVMSpecialRegisters()
        var sregs2 = KVMSpecialRegisters2()
        var debug = KVMDebugRegisters()
        var xcrs = KVMXCRs()
        #expect(errno { try kernel.call(vm.vcpu, .getRegisters, &regs) } == .EINVAL)
        #expect(errno { try kernel.call(vm.vcpu, .setRegisters, &regs) } == .EINVAL)
        #expect(errno { try kernel.call(vm.vcpu, .getSpecialRegisters, &sregs) } == .EINVAL)
        #expect(errno { try kernel.call(vm.vcpu, .setSpecialRegisters, &sregs) } == .EINVAL)
        #expect(errno { try kernel.call(vm.vcpu, .getSpecialRegisters2, &sregs2) } == .EINVAL)
        #expect(errno { try kernel.call(vm.vcpu, .setSpecialRegisters2, &sregs2) } == .EINVAL)
        #expect(errno { try kernel.call(vm.vcpu, .getDebugRegisters, &debug) } == .EINVAL)
        #expect(errno { try kernel.call(vm.vcpu, .setDebugRegisters, &debug) } == .EINVAL)
        #expect(errno { try kernel.call(vm.vcpu, .getXCRs, &xcrs) } == .EINVAL)
        #expect(errno { try kernel.call(vm.vcpu, .setXCRs, &xcrs) } == .EINVAL)
        #expect(errno { try kernel.call(vm.vcpu, .setGuestDebug, reading: KVMGuestDebug()) } == .EINVAL)
        var fpu = KVMFPU()
        #expect(errno { try kernel.call(vm.vcpu, .getFPU, &fpu) } == nil)
        // MSRs stop at the first that the guest owns; those KVM emulates work.
        var list = KVMMSRList.encode(reading: [0x2ff, 0xc000_0082, 0x1b])
        #expect(try kernel.call(vm.vcpu, .getMSRs, bytes: &list) == 1)
        var lapic = KVMLAPICState()
        #expect(errno { try kernel.call(vm.vcpu, .getLAPIC, &lapic) } == nil)
        var mp = KVMMPState()
        #expect(errno { try kernel.call(vm.vcpu, .getMPState, &mp) } == nil)
        vm.runPage?.validRegisters = 1
        #expect(errno { try kernel.call(vm.vcpu, .run) } == .EINVAL)
    }

    /// Loads all memory with as many calls as it takes; returns that number.
    private func loadAll(seed: UInt64) throws -> Int {
        var configuration = SoftwareKVM.Configuration()
        configuration.systemMemoryByteCount = 64 << 20
        configuration.seed = seed
        configuration.variesLegalAnswers = true
        let vm = try TestVM(configuration: configuration)
        try vm.initialize2()
        try vm.addMemory()
        try vm.setPrivate(0, UInt64(TestVM.memoryByteCount))
        #expect(vm.start().errno == nil)
        var gpa: UInt64 = 0
        var calls = 0
        while gpa < UInt64(TestVM.memoryByteCount) {
            let result = vm.update(.zero, gpa: gpa, pages: (UInt64(TestVM.memoryByteCount) - gpa) >> 12, source: nil)
            #expect(result.errno == nil)
            #expect(result.argument.gfnStart << 12 > gpa)
            gpa = result.argument.gfnStart << 12
            calls += 1
        }
        return calls
    }

    @Test func progressVariesWithASeed() throws {
        let calls = try (1...8).map { try loadAll(seed: $0) }
        #expect(calls.contains { $0 > 1 })
        #expect(try loadAll(seed: 1) == calls[0])
    }
}
