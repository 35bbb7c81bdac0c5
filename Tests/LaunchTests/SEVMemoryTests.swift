// What a SEV guest, its host and the memory between them see of each other [APM2 15.34].

import KVMABI
import SEVABI
import SoftwareKVM
import Testing

@Suite struct SEVMemoryTests {
    private static let data = 0x3_0000
    private static let address = UInt32(0x3_0000)
    private static let shared = SEVTestVM.window + 0x3_0000
    /// The guest address 0x8_0000 shows the user page of 0x4_0000.
    private static let first: UInt32 = 0x4_0000
    private static let second: UInt32 = 0x8_0000
    private static let value: UInt64 = 0x1122_3344_5566_7788
    private static let old: UInt64 = 0xaaaa_bbbb_cccc_dddd

    private func kernel() throws -> any HostKernel { try LaunchKernel.software() }

    /// Stores a value with C=1, reports it, then reports it again after each further run.
    private func storing(loads: Int = 2) -> [UInt8] {
        Code.put(Self.value, at: Self.address)
            + (0..<loads).flatMap { _ in Code.reportLoad(Self.address) } + Code.halt
    }

    @Test func imageIsCiphertextInTheHostsMapping() throws {
        let vm = try SEVTestVM(try kernel(), .sev, code: Code.halt)
        let plain = vm.memory.copyBytes(at: 0, count: SEVTestVM.byteCount)
        try vm.launch()
        let cipher = vm.memory.copyBytes(at: 0, count: SEVTestVM.byteCount)
        for block in stride(from: 0, to: SEVTestVM.byteCount, by: 16) {
            #expect(plain[block..<block + 16] != cipher[block..<block + 16])
        }
    }

    @Test func hostReadsCiphertextOnceFlushed() throws {
        let vm = try SEVTestVM.launched(try kernel(), .sev, code: storing())
        let before = vm.memory.copyBytes(at: Self.data, count: 16)
        #expect(try vm.runToPort() == 0x5566_7788)
        // The guest's line is dirty; the host's bytes are what they were.
        #expect(vm.memory.copyBytes(at: Self.data, count: 16) == before)
        try vm.flush(Self.data, 4096)
        let after = vm.memory.copyBytes(at: Self.data, count: 16)
        #expect(after != before)
        #expect(Array(after.prefix(8)) != Self.value.kernelBytes)
        // And the guest goes on with what it wrote.
        #expect(try vm.runToPort() == 0x5566_7788)
    }

    @Test func hostWriteIsGarbageForTheGuest() throws {
        let vm = try SEVTestVM.launched(try kernel(), .sev, code: storing(loads: 3))
        #expect(try vm.runToPort() == 0x5566_7788)
        try vm.flush(Self.data, 4096)
        let cipher = vm.memory.copyBytes(at: Self.data, count: 16)
        vm.memory.store(Self.old, at: Self.data)
        let found = try vm.runToPort()
        #expect(found != 0x5566_7788 && found != UInt32(truncatingIfNeeded: Self.old))
        // The ciphertext that it was is the plaintext that it was.
        try vm.flush(Self.data, 4096)
        vm.memory.write(cipher, at: Self.data)
        #expect(try vm.runToPort() == 0x5566_7788)
    }

    @Test func hostWriteBeforeTheFlushIsLost() throws {
        let vm = try SEVTestVM.launched(try kernel(), .sev, code: storing())
        #expect(try vm.runToPort() == 0x5566_7788)
        vm.memory.store(Self.old, at: Self.data)
        #expect(try vm.runToPort() == 0x5566_7788)
        try vm.flush(Self.data, 4096)
        #expect(vm.memory.load(at: Self.data, as: UInt64.self) != Self.old)
    }

    @Test func replayedCiphertextIsThePast() throws {
        let code =
            Code.put(Self.old, at: Self.address) + Code.reportLoad(Self.address) + storing()
        let vm = try SEVTestVM.launched(try kernel(), .sev, code: code)
        #expect(try vm.runToPort() == 0xcccc_dddd)
        try vm.flush(Self.data, 4096)
        let past = vm.memory.copyBytes(at: Self.data, count: 4096)
        #expect(try vm.runToPort() == 0x5566_7788)
        try vm.flush(Self.data, 4096)
        vm.memory.write(past, at: Self.data)
        // SEV has nothing against this.
        #expect(try vm.runToPort() == 0xcccc_dddd)
    }

    @Test func onePageAtTwoAddresses() throws {
        let code =
            Code.put(Self.value, at: Self.first) + Code.reportLoad(Self.second)
            + Code.put(Self.old, at: Self.second) + Code.reportLoad(Self.first) + Code.halt
        let vm = try SEVTestVM.launched(try kernel(), .sev, code: code)
        #expect(try vm.runToPort() == 0x5566_7788)
        #expect(try vm.runToPort() == 0xcccc_dddd)
    }

    @Test func samePlaintextInTwoPagesIsDifferentCiphertext() throws {
        let code =
            Code.put(Self.value, at: Self.address) + Code.put(Self.value, at: Self.address + 0x1000) + Code.report
            + Code.halt
        let vm = try SEVTestVM.launched(try kernel(), .sev, code: code)
        _ = try vm.runToPort()
        try vm.flush()
        #expect(
            vm.memory.copyBytes(at: Self.data, count: 16) != vm.memory.copyBytes(at: Self.data + 0x1000, count: 16))
    }

    @Test func samePlaintextInTwoGuestsIsDifferentCiphertext() throws {
        let kernel = try kernel()
        let code = Code.put(Self.value, at: Self.address) + Code.report + Code.halt
        let a = try SEVTestVM.launched(kernel, .sev, code: code)
        let b = try SEVTestVM.launched(kernel, .sev, code: code)
        for vm in [a, b] {
            _ = try vm.runToPort()
            try vm.flush()
        }
        for offset in stride(from: 0, to: SEVTestVM.byteCount, by: 4096) {
            #expect(a.memory.copyBytes(at: offset, count: 16) != b.memory.copyBytes(at: offset, count: 16))
        }
    }

    @Test func movedCiphertextIsGarbage() throws {
        let code = storing(loads: 1).dropLast() + Code.reportLoad(Self.address + 0x1000) + Code.halt
        let vm = try SEVTestVM.launched(try kernel(), .sev, code: code)
        #expect(try vm.runToPort() == 0x5566_7788)
        try vm.flush()
        vm.memory.write(vm.memory.copyBytes(at: Self.data, count: 4096), at: Self.data + 0x1000)
        #expect(try vm.runToPort() != 0x5566_7788)
    }

    // MARK: C=0

    @Test func sharedPageIsTheHostsOwn() throws {
        let code =
            Code.put(Self.value, at: Self.shared) + Code.report + Code.reportLoad(Self.shared) + Code.halt
        let vm = try SEVTestVM.launched(try kernel(), .sev, code: code)
        _ = try vm.runToPort()
        #expect(vm.memory.load(at: Self.data, as: UInt64.self) == Self.value)
        vm.memory.store(Self.old, at: Self.data)
        #expect(try vm.runToPort() == 0xcccc_dddd)
    }

    @Test func bothViewsOfAPageAreCoherent() throws {
        // C=1 store, C=0 load: ciphertext; C=0 store, C=1 load: garbage; C=1 load again of an untouched line.
        let other = Self.address + 0x800
        let code =
            Code.put(Self.value, at: Self.address) + Code.put(Self.value, at: other) + Code.reportLoad(Self.shared)
            + Code.put(Self.old, at: Self.shared) + Code.reportLoad(Self.address) + Code.reportLoad(other) + Code.halt
        let vm = try SEVTestVM.launched(try kernel(), .sev, code: code)
        let cipher = try vm.runToPort()
        #expect(cipher != 0x5566_7788)
        #expect(vm.memory.load(at: Self.data, as: UInt32.self) == cipher)
        let garbage = try vm.runToPort()
        #expect(garbage != 0xcccc_dddd && garbage != 0x5566_7788)
        #expect(try vm.runToPort() == 0x5566_7788)
    }

    @Test func whatADeviceWroteStays() throws {
        let code =
            Code.put(Self.value, at: Self.address) + Code.report + Code.reportLoad(Self.shared) + Code.halt
        let vm = try SEVTestVM.launched(try kernel(), .sev, code: code)
        _ = try vm.runToPort()
        vm.memory.store(Self.old, at: Self.data)
        #expect(try vm.runToPort() == 0xcccc_dddd)
    }

    @Test func copyFromOneViewToTheOther() throws {
        // rep movsb of 32 bytes from the encrypted view of a page to the other view of the same page.
        let code =
            Code.put(Self.value, at: Self.address) + [0xbe] + Self.address.kernelBytes + [0xbf]
            + (Self.shared + 0x800).kernelBytes + [0xb9, 0x20, 0, 0, 0, 0xf3, 0xa4] + Code.report + Code.halt
        let vm = try SEVTestVM.launched(try kernel(), .sev, code: code)
        _ = try vm.runToPort()
        #expect(vm.memory.load(at: Self.data + 0x800, as: UInt64.self) == Self.value)
    }

    @Test func codeInASharedPageIsGarbage() throws {
        // Code written with C=0 is fetched with C=1.
        let code =
            [0x48, 0xb8] + UInt64(0xf4f4_f4f4_f4f4_f4f4).kernelBytes + Code.store(Self.shared) + Code.report
            + [0xbb] + Self.address.kernelBytes + [0xff, 0xe3]
        let vm = try SEVTestVM.launched(try kernel(), .sev, code: code)
        _ = try vm.runToPort()
        let exit = vm.run()
        let place = try registers(vm).rip
        #expect(exit != .success(.halt) || place != UInt64(Self.address) + 1)
    }

    private func registers(_ vm: SEVTestVM) throws -> KVMRegisters {
        var registers = KVMRegisters()
        try vm.kernel.call(vm.vcpu, .getRegisters, &registers)
        return registers
    }

    @Test func codeThatTheHostReplacedIsForgotten() throws {
        // A loop that reports; the host flips a bit of its page's ciphertext between two rounds.
        let code = Code.set(7) + Code.report + [0xeb, UInt8(bitPattern: -4)]
        let vm = try SEVTestVM.launched(try kernel(), .sev, code: code)
        #expect(try vm.runToPort() == 7)
        #expect(try vm.runToPort() == 7)
        try vm.flush(SEVTestVM.codeGPA, 4096)
        vm.memory.store(vm.memory.load(at: SEVTestVM.codeGPA, as: UInt8.self) ^ 1, at: SEVTestVM.codeGPA)
        // The first block of code is garbage now; whatever it does, it is not the loop for ever.
        var rounds = 0
        while rounds < 3, vm.run() == .success(.io), vm.runPage.portIO.port == 0x10,
            vm.runPage.mapping.load(at: 0x1000, as: UInt32.self) == 7
        {
            rounds += 1
        }
        #expect(rounds < 3)
    }

    @Test func twoProcessorsOnBothViewsOfAPage() async throws {
        // One counts with C=1, the other reads the same page with C=0: the page goes to and fro, and no count is lost.
        let rounds: UInt32 = 1_000_000
        let counting: [UInt8] =
            Code.put(0, at: Self.address) + [0xb9] + rounds.kernelBytes + [0x48, 0xff, 0x03, 0xff, 0xc9, 0x75, 0xf9]
            + Code.reportLoad(Self.address) + Code.halt
        let reading: [UInt8] =
            [0xbb] + (Self.shared + 0x800).kernelBytes + [0xb9] + rounds.kernelBytes
            + [0x48, 0x8b, 0x03, 0xff, 0xc9, 0x75, 0xf9] + Code.report + Code.halt
        let vm = try SEVTestVM(try kernel(), .sev, code: counting)
        vm.memory.write(reading, at: 0x1_1000)
        let (other, page) = try vm.addVCPU(id: 1, rip: 0x1_1000)
        // Without an in-kernel local APIC HLT and port accesses leave; both vCPUs run on threads of their own.
        try vm.launch()
        let (kernel, first) = (vm.kernel, vm.vcpu)
        func run(_ vcpu: KernelHandle) -> Errno? {
            do throws(Errno) {
                try kernel.call(vcpu, .run)
                return nil
            } catch {
                return error
            }
        }
        async let a = run(first)
        async let b = run(other)
        #expect(await a == nil)
        #expect(await b == nil)
        #expect(page.exitReason == .io)
        #expect(vm.runPage.exitReason == .io)
        #expect(vm.runPage.mapping.load(at: 0x1000, as: UInt32.self) == rounds)
    }

    // MARK: Pieces

    @Test func onlyTheRangesGivenAreEncrypted() throws {
        let vm = try SEVTestVM(try kernel(), .sev, code: Code.halt)
        let plain = (0..<4096).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        vm.memory.write(plain, at: Self.data)
        try vm.require(vm.start())
        try vm.require(vm.update(Self.data + 0x40, 0x20))
        let seen = vm.memory.copyBytes(at: Self.data, count: 4096)
        #expect(seen[0..<0x40] == plain[0..<0x40])
        #expect(seen[0x60...] == plain[0x60...])
        #expect(seen[0x40..<0x50] != plain[0x40..<0x50])
        #expect(seen[0x50..<0x60] != plain[0x50..<0x60])
    }

    @Test func aPageEncryptedInPiecesIsWholeForTheGuest() throws {
        let code =
            Code.reportLoad(Self.address) + Code.reportLoad(Self.address + 0x7f0)
            + Code.reportLoad(Self.address + 0xff0)
            + Code.halt
        let vm = try SEVTestVM(try kernel(), .sev, code: code)
        for offset in stride(from: 0, to: 4096, by: 8) { vm.memory.store(UInt64(offset), at: Self.data + offset) }
        try vm.launch([0..<Self.data, Self.data..<Self.data + 0x7f0, Self.data + 0x7f0..<SEVTestVM.byteCount])
        #expect(try vm.runToPort() == 0)
        #expect(try vm.runToPort() == 0x7f0)
        #expect(try vm.runToPort() == 0xff0)
    }

    // MARK: Hostile VMMs

    @Test func twoGuestsOnOnePage() throws {
        let kernel = try kernel()
        let code = storing(loads: 3)
        let a = try SEVTestVM.launched(kernel, .sev, code: code)
        #expect(try a.runToPort() == 0x5566_7788)
        // The second guest has the first one's memory: its own page tables are garbage to it.
        let b = try SEVTestVM(kernel, .sev, code: [], memory: a.memory)
        try b.require(b.start())
        #expect(b.run() != .success(.io))
        // The page was taken away and given back as ciphertext: the first guest goes on.
        #expect(try a.runToPort() == 0x5566_7788)
        #expect(try a.runToPort() == 0x5566_7788)
    }

    @Test func memoryThatGoesAway() throws {
        let kernel = try kernel()
        // A slot whose page is unmapped while the guest has it, and mapped again.
        let code =
            Code.put(Self.value, at: 0x18_0000) + Code.report + Code.reportLoad(0x18_0000) + Code.reportLoad(0x18_0000)
            + Code.halt
        let vm = try SEVTestVM.launched(kernel, .sev, code: code)
        var page: KernelMapping? = try kernel.map(.anonymous, offset: 0, byteCount: 1 << 20)
        let address = try #require(page?.address)
        try kernel.call(
            vm.vm, .setUserMemoryRegion,
            reading: KVMUserspaceMemoryRegion(
                slot: 5, guestPhysicalAddress: 0x18_0000, memoryByteCount: 1 << 20, userspaceAddress: address))
        _ = try vm.runToPort()
        page = nil
        // What the guest has, it has. Nothing is written to addresses that may be somebody else's by now.
        #expect(try vm.runToPort() == 0x5566_7788)
        try kernel.call(
            vm.vm, .setUserMemoryRegion,
            reading: KVMUserspaceMemoryRegion(slot: 5, memoryByteCount: 0, userspaceAddress: address))
        #expect(vm.run() == .success(.mmio))
    }

    @Test func encryptedAccessToUnmappedUserMemory() throws {
        let kernel = try kernel()
        let vm = try SEVTestVM.launched(kernel, .sev, code: Code.reportLoad(0x18_0000) + Code.halt)
        let region = KVMUserspaceMemoryRegion(
            slot: 5, guestPhysicalAddress: 0x18_0000, memoryByteCount: 0x1000, userspaceAddress: 0x7000)
        try kernel.call(vm.vm, .setUserMemoryRegion, reading: region)
        #expect(vm.run() == .failure(.EFAULT))
        #expect(vm.run() == .failure(.EFAULT))
    }

    @Test func launchOfUnmappedMemory() throws {
        let vm = try SEVTestVM(try kernel(), .sev, code: Code.halt)
        try vm.require(vm.start())
        var argument = KVMSEVLaunchUpdateData(userAddress: 0x7000, byteCount: 4096)
        #expect(vm.command(.launchUpdateData, &argument).errno == .ENOMEM)
    }

    @Test func removedSlotOfPinnedMemoryHoldsCiphertext() throws {
        let kernel = try kernel()
        let vm = try SEVTestVM.launched(kernel, .sev, code: storing())
        let region = KVMEncryptedRegion(address: vm.memory.address, byteCount: UInt64(SEVTestVM.byteCount))
        try kernel.call(vm.vm, .memoryEncryptRegisterRegion, reading: region)
        _ = try vm.runToPort()
        let before = vm.memory.copyBytes(at: Self.data, count: 16)
        func setSlot(_ byteCount: Int) throws {
            try kernel.call(
                vm.vm, .setUserMemoryRegion,
                reading: KVMUserspaceMemoryRegion(
                    slot: 0, memoryByteCount: UInt64(byteCount), userspaceAddress: vm.memory.address))
        }
        try setSlot(0)
        let after = vm.memory.copyBytes(at: Self.data, count: 16)
        #expect(after != before)
        #expect(Array(after.prefix(8)) != Self.value.kernelBytes)
        // Back again: the guest finds its plaintext.
        try setSlot(SEVTestVM.byteCount)
        #expect(try vm.runToPort() == 0x5566_7788)
    }

    @Test func removedSlotOfOtherMemoryIsForgotten() throws {
        let kernel = try kernel()
        let code =
            Code.put(Self.value, at: 0x18_0000) + Code.report + Code.reportLoad(0x18_0000) + Code.reportLoad(0x18_0000)
            + Code.halt
        let vm = try SEVTestVM.launched(kernel, .sev, code: code)
        let page = try kernel.map(.anonymous, offset: 0, byteCount: 4096)
        func setSlot(_ slot: UInt32, _ gpa: UInt64, _ byteCount: UInt64) throws {
            try kernel.call(
                vm.vm, .setUserMemoryRegion,
                reading: KVMUserspaceMemoryRegion(
                    slot: slot, guestPhysicalAddress: gpa, memoryByteCount: byteCount, userspaceAddress: page.address))
        }
        try setSlot(5, 0x18_0000, 4096)
        try setSlot(6, 0x19_0000, 4096)
        _ = try vm.runToPort()
        // As long as another slot shows the page, nothing is lost.
        try setSlot(6, 0x19_0000, 0)
        #expect(try vm.runToPort() == 0x5566_7788)
        try setSlot(5, 0x18_0000, 0)
        #expect(page.copyBytes(at: 0, count: 4096).allSatisfy { $0 == 0 })
        try setSlot(5, 0x18_0000, 4096)
        #expect(try vm.runToPort() != 0x5566_7788)
    }

    @Test func encryptedAccessWithoutSlotIsMMIO() throws {
        let vm = try SEVTestVM.launched(try kernel(), .sev, code: Code.load(0x18_0000) + Code.report + Code.halt)
        #expect(vm.run() == .success(.mmio))
        #expect(vm.runPage.mmio.physicalAddress == 0x18_0000)
        #expect(!vm.runPage.mmio.isWrite)
        var mmio = vm.runPage.mmio
        mmio.data = 0x77
        vm.runPage.mapping.store(0x77 as UInt64, at: 40)
        #expect(try vm.runToPort() == 0x77)
    }
}
