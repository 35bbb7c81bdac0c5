import Crypto
import MemoryController
import SEVABI
import SoftwarePSP
import Testing

/// What the commands do to memory and ASIDs.
@Suite("SEV memory and ASIDs")
struct SEVMemoryTests {
    // MARK: LAUNCH_UPDATE

    @Test("the same plaintext in two guests, and at two pages, has different ciphertext; each guest reads its own")
    func ciphertext() throws {
        let machine = try SEVMachine()
        let contents = [UInt8](repeating: 0x77, count: 4096)
        var seen: [[UInt8]] = []
        for (policy, asid) in [(0, 100), (0, 101), (4, 5)] as [(UInt32, UInt32)] {
            let guest = machine.start(policy: policy)
            #expect(machine.activate(guest.handle, asid) == .success)
            for _ in 0..<2 {
                let spa = machine.pages(contents)
                #expect(machine.update(guest.handle, spa, 4096) == .success)
                #expect(machine.guestBytes(spa, asid: asid) == contents)
                seen.append(machine.read(spa, 4096))
            }
        }
        for block in stride(from: 0, to: 4096, by: 16) {
            #expect(Set(seen.map { Array($0[block..<block + 16]) }).count == seen.count)
        }
        // The same page, launched again for another guest.
        let spa = machine.pages(contents)
        let first = machine.start()
        let second = machine.start()
        #expect(machine.activate(first.handle, 200) == .success && machine.activate(second.handle, 201) == .success)
        #expect(machine.update(first.handle, spa, 4096) == .success)
        let one = machine.read(spa, 4096)
        try machine.memory.hostWrite(spa, contents)
        #expect(machine.update(second.handle, spa, 4096) == .success)
        #expect(machine.read(spa, 4096) != one)
    }

    @Test("fields of LAUNCH_UPDATE_DATA and LAUNCH_UPDATE_VMSA")
    func updateFields() throws {
        let machine = try SEVMachine(snp: true)
        let guest = machine.start(policy: 4)
        #expect(machine.activate(guest.handle, 1) == .success)
        let scene = SEVStateTests.Scene(machine)
        let end = machine.memory.base + machine.memory.byteCount
        let owned = machine.pages([])
        #expect(machine.memory.rmpUpdate(owned, RMPUpdate(gpa: 0, assigned: true, asid: 9)) == .success)
        func check(
            _ command: SEVCommand, _ address: SPA, _ count: UInt32, _ expected: SEVStatus, handle: UInt32? = nil,
            location: SourceLocation = #_sourceLocation
        ) {
            scene.check(
                command, SEVLaunchUpdate(handle: handle ?? guest.handle, address: address, byteCount: count).bytes,
                expected, "\(address) \(count)", location: location)
        }
        for count: UInt32 in [0, 1, 8, 15, 17, 4095, .max] {
            check(.launchUpdateData, scene.page, count, .invalidLength)
        }
        for offset: UInt64 in [1, 8, 15, 4095] { check(.launchUpdateData, scene.page + offset, 16, .invalidAddress) }
        for (address, count) in [
            (end, 16), (SPA(rawValue: end.rawValue - 16), 32), (.zero, 16), (SPA(rawValue: .max & ~15), 16),
            (SPA(rawValue: .max & ~15), 32), (scene.page, 0xffff_fff0),
        ] as [(SPA, UInt32)] {
            check(.launchUpdateData, address, count, .invalidAddress)
        }
        check(.launchUpdateData, owned, 16, .invalidPageState)
        check(.launchUpdateData, SPA(rawValue: owned.rawValue - 16), 32, .invalidPageState)
        for handle: UInt32 in [0, guest.handle + 1, .max] {
            check(.launchUpdateData, scene.page, 16, .invalidGuest, handle: handle)
        }
        for count: UInt32 in [0, 16, 4095, 4097, 8192, .max] {
            check(.launchUpdateVMSA, scene.vmsa, count, .invalidLength)
        }
        for address in [scene.vmsa + 16, scene.vmsa + 2048, end, .zero, SPA(rawValue: .max & ~4095)] {
            check(.launchUpdateVMSA, address, 4096, .invalidAddress)
        }
        check(.launchUpdateVMSA, owned, 4096, .invalidPageState)
        // Nothing of that was measured.
        machine.processor.prepareEntropy([UInt8](repeating: 0, count: 16))
        let empty = machine.start(policy: 4)
        #expect(machine.measure(guest.handle).status == .success && machine.measure(empty.handle).status == .success)
        let lines = machine.state.split(separator: "\n").filter { $0.hasPrefix("guest") }
        let digest = "digest \(SHA2Hasher(.sha256).hash([]))"
        #expect(lines.count == 2 && lines.allSatisfy { $0.contains(digest) })
    }

    @Test("a VMSA is the processor's from LAUNCH_UPDATE_VMSA on")
    func vmsa() throws {
        let machine = try SEVMachine()
        let guest = machine.start(policy: 4)
        #expect(machine.activate(guest.handle, 1) == .success)
        var vmsa = VMSA()
        vmsa[VMSA.rip] = 0xfff0
        let page = machine.pages(vmsa.page)
        #expect(machine.memory.loadVMSA(withoutRMP: page, asid: 1) == nil)
        #expect(machine.update(guest.handle, page, 4096, .launchUpdateVMSA) == .success)
        #expect(machine.memory.loadVMSA(withoutRMP: page, asid: 1) == vmsa)
        #expect(machine.read(page, 4096) != vmsa.page)
        try machine.memory.hostWrite(page + 0x178, [1])
        #expect(machine.memory.loadVMSA(withoutRMP: page, asid: 1) == nil)
    }

    // MARK: ASIDs

    @Test("which ASIDs are for whom")
    func ranges() throws {
        let machine = try SEVMachine()
        let scene = SEVStateTests.Scene(machine)
        let sev = machine.start()
        let es = machine.start(policy: 4)
        for (handle, fine, wrong) in [
            (sev.handle, [100, 509], [0, 1, 99, 510, .max]), (es.handle, [1, 99], [0, 100, 509, .max]),
        ] as [(UInt32, [UInt32], [UInt32])] {
            for asid in wrong {
                scene.check(.activate, SEVActivate(handle: handle, asid: asid).bytes, .invalidASID, "\(asid)")
            }
            for asid in fine {
                #expect(machine.activate(handle, asid) == .success)
                scene.check(.activate, SEVActivate(handle: handle, asid: asid).bytes, .active, "again")
                #expect(machine.handleCommand(.deactivate, handle) == .success)
            }
        }
        // A memory controller without so many slots.
        let small = try SEVMachine { $0.sevASIDs = 100...600 }
        let guest = small.start()
        SEVStateTests.Scene(small).check(
            .activate, SEVActivate(handle: guest.handle, asid: 600).bytes, .resourceLimit, "no slot")
    }

    @Test("an ASID has one owner, is not used again before WBINVD and DF_FLUSH, and its key is gone")
    func reuse() throws {
        let machine = try SEVMachine()
        let scene = SEVStateTests.Scene(machine)
        let first = machine.start()
        let second = machine.start()
        let contents = [UInt8](repeating: 9, count: 4096)
        let page = machine.pages(contents)
        #expect(machine.activate(first.handle, 100) == .success)
        #expect(machine.update(first.handle, page, 4096) == .success)
        let activate = SEVActivate(handle: second.handle, asid: 100).bytes
        scene.check(.activate, activate, .asidOwned, "owned")
        #expect(machine.handleCommand(.deactivate, first.handle) == .success)
        #expect(machine.guestBytes(page, asid: 100) == nil, "no key")
        scene.check(.activate, activate, .dfFlushRequired, "not flushed")
        scene.check(
            .activate, SEVActivate(handle: first.handle, asid: 100).bytes, .dfFlushRequired, "not even for itself")
        scene.check(.dfFlush, [], .wbinvdRequired, "caches")
        machine.processor.noteCachesWrittenBack()
        scene.check(.activate, activate, .dfFlushRequired, "write buffers")
        #expect(machine.run(.dfFlush).status == .success)
        #expect(machine.activate(second.handle, 100) == .success)
        let garbage = machine.guestBytes(page, asid: 100)
        #expect(garbage != nil && garbage != contents)
        // The first guest's key is the firmware's until DECOMMISSION: under another ASID it reads its page again.
        #expect(machine.activate(first.handle, 101) == .success)
        #expect(machine.guestBytes(page, asid: 101) == contents)
        #expect(machine.handleCommand(.deactivate, first.handle) == .success)
        #expect(machine.handleCommand(.decommission, first.handle) == .success)
        scene.check(.guestStatus, SEVGuestStatus(handle: first.handle).bytes, .invalidGuest, "gone")
    }

    @Test("SEV-ES and SNP guests have the same numbers, and wait for each other's flushes")
    func sharedNumbers() throws {
        let machine = try SEVMachine(snp: true)
        let scene = SEVStateTests.Scene(machine)
        let es = machine.start(policy: 4)
        let context = machine.output()
        #expect(machine.run(.snpGuestContextCreate, SNPAddressBuffer(address: context).bytes).status == .success)
        #expect(
            machine.run(.snpLaunchStart, SNPLaunchStart(context: context, policy: .default).bytes).status == .success)
        func snpActivate(_ asid: UInt32) -> SEVStatus {
            machine.run(.snpActivate, SNPActivate(context: context, asid: asid).bytes).status
        }
        #expect(machine.activate(es.handle, 7) == .success)
        #expect(snpActivate(7) == .asidOwned)
        #expect(machine.handleCommand(.deactivate, es.handle) == .success)
        #expect(snpActivate(7) == .dfFlushRequired)
        #expect(machine.run(.snpDFFlush).status == .wbinvdRequired)
        machine.processor.noteCachesWrittenBack()
        #expect(machine.run(.snpDFFlush).status == .success)
        #expect(snpActivate(7) == .success)
        scene.check(.activate, SEVActivate(handle: es.handle, asid: 7).bytes, .asidOwned, "the SNP guest's")
        #expect(machine.run(.snpDecommission, SNPAddressBuffer(address: context).bytes).status == .success)
        scene.check(.activate, SEVActivate(handle: es.handle, asid: 7).bytes, .dfFlushRequired, "after the SNP guest")
        #expect(machine.run(.dfFlush).status == .success, "SNP's caches need no WBINVD here")
        #expect(machine.activate(es.handle, 7) == .success)
        // The end of SNP is not the end of SEV-ES guests.
        #expect(machine.run(.snpShutdownEx, SNPShutdownEx().bytes).status == .success)
        #expect(machine.processor.guestStatus(of: es.handle)?.asid == 7)
        let other = machine.start(policy: 4)
        scene.check(.activate, SEVActivate(handle: other.handle, asid: 7).bytes, .asidOwned, "still owned")
    }

    @Test("SHUTDOWN ends all guests; their ASIDs wait for a flush")
    func shutdown() throws {
        let machine = try SEVMachine()
        let contents = [UInt8](repeating: 1, count: 4096)
        let page = machine.pages(contents)
        let guest = machine.start()
        #expect(machine.activate(guest.handle, 100) == .success)
        #expect(machine.update(guest.handle, page, 4096) == .success)
        #expect(machine.run(.shutdown).status == .success)
        #expect(machine.guestBytes(page, asid: 100) == nil)
        #expect(machine.processor.guestStatus(of: guest.handle) == nil)
        #expect(machine.initialize() == .success)
        let next = machine.start()
        #expect(machine.activate(next.handle, 100) == .dfFlushRequired)
        machine.processor.noteCachesWrittenBack()
        #expect(machine.run(.dfFlush).status == .success)
        #expect(machine.activate(next.handle, 100) == .success)
    }

    @Test("guests that share a key: by the policy of both, in one ASID or two")
    func keySharing() throws {
        let machine = try SEVMachine()
        let scene = SEVStateTests.Scene(machine)
        let first = machine.start(policy: 0)
        let closed = machine.start(policy: 2)
        func buffer(_ handle: UInt32, _ policy: UInt32) -> [UInt8] {
            SEVLaunchStart(handle: handle, policy: policy).bytes
        }
        scene.check(.launchStart, buffer(closed.handle, 2), .policyFailure, "both forbid it")
        scene.check(.launchStart, buffer(closed.handle, 0), .policyFailure, "the first forbids it")
        scene.check(.launchStart, buffer(first.handle, 2), .policyFailure, "the second forbids it")
        scene.check(.launchStart, buffer(first.handle, 1), .policyFailure, "another policy")
        scene.check(.launchStart, buffer(99, 0), .invalidGuest, "nobody")
        let second = machine.start(policy: 0, sharing: first.handle)
        #expect(second.status == .success && second.handle != first.handle)
        let stranger = machine.start(policy: 0)
        #expect(machine.activate(first.handle, 100) == .success)
        #expect(machine.activate(stranger.handle, 100) == .asidOwned)
        #expect(machine.activate(second.handle, 100) == .success)
        let contents = [UInt8](repeating: 4, count: 4096)
        let page = machine.pages(contents)
        #expect(machine.update(first.handle, page, 4096) == .success)
        #expect(machine.guestBytes(page, asid: 100) == contents)
        // The key stays as long as one of them is active.
        #expect(machine.handleCommand(.deactivate, first.handle) == .success)
        #expect(machine.guestBytes(page, asid: 100) == contents)
        #expect(machine.handleCommand(.decommission, first.handle) == .success)
        #expect(machine.handleCommand(.deactivate, second.handle) == .success)
        #expect(machine.guestBytes(page, asid: 100) == nil)
        #expect(machine.activate(second.handle, 102) == .success)
        #expect(machine.guestBytes(page, asid: 102) == contents, "the same key")
    }

    // MARK: Debugging

    @Test("DBG_DECRYPT and DBG_ENCRYPT: what the policy allows", arguments: [false, true])
    func debug(snp: Bool) throws {
        let machine = try SEVMachine(snp: snp)
        let guest = machine.start(policy: 0)
        #expect(machine.activate(guest.handle, 100) == .success)
        let contents = (0..<8192).map { UInt8(truncatingIfNeeded: $0 / 16) }
        let page = machine.pages(contents)
        #expect(machine.update(guest.handle, page, 8192) == .success)
        #expect(machine.measure(guest.handle).status == .success)
        #expect(machine.handleCommand(.launchFinish, guest.handle) == .success)
        let output = machine.output(2)
        func debug(_ command: SEVCommand, _ source: SPA, _ destination: SPA, _ count: UInt32) -> [UInt8] {
            SEVDebug(handle: guest.handle, source: source, destination: destination, byteCount: count).bytes
        }
        // Across a page.
        #expect(machine.run(.debugDecrypt, debug(.debugDecrypt, page + 4080, output + 16, 64)).status == .success)
        #expect(machine.read(output + 16, 64) == Array(contents[4080..<4144]))
        #expect(machine.read(output, 16) == [UInt8](repeating: 0, count: 16))
        let ciphertext = machine.read(page, 8192)
        let input = machine.pages([UInt8](repeating: 0xfe, count: 64))
        #expect(machine.run(.debugEncrypt, debug(.debugEncrypt, input, page + 4064, 64)).status == .success)
        var changed = contents
        changed.replaceSubrange(4064..<4128, with: [UInt8](repeating: 0xfe, count: 64))
        #expect(machine.guestBytes(page, asid: 100) == Array(changed[..<4096]))
        #expect(machine.guestBytes(page + 4096, asid: 100) == Array(changed[4096...]))
        let after = machine.read(page, 8192)
        #expect(after[..<4064] == ciphertext[..<4064] && after[4128...] == ciphertext[4128...])

        let scene = SEVStateTests.Scene(machine)
        let end = machine.memory.base + machine.memory.byteCount
        for command in [.debugDecrypt, .debugEncrypt] as [SEVCommand] {
            let (source, destination) = command == .debugDecrypt ? (page, output) : (input, page)
            for count: UInt32 in [0, 1, 15, 17, .max] {
                scene.check(command, debug(command, source, destination, count), .invalidLength, "\(count)")
            }
            for (from, to) in [
                (source + 8, destination), (source, destination + 8), (end, destination), (source, end),
                (.zero, destination), (source, .zero), (SPA(rawValue: .max & ~15), destination),
                (source, SPA(rawValue: .max & ~15)), (SPA(rawValue: end.rawValue - 16), destination),
                (source, SPA(rawValue: end.rawValue - 16)),
            ] {
                scene.check(command, debug(command, from, to, 32), .invalidAddress, "\(from) to \(to)")
            }
        }
        if snp {
            let owned = machine.pages([])
            #expect(machine.memory.rmpUpdate(owned, RMPUpdate(gpa: 0, assigned: true, asid: 9)) == .success)
            let plain = machine.pages([])
            scene.check(.debugDecrypt, debug(.debugDecrypt, page, plain, 16), .invalidPageState, "not the firmware's")
            scene.check(.debugDecrypt, debug(.debugDecrypt, page, owned, 16), .invalidPageState, "an SNP guest's")
            scene.check(.debugDecrypt, debug(.debugDecrypt, owned, output, 16), .invalidPageState, "an SNP guest's")
            scene.check(.debugEncrypt, debug(.debugEncrypt, input, owned, 16), .invalidPageState, "an SNP guest's")
        }
    }

    // MARK: Attestation

    @Test("ATTESTATION: the digest of the measured guest, signed by the PEK")
    func attestation() throws {
        let machine = try SEVMachine()
        let guest = machine.start(policy: 0x10)
        #expect(machine.activate(guest.handle, 100) == .success)
        let contents = [UInt8](repeating: 5, count: 4096)
        #expect(machine.update(guest.handle, machine.pages(contents), 4096) == .success)
        #expect(machine.measure(guest.handle).status == .success)
        let nonce = [UInt8](1...16)
        let output = machine.output()
        let result = machine.run(
            .attestation, SEVAttestation(handle: guest.handle, address: output, nonce: nonce, byteCount: 208).bytes)
        #expect(result.status == .success)
        let bytes = machine.read(output, 209)
        #expect(bytes[208] == 0, "no more than 208 bytes")
        let report = try #require(SEVGuestReport(bytes: Array(bytes[..<208])))
        #expect(report.nonce == nonce && report.policy.rawValue == 0x10)
        #expect(report.launchDigest == SHA2Hasher(.sha256).hash(contents))
        #expect(report.usage == .pek && report.algorithm == .ecdsaSHA256 && report.reserved_0x3c == 0)
        let pek = try #require(SEVCertificate(bytes: Array(machine.certificates().chain[..<2084])))
        let key = try #require(P384PublicKey(littleEndianX: pek.publicKey.x, y: pek.publicKey.y))
        #expect(
            key.isValidSignature(
                littleEndianR: report.r, s: report.s, of: Array(bytes[..<0x34]), hash: .sha256))
        #expect(
            !key.isValidSignature(
                littleEndianR: report.r, s: report.s, of: [bytes[0] ^ 1] + Array(bytes[1..<0x34]), hash: .sha256))
    }
}
