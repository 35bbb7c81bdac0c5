// What a VMM that we did not write asks of a SEV host, in its order: QEMU 7.2 with `-object sev-guest`, which knows neither
// INIT2 nor the VM types of SEV. A guest of a few instructions starts in a flash of which every byte is measured, and ends
// by saying which kind of guest it is. It starts in 64-bit mode: the software processor has no other, so QEMU's reset
// vector would end in a named stop.
//
//     0x0000_0000 … 0x0000_ffff    RAM, never launched
//     0xffff_0000 … 0xffff_ffff    flash, a read-only slot, launched whole: page tables 0x1000 to 0x4fff, code 0x8000

import Crypto
import KVMABI
import SEVABI
import TestSupport
import Testing

/// QEMU's side of a launch.
private final class ForeignVMM {
    static let byteCount = 0x1_0000
    static let flashGPA: UInt64 = 0xffff_0000
    /// What the guest writes into its RAM and reads back, here and in the 15 bytes after it.
    static let scratch = 0x500

    let kernel: any HostKernel
    let isES: Bool
    let kvm: KernelHandle
    let sev: KernelHandle
    let vm: KernelHandle
    let ram: KernelMapping
    let flash: KernelMapping
    let room: KernelMapping
    private(set) var vcpu = KernelHandle(rawValue: -1)
    private(set) var page: RunPage?
    private(set) var encryptionBit: UInt64 = 0

    /// Up to the memory: INIT and START come before there is any.
    init(_ kernel: any HostKernel, isES: Bool) throws {
        self.kernel = kernel
        self.isES = isES
        kvm = try kernel.open(.kvm)
        vm = KernelHandle(rawValue: try kernel.call(kvm, .createVM, value: UInt64(VMType.plain.rawValue)))
        sev = try kernel.open(.sev)
        ram = try kernel.map(.anonymous, offset: 0, byteCount: Self.byteCount)
        flash = try kernel.map(.anonymous, offset: 0, byteCount: Self.byteCount)
        room = try kernel.map(.anonymous, offset: 0, byteCount: 0x4000)
    }

    deinit {
        for handle in [vcpu, vm, sev, kvm] where handle.rawValue >= 0 { kernel.close(handle) }
    }

    func command(_ id: SEVCommandID, address: UInt64 = 0) -> SEVOutcome {
        var envelope = KVMSEVCommand(id: id, data: address, sevHandle: sev)
        do throws(Errno) {
            try kernel.call(vm, .memoryEncryptOp, &envelope)
            return SEVOutcome(errno: nil, status: FirmwareStatus(rawValue: envelope.error))
        } catch {
            return SEVOutcome(errno: error, status: FirmwareStatus(rawValue: envelope.error))
        }
    }

    func command<S: KernelStructure>(_ id: SEVCommandID, _ data: inout S) -> SEVOutcome {
        withKernelAddress(of: &data) { (address: UInt64) in command(id, address: address) }
    }

    /// SEV_PLATFORM_STATUS: what is looked at before anything else.
    func platformStatus() throws -> SEVUserStatus {
        var status = SEVUserStatus()
        try withKernelAddress(of: &status) { (address: UInt64) throws(Errno) in
            var envelope = SEVIssueCommand(.platformStatus, data: address)
            try kernel.call(sev, .sevIssueCommand, &envelope)
        }
        return status
    }

    /// A block of guest memory: registered when it is made, then given to KVM, as the RAM block notifier does.
    func add(_ memory: KernelMapping, slot: UInt32, gpa: UInt64, flags: UInt32 = 0) throws {
        try kernel.call(
            vm, .memoryEncryptRegisterRegion,
            reading: KVMEncryptedRegion(address: memory.address, byteCount: UInt64(Self.byteCount)))
        try kernel.call(
            vm, .setUserMemoryRegion,
            reading: KVMUserspaceMemoryRegion(
                slot: slot, flags: flags, guestPhysicalAddress: gpa, memoryByteCount: UInt64(Self.byteCount),
                userspaceAddress: memory.address))
    }

    /// One vCPU in the state that QEMU resets it to.
    func addVCPU() throws {
        vcpu = KernelHandle(rawValue: try kernel.call(vm, .createVCPU, value: 0))
        page = RunPage(try kernel.map(vcpu, offset: 0, byteCount: Int(try kernel.call(kvm, .getVCPUMmapSize))))
        var cpuid = try kernel.supportedCPUID(kvm)
        try kernel.call(vcpu, .setCPUID2, bytes: &cpuid)
        try putRegisters()
    }

    /// Everything that QEMU writes before the launch ends, and again when the VM starts.
    func putRegisters() throws {
        var registers = KVMRegisters()
        registers.rip = Self.flashGPA + 0x8000
        registers.rflags = 2
        registers.rdx = 0x800f12
        try kernel.call(vcpu, .setRegisters, &registers)
        var special = KVMSpecialRegisters2()
        try kernel.call(vcpu, .getSpecialRegisters2, &special)
        let data = KVMSegment(selector: 16, attributes: 0xc93, limit: 0xffff_ffff, base: 0)
        (special.ds, special.es, special.fs, special.gs, special.ss) = (data, data, data, data, data)
        special.cs = KVMSegment(selector: 8, attributes: 0xa9b, limit: 0xffff_ffff, base: 0)
        special.ldt = KVMSegment(selector: 0, attributes: 0x82, limit: 0xffff, base: 0)
        special.tr = KVMSegment(selector: 0, attributes: 0x8b, limit: 0xffff, base: 0)
        special.gdt = KVMDescriptorTable(base: 0, limit: 0xffff)
        special.idt = KVMDescriptorTable(base: 0, limit: 0)
        special.cr0 = 0xe000_0031  // PG, CD, NW, NE, ET, PE
        special.cr3 = (Self.flashGPA + 0x1000) | encryptionBit
        special.cr4 = 0x20
        special.efer = 0x500
        try kernel.call(vcpu, .setSpecialRegisters2, &special)
        // Read and written back, so that they are in the test's list of calls and keep their values.
        var save = KVMXSave()
        try kernel.call(vcpu, .getXSave, &save)
        try kernel.call(vcpu, .setXSave, &save)
        var controls = KVMXCRs()
        try kernel.call(vcpu, .getXCRs, &controls)
        try kernel.call(vcpu, .setXCRs, &controls)
        var events = KVMVCPUEvents()
        try kernel.call(vcpu, .getVCPUEvents, &events)
        try kernel.call(vcpu, .setVCPUEvents, &events)
        var debug = KVMDebugRegisters()
        try kernel.call(vcpu, .getDebugRegisters, &debug)
        try kernel.call(vcpu, .setDebugRegisters, &debug)
        var state = KVMMPState.runnable
        try kernel.call(vcpu, .setMPState, &state)
    }

    func run() throws -> ExitReason {
        let page = try #require(page)
        try RunGuard.watching(page) { () throws(Errno) in _ = try kernel.call(vcpu, .run) }
        return page.exitReason
    }

    /// The C-bit, from the leaf that QEMU checks its `cbitpos` against.
    func findEncryptionBit() throws {
        let leaves = KVMCPUIDList.decode(try kernel.supportedCPUID(kvm))
        let leaf = try #require(leaves.first { $0.function == 0x8000_001f })
        #expect(leaf.eax & (isES ? 0b1000 : 0b10) != 0)
        encryptionBit = 1 << UInt64(leaf.ebx & 0x3f)
    }

    /// Code that reads SEV_STATUS, keeps it in RAM, and reports what it finds there.
    func writeFirmware() {
        for offset in stride(from: 0, to: Self.byteCount, by: 8) {
            flash.store(UInt64(offset) &* 0x9e37_79b9_7f4a_7c15, at: offset)
        }
        // RAM and flash, each in one leaf of 2 MiB; accessed and dirty already.
        for table in 1...4 { flash.fill(0, at: table * 0x1000, count: 0x1000) }
        let table: UInt64 = 0x63 | encryptionBit
        let leaf: UInt64 = 0xe3 | encryptionBit
        flash.store((Self.flashGPA + 0x2000) | table, at: 0x1000)
        flash.store((Self.flashGPA + 0x3000) | table, at: 0x2000)
        flash.store((Self.flashGPA + 0x4000) | table, at: 0x2000 + 8 * 3)
        flash.store(leaf, at: 0x3000)
        flash.store(0xffe0_0000 | leaf, at: 0x4000 + 8 * 511)
        let work: [UInt8] = [
            0xb9, 0x31, 0x01, 0x01, 0xc0,  // mov ecx, 0xc0010131
            0x0f, 0x32,  // rdmsr
            0x88, 0x04, 0x25, 0x00, 0x05, 0x00, 0x00,  // mov [0x500], al
            0x0f, 0xb6, 0x04, 0x25, 0x00, 0x05, 0x00, 0x00,  // movzx eax, byte [0x500]
        ]
        let port: [UInt8] = [
            0x66, 0xba, 0xf8, 0x03,  // mov dx, 0x3f8
            0xee,  // out dx, al
        ]
        let termination: [UInt8] = [
            0xc1, 0xe0, 0x10,  // shl eax, 16: the reason code
            0x0d, 0x00, 0x01, 0x00, 0x00,  // or eax, 0x100
            0x31, 0xd2,  // xor edx, edx
            0xb9, 0x30, 0x01, 0x01, 0xc0,  // mov ecx, 0xc0010130
            0x0f, 0x30,  // wrmsr
            0xf3, 0x0f, 0x01, 0xd9,  // vmgexit
        ]
        flash.write(work + (isES ? termination : port), at: 0x8000)
    }

    /// The VMSA that KVM seals for SEV_ES_INIT: QEMU's registers, CR0's cache bits hidden, EFER.SVME, the host's CR4.MCE,
    /// and no FPU state.
    var expectedVMSA: [UInt8] {
        var page = [UInt8](repeating: 0, count: 4096)
        func put(_ value: UInt64, _ byteCount: Int, at offset: Int) {
            for index in 0..<byteCount {
                page[offset + index] = UInt8(truncatingIfNeeded: value >> (8 * UInt64(index)))
            }
        }
        func segment(_ offset: Int, _ selector: UInt64, _ attributes: UInt64, _ limit: UInt64) {
            put(selector, 2, at: offset)
            put(attributes, 2, at: offset + 2)
            put(limit, 4, at: offset + 4)
        }
        for offset in [0x00, 0x20, 0x30, 0x40, 0x50] { segment(offset, 16, 0xc93, 0xffff_ffff) }
        segment(0x10, 8, 0xa9b, 0xffff_ffff)
        segment(0x60, 0, 0, 0xffff)
        segment(0x70, 0, 0x82, 0xffff)
        segment(0x90, 0, 0x8b, 0xffff)
        let values: [(UInt64, Int)] = [
            (0x1500, 0x0d0), (0x60, 0x148), ((Self.flashGPA + 0x1000) | encryptionBit, 0x150), (0x8000_0031, 0x158),
            (0x400, 0x160), (0xffff_0ff0, 0x168), (2, 0x170), (Self.flashGPA + 0x8000, 0x178),
            (0x0007_0406_0007_0406, 0x268), (0x800f12, 0x310), (1, 0x3e8),
        ]
        for (value, offset) in values { put(value, 8, at: offset) }
        return page
    }
}

@Suite struct SEVForeignVMMTests {
    @Test(arguments: KernelUnderTest.withSEV, [false, true])
    func `a VM of type 0 is launched and run as QEMU does it`(_ candidate: KernelUnderTest, isES: Bool) throws {
        let vmm = try ForeignVMM(candidate.start(), isES: isES)
        let status = try vmm.platformStatus()
        #expect(status.apiMajor >= 1 && (!isES || status.flags & 1 << 8 != 0), "SEV-ES is configured")

        // START comes before memory and processors.
        try #require(vmm.command(isES ? .initializeES : .initialize) == .success)
        var start = KVMSEVLaunchStart()
        start.policy = isES ? 5 : 1
        try #require(vmm.command(.launchStart, &start) == .success)
        #expect(start.handle != 0)

        try vmm.findEncryptionBit()
        vmm.writeFirmware()
        let plaintext = vmm.flash.copyBytes(at: 0, count: ForeignVMM.byteCount)
        try vmm.add(vmm.ram, slot: 0, gpa: 0)
        #expect(try vmm.kernel.check(vmm.vm, .readOnlyMemory) > 0, "type 0 keeps them, whatever it becomes")
        try vmm.add(
            vmm.flash, slot: 1, gpa: ForeignVMM.flashGPA, flags: KVMUserspaceMemoryRegion.readOnly)
        try vmm.addVCPU()
        var update = KVMSEVLaunchUpdateData(
            userAddress: vmm.flash.address, byteCount: UInt32(ForeignVMM.byteCount))
        try #require(vmm.command(.launchUpdateData, &update) == .success)

        if isES { try #require(vmm.command(.launchUpdateVMSA) == .success) }
        var measure = KVMSEVLaunchMeasure()
        #expect(vmm.command(.launchMeasure, &measure) == .firmware(.invalidLength), "a query for the length")
        try #require(measure.byteCount == 48)
        measure.userAddress = vmm.room.address
        try #require(vmm.command(.launchMeasure, &measure) == .success)
        #expect(vmm.room.copyBytes(at: 0, count: 48).contains { $0 != 0 })

        // The report names the digest behind the measurement.
        var report = KVMSEVAttestationReport()
        report.nonce = .init(repeating: 0x77)
        #expect(vmm.command(.getAttestationReport, &report) == .firmware(.invalidLength))
        try #require(report.byteCount == 208)
        report.userAddress = vmm.room.address + 0x1000
        try #require(vmm.command(.getAttestationReport, &report) == .success)
        #expect(vmm.room.copyBytes(at: 0x1000, count: 16).allSatisfy { $0 == 0x77 })
        #expect(
            vmm.room.copyBytes(at: 0x1010, count: 32)
                == SHA2Hasher(.sha256).hash(plaintext + (isES ? vmm.expectedVMSA : [])))

        try #require(vmm.command(.launchFinish) == .success)
        var guest = KVMSEVGuestStatus()
        #expect(vmm.command(.guestStatus, &guest) == .success)
        #expect(guest.state == 3 && guest.policy == start.policy && guest.handle == start.handle)
        // The registers are written once more: sealed ones ignore it.
        if isES { try vmm.putRegisters() }

        let reason = try vmm.run()
        let page = try #require(vmm.page)
        if isES {
            try #require(reason == .systemEvent)
            #expect(page.systemEvent.type == .sevTermination)
            #expect(page.systemEvent.data == [0x3_0100], "SEV_STATUS: SEV and SEV-ES")
        } else {
            try #require(reason == .io)
            #expect(page.portIO.isWrite && page.portIO.port == 0x3f8)
            #expect(page.portData(page.portIO) == [1], "SEV_STATUS: SEV")
        }

        // The host has ciphertext of the flash and, after a flush, of what the guest wrote.
        let stored = vmm.flash.copyBytes(at: 0, count: ForeignVMM.byteCount)
        #expect(zip(stored, plaintext).filter { $0 == $1 }.count < ForeignVMM.byteCount / 64)
        for request: IoctlRequest in [.memoryEncryptUnregisterRegion, .memoryEncryptRegisterRegion] {
            try vmm.kernel.call(
                vmm.vm, request,
                reading: KVMEncryptedRegion(address: vmm.ram.address, byteCount: UInt64(ForeignVMM.byteCount)))
        }
        #expect(vmm.ram.copyBytes(at: ForeignVMM.scratch, count: 16).contains { $0 != 0 }, "not the zeroes of before")
        // Policy NODBG.
        var debug = KVMSEVDebug(
            sourceAddress: vmm.ram.address, destinationAddress: vmm.room.address, byteCount: 16)
        #expect(vmm.command(.debugDecrypt, &debug) == .firmware(.policyFailure))
    }
}
