// The three launch commands: order, errno and firmware status of each misuse, partial progress [KVM-SEV, SNP 8.16 to
// 8.18].

import KVMABI
import Testing

@Suite struct SNPLaunchTests {
    // MARK: SNP_LAUNCH_START

    @Test(arguments: KernelUnderTest.withSNP)
    func `START comes after INIT2 and only once`(_ candidate: KernelUnderTest) throws {
        let machine = try SNPMachine(candidate.start())
        #expect(machine.start() == .refused(.ENOTTY))
        #expect(machine.initialize() == .success)
        #expect(machine.command(.snpLaunchStart, address: 0) == .refused(.EFAULT))
        #expect(machine.start { $0.flags = 1 } == .refused(.EINVAL))
        #expect(machine.start() == .success)
        #expect(machine.start() == .refused(.EINVAL))
    }

    @Test(arguments: KernelUnderTest.withSNP)
    func `START checks the policy`(_ candidate: KernelUnderTest) throws {
        let machine = try SNPMachine(candidate.start())
        #expect(machine.initialize() == .success)
        for policy: UInt64 in [0, 0x10000, 1 << 63 | 0x30000, 1 << 26 | 0x30000, 1 << 18 | 0x30000] {
            #expect(machine.start(policy: policy) == .refused(.EINVAL), "policy \(policy)")
        }
        // The kernel lets the ABI version through; the firmware refuses one from the future [SNP 4.3].
        #expect(machine.start(policy: 0x3ffff) == .firmware(.policyFailure))
        #expect(machine.start(policy: 0xb0000) == .success, "debug allowed; START may be tried again after a refusal")
    }

    @Test(arguments: KernelUnderTest.withSNP)
    func `START needs an open secure processor`(_ candidate: KernelUnderTest) throws {
        let machine = try SNPMachine(candidate.start())
        #expect(machine.initialize() == .success)
        for handle in [KernelHandle(rawValue: 1 << 20), machine.kvm] {
            // The context cannot be created (ENOTTY) because the driver cannot be reached (EBADF).
            let outcome = machine.start(sevHandle: handle)
            #expect(outcome.errno == .EBADF || outcome.errno == .ENOTTY)
        }
        #expect(machine.start() == .success)
    }

    // MARK: SNP_LAUNCH_UPDATE

    @Test(arguments: KernelUnderTest.withSNP)
    func `UPDATE needs a context`(_ candidate: KernelUnderTest) throws {
        let machine = try SNPMachine.withMemory(candidate.start())
        #expect(machine.update(type: 1, gpa: 0, byteCount: 0x1000).outcome == .refused(.EINVAL))
        #expect(machine.start() == .success)
        #expect(machine.update(type: 1, gpa: 0, byteCount: 0x1000).outcome == .success)
    }

    @Test(arguments: KernelUnderTest.withSNP)
    func `UPDATE checks its structure`(_ candidate: KernelUnderTest) throws {
        let machine = try SNPMachine.started(candidate.start())
        #expect(machine.command(.snpLaunchUpdate, address: 0) == .refused(.EFAULT))
        for byteCount in [0x800, 0x1001, 0x1fff] {
            #expect(
                machine.update(type: 1, gpa: 0, byteCount: byteCount).outcome == .refused(.EINVAL), "\(byteCount) bytes"
            )
        }
        #expect(machine.update(type: 1, gpa: 0, byteCount: 0x1000) { $0.flags = 1 }.outcome == .refused(.EINVAL))
        for type: UInt8 in [0, 2, 7, 0xff] {
            #expect(machine.update(type: type, gpa: 0, byteCount: 0x1000).outcome == .refused(.EINVAL), "type \(type)")
        }
        #expect(
            machine.update(type: 1, gpa: SNPMachine.ramByteCount, byteCount: 0x1000).outcome == .refused(.EINVAL),
            "no slot there")
        #expect(
            machine.update(type: 1, gpa: 0, byteCount: 0x1000) { $0.gfnStart = .max }.outcome == .refused(.EINVAL),
            "no slot at the end of the world")
    }

    @Test(arguments: KernelUnderTest.withSNP)
    func `UPDATE takes every page type but VMSA`(_ candidate: KernelUnderTest) throws {
        let machine = try SNPMachine.started(candidate.start())
        for (index, type): (Int, UInt8) in [1, 3, 4, 5].enumerated() {
            let (outcome, after) = machine.update(type: type, gpa: index * 0x2000, byteCount: 0x2000)
            #expect(outcome == .success && after.byteCount == 0, "type \(type)")
            #expect(after.gfnStart == UInt64(2 * index + 2))
            let advanced: UInt64 = type == 3 ? 0 : 0x2000
            #expect(after.userAddress == machine.source.address + UInt64(index * 0x2000) + advanced)
        }
    }

    /// The reason is the kernel's, so the firmware status is 0.
    @Test(arguments: KernelUnderTest.withSNP)
    func `a first page that cannot be loaded is EIO without a firmware status`(_ candidate: KernelUnderTest) throws {
        let machine = try SNPMachine.started(candidate.start())
        try machine.setPrivate(false, at: 0x1000, byteCount: 0x1000)
        #expect(machine.update(type: 1, gpa: 0x1000, byteCount: 0x1000).outcome == .refused(.EIO), "not private")
        #expect(machine.update(type: 1, gpa: 0x2000, byteCount: 0x1000).outcome == .success)
        #expect(machine.update(type: 1, gpa: 0x2000, byteCount: 0x1000).outcome == .refused(.EIO), "loaded already")
        #expect(
            machine.update(type: 1, gpa: 0x3000, byteCount: 0x1000) { $0.userAddress = 0x1000 }.outcome
                == .refused(.EIO),
            "source not readable")
        #expect(machine.update(type: 1, gpa: 0x3000, byteCount: 0x1000).outcome == .success, "tried again")
    }

    @Test(arguments: KernelUnderTest.withSNP)
    func `partial progress succeeds and says how far it came`(_ candidate: KernelUnderTest) throws {
        let machine = try SNPMachine.started(candidate.start())
        try machine.setPrivate(false, at: 0x4000, byteCount: 0x1000)
        let (outcome, after) = machine.update(type: 1, gpa: 0x2000, byteCount: 0x4000)
        #expect(outcome == .success)
        #expect(after.gfnStart == 4 && after.byteCount == 0x2000)
        #expect(after.userAddress == machine.source.address + 0x4000)
        #expect(
            machine.update(type: 1, gpa: 0x4000, byteCount: 0x2000).outcome == .refused(.EIO), "the rest fails at once")
        try machine.setPrivate(true, at: 0x4000, byteCount: 0x1000)
        let rest = machine.update(type: 1, gpa: 0x4000, byteCount: 0x2000)
        #expect(rest.outcome == .success && rest.after.byteCount == 0)
    }

    @Test(arguments: KernelUnderTest.withSNP)
    func `a call stops at the end of a slot`(_ candidate: KernelUnderTest) throws {
        let machine = try SNPMachine.started(candidate.start())
        let (outcome, after) = machine.update(type: 3, gpa: SNPMachine.firstSlotByteCount - 0x1000, byteCount: 0x3000)
        #expect(outcome == .success)
        #expect(after.gfnStart == UInt64(SNPMachine.firstSlotByteCount / 0x1000) && after.byteCount == 0x2000)
        let rest = machine.update(type: 3, gpa: SNPMachine.firstSlotByteCount, byteCount: 0x2000)
        #expect(rest.outcome == .success && rest.after.byteCount == 0)
    }

    @Test(arguments: KernelUnderTest.withSNP)
    func `a refused CPUID page comes back corrected and then fits`(_ candidate: KernelUnderTest) throws {
        let machine = try SNPMachine.started(candidate.start())
        // One function, leaf 1, that claims every feature there is [SNP 7.1]: count, reserved, then 48 bytes.
        machine.source.store(1 as UInt32, at: 0x3000)
        machine.source.store(1 as UInt32, at: 0x3010)
        for offset in [24, 28, 32, 36] { machine.source.store(UInt32.max, at: 0x3010 + offset) }
        let before = machine.source.copyBytes(at: 0x3000, count: 0x1000)
        #expect(machine.update(type: 6, gpa: 0x3000, byteCount: 0x1000).outcome == .firmware(.invalidParameter))
        let after = machine.source.copyBytes(at: 0x3000, count: 0x1000)
        #expect(after != before, "the firmware's corrections")
        #expect(after.prefix(24) == before.prefix(24), "count and leaf stay")
        #expect(machine.update(type: 6, gpa: 0x3000, byteCount: 0x1000).outcome == .success)
        #expect(machine.source.copyBytes(at: 0x3000, count: 0x1000) == after)
    }

    // MARK: SNP_LAUNCH_FINISH

    @Test(arguments: KernelUnderTest.withSNP)
    func `FINISH needs a context and no flags`(_ candidate: KernelUnderTest) throws {
        let machine = try SNPMachine.withMemory(candidate.start())
        try machine.addVCPU()
        #expect(machine.finish() == .refused(.EINVAL))
        #expect(machine.start() == .success)
        #expect(machine.command(.snpLaunchFinish, address: 0) == .refused(.EFAULT))
        #expect(machine.finish { $0.flags = 1 } == .refused(.EINVAL))
        #expect(machine.finish() == .success)
        #expect(machine.finish() == .refused(.EINVAL), "not repeatable")
        #expect(machine.start() == .refused(.EINVAL))
    }

    @Test(arguments: KernelUnderTest.withSNP)
    func `FINISH refuses a vCPU under debug`(_ candidate: KernelUnderTest) throws {
        let machine = try SNPMachine.started(candidate.start())
        var debug = KVMDebugRegisters()
        try machine.kernel.call(machine.vcpu, .getDebugRegisters, &debug)
        debug.dr7 = 0x401
        try machine.kernel.call(machine.vcpu, .setDebugRegisters, reading: debug)
        #expect(machine.finish() == .refused(.EINVAL))
        debug.dr7 = 0x400
        try machine.kernel.call(machine.vcpu, .setDebugRegisters, reading: debug)
        #expect(machine.finish() == .success)
    }

    @Test(arguments: KernelUnderTest.withSNP)
    func `FINISH with an ID block that has no address`(_ candidate: KernelUnderTest) throws {
        let machine = try SNPMachine.started(candidate.start())
        let outcome = machine.finish { $0.idBlockEnabled = 1 }
        #expect(outcome.errno == .EINVAL || outcome.errno == .EFAULT)
        #expect(machine.finish() == .refused(.EINVAL), "the vCPUs were sealed before")
    }

    @Test(arguments: KernelUnderTest.withSNP)
    func `FINISH with an ID block for another guest`(_ candidate: KernelUnderTest) throws {
        let machine = try SNPMachine.started(candidate.start())
        let outcome = machine.finish {
            $0.idBlockEnabled = 1
            $0.idBlockAddress = machine.source.address
            $0.idAuthAddress = machine.source.address + 0x1000
        }
        #expect(outcome.errno == .EIO)
        #expect(outcome.status != .success && outcome.status != .noFirmwareCall)
    }

    @Test(arguments: KernelUnderTest.withSNP)
    func `after FINISH the guest's state is out of reach`(_ candidate: KernelUnderTest) throws {
        let machine = try SNPMachine.launched(candidate.start(), code: GHCBCode.terminate(code: 0))
        let (kernel, vcpu) = (machine.kernel, machine.vcpu)
        #expect(throws: Errno.EINVAL) { try kernel.call(vcpu, .getRegisters, reading: KVMRegisters()) }
        #expect(throws: Errno.EINVAL) { try kernel.call(vcpu, .setRegisters, reading: KVMRegisters()) }
        #expect(throws: Errno.EINVAL) { try kernel.call(vcpu, .getSpecialRegisters, reading: KVMSpecialRegisters()) }
        #expect(throws: Errno.EINVAL) { try kernel.call(vcpu, .setSpecialRegisters, reading: KVMSpecialRegisters()) }
        #expect(throws: Errno.EINVAL) { try kernel.call(vcpu, .getSpecialRegisters2, reading: KVMSpecialRegisters2()) }
        #expect(throws: Errno.EINVAL) { try kernel.call(vcpu, .setSpecialRegisters2, reading: KVMSpecialRegisters2()) }
        #expect(throws: Errno.EINVAL) { try kernel.call(vcpu, .getDebugRegisters, reading: KVMDebugRegisters()) }
        #expect(throws: Errno.EINVAL) { try kernel.call(vcpu, .setDebugRegisters, reading: KVMDebugRegisters()) }
        #expect(throws: Errno.EINVAL) { try kernel.call(vcpu, .getXCRs, reading: KVMXCRs()) }
        #expect(throws: Errno.EINVAL) { try kernel.call(vcpu, .setXCRs, reading: KVMXCRs()) }
        #expect(throws: Errno.EINVAL) { try kernel.call(vcpu, .setGuestDebug, reading: KVMGuestDebug()) }
        var apic = KVMLAPICState()
        try kernel.call(vcpu, .getLAPIC, &apic)
        try kernel.call(vcpu, .setLAPIC, &apic)
        var state = KVMMPState()
        try kernel.call(vcpu, .getMPState, &state)
        #expect(state == .runnable)
        var events = KVMVCPUEvents()
        try kernel.call(vcpu, .getVCPUEvents, &events)
        try kernel.call(vcpu, .setVCPUEvents, &events)
        let page = try #require(machine.page)
        page.validRegisters = 1
        #expect(try machine.run().errno == .EINVAL)
        page.validRegisters = 0
        #expect(try machine.run().reason == .systemEvent)
    }

    @Test(arguments: KernelUnderTest.withSNP)
    func `after FINISH nothing more is loaded`(_ candidate: KernelUnderTest) throws {
        let machine = try SNPMachine.launched(candidate.start(), code: GHCBCode.terminate(code: 0))
        #expect(machine.update(type: 1, gpa: 0x2_0000, byteCount: 0x1000).outcome == .firmware(.invalidGuestState))
    }
}
