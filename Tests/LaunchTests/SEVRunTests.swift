// SEV guests run from registers like plain ones; SEV-ES guests from a VMSA that nobody else can change.

import KVMABI
import MemoryController
import SEVABI
import SoftwareKVM
import Testing

@Suite struct SEVRunTests {
    private func kernel() throws -> SoftwareKVM { try LaunchKernel.software() }

    // MARK: SEV

    @Test func sevStatusAndCPUID() throws {
        let cpuid: [UInt8] = [0xb8, 0x1f, 0x00, 0x00, 0x80, 0x0f, 0xa2]  // mov eax, 0x8000001f; cpuid
        let code =
            Code.rdmsr(0xc001_0131) + Code.report + cpuid + Code.report + [0x89, 0xd8] + Code.report + Code.halt
        let vm = try SEVTestVM.launched(try kernel(), .sev, code: code)
        #expect(try vm.runToPort() == 1)
        #expect(try vm.runToPort() & 2 == 2)
        #expect(try vm.runToPort() & 63 == 51)
    }

    @Test func registersOfASEVGuestAreTheHostsToo() throws {
        let vm = try SEVTestVM.launched(
            try kernel(), .sev, code: Code.set(0x1234) + Code.report + Code.report + Code.halt)
        #expect(try vm.runToPort() == 0x1234)
        var registers = KVMRegisters()
        try vm.kernel.call(vm.vcpu, .getRegisters, &registers)
        #expect(registers.rax == 0x1234)
        registers.rax = 0x77
        try vm.kernel.call(vm.vcpu, .setRegisters, reading: registers)
        #expect(try vm.runToPort() == 0x77)
    }

    @Test func ghcbDoesNotExistForSEV() throws {
        // #GP 13 for RDMSR of the GHCB; VMGEXIT is VMMCALL: -KVM_ENOSYS for an unknown number.
        let handler: [UInt8] = [0xb8, 0x0d, 0, 0, 0] + Code.report + Code.halt
        let vm = try SEVTestVM.launched(
            try kernel(), .sev,
            code: Code.set(99) + [0xf3, 0x0f, 0x01, 0xd9] + Code.report + Code.rdmsr(0xc001_0130) + Code.report,
            handlers: [13: handler])
        #expect(try vm.runToPort() == UInt32(bitPattern: -1000))
        #expect(try vm.runToPort() == 13)
    }

    @Test func stringOutput() throws {
        let vm = try SEVTestVM(
            try kernel(), .sev,
            code: [0xbe, 0x00, 0x00, 0x03, 0x00, 0xb9, 3, 0, 0, 0, 0x66, 0xba, 0x10, 0x00, 0xf3, 0x6e] + Code.halt)
        vm.memory.write(Array("abc".utf8), at: 0x3_0000)
        try vm.launch()
        var seen: [UInt8] = []
        while vm.run() == .success(.io) {
            seen += try #require(vm.runPage.portData(vm.runPage.portIO))
        }
        #expect(seen == Array("abc".utf8))
    }

    @Test func mmioOfBothKinds() throws {
        for address in [0x18_0000, SEVTestVM.window + 0x18_0000] {
            let vm = try SEVTestVM.launched(try kernel(), .sev, code: Code.put(0x55, at: address) + Code.halt)
            #expect(vm.run() == .success(.mmio))
            #expect(vm.runPage.mmio.physicalAddress == 0x18_0000)
            #expect(vm.runPage.mmio.isWrite)
            #expect(vm.runPage.mmio.data == 0x55)
            #expect(vm.run() == .success(.halt))
        }
    }

    @Test func tripleFaultResetsASEVGuest() throws {
        let vm = try SEVTestVM.launched(try kernel(), .sev, code: [0x0f, 0x0b])
        #expect(vm.run() == .success(.shutdown))
        var registers = KVMRegisters()
        try vm.kernel.call(vm.vcpu, .getRegisters, &registers)
        #expect(registers.rip == 0xfff0)
    }

    @Test(arguments: [GuestTechnology.sev, .sevES]) func runBeforeInit(_ technology: GuestTechnology) throws {
        let kernel = try kernel()
        let kvm = try kernel.open(.kvm)
        let type: VMType = technology == .sev ? .sev : .sevES
        let vm = KernelHandle(rawValue: try kernel.call(kvm, .createVM, value: UInt64(type.rawValue)))
        let vcpu = KernelHandle(rawValue: try kernel.call(vm, .createVCPU, value: 0))
        #expect(errno { try kernel.call(vcpu, .run) } == .EINVAL)
    }

    @Test(arguments: [GuestTechnology.sev, .sevES]) func runBeforeStart(_ technology: GuestTechnology) throws {
        let vm = try SEVTestVM(try kernel(), technology, code: Code.halt)
        // VMRUN has no key for the ASID.
        #expect(vm.run() == .success(.failEntry))
        try vm.require(vm.start())
        if technology == .sevES {
            // Nor is there a VMSA.
            #expect(vm.run() == .success(.failEntry))
            try vm.require(vm.command(.launchUpdateVMSA))
        }
        try vm.require(vm.update(0, SEVTestVM.byteCount))
        // The firmware is not asked before a VMRUN.
        #expect(vm.run() == .success(.halt))
    }

    /// Protected state is nobody's; a SEV guest's registers are as a plain one's.
    @Test func noRegistersInTheRunPage() throws {
        let vm = try SEVTestVM.launched(try kernel(), .sevES, code: Code.halt)
        vm.runPage.validRegisters = 1
        #expect(vm.run() == .failure(.EINVAL))
        vm.runPage.validRegisters = 0
        vm.runPage.dirtyRegisters = 1
        #expect(vm.run() == .failure(.EINVAL))
        vm.runPage.dirtyRegisters = 0
        #expect(vm.run() == .success(.halt))
    }

    // MARK: SEV-ES

    private func exitsWithTermination(
        _ vm: SEVTestVM, _ value: UInt64, sourceLocation: SourceLocation = #_sourceLocation
    ) {
        #expect(vm.run() == .success(.systemEvent), sourceLocation: sourceLocation)
        #expect(vm.runPage.systemEvent.type == .sevTermination, sourceLocation: sourceLocation)
        #expect(vm.runPage.systemEvent.data == [value], sourceLocation: sourceLocation)
    }

    @Test func terminationRequest() throws {
        exitsWithTermination(
            try SEVTestVM.launched(try kernel(), .sevES, code: Code.vmgexit(msr: 0x100)), 0x100)
    }

    @Test(arguments: [0x010 as UInt64, 0x3012, 0x0010_0000_0003_0014]) func requestsOfSNPEndTheGuest(_ request: UInt64)
        throws
    {
        exitsWithTermination(try SEVTestVM.launched(try kernel(), .sevES, code: Code.vmgexit(msr: request)), request)
    }

    @Test func undefinedInstructionWithoutIDT() throws {
        let vm = try SEVTestVM.launched(try kernel(), .sevES, code: [0x0f, 0x0b])
        #expect(vm.run() == .success(.shutdown))
    }

    @Test func sevStatusOfSEVES() throws {
        // Terminates with SEV_STATUS in bits 23:16.
        let code =
            Code.rdmsr(0xc001_0131) + [
                0xc1, 0xe0, 0x10, 0x0d, 0x00, 0x01, 0, 0, 0xb9, 0x30, 0x01, 0x01, 0xc0, 0x0f, 0x30,
            ]
            + [0xf3, 0x0f, 0x01, 0xd9]
        exitsWithTermination(try SEVTestVM.launched(try kernel(), .sevES, code: code), 0x3_0100)
    }

    @Test func portAccessIsACommunicationException() throws {
        // The handler ends the guest with the error code.
        let handler: [UInt8] = [
            0x58, 0xc1, 0xe0, 0x10, 0x0d, 0x00, 0x01, 0x00, 0x00, 0x31, 0xd2, 0xb9, 0x30, 0x01, 0x01, 0xc0, 0x0f, 0x30,
            0xf3, 0x0f, 0x01, 0xd9,
        ]
        let vm = try SEVTestVM.launched(try kernel(), .sevES, code: Code.report, handlers: [29: handler])
        exitsWithTermination(vm, 0x7b_0100)
        for address in [0x18_0000, SEVTestVM.window + 0x18_0000] {
            let vm = try SEVTestVM.launched(try kernel(), .sevES, code: Code.load(address), handlers: [29: handler])
            exitsWithTermination(vm, 0x400_0100)
        }
    }

    /// The GHCB's GPA, and where it is mapped without encryption.
    private static let ghcb: UInt64 = 0x3_1000

    /// Code that makes an event with these fields in the GHCB.
    private func event(_ fields: [(GHCB.Field, UInt64)]) -> [UInt8] {
        let base = SEVTestVM.window + UInt32(Self.ghcb)
        var bitmap: (UInt64, UInt64) = (0, 0)
        var code: [UInt8] = []
        for (field, value) in fields {
            code += Code.put(value, at: base + UInt32(field.offset))
            if field.validBit < 64 {
                bitmap.0 |= 1 << UInt64(field.validBit)
            } else {
                bitmap.1 |= 1 << UInt64(field.validBit - 64)
            }
        }
        // The page was ciphertext: its protocol version and usage are not zero by themselves.
        return code + Code.put(0, at: base + 0xff8) + Code.put(bitmap.0, at: base + 0x3f0)
            + Code.put(bitmap.1, at: base + 0x3f8)
            + Code.vmgexit(msr: Self.ghcb)
    }

    private func portWrite(_ value: UInt64) -> [UInt8] {
        event([(.exitCode, 0x7b), (.exitInfo1, 0x10 << 16 | 1 << 6), (.exitInfo2, 0), (.rax, value)])
    }

    @Test func portWriteThroughAnUnregisteredGHCB() throws {
        let vm = try SEVTestVM.launched(try kernel(), .sevES, code: portWrite(0xfeed) + Code.vmgexit(msr: 0x100))
        #expect(try vm.runToPort() == 0xfeed)
        exitsWithTermination(vm, 0x100)
    }

    @Test(arguments: [0x8000_0010, 0x8000_0011, 0x8000_0012, 0x8000_0013, 0x8000_0018] as [UInt64])
    func eventsOfSNPAreRefused(_ code: UInt64) throws {
        let program =
            event([
                (.exitCode, code), (.exitInfo1, 0x1000), (.exitInfo2, 0x2000), (.rax, 0), (.rbx, 0),
                (.scratch, 0x3_1800),
            ])
            + Code.load(SEVTestVM.window + UInt32(Self.ghcb) + UInt32(GHCB.Field.exitInfo1.offset))
            + [0x48, 0x89, 0xc6]  // mov rsi, rax
            + Code.load(SEVTestVM.window + UInt32(Self.ghcb) + UInt32(GHCB.Field.exitInfo2.offset))
            // terminate with info1 and info2: eax << 16 | esi << 24 | 0x100
            + [0xc1, 0xe0, 0x10, 0xc1, 0xe6, 0x18, 0x09, 0xf0, 0x0d, 0x00, 0x01, 0, 0, 0x31, 0xd2]
            + [0xb9, 0x30, 0x01, 0x01, 0xc0, 0x0f, 0x30, 0xf3, 0x0f, 0x01, 0xd9]
        let vm = try SEVTestVM.launched(try kernel(), .sevES, code: program)
        // Malformed input (2): missing input (4), or invalid event (6) where SNP has none either.
        exitsWithTermination(vm, code == 0x8000_0018 ? 0x0206_0100 : 0x0204_0100)
    }

    @Test func floatingPointStateReachesTheGuest() throws {
        // movq rax, xmm3; out by GHCB.
        let base = SEVTestVM.window + UInt32(Self.ghcb)
        let code =
            [0x66, 0x48, 0x0f, 0x7e, 0xd8] + Code.store(base + UInt32(GHCB.Field.rax.offset))
            + Code.put(0x7b, at: base + UInt32(GHCB.Field.exitCode.offset))
            + Code.put(0x10 << 16 | 1 << 6, at: base + UInt32(GHCB.Field.exitInfo1.offset))
            + Code.put(0, at: base + UInt32(GHCB.Field.exitInfo2.offset))
            + Code.put(0, at: base + 0xff8) + Code.put(1 << 63, at: base + 0x3f0)
            + Code.put(7 << (114 - 64), at: base + 0x3f8)
            + Code.vmgexit(msr: Self.ghcb)
        let vm = try SEVTestVM(try kernel(), .sevES, code: code)
        var fpu = KVMFPU()
        try vm.kernel.call(vm.vcpu, .getFPU, &fpu)
        for byte in 0..<16 { fpu.xmm[48 + byte] = UInt8(0xa0 + byte) }
        try vm.kernel.call(vm.vcpu, .setFPU, reading: fpu)
        try vm.launch()
        #expect(try vm.runToPort() == 0xa3a2_a1a0)
    }

    // MARK: Sealed registers [facts: after FINISH]

    private static let calls: [(IoctlRequest, Int)] = [
        (.getRegisters, 144), (.setRegisters, 144), (.getSpecialRegisters, 312), (.setSpecialRegisters, 312),
        (.getSpecialRegisters2, 320), (.setSpecialRegisters2, 320), (.getDebugRegisters, 128),
        (.setDebugRegisters, 128), (.getXCRs, 392), (.setXCRs, 392), (.getXSave, 4096), (.setXSave, 4096),
        (.getFPU, 416), (.setFPU, 416),
    ]

    @Test(arguments: [false, true]) func sealedRegisters(legacy: Bool) throws {
        let vm = try SEVTestVM(try kernel(), .sevES, code: Code.halt, legacyInit: legacy)
        var before: [Int: [UInt8]] = [:]
        for (index, call) in Self.calls.enumerated() {
            var bytes = [UInt8](repeating: 0, count: call.1)
            let isGet = index % 2 == 0
            if !isGet { bytes = before[index - 1]! }
            #expect(errno { try vm.kernel.call(vm.vcpu, call.0, bytes: &bytes) } == nil, "\(call.0) before")
            before[index] = bytes
        }
        try vm.launch()
        for (index, call) in Self.calls.enumerated() {
            var bytes = before[index]!
            #expect(
                errno { try vm.kernel.call(vm.vcpu, call.0, bytes: &bytes) } == (legacy ? nil : .EINVAL), "\(call.0)")
        }
        var debug = KVMGuestDebug()
        debug.control = 1
        #expect(errno { try vm.kernel.call(vm.vcpu, .setGuestDebug, reading: debug) } == .EINVAL)
        #expect(vm.run() == .success(.halt))
    }

    @Test(arguments: [false, true]) func sealedMSRs(legacy: Bool) throws {
        let vm = try SEVTestVM(try kernel(), .sevES, code: Code.halt, legacyInit: legacy)
        try vm.launch()
        // The APIC base is KVM's; LSTAR is the guest's.
        var list = [UInt8](repeating: 0, count: 8 + 2 * 16)
        list.replaceSubrange(0..<4, with: UInt32(2).kernelBytes)
        list.replaceSubrange(8..<12, with: UInt32(0x1b).kernelBytes)
        list.replaceSubrange(24..<28, with: UInt32(0xc000_0082).kernelBytes)
        #expect(try vm.kernel.call(vm.vcpu, .getMSRs, bytes: &list) == (legacy ? 2 : 1))
        #expect(try vm.kernel.call(vm.vcpu, .setMSRs, bytes: &list) == (legacy ? 2 : 1))
    }

    // MARK: The VMSA page

    @Test func changedVMSAIsRefused() throws {
        let kernel = try kernel()
        let vm = try SEVTestVM.launched(kernel, .sevES, code: portWrite(1) + portWrite(2))
        #expect(try vm.runToPort() == 1)
        let page = try #require(kernel.vmsaPages(of: vm.vm).first)
        let bytes = try kernel.systemMemory.hostRead(page, byteCount: 4096)
        var changed = bytes
        changed[0x178] ^= 1
        try kernel.systemMemory.hostWrite(page, changed)
        #expect(vm.run() == .success(.failEntry))
        // What the processor wrote last is accepted again.
        try kernel.systemMemory.hostWrite(page, bytes)
        #expect(try vm.runToPort() == 2)
    }

    @Test func vmsaPageIsCiphertext() throws {
        let kernel = try kernel()
        let vm = try SEVTestVM.launched(kernel, .sevES, code: Code.halt)
        let page = try #require(kernel.vmsaPages(of: vm.vm).first)
        let bytes = try kernel.systemMemory.hostRead(page, byteCount: 4096)
        // RIP, CR3 and the zero end of the page.
        #expect(Array(bytes[0x178..<0x180]) != UInt64(SEVTestVM.codeGPA).kernelBytes)
        #expect(bytes[0x800...].contains { $0 != 0 })
    }

    @Test func oldVMSAIsRefused() throws {
        let kernel = try kernel()
        let vm = try SEVTestVM.launched(kernel, .sevES, code: portWrite(1) + portWrite(2) + portWrite(3))
        let page = try #require(kernel.vmsaPages(of: vm.vm).first)
        #expect(try vm.runToPort() == 1)
        let old = try kernel.systemMemory.hostRead(page, byteCount: 4096)
        #expect(try vm.runToPort() == 2)
        let new = try kernel.systemMemory.hostRead(page, byteCount: 4096)
        #expect(old != new)
        try kernel.systemMemory.hostWrite(page, old)
        #expect(vm.run() == .success(.failEntry))
    }
}
