import MemoryController
import SEVABI
import Testing

/// Pages of SEV and SEV-ES guests: only the key stands between them and the host.
@Suite("Guests without RMP")
struct WithoutRMPTests {
    static let a = Machine.guestA
    static let b = Machine.guestB

    private func page(_ machine: Machine, _ contents: [UInt8]) throws -> SPA {
        let spa = try #require(machine.memory.allocatePages())
        try machine.memory.hostWrite(spa, contents)
        return spa
    }

    private func pointer(_ machine: Machine, _ spa: SPA, asid: UInt32 = a) -> UnsafeMutableRawPointer? {
        guard case .page(let pointer, writable: true) = machine.memory.encryptedPage(spa, asid: asid) else {
            return nil
        }
        return unsafe pointer
    }

    private func load(_ machine: Machine, _ spa: SPA, asid: UInt32 = a) -> [UInt8]? {
        guard let pointer = unsafe pointer(machine, spa, asid: asid) else { return nil }
        return (0..<4096).map { unsafe pointer.load(fromByteOffset: $0, as: UInt8.self) }
    }

    static let pattern = (0..<4096).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 8) }

    @Test("LAUNCH_UPDATE_DATA's effect: the guest reads what was there, the host reads ciphertext of its key")
    func encrypt() throws {
        let machine = try Machine()
        let spa = try page(machine, Self.pattern)
        #expect(machine.memory.firmwareEncrypt(spa, byteCount: 4096, asid: Self.a))
        let ciphertext = try machine.memory.hostRead(spa, byteCount: 4096)
        #expect(ciphertext != Self.pattern)
        #expect(load(machine, spa) == Self.pattern)
        // The host's bytes do not change because the guest has looked.
        #expect(try machine.memory.hostRead(spa, byteCount: 4096) == ciphertext)
        #expect(
            machine.memory.firmwareReadGuest(spa + 100, byteCount: 300, asid: Self.a) == Array(Self.pattern[100..<400]))
        // Another guest, to whom the host maps the page, reads garbage.
        let garbage = load(machine, spa, asid: Self.b)
        #expect(garbage != nil && garbage != Self.pattern && garbage != ciphertext)
        // And it is still the first guest's when it comes back.
        #expect(load(machine, spa) == Self.pattern)
    }

    @Test("the same plaintext in two guests, and at two pages of one guest, has different ciphertext")
    func distinct() throws {
        let machine = try Machine()
        let spa = try page(machine, Self.pattern)
        #expect(machine.memory.firmwareEncrypt(spa, byteCount: 4096, asid: Self.a))
        let first = try machine.memory.hostRead(spa, byteCount: 4096)
        try machine.memory.hostWrite(spa, Self.pattern)
        #expect(machine.memory.firmwareEncrypt(spa, byteCount: 4096, asid: Self.b))
        let second = try machine.memory.hostRead(spa, byteCount: 4096)
        let other = try page(machine, Self.pattern)
        #expect(machine.memory.firmwareEncrypt(other, byteCount: 4096, asid: Self.a))
        let third = try machine.memory.hostRead(other, byteCount: 4096)
        for block in stride(from: 0, to: 4096, by: 16) {
            let blocks = Set([first, second, third].map { Array($0[block..<(block + 16)]) })
            #expect(blocks.count == 3)
        }
    }

    @Test(
        "parts of pages: exactly the blocks of the range change in DRAM",
        arguments: [(16, 16), (0, 32), (4080, 16), (4000, 4256)])
    func parts(_ offset: Int, _ count: Int) throws {
        let machine = try Machine()
        let spa = try #require(machine.memory.allocatePages(3))
        let whole = Self.pattern + Self.pattern.reversed() + Self.pattern
        try machine.memory.hostWrite(spa, whole)
        #expect(machine.memory.firmwareEncrypt(spa + UInt64(offset), byteCount: count, asid: Self.a))
        let after = try machine.memory.hostRead(spa, byteCount: 3 * 4096)
        for block in stride(from: 0, to: 3 * 4096, by: 16) {
            let isInside = block >= offset && block < offset + count
            let isSame = after[block..<(block + 16)] == whole[block..<(block + 16)]
            #expect(isSame != isInside, "block at \(block)")
        }
        let plaintext = machine.memory.firmwareReadGuest(spa + UInt64(offset), byteCount: count, asid: Self.a)
        #expect(plaintext == Array(whole[offset..<(offset + count)]))
        // Encrypted block by block it is the same as encrypted at once.
        let one = try page(machine, Self.pattern)
        #expect(machine.memory.firmwareEncrypt(one, byteCount: 4096, asid: Self.a))
        let atOnce = try machine.memory.hostRead(one, byteCount: 4096)
        try machine.memory.hostWrite(one, Self.pattern)
        for block in stride(from: 0, to: 4096, by: 512) {
            #expect(machine.memory.firmwareEncrypt(one + UInt64(block), byteCount: 512, asid: Self.a))
        }
        #expect(try machine.memory.hostRead(one, byteCount: 4096) == atOnce)
    }

    @Test("alignment, length and range of an encryption; nothing changes when it is refused")
    func refusals() throws {
        let machine = try Machine()
        let spa = try page(machine, Self.pattern)
        let end = machine.memory.base + machine.memory.byteCount
        let cases: [(SPA, Int, UInt32)] = [
            (spa + 8, 16, Self.a), (spa, 8, Self.a), (spa, -16, Self.a), (spa, 16, 77), (spa, 16, 0), (spa, 16, .max),
            (end, 16, Self.a), (SPA(rawValue: end.rawValue - 16), 32, Self.a), (.zero, 16, Self.a),
            (SPA(rawValue: .max & ~15), 32, Self.a),
        ]
        for (address, count, asid) in cases {
            #expect(!machine.memory.firmwareEncrypt(address, byteCount: count, asid: asid), "\(address) \(count)")
        }
        #expect(try machine.memory.hostRead(spa, byteCount: 4096) == Self.pattern)
        #expect(machine.memory.firmwareEncrypt(spa, byteCount: 0, asid: Self.a))
        #expect(machine.memory.firmwareReadGuest(end, byteCount: 1, asid: Self.a) == nil)
        #expect(machine.memory.firmwareReadGuest(spa, byteCount: 1, asid: 77) == nil)
        #expect(!machine.memory.firmwareWriteGuest(end, [1], asid: Self.a))
        #expect(!machine.memory.firmwareWriteGuest(spa, [1], asid: 77))
        #expect(machine.memory.firmwareWriteGuest(spa, [], asid: Self.a))
        #expect(!machine.memory.firmwareSealVMSA(spa + 16, asid: Self.a))
        #expect(!machine.memory.firmwareSealVMSA(end, asid: Self.a))
        #expect(!machine.memory.firmwareSealVMSA(spa, asid: 77))
    }

    @Test("who gets no pointer")
    func faults() throws {
        let machine = try Machine()
        let owned = try machine.guestPage(contents: Self.pattern)
        func fault(_ spa: SPA, _ asid: UInt32) -> RMPFault? {
            guard case .fault(let fault) = machine.memory.encryptedPage(spa, asid: asid) else { return nil }
            return fault
        }
        let plain = try page(machine, Self.pattern)
        #expect(fault(plain, Self.a) == nil)
        #expect(fault(plain, 0) == .owner)
        #expect(fault(plain, 77) == .owner)
        #expect(fault(owned, Self.b) == .owner)
        #expect(fault(owned, Self.a) == .owner, "a page of the RMP is not reached without it")
        #expect(fault(machine.memory.base + machine.memory.byteCount, Self.a) == .notMemory)
        machine.memory.firmwareRemoveKey(asid: Self.a)
        #expect(fault(plain, Self.a) == .owner)
    }

    @Test("the host's writes: garbage in the blocks they touch; an old ciphertext is accepted")
    func hostWrites() throws {
        let machine = try Machine()
        let spa = try page(machine, Self.pattern)
        #expect(machine.memory.firmwareEncrypt(spa, byteCount: 4096, asid: Self.a))
        let old = try machine.memory.hostRead(spa, byteCount: 4096)
        #expect(machine.memory.firmwareWriteGuest(spa + 5, [1, 2, 3], asid: Self.a))
        var changed = Self.pattern
        changed.replaceSubrange(5..<8, with: [1, 2, 3])
        #expect(load(machine, spa) == changed)
        let new = try machine.memory.hostRead(spa, byteCount: 4096)
        #expect(new[0..<16] != old[0..<16] && new[16...] == old[16...], "one block of ciphertext changed")
        // Corruption.
        try machine.memory.hostWrite(spa + 40, [0xff])
        let corrupted = try #require(load(machine, spa))
        #expect(corrupted[0..<32] == changed[0..<32] && corrupted[48...] == changed[48...])
        #expect(corrupted[32..<48] != changed[32..<48])
        // Replay: this is what SEV does not stop.
        try machine.memory.hostWrite(spa, old)
        #expect(load(machine, spa) == Self.pattern)
        // Ciphertext moved to another page is garbage there.
        let other = try page(machine, old)
        #expect(load(machine, other) != Self.pattern)
    }

    @Test("what is left when the key is gone")
    func afterTheKey() throws {
        let machine = try Machine()
        let spa = try page(machine, Self.pattern)
        #expect(machine.memory.firmwareEncrypt(spa, byteCount: 4096, asid: Self.a))
        let ciphertext = try machine.memory.hostRead(spa, byteCount: 4096)
        machine.memory.firmwareRemoveKey(asid: Self.a)
        #expect(machine.memory.firmwareInstallKey(asid: Self.a, [UInt8](200...231)))
        #expect(try machine.memory.hostRead(spa, byteCount: 4096) == ciphertext)
        let next = try #require(load(machine, spa))
        #expect(next != Self.pattern && next != ciphertext)
        #expect(machine.memory.freePages(spa))
        let again = try #require(machine.memory.allocatePages())
        #expect(again == spa)
        #expect(try machine.memory.hostRead(again, byteCount: 4096) == [UInt8](repeating: 0, count: 4096))
    }

    // MARK: VMSA

    private func sealed(_ machine: Machine) throws -> (SPA, VMSA) {
        var vmsa = VMSA()
        vmsa[VMSA.rip] = 0xfff0
        vmsa[VMSA.rax] = 0x1122
        let spa = try page(machine, vmsa.page)
        #expect(machine.memory.firmwareSealVMSA(spa, asid: Self.a))
        return (spa, vmsa)
    }

    @Test("a sealed VMSA is entered from and saved to")
    func vmsa() throws {
        let machine = try Machine()
        var (spa, vmsa) = try sealed(machine)
        #expect(machine.memory.loadVMSA(withoutRMP: spa, asid: Self.a) == vmsa)
        vmsa[VMSA.rax] = 0x3344
        #expect(machine.memory.storeVMSA(withoutRMP: spa, asid: Self.a, vmsa))
        #expect(machine.memory.loadVMSA(withoutRMP: spa, asid: Self.a) == vmsa)
        // Looking at the ciphertext is allowed, by copy and in place.
        let ciphertext = try machine.memory.hostRead(spa, byteCount: 4096)
        #expect(ciphertext != vmsa.page)
        #expect(machine.memory.loadVMSA(withoutRMP: spa, asid: Self.a) == vmsa)
        // Writing back exactly what is there changes nothing.
        try machine.memory.hostWrite(spa, ciphertext)
        #expect(machine.memory.loadVMSA(withoutRMP: spa, asid: Self.a) == vmsa)
        vmsa[VMSA.rip] = 7
        #expect(machine.memory.storeVMSA(withoutRMP: spa, asid: Self.a, vmsa))
        #expect(machine.memory.loadVMSA(withoutRMP: spa, asid: Self.a) == vmsa)
        // Other ASIDs, other pages.
        #expect(machine.memory.loadVMSA(withoutRMP: spa, asid: Self.b) == nil)
        #expect(machine.memory.loadVMSA(withoutRMP: spa, asid: 77) == nil)
        #expect(machine.memory.loadVMSA(withoutRMP: spa + 16, asid: Self.a) == nil)
        #expect(machine.memory.loadVMSA(withoutRMP: .zero, asid: Self.a) == nil)
        let plain = try page(machine, vmsa.page)
        #expect(machine.memory.loadVMSA(withoutRMP: plain, asid: Self.a) == nil, "never sealed")
        #expect(!machine.memory.storeVMSA(withoutRMP: plain, asid: Self.a, vmsa))
        #expect(try machine.memory.hostRead(plain, byteCount: 4096) == vmsa.page)
    }

    @Test(
        "a changed VMSA is not entered: any byte, an old ciphertext, another guest's",
        arguments: [0, 0x178, 0x66f, 0x670, 4095])
    func changedVMSA(_ offset: Int) throws {
        let machine = try Machine()
        var (spa, vmsa) = try sealed(machine)
        let old = try machine.memory.hostRead(spa, byteCount: 4096)
        vmsa[VMSA.rax] = 9
        #expect(machine.memory.storeVMSA(withoutRMP: spa, asid: Self.a, vmsa))
        let current = try machine.memory.hostRead(spa, byteCount: 4096)
        try machine.memory.hostWrite(spa + UInt64(offset), [current[offset] ^ 1])
        #expect(machine.memory.loadVMSA(withoutRMP: spa, asid: Self.a) == nil)
        #expect(!machine.memory.storeVMSA(withoutRMP: spa, asid: Self.a, vmsa))
        // Undone, it is what it was.
        try machine.memory.hostWrite(spa + UInt64(offset), [current[offset]])
        #expect(machine.memory.loadVMSA(withoutRMP: spa, asid: Self.a) == vmsa)
        // Replay.
        try machine.memory.hostWrite(spa, old)
        #expect(machine.memory.loadVMSA(withoutRMP: spa, asid: Self.a) == nil)
        try machine.memory.hostWrite(spa, current)
        #expect(machine.memory.loadVMSA(withoutRMP: spa, asid: Self.a) == vmsa)
    }

    @Test("a guest that is given its own VMSA page cannot change what it is entered with")
    func exposedVMSA() throws {
        let machine = try Machine()
        var (spa, vmsa) = try sealed(machine)
        let pointer = unsafe try #require(pointer(machine, spa))
        #expect(machine.memory.loadVMSA(withoutRMP: spa, asid: Self.a) == vmsa)
        unsafe pointer.storeBytes(of: 0x55, toByteOffset: 0x1f8, as: UInt8.self)
        #expect(machine.memory.loadVMSA(withoutRMP: spa, asid: Self.a) == nil)
        unsafe pointer.storeBytes(of: 0x22, toByteOffset: 0x1f8, as: UInt8.self)
        #expect(machine.memory.loadVMSA(withoutRMP: spa, asid: Self.a) == vmsa)
        vmsa[VMSA.rax] = 0x77
        #expect(machine.memory.storeVMSA(withoutRMP: spa, asid: Self.a, vmsa))
        #expect(machine.memory.loadVMSA(withoutRMP: spa, asid: Self.a) == vmsa)
        unsafe pointer.storeBytes(of: 0, toByteOffset: 0x1f8, as: UInt8.self)
        #expect(machine.memory.loadVMSA(withoutRMP: spa, asid: Self.a) == nil)
    }

    @Test("other ways to change a VMSA page; a freed one is forgotten")
    func otherWays() throws {
        let changes: [(SystemMemory, SPA) -> Void] = [
            { _ = $0.firmwareWriteGuest($1 + 0x178, [1], asid: Self.a) },
            { _ = $0.firmwareWrite($1, [1]) },
            { _ = $0.firmwareEncrypt($1, byteCount: 4096, asid: Self.a) },
            { _ = $0.firmwareEncrypt($1 + 16, byteCount: 16, asid: Self.a) },
            { _ = $0.freePages($1) },
            { memory, _ in
                memory.firmwareRemoveKey(asid: Self.a)
                _ = memory.firmwareInstallKey(asid: Self.a, [UInt8](1...32).reversed())
            },
            { _ = $0.rmpUpdate($1, RMPUpdate(gpa: 0x7000, assigned: true, asid: Self.a)) },
        ]
        for (index, change) in changes.enumerated() {
            let machine = try Machine()
            let (spa, vmsa) = try sealed(machine)
            #expect(machine.memory.loadVMSA(withoutRMP: spa, asid: Self.a) == vmsa)
            change(machine.memory, spa)
            #expect(machine.memory.loadVMSA(withoutRMP: spa, asid: Self.a) == nil, "change \(index)")
        }
    }
}
