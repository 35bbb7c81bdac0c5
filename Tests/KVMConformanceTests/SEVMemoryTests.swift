// Memory of SEV guests through the seam: what the host sees of it, regions, and debugging [KVM-SEV, SEV 7].

import Crypto
import KVMABI
import MemoryController
import SEVABI
import SoftwareKVM
import Testing

@Suite struct SEVMemoryTests {
    // MARK: What the host sees

    @Test(arguments: KernelUnderTest.withSEV, SEVKind.allCases)
    func `launched memory is ciphertext, unlike at every address`(_ candidate: KernelUnderTest, _ kind: SEVKind) throws
    {
        let machine = try SEVMachine.at(.initialized, candidate.start(), kind)
        machine.ram.fill(0x33, at: 0, count: 0x3000)
        #expect(machine.start().outcome == .success)
        #expect(machine.update(at: 0, byteCount: 0x2000) == .success)
        var blocks: Set<[UInt8]> = []
        for offset in stride(from: 0, to: 0x2000, by: 16) {
            blocks.insert(machine.ram.copyBytes(at: offset, count: 16))
        }
        #expect(blocks.count == 0x200, "the same 16 bytes differ at each of 512 places")
        #expect(machine.ram.copyBytes(at: 0x2000, count: 0x1000).allSatisfy { $0 == 0x33 }, "not launched")
    }

    @Test(arguments: KernelUnderTest.withSEV, SEVKind.allCases)
    func `the digest is of contents, in order`(_ candidate: KernelUnderTest, _ kind: SEVKind) throws {
        let machine = try SEVMachine.at(.initialized, candidate.start(), kind)
        let pieces = [(0x2000, 0x1000), (0x0ff0, 0x20), (0x8000, 0x10), (0x0, 0x10)]
        let plaintext = pieces.flatMap { machine.ram.copyBytes(at: $0.0, count: $0.1) }
        #expect(machine.start().outcome == .success)
        for (offset, count) in pieces { #expect(machine.update(at: offset, byteCount: count) == .success) }
        #expect(machine.measure().outcome == .success)
        #expect(machine.report().outcome == .success)
        #expect(machine.room.copyBytes(at: 16, count: 32) == SHA2Hasher(.sha256).hash(plaintext))
    }

    @Test(arguments: SEVKind.allCases)
    func `a VM that is gone leaves zeroes behind`(_ kind: SEVKind) throws {
        let kernel = try SoftwareKVM()
        var pages: [SPA] = []
        do {
            let machine = try SEVMachine.at(.running, kernel, kind)
            let protection = try #require(kernel.guestProtection(of: machine.vm))
            #expect(protection.technology == (kind.isES ? .sevES : .sev))
            #expect(protection.handle == machine.status().value.handle)
            #expect(protection.vmsaPages.count == (kind.isES ? 1 : 0))
            #expect(kernel.vmsaAddress(of: machine.vcpu) == protection.vmsaPages.first)
            pages = protection.vmsaPages
            for offset in [0, 0x1000] as [UInt64] {
                pages.append(try #require(kernel.systemAddress(ofUserAddress: machine.ram.address + offset)))
            }
            for page in pages { #expect(try kernel.systemMemory.hostRead(page, byteCount: 4096).contains { $0 != 0 }) }
        }
        for page in pages { #expect(try kernel.systemMemory.hostRead(page, byteCount: 4096).allSatisfy { $0 == 0 }) }
    }

    // MARK: KVM_MEMORY_ENCRYPT_REG_REGION

    @Test(arguments: KernelUnderTest.withSEV, SEVKind.allCases)
    func `regions`(_ candidate: KernelUnderTest, _ kind: SEVKind) throws {
        let kernel = try candidate.start()
        let early = try SEVMachine(kernel, kind)
        let on: IoctlRequest = .memoryEncryptRegisterRegion
        let off: IoctlRequest = .memoryEncryptUnregisterRegion
        #expect(early.region(on, address: early.ram.address, byteCount: 0x1000) == .ENOTTY)
        #expect(early.region(off, address: early.ram.address, byteCount: 0x1000) == .ENOTTY)

        let machine = try SEVMachine.at(.initialized, kernel, kind)
        let ram = machine.ram.address
        #expect(machine.region(on, address: ram, byteCount: 0) == .EINVAL)
        #expect(machine.region(on, address: .max - 4095, byteCount: 4096) == .EINVAL, "wraps")
        #expect(machine.region(on, address: 1 << 60, byteCount: 4096) == .ENOMEM)
        #expect(machine.region(on, address: 4096, byteCount: 1 << 46) != nil, "more than any machine has")
        #expect(machine.region(off, address: ram, byteCount: 0x1000) == .EINVAL, "not registered")
        #expect(machine.region(on, address: ram, byteCount: 0x3000) == nil)
        #expect(machine.region(on, address: ram, byteCount: 0x3000) == nil, "twice")
        #expect(machine.region(on, address: ram + 0x1000, byteCount: 0x3000) == nil, "overlapping")
        #expect(machine.region(off, address: ram, byteCount: 0x1000) == .EINVAL, "not exactly")
        #expect(machine.region(off, address: ram + 0x1000, byteCount: 0x2000) == .EINVAL)
        #expect(machine.region(off, address: ram, byteCount: 0x3000) == nil)
        #expect(machine.region(off, address: ram, byteCount: 0x3000) == nil)
        #expect(machine.region(off, address: ram, byteCount: 0x3000) == .EINVAL)
        #expect(machine.region(off, address: ram + 0x1000, byteCount: 0x3000) == nil)
        #expect(machine.region(on, address: ram + 1, byteCount: 15) == nil, "any alignment")
    }

    @Test func `locked memory is limited`() throws {
        var configuration = SoftwareKVM.Configuration()
        configuration.lockedMemoryLimit = 0x4000
        let machine = try SEVMachine.at(.initialized, SoftwareKVM(configuration: configuration), .sev)
        let ram = machine.ram.address
        let on: IoctlRequest = .memoryEncryptRegisterRegion
        let off: IoctlRequest = .memoryEncryptUnregisterRegion
        #expect(machine.region(on, address: ram, byteCount: 0x5000) == .ENOMEM)
        #expect(machine.region(on, address: ram, byteCount: 0x3000) == nil)
        #expect(machine.region(on, address: ram + 0xfff, byteCount: 2) == .ENOMEM, "two pages")
        #expect(machine.start().outcome == .success)
        #expect(machine.update(at: 0, byteCount: 0x2000) == .refused(.ENOMEM))
        #expect(machine.update(at: 0, byteCount: 0x1000) == .success)
        #expect(machine.update(at: 0x1000, byteCount: 0x1000) == .success, "a command's pages are pinned for its time")
        #expect(machine.region(off, address: ram, byteCount: 0x3000) == nil)
        #expect(machine.region(on, address: ram, byteCount: 0x4000) == nil)
    }

    @Test func `a region is not longer than the machine has memory`() throws {
        var configuration = SoftwareKVM.Configuration()
        configuration.systemMemoryByteCount = 16 << 20
        let machine = try SEVMachine.at(.initialized, SoftwareKVM(configuration: configuration), .sev)
        let big = try machine.kernel.map(.anonymous, offset: 0, byteCount: 17 << 20)
        #expect(
            machine.region(.memoryEncryptRegisterRegion, address: big.address, byteCount: 17 << 20) == .EINVAL)
        #expect(machine.region(.memoryEncryptRegisterRegion, address: big.address, byteCount: 16 << 20) == nil)
    }

    // MARK: DBG_DECRYPT and DBG_ENCRYPT

    @Test(arguments: KernelUnderTest.withSEV, SEVKind.allCases)
    func `debugging reads any piece of guest memory`(_ candidate: KernelUnderTest, _ kind: SEVKind) throws {
        let kernel = try candidate.start()
        let plaintext = try SEVMachine(kernel, kind).ram.copyBytes(at: 0, count: 0x2000)
        let machine = try SEVMachine.at(.running, kernel, kind)
        for (offset, count) in [
            (0, 0x2000), (0, 1), (1, 1), (15, 1), (15, 2), (8, 16), (16, 16), (0xff8, 16), (0xfff, 2), (3, 0x1ff0),
        ] {
            for destination in [0x2000, 0x2001, 0x2ff8] {
                machine.room.fill(0xee, at: 0x1000, count: 0x6000)
                #expect(
                    machine.debug(decrypts: true, at: offset, byteCount: count, roomOffset: destination) == .success)
                #expect(
                    machine.room.copyBytes(at: destination, count: count) == Array(plaintext[offset..<offset + count]),
                    "\(count) bytes from \(offset) to \(destination)")
                #expect(machine.room.load(at: destination - 1, as: UInt8.self) == 0xee)
                #expect(machine.room.load(at: destination + count, as: UInt8.self) == 0xee)
            }
        }
    }

    @Test(arguments: KernelUnderTest.withSEV, SEVKind.allCases)
    func `debugging writes any piece of guest memory and nothing beside it`(
        _ candidate: KernelUnderTest, _ kind: SEVKind
    ) throws {
        let kernel = try candidate.start()
        var expected = try SEVMachine(kernel, kind).ram.copyBytes(at: 0, count: 0x2000)
        let machine = try SEVMachine.at(.running, kernel, kind)
        var value: UInt8 = 0x40
        for (offset, count) in [(0, 16), (16, 1), (0x21, 14), (0x2f, 2), (0x108, 16), (0xff8, 16), (0xffe, 0x102)] {
            for source in [0x2000, 0x2003, 0x2ffc] {
                value &+= 1
                machine.room.fill(value, at: source, count: count)
                #expect(machine.debug(decrypts: false, at: offset, byteCount: count, roomOffset: source) == .success)
                for index in offset..<offset + count { expected[index] = value }
                #expect(machine.debug(decrypts: true, at: 0, byteCount: 0x2000, roomOffset: 0x4000) == .success)
                #expect(
                    machine.room.copyBytes(at: 0x4000, count: 0x2000) == expected,
                    "\(count) bytes from \(source) to \(offset)")
            }
        }
    }

    @Test(arguments: KernelUnderTest.withSEV, SEVKind.allCases)
    func `debugging with bad arguments`(_ candidate: KernelUnderTest, _ kind: SEVKind) throws {
        let machine = try SEVMachine.at(.running, candidate.start(), kind)
        let (ram, room) = (machine.ram.address, machine.room.address)
        let before = machine.ram.copyBytes(at: 0, count: SEVMachine.ramByteCount)
        for id: SEVCommandID in [.debugDecrypt, .debugEncrypt] {
            func debug(_ source: UInt64, _ destination: UInt64, _ byteCount: UInt32) -> SEVOutcome {
                var data = KVMSEVDebug(
                    sourceAddress: source, destinationAddress: destination, byteCount: byteCount)
                return machine.command(id, &data)
            }
            #expect(machine.command(id, address: 0) == .refused(.EFAULT))
            #expect(debug(ram, room, 0) == .refused(.EINVAL))
            #expect(debug(ram, 0, 16) == .refused(.EINVAL))
            #expect(debug(.max - 8, room, 16) == .refused(.EINVAL), "wraps")
            #expect(debug(1 << 60, room, 16) == .refused(.ENOMEM))
            #expect(debug(ram, 1 << 60, 16) == .refused(.ENOMEM))
            #expect(debug(ram, .max - 8, 16) == .refused(.EINVAL), "its page wraps")
        }
        #expect(machine.ram.copyBytes(at: 0, count: SEVMachine.ramByteCount) == before)
    }
}
