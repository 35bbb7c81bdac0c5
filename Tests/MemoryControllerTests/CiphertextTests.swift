import Crypto
import MemoryController
import SEVABI
import Testing

/// Who reads what: the promise of the memory controller.
@Suite("Plaintext and ciphertext")
struct CiphertextTests {
    static let secret = (0..<4096).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ 7) }

    @Test("the host reads the ciphertext of a guest's page, with the page's address as tweak")
    func ciphertext() throws {
        let machine = try Machine()
        let spa = try machine.guestPage()
        for offset in 0..<4096 { #expect(machine.store(spa, offset, Self.secret[offset])) }
        let seen = try machine.memory.hostRead(spa, byteCount: 4096)
        #expect(seen == AESXTS(key: Machine.keyA).encrypt(Self.secret, tweak: spa.rawValue))
        #expect(machine.load(spa) == Self.secret, "looking changes nothing")
        // Any part of the page is part of the same ciphertext.
        #expect(try machine.memory.hostRead(spa + 1000, byteCount: 77) == Array(seen[1000..<1077]))
    }

    @Test("equal contents at two addresses, or of two guests, look different")
    func distinct() throws {
        let machine = try Machine()
        let pages = [
            try machine.guestPage(), try machine.guestPage(), try machine.guestPage(Machine.guestB),
        ]
        for (index, spa) in pages.enumerated() {
            let asid = index == 2 ? Machine.guestB : Machine.guestA
            for offset in 0..<64 { #expect(machine.store(spa, asid: asid, offset, 0x41)) }
        }
        let seen = try pages.map { try machine.memory.hostRead($0, byteCount: 64) }
        #expect(Set(seen).count == 3)
    }

    @Test("a host range over pages of several owners")
    func mixed() throws {
        let machine = try Machine()
        let memory = machine.memory
        let spa = try #require(memory.allocatePages(3))
        try memory.hostWrite(spa, [UInt8](repeating: 1, count: 3 * 4096))
        #expect(memory.rmpUpdate(spa + 4096, RMPUpdate(gpa: 0, assigned: true, asid: Machine.guestA)) == .success)
        let seen = try memory.hostRead(spa + 4000, byteCount: 4096 + 200)
        #expect(seen.allSatisfy { $0 == 1 }, "not validated, not touched by the guest: still what the host wrote")
        #expect(
            memory.pvalidate(spa + 4096, gpa: 0, asid: Machine.guestA, is2MiB: false, validate: true)
                == .result(.success, unchanged: false))
        #expect(machine.store(spa + 4096, gpa: 0, 0, 1))
        let after = try memory.hostRead(spa + 4000, byteCount: 4096 + 200)
        #expect(after.prefix(96).allSatisfy { $0 == 1 } && after.suffix(104).allSatisfy { $0 == 1 })
        // The guest's store changed its unit only; all other units still decipher to the host's old bytes' garbage.
        #expect(Array(after[(96 + 16)..<(96 + 4096)]).allSatisfy { $0 == 1 })
        #expect(Array(after[96..<112]) != [UInt8](repeating: 1, count: 16))
    }

    @Test("the host cannot write a guest's page, not even next to its own")
    func writeRefused() throws {
        let machine = try Machine()
        let memory = machine.memory
        let own = try #require(memory.allocatePages(2))
        let spa = own + 4096
        #expect(memory.rmpUpdate(spa, RMPUpdate(gpa: Machine.gpa, assigned: true, asid: Machine.guestA)) == .success)
        #expect(throws: HostAccessFault.rmp(spa, .guestInvalid)) { try memory.hostWrite(spa + 8, [1]) }
        #expect(throws: HostAccessFault.rmp(spa, .guestInvalid)) {
            try memory.hostWrite(own + 4090, [UInt8](repeating: 9, count: 10))
        }
        #expect(try memory.hostRead(own, byteCount: 8192).allSatisfy { $0 == 0 }, "nothing of a refused write happens")
        #expect(memory.hostMayWrite(own, byteCount: 4096) && !memory.hostMayWrite(own, byteCount: 4097))
        #expect(memory.rmpUpdate(own, RMPUpdate(assigned: true, immutable: true)) == .success)
        #expect(throws: HostAccessFault.rmp(own, .firmware)) { try memory.hostWrite(own, [1]) }
    }

    @Test("addresses that are not memory")
    func outside() throws {
        let memory = try Machine().memory
        let end = memory.base + memory.byteCount
        for (spa, count) in [
            (SPA.zero, 1), (memory.base + UInt64.max, 1), (end, 1), (end + (~0), 2), (SPA(rawValue: .max), 1),
        ] {
            #expect(memory.hostSnapshot(spa: spa, byteCount: count) == nil)
            #expect(throws: HostAccessFault.outside(spa)) {
                try memory.hostWrite(spa, [UInt8](repeating: 0, count: count))
            }
        }
        #expect(memory.hostSnapshot(spa: memory.base, byteCount: -1) == nil)
        #expect(memory.hostSnapshot(spa: memory.base, byteCount: .max) == nil)
        #expect(memory.hostSnapshot(spa: end + (~0), byteCount: 1) == [0])
    }

    @Test("a page taken from its guest shows ciphertext, also when the key is gone")
    func afterRelease() throws {
        let machine = try Machine()
        let memory = machine.memory
        let spa = try machine.guestPage()
        for offset in 0..<4096 { #expect(machine.store(spa, offset, Self.secret[offset])) }
        let ciphertext = AESXTS(key: Machine.keyA).encrypt(Self.secret, tweak: spa.rawValue)
        #expect(memory.rmpUpdate(spa, .shared) == .success)
        #expect(try memory.hostRead(spa, byteCount: 4096) == ciphertext)
        memory.firmwareRemoveKey(asid: Machine.guestA)
        #expect(try memory.hostRead(spa, byteCount: 4096) == ciphertext)
        // A store of the host lands in the ciphertext.
        try memory.hostWrite(spa + 32, [1, 2, 3])
        var expected = ciphertext
        expected.replaceSubrange(32..<35, with: [1, 2, 3])
        #expect(try memory.hostRead(spa, byteCount: 4096) == expected)
    }

    @Test("another guest, or the same one after a change, reads garbage, never the old plaintext")
    func reassigned() throws {
        let machine = try Machine()
        let memory = machine.memory
        let spa = try machine.guestPage()
        for offset in 0..<4096 { #expect(machine.store(spa, offset, Self.secret[offset])) }
        let ciphertext = AESXTS(key: Machine.keyA).encrypt(Self.secret, tweak: spa.rawValue)
        #expect(memory.rmpUpdate(spa, RMPUpdate(gpa: Machine.gpa, assigned: true, asid: Machine.guestB)) == .success)
        #expect(
            memory.pvalidate(spa, gpa: Machine.gpa, asid: Machine.guestB, is2MiB: false, validate: true)
                == .result(.success, unchanged: false))
        let garbage = machine.load(spa, asid: Machine.guestB)
        #expect(garbage == AESXTS(key: Machine.keyB).decrypt(ciphertext, tweak: spa.rawValue))
        // Back to the first guest, unchanged in between: its key still makes its data of it.
        #expect(memory.rmpUpdate(spa, RMPUpdate(gpa: Machine.gpa, assigned: true, asid: Machine.guestA)) == .success)
        #expect(machine.refusal(spa) == "notValidated")
        #expect(
            memory.pvalidate(spa, gpa: Machine.gpa, asid: Machine.guestA, is2MiB: false, validate: true)
                == .result(.success, unchanged: false))
        #expect(machine.load(spa) == Self.secret)
    }

    @Test("what the host wrote is garbage to the guest that gets the page")
    func hostBytes() throws {
        let machine = try Machine()
        let spa = try machine.guestPage(contents: Self.secret)
        #expect(machine.load(spa) == AESXTS(key: Machine.keyA).decrypt(Self.secret, tweak: spa.rawValue))
    }

    @Test("sealed contents: as they are, zeroes, or the firmware's bytes")
    func sealed() throws {
        let machine = try Machine()
        let memory = machine.memory
        var entry = RMPEntry()
        entry.assigned = true
        entry.asid = Machine.guestA
        entry.gpa = Machine.gpa
        entry.validated = true
        let cipher = AESXTS(key: Machine.keyA)

        let kept = try #require(memory.allocatePages())
        try memory.hostWrite(kept, Self.secret)
        #expect(memory.firmwareDigest(kept, SHA2Hasher(.sha384)).indices.count == 48)
        memory.firmwareSeal(kept, .asIs, entry: entry)
        #expect(machine.load(kept) == Self.secret)
        #expect(try memory.hostRead(kept, byteCount: 4096) == cipher.encrypt(Self.secret, tweak: kept.rawValue))

        // A page that nobody wrote: the host sees the ciphertext of zeroes all the same.
        let untouched = try #require(memory.allocatePages())
        memory.firmwareSeal(untouched, .zeroes, entry: entry)
        let zeroes = [UInt8](repeating: 0, count: 4096)
        #expect(try memory.hostRead(untouched, byteCount: 4096) == cipher.encrypt(zeroes, tweak: untouched.rawValue))
        #expect(machine.load(untouched) == zeroes)

        let written = try #require(memory.allocatePages())
        try memory.hostWrite(written, Self.secret)
        memory.firmwareSeal(written, .zeroes, entry: entry)
        #expect(machine.load(written) == zeroes)

        let replaced = try #require(memory.allocatePages())
        try memory.hostWrite(replaced, Self.secret)
        memory.firmwareSeal(replaced, .bytes([1, 2, 3]), entry: entry)
        #expect(machine.load(replaced) == [1, 2, 3] + zeroes.dropFirst(3))
    }

    @Test("the firmware digests what DRAM holds")
    func digest() throws {
        let machine = try Machine()
        let memory = machine.memory
        let hasher = SHA2Hasher(.sha384)
        func array(_ digest: [48 of UInt8]) -> [UInt8] { digest.indices.map { digest[$0] } }
        let spa = try #require(memory.allocatePages())
        #expect(array(memory.firmwareDigest(spa, hasher)) == array(SHA384.hash([UInt8](repeating: 0, count: 4096))))
        try memory.hostWrite(spa, Self.secret)
        #expect(array(memory.firmwareDigest(spa, hasher)) == array(SHA384.hash(Self.secret)))
    }

    @Test("a slot is taken once, and can be taken again; keys of pages stay")
    func slots() throws {
        let machine = try Machine()
        let memory = machine.memory
        #expect(!memory.firmwareInstallKey(asid: Machine.guestA, Machine.keyB))
        #expect(!memory.firmwareInstallKey(asid: 0, Machine.keyB))
        #expect(!memory.firmwareInstallKey(asid: 512, Machine.keyB))
        let spa = try machine.guestPage()
        #expect(machine.store(spa, 0, 1))
        memory.firmwareRemoveKey(asid: Machine.guestA)
        #expect(machine.refusal(spa) == "owner", "no key, no plaintext")
        #expect(memory.firmwareInstallKey(asid: Machine.guestA, Array(33...64)))
        #expect(machine.load(spa)?.first != 1, "the ASID's next guest has another key")
    }
}
