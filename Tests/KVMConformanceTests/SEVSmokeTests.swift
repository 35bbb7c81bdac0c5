// SEV and SEV-ES guests of a few instructions, as the kernel's own smoke test has them (newer kernels' sev_smoke_test):
// what such a guest learns of itself, how it ends, and which state it begins with [APM2 15.34, 15.35].

import KVMABI
import TestSupport
import Testing

/// A launched guest in the fixture's 64-bit mode; all of its RAM but one page is encrypted.
private struct SmokeGuest {
    /// The page that the guest shares with the VMM, by the window of ``LongMode/sharedWindow``.
    static let shared = 0xa000

    let machine: SEVMachine
    let page: RunPage

    init(
        _ kernel: any HostKernel, _ kind: SEVKind, code: [UInt8], idtLimit: UInt16 = 0xfff, xsave: KVMXSave? = nil
    ) throws {
        machine = try SEVMachine(kernel, kind)
        try #require(machine.initialize() == .success)
        try machine.addVCPU()
        let vcpu = machine.vcpu
        page = RunPage(
            try kernel.map(vcpu, offset: 0, byteCount: Int(try kernel.call(machine.kvm, .getVCPUMmapSize))))
        var cpuid = try kernel.supportedCPUID(machine.kvm)
        try kernel.call(vcpu, .setCPUID2, bytes: &cpuid)
        let leaf = try #require(KVMCPUIDList.decode(cpuid).first { $0.function == 0x8000_001f })
        let encryptionBit: UInt64 = 1 << UInt64(leaf.ebx & 0x3f)

        let ram = machine.ram
        ram.fill(0, at: 0, count: SEVMachine.ramByteCount)
        LongMode.writePageTables(encryptionBit: encryptionBit) { address, value in ram.store(value, at: address) }
        for (index, descriptor) in LongMode.gdt.enumerated() {
            ram.store(descriptor, at: PlainMachine.gdtAddress + 8 * index)
        }
        ram.write(code, at: PlainMachine.codeAddress)

        var special = KVMSpecialRegisters()
        try kernel.call(vcpu, .getSpecialRegisters, &special)
        LongMode.enter(&special, encryptionBit: encryptionBit)
        special.idt.limit = idtLimit
        special.cr4 |= 1 << 18  // OSXSAVE
        try kernel.call(vcpu, .setSpecialRegisters, &special)
        var registers = KVMRegisters()
        registers.rip = UInt64(PlainMachine.codeAddress)
        registers.rsp = PlainMachine.stackTop
        registers.rflags = 2
        registers.r8 = LongMode.sharedWindow + UInt64(Self.shared)
        try kernel.call(vcpu, .setRegisters, &registers)
        var controls = KVMXCRs()
        controls.count = 1
        controls.xcrs[0] = KVMXCR(xcr: 0, value: 7)
        try kernel.call(vcpu, .setXCRs, &controls)
        if var xsave { try kernel.call(vcpu, .setXSave, &xsave) }

        try #require(
            machine.region(
                .memoryEncryptRegisterRegion, address: ram.address, byteCount: UInt64(SEVMachine.ramByteCount)) == nil)
        try #require(machine.start().outcome == .success)
        try #require(machine.update(at: 0, byteCount: Self.shared) == .success)
        try #require(machine.update(at: 0xb000, byteCount: SEVMachine.ramByteCount - 0xb000) == .success)
        if kind.isES { try #require(machine.command(.launchUpdateVMSA) == .success) }
        try #require(machine.measure().outcome == .success)
        try #require(machine.command(.launchFinish) == .success)
    }

    func run() throws(Errno) -> ExitReason {
        try RunGuard.watching(page) { () throws(Errno) in _ = try machine.kernel.call(machine.vcpu, .run) }
        return page.exitReason
    }
}

@Suite struct SEVSmokeTests {
    @Test(arguments: KernelUnderTest.withSEV, [SEVKind.sev, .oldSEV])
    func `a SEV guest learns that it is one`(_ candidate: KernelUnderTest, _ kind: SEVKind) throws {
        let guest = try SmokeGuest(
            candidate.start(), kind,
            code: [
                0xb8, 0x1f, 0x00, 0x00, 0x80,  // mov eax, 0x8000001f
                0x0f, 0xa2,  // cpuid
                0x41, 0x89, 0x00,  // mov [r8], eax
                0xb9, 0x31, 0x01, 0x01, 0xc0,  // mov ecx, 0xc0010131
                0x0f, 0x32,  // rdmsr
                0x41, 0x89, 0x40, 0x04,  // mov [r8+4], eax
                0xe6, 0x80,  // out 0x80, al
            ])
        #expect(try guest.run() == .io)
        #expect(guest.machine.ram.load(at: SmokeGuest.shared, as: UInt32.self) & 2 != 0)
        #expect(guest.machine.ram.load(at: SmokeGuest.shared + 4, as: UInt32.self) == 1)
    }

    @Test(arguments: KernelUnderTest.withSEV, [SEVKind.sevES, .oldES])
    func `a SEV-ES guest that asks for its end gets it`(_ candidate: KernelUnderTest, _ kind: SEVKind) throws {
        let guest = try SmokeGuest(candidate.start(), kind, code: GHCBCode.exit(0x100))
        #expect(try guest.run() == .systemEvent)
        #expect(guest.page.systemEvent == RunPage.SystemEvent(type: .sevTermination, data: [0x100]))
    }

    @Test(arguments: KernelUnderTest.withSEV, SEVKind.allCases)
    func `a triple fault is SHUTDOWN`(_ candidate: KernelUnderTest, _ kind: SEVKind) throws {
        let guest = try SmokeGuest(candidate.start(), kind, code: [0x0f, 0x0b], idtLimit: 0)  // ud2
        #expect(try guest.run() == .shutdown)
    }

    /// Of the old ES_INIT's guests the FPU state stays behind.
    @Test(arguments: KernelUnderTest.withSEV, [SEVKind.sevES, .oldES])
    func `x87 and vector registers are sealed with the rest`(_ candidate: KernelUnderTest, _ kind: SEVKind) throws {
        var save = KVMXSave()
        // FCW, FSW with TOP 3, all registers in use; MXCSR with round to zero.
        save.region[0] = 0x37f | 0x1800 << 16 | 0xff << 32
        save.region[3] = 0x7f80
        for register in 0..<8 {
            save.region[4 + 2 * register] = 1 << 63 | UInt64(register) &* 0x0123_4567_89ab_cdef
            save.region[5 + 2 * register] = 0x3fff + UInt64(register)
        }
        for word in 0..<32 { save.region[20 + word] = UInt64(word + 1) &* 0x9e37_79b9_7f4a_7c15 }
        for word in 0..<32 { save.region[72 + word] = UInt64(word + 1) &* 0xc2b2_ae3d_27d4_eb4f }
        save.region[64] = 7
        let guest = try SmokeGuest(
            candidate.start(), kind,
            code: [
                0xb8, 0x07, 0x00, 0x00, 0x00,  // mov eax, 7
                0x31, 0xd2,  // xor edx, edx
                0x41, 0x0f, 0xae, 0x20,  // xsave [r8]
            ] + GHCBCode.exit(0x100), xsave: save)
        #expect(try guest.run() == .systemEvent)
        let saved = (0..<104).map { guest.machine.ram.load(at: SmokeGuest.shared + 8 * $0, as: UInt64.self) }
        if kind == .oldES {
            #expect(saved[20..<52].allSatisfy { $0 == 0 })
            return
        }
        #expect(saved[0] == save.region[0])
        #expect(UInt32(truncatingIfNeeded: saved[3]) == 0x7f80)
        #expect(saved[4..<52].elementsEqual((4..<52).map { save.region[$0] }))
        #expect(saved[64] & 7 == 7)
        #expect(saved[72..<104].elementsEqual((72..<104).map { save.region[$0] }))
    }
}
