import Crypto
import MemoryController
import SEVABI
import SoftwarePSP
import TestSupport
import Testing

/// LAUNCH_START with an owner, LAUNCH_MEASURE, LAUNCH_UPDATE_SECRET: known answers, and every way to get them wrong.
@Suite("SEV sessions")
struct SEVSessionTests {
    // MARK: Known answers

    /// session.json, cut into its cases. The file is machine-made: one form only.
    struct Vector: Sendable, CustomTestStringConvertible {
        let text: String
        var testDescription: String { String(text.prefix { $0 != "\"" }) }

        /// The hexadecimal value of a key; the first one.
        func bytes(_ key: String) throws -> [UInt8] { hex(try string(key)) }
        func string(_ key: String) throws -> String {
            let parts = text.split(separator: "\"\(key)\": \"", maxSplits: 1, omittingEmptySubsequences: false)
            return String(try #require(parts.last, "\(key)").prefix { $0 != "\"" })
        }
        func number(_ key: String) throws -> UInt8 {
            let parts = text.split(separator: "\"\(key)\": ", maxSplits: 1, omittingEmptySubsequences: false)
            return try #require(UInt8(parts.last?.prefix { $0.isNumber } ?? ""))
        }
        /// "0x00000005"
        var policy: UInt32 { get throws { try #require(UInt32(try string("policy").dropFirst(2), radix: 16)) } }
    }

    static let sessions: [Vector] = {
        guard let bytes = ForeignVectors.bytes("legacy-sev/session.json") else { return [] }
        return String(decoding: bytes, as: UTF8.self).split(separator: "\"id\": \"").dropFirst().map {
            Vector(text: String($0))
        }
    }()

    /// A machine whose PDH is the vector's, with the vector's firmware version.
    private func machine(_ vector: Vector) throws -> SEVMachine {
        let fresh = Mailbox()
        _ = try PlatformStorage(bytes: [], entropy: .seed([7])) { fresh.bytes = $0 }
        let bytes = try #require(
            PlatformStorage.replacing(pdh: try vector.bytes("platform_private"), in: fresh.bytes))
        let storage = try PlatformStorage(bytes: bytes) { _ in }
        let (major, minor, build) = (
            try vector.number("api_major"), try vector.number("api_minor"), try vector.number("build")
        )
        return try SEVMachine(storage: storage) {
            $0.apiMajor = major
            $0.apiMinor = minor
            $0.build = build
        }
    }

    @Test(
        "whole sessions: PDH, wrapped keys, measurement and secret as an independent program computed them",
        .enabled(if: ForeignVectors.arePresent, "\(ForeignVectors.absence)"), arguments: sessions)
    func known(_ vector: Vector) throws {
        let machine = try machine(vector)
        let policy = try vector.policy
        // The platform shows the vector's public key; the vector's is big-endian.
        let pdh = try #require(SEVCertificate(bytes: machine.certificates().pdh))
        #expect(Array(pdh.publicKey.x.prefix(48).reversed()) == (try vector.bytes("x")))
        let owner = try #require(P384PrivateKey(bigEndianScalar: try vector.bytes("guestowner_private")))
        let certificate = SEVCertificate.make(
            usage: .pdh, algorithm: .ecdhSHA256, apiMajor: 0, apiMinor: 0, x: owner.publicKey.littleEndianX,
            y: owner.publicKey.littleEndianY)
        let guest = machine.start(
            policy: policy, certificate: certificate.bytes, session: try vector.bytes("session_blob"))
        #expect(guest.status == .success, "TEK and TIK unwrap, and the policy is authentic")
        let asid: UInt32 = policy & 4 != 0 ? 1 : 100
        #expect(machine.activate(guest.handle, asid) == .success)
        machine.processor.prepareLaunchDigest(try vector.bytes("launch_digest"), of: guest.handle)
        machine.processor.prepareEntropy(try vector.bytes("mnonce"))
        #expect(machine.measure(guest.handle).blob == (try vector.bytes("launch_measure_blob")))
        // The vector's payload may be no multiple of 16, which this firmware does not take.
        let plaintext = try vector.bytes("plaintext")
        let ciphertext = try vector.bytes("ciphertext")
        let target = machine.pages([])
        let status = machine.secret(
            guest.handle, header: try vector.bytes("header"), payload: ciphertext, to: target)
        if ciphertext.count % 16 == 0 {
            #expect(status == .success)
            #expect(machine.guestBytes(target, asid: asid, plaintext.count) == plaintext)
        } else {
            #expect(status == .invalidLength)
        }
    }

    @Test(
        "a measurement from another project's own tests",
        .enabled(if: ForeignVectors.arePresent, "\(ForeignVectors.absence)")
    )
    func publicMeasurement() throws {
        let text = String(decoding: try #require(ForeignVectors.bytes("legacy-sev/session.json")), as: UTF8.self)
        let vector = Vector(text: text)
        let (major, minor, build) = (
            try vector.number("api_major"), try vector.number("api_minor"), try vector.number("build")
        )
        let machine = try SEVMachine {
            $0.apiMajor = major
            $0.apiMinor = minor
            $0.build = build
        }
        // Without an owner the firmware draws TEK, TIK and VEK; here TIK is the vector's.
        machine.processor.prepareEntropy(
            [UInt8](repeating: 1, count: 16) + (try vector.bytes("tik")) + [UInt8](0..<32)
                + (try vector.bytes("mnonce")))
        let guest = machine.start(policy: try vector.policy)
        #expect(guest.status == .success)
        // Nothing launched: the digest of nothing is the vector's.
        #expect(
            machine.measure(guest.handle).blob == (try vector.bytes("measurement")) + (try vector.bytes("mnonce")))
    }

    // MARK: Sessions that are wrong

    static let maker = SessionMaker()
    static let pdh = SEVStateTests.known.pdh

    @Test("every flipped bit of a session is refused, and the guest does not exist")
    func flippedSession() throws {
        let machine = try SEVMachine()
        let good = Self.maker.session(for: Self.pdh, policy: 5).bytes
        #expect(machine.start(policy: 5, certificate: Self.maker.certificate.bytes, session: good).status == .success)
        let state = machine.state
        let certificate = machine.pages(Self.maker.certificate.bytes)
        let page = machine.pages(good)
        let buffer = SEVLaunchStart(
            policy: 5, certificateAddress: certificate, certificateByteCount: 2084, sessionAddress: page,
            sessionByteCount: 128
        ).bytes
        for index in good.indices {
            let bit = UInt8(1) << UInt8(index % 8)
            try machine.memory.hostWrite(page + UInt64(index), [good[index] ^ bit])
            let result = machine.run(.launchStart, buffer)
            #expect(result.status == .badMeasurement && result.bytes == buffer, "byte \(index)")
            try machine.memory.hostWrite(page + UInt64(index), [good[index]])
        }
        #expect(machine.state == state)
        // Another policy than the owner's, bit by bit.
        for bit in 0..<32 as Range<UInt32> {
            let status = machine.start(
                policy: 5 ^ 1 << bit, certificate: Self.maker.certificate.bytes, session: good
            ).status
            let expected: SEVStatus =
                switch bit {
                case 6...15: .invalidParameter
                // Bits 23:16 ask for API major 1 or more: 1 is there, 2 is not.
                case 17...23: .policyFailure
                // Minor versions above 55 of major 0 are fine.
                default: .badMeasurement
                }
            #expect(status == expected, "policy bit \(bit)")
        }
        #expect(machine.state == state)
    }

    @Test("every flipped bit of the owner's key is refused; what nobody reads is not")
    func flippedCertificate() throws {
        let machine = try SEVMachine()
        let session = Self.maker.session(for: Self.pdh, policy: 0).bytes
        let good = Self.maker.certificate.bytes
        let page = machine.pages(good)
        let buffer = SEVLaunchStart(
            policy: 0, certificateAddress: page, certificateByteCount: 2084, sessionAddress: machine.pages(session),
            sessionByteCount: 128
        ).bytes
        func status(_ index: Int, _ value: UInt8) throws -> SEVStatus {
            try machine.memory.hostWrite(page + UInt64(index), [value])
            let result = machine.run(.launchStart, buffer)
            try machine.memory.hostWrite(page + UInt64(index), [good[index]])
            return result.status
        }
        let state = machine.state
        for index in 0..<0x414 {
            // The API version of whoever made it means nothing here.
            if index == 4 || index == 5 { continue }
            let result = try status(index, good[index] ^ 1 << UInt8(index % 8))
            // A coordinate with a flipped bit is not on the curve.
            #expect(result == .invalidCertificate, "byte \(index)")
        }
        #expect(machine.state == state)
        // Another valid point: the session is not for it.
        let other = P384PrivateKey(derivedFrom: [8], label: "other").publicKey
        var certificate = good
        certificate.replaceSubrange(0x14..<0x14 + 48, with: other.littleEndianX)
        certificate.replaceSubrange(0x5c..<0x5c + 48, with: other.littleEndianY)
        #expect(machine.start(policy: 0, certificate: certificate, session: session).status == .badMeasurement)
        // The other algorithms of the same format.
        for algorithm: UInt8 in [0, 1, 2, 4] { #expect(try status(0xc, algorithm) == .invalidCertificate) }
        #expect(try status(0xd, 1) == .invalidCertificate, "ECDH with SHA-384")
        #expect(machine.state == state)
        for index in [4, 5, 0x414, 0x41c, 0x823] {
            #expect(try status(index, good[index] ^ 1) == .success, "byte \(index) has no meaning for the firmware")
        }
    }

    @Test("lengths and addresses of certificate and session")
    func startFields() throws {
        let machine = try SEVMachine()
        let scene = SEVStateTests.Scene(machine)
        let certificate = machine.pages(Self.maker.certificate.bytes)
        let session = machine.pages(Self.maker.session(for: Self.pdh, policy: 0).bytes)
        let end = machine.memory.base + machine.memory.byteCount
        func buffer(
            _ certificate: SPA, _ certificateByteCount: UInt32, _ session: SPA, _ sessionByteCount: UInt32,
            handle: UInt32 = 0, policy: UInt32 = 0
        ) -> [UInt8] {
            SEVLaunchStart(
                handle: handle, policy: policy, certificateAddress: certificate,
                certificateByteCount: certificateByteCount, sessionAddress: session, sessionByteCount: sessionByteCount
            ).bytes
        }
        scene.check(.launchStart, buffer(certificate, 2084, .zero, 0), .invalidAddress, "no session")
        scene.check(.launchStart, buffer(.zero, 0, session, 128), .invalidAddress, "no certificate")
        for length: UInt32 in [0, 1, 2083, 2085, .max] {
            scene.check(.launchStart, buffer(certificate, length, session, 128), .invalidLength, "certificate length")
        }
        for length: UInt32 in [0, 1, 127, 129, .max] {
            scene.check(.launchStart, buffer(certificate, 2084, session, length), .invalidLength, "session length")
        }
        for address in [end, SPA(rawValue: end.rawValue - 2083), SPA(rawValue: 1), SPA(rawValue: .max)] {
            scene.check(.launchStart, buffer(address, 2084, session, 128), .invalidAddress, "certificate \(address)")
        }
        for address in [end, SPA(rawValue: end.rawValue - 127), SPA(rawValue: 1), SPA(rawValue: .max)] {
            scene.check(.launchStart, buffer(certificate, 2084, address, 128), .invalidAddress, "session \(address)")
        }
        for handle: UInt32 in [1, .max] {
            scene.check(.launchStart, buffer(.zero, 0, .zero, 0, handle: handle), .invalidGuest, "share with \(handle)")
        }
        for policy: UInt32 in [0x40, 0x8000, 0xffc0, .max] {
            scene.check(.launchStart, buffer(.zero, 0, .zero, 0, policy: policy), .invalidParameter, "reserved bits")
        }
        for policy: UInt32 in [0x3801_0000, 0x0002_0000, 0xffff_0000] {
            scene.check(.launchStart, buffer(.zero, 0, .zero, 0, policy: policy), .policyFailure, "later API")
        }
        for policy: UInt32 in [0x3701_0000, 0xff00_0000, 0x3f] {
            #expect(machine.start(policy: policy).status == .success, "\(policy)")
        }
        let noES = try SEVMachine(es: false)
        #expect(noES.start(policy: 4).status == .policyFailure)
        #expect(noES.start(policy: 0).status == .success)
    }

    @Test("a new PDH ends old sessions")
    func newPDH() throws {
        let machine = try SEVMachine()
        let session = Self.maker.session(for: Self.pdh, policy: 0).bytes
        #expect(
            machine.start(policy: 0, certificate: Self.maker.certificate.bytes, session: session).status == .success)
        #expect(machine.run(.pdhGenerate).status == .success)
        #expect(
            machine.start(policy: 0, certificate: Self.maker.certificate.bytes, session: session).status
                == .badMeasurement)
        let renewed = Self.maker.session(for: machine.certificates().pdh, policy: 0).bytes
        #expect(
            machine.start(policy: 0, certificate: Self.maker.certificate.bytes, session: renewed).status == .success)
    }

    @Test("guests without an owner: nobody else knows their keys, no two are the same, and there is room for so many")
    func withoutOwner() throws {
        let machine = try SEVMachine { $0.maximumSEVGuestCount = 3 }
        var blobs: Set<[UInt8]> = []
        for _ in 0..<3 {
            let guest = machine.start()
            #expect(guest.status == .success)
            blobs.insert(machine.measure(guest.handle).blob)
        }
        #expect(blobs.count == 3)
        let scene = SEVStateTests.Scene(machine)
        scene.check(.launchStart, SEVLaunchStart(policy: 0).bytes, .resourceLimit, "a fourth guest")
        #expect(machine.handleCommand(.decommission, 2) == .success)
        let next = machine.start()
        #expect(next.status == .success && next.handle == 4, "handles are not used again soon")
    }

    // MARK: Secrets

    /// A measured guest with an owner.
    private func measuredGuest(_ machine: SEVMachine, policy: UInt32 = 0) -> (
        handle: UInt32, asid: UInt32, blob: [UInt8]
    ) {
        let session = Self.maker.session(for: Self.pdh, policy: policy).bytes
        let guest = machine.start(policy: policy, certificate: Self.maker.certificate.bytes, session: session)
        let asid: UInt32 = policy & 4 != 0 ? 1 : 100
        precondition(guest.status == .success && machine.activate(guest.handle, asid) == .success)
        let measurement = machine.measure(guest.handle)
        precondition(measurement.status == .success)
        return (guest.handle, asid, measurement.blob)
    }

    static let plaintext = Array("the owner's secret, 48 bytes with its padding....".utf8.prefix(48))

    @Test(
        "a secret reaches the guest and nobody else; the transport keys go with LAUNCH_FINISH",
        arguments: [0, 4] as [UInt32])
    func secret(policy: UInt32) throws {
        let machine = try SEVMachine()
        let (handle, asid, blob) = measuredGuest(machine, policy: policy)
        let payload = Self.maker.encipher(Self.plaintext)
        let header = Self.maker.header(payload: payload, measure: blob)
        let target = machine.pages([UInt8](repeating: 0xee, count: 4096))
        let before = try #require(machine.guestBytes(target, asid: asid))
        #expect(machine.secret(handle, header: header, payload: payload, to: target + 64) == .success)
        let after = try #require(machine.guestBytes(target, asid: asid))
        #expect(Array(after[64..<112]) == Self.plaintext)
        #expect(after[..<64] == before[..<64] && after[112...] == before[112...])
        // Nowhere in DRAM.
        let dram = machine.read(machine.memory.base, 320 * 4096)
        let isPlain = dram.indices.dropLast(16).contains { start in
            dram[start] == Self.plaintext[0] && dram[start..<start + 16] == Self.plaintext[..<16]
        }
        #expect(!isPlain)
        // The same packet may be used again, for this measured guest only.
        #expect(machine.secret(handle, header: header, payload: payload, to: target) == .success)
        #expect(machine.state.contains("transport keys true"))
        #expect(machine.handleCommand(.launchFinish, handle) == .success)
        #expect(!machine.state.contains("transport keys true"))
        #expect(machine.secret(handle, header: header, payload: payload, to: target) == .invalidGuestState)
        #expect(machine.handleCommand(.deactivate, handle) == .success)
        #expect(machine.handleCommand(.decommission, handle) == .success)
        let next = measuredGuest(try SEVMachine(seed: 1))
        #expect(next.blob == blob || policy != 0, "the same seed measures the same")
        let other = try SEVMachine()
        _ = other.start()
        let stranger = measuredGuest(other, policy: policy)
        #expect(
            other.secret(stranger.handle, header: header, payload: payload, to: other.pages([])) == .badMeasurement,
            "the packet is for one measurement")
    }

    @Test("every flipped bit of a secret packet is refused, and the guest's memory stays")
    func flippedSecret() throws {
        let machine = try SEVMachine()
        let (handle, asid, blob) = measuredGuest(machine)
        let payload = Self.maker.encipher(Self.plaintext)
        let header = Self.maker.header(payload: payload, measure: blob)
        let target = machine.pages([UInt8](repeating: 0xee, count: 4096))
        let packet = machine.pages(header + payload)
        let buffer = SEVLaunchSecret(
            handle: handle, headerAddress: packet, guestAddress: target, guestByteCount: 48,
            transportAddress: packet + 52, transportByteCount: 48
        ).bytes
        let before = machine.read(target, 4096)
        let state = machine.state
        let good = header + payload
        for index in good.indices {
            for bit in 0..<8 {
                try machine.memory.hostWrite(packet + UInt64(index), [good[index] ^ 1 << UInt8(bit)])
                #expect(machine.run(.launchSecret, buffer).status == .badMeasurement, "byte \(index) bit \(bit)")
            }
            try machine.memory.hostWrite(packet + UInt64(index), [good[index]])
        }
        #expect(machine.read(target, 4096) == before)
        #expect(machine.state == state)
        #expect(machine.run(.launchSecret, buffer).status == .success)
        #expect(machine.guestBytes(target, asid: asid, 48) == Self.plaintext)
    }

    @Test("fields of LAUNCH_UPDATE_SECRET")
    func secretFields() throws {
        let machine = try SEVMachine(snp: true)
        let (handle, _, blob) = measuredGuest(machine)
        let scene = SEVStateTests.Scene(machine)
        let payload = Self.maker.encipher(Self.plaintext)
        let header = machine.pages(Self.maker.header(payload: payload, measure: blob))
        let transport = machine.pages(payload)
        let target = machine.pages([])
        let end = machine.memory.base + machine.memory.byteCount
        func check(
            _ expected: SEVStatus, _ comment: String, location: SourceLocation = #_sourceLocation,
            _ change: (inout SEVLaunchSecret) -> Void
        ) {
            var buffer = SEVLaunchSecret(
                handle: handle, headerAddress: header, guestAddress: target, guestByteCount: 48,
                transportAddress: transport, transportByteCount: 48)
            change(&buffer)
            scene.check(.launchSecret, buffer.bytes, expected, comment, location: location)
        }
        for length: UInt32 in [0, 1, 51, 53, .max] { check(.invalidLength, "header") { $0.headerByteCount = length } }
        for length: UInt32 in [0, 8, 47, 49, 16400, .max, 0xffff_fff0] {
            check(.invalidLength, "both \(length)") {
                $0.guestByteCount = length
                $0.transportByteCount = length
            }
            check(.invalidLength, "guest \(length)") { $0.guestByteCount = length }
            check(.invalidLength, "transport \(length)") { $0.transportByteCount = length }
        }
        check(.invalidLength, "guest shorter than transport") { $0.guestByteCount = 32 }
        check(.badMeasurement, "both shorter") {
            $0.guestByteCount = 32
            $0.transportByteCount = 32
        }
        check(.invalidAddress, "unaligned target") { $0.guestAddress = target + 8 }
        check(.invalidAddress, "header outside") { $0.headerAddress = end }
        check(.invalidAddress, "header at the end") { $0.headerAddress = SPA(rawValue: end.rawValue - 51) }
        check(.invalidAddress, "transport outside") { $0.transportAddress = SPA(rawValue: .max - 15) }
        check(.invalidAddress, "target outside") { $0.guestAddress = SPA(rawValue: end.rawValue - 32) }
        check(.invalidAddress, "target wraps") { $0.guestAddress = SPA(rawValue: .max & ~15) }
        check(.invalidGuest, "handle") { $0.handle = .max }
        // A page of an SNP guest.
        let owned = machine.pages([])
        #expect(machine.memory.rmpUpdate(owned, RMPUpdate(gpa: 0, assigned: true, asid: 9)) == .success)
        check(.invalidPageState, "an SNP guest's page") { $0.guestAddress = owned }
        // Authentic, but nothing that this firmware does.
        for (flags, expected) in [(1, .unsupported), (3, .unsupported), (2, .invalidParameter)]
            as [(UInt32, SEVStatus)]
        {
            let flagged = machine.pages(Self.maker.header(payload: payload, flags: flags, measure: blob))
            check(expected, "flags \(flags)") { $0.headerAddress = flagged }
        }
        check(.success, "as it should be") { _ in }
    }

    // MARK: Measurement

    @Test("the measurement covers version, policy, digest and nonce; it is the owner's to check")
    func measurement() throws {
        let machine = try SEVMachine()
        let session = Self.maker.session(for: Self.pdh, policy: 4).bytes
        let guest = machine.start(policy: 4, certificate: Self.maker.certificate.bytes, session: session)
        #expect(machine.activate(guest.handle, 1) == .success)
        let data = machine.pages([UInt8](repeating: 3, count: 8192))
        let vmsa = machine.pages(VMSA().page)
        #expect(machine.update(guest.handle, data + 16, 8000) == .success)
        #expect(machine.update(guest.handle, vmsa, 4096, .launchUpdateVMSA) == .success)
        let digest = SHA2Hasher(.sha256).hash([UInt8](repeating: 3, count: 8000) + VMSA().page)
        let nonce = [UInt8](repeating: 0xab, count: 16)
        machine.processor.prepareEntropy(nonce)
        let blob = machine.measure(guest.handle).blob
        let message = [4, 1, 55, 29] + littleEndian(4) + digest + nonce
        #expect(blob == HMACSHA256.authenticate(message, key: Self.maker.tik) + nonce)
    }

    @Test("length queries, and where results may go", arguments: [false, true])
    func outputs(snp: Bool) throws {
        let machine = try SEVMachine(snp: snp)
        let guest = machine.start()
        let scene = SEVStateTests.Scene(machine)
        let end = machine.memory.base + machine.memory.byteCount
        let plain = machine.pages([])
        let owned = machine.pages([])
        if snp {
            #expect(machine.memory.rmpUpdate(owned, RMPUpdate(gpa: 0, assigned: true, asid: 9)) == .success)
        }
        /// Command, buffer for address and length, needed length, where the length is in the buffer.
        let commands: [(SEVCommand, (SPA, UInt32) -> [UInt8], UInt32, Int)] = [
            (.pekCSR, { SEVOutputBuffer(address: $0, byteCount: $1).bytes }, 2084, 8),
            (.getID, { SEVOutputBuffer(address: $0, byteCount: $1).bytes }, 64, 8),
            (.launchMeasure, { SEVLaunchMeasure(handle: guest.handle, address: $0, byteCount: $1).bytes }, 48, 16),
            (
                .attestation,
                {
                    SEVAttestation(
                        handle: guest.handle, address: $0, nonce: [UInt8](repeating: 1, count: 16), byteCount: $1
                    ).bytes
                }, 208, 32
            ),
        ]
        for (command, buffer, needed, offset) in commands {
            for length in [0, 1, needed - 1] {
                let state = machine.state
                let result = machine.run(command, buffer(scene.output, length))
                #expect(result.status == .invalidLength && machine.state == state)
                #expect(Array(result.bytes[offset..<offset + 4]) == littleEndian(needed), "\(command)")
                #expect(Array(result.bytes[..<offset]) == Array(buffer(scene.output, length)[..<offset]))
            }
            scene.check(command, buffer(end, needed), .invalidAddress, "outside")
            scene.check(command, buffer(SPA(rawValue: end.rawValue - 16), needed), .invalidAddress, "across the end")
            scene.check(command, buffer(.zero, needed), .invalidAddress, "zero")
            scene.check(command, buffer(SPA(rawValue: .max), needed), .invalidAddress, "wraps")
            if snp {
                scene.check(command, buffer(plain, needed), .invalidPageState, "not the firmware's")
                scene.check(command, buffer(owned, needed), .invalidPageState, "a guest's")
            }
            let result = machine.run(command, buffer(scene.output + 4090, .max))
            #expect(result.status == .success, "any larger length, across a page")
            #expect(Array(result.bytes[offset..<offset + 4]) == littleEndian(needed))
        }
    }

    @Test("PDH_CERT_EXPORT: both lengths, both places, or nothing")
    func export() throws {
        let machine = try SEVMachine(snp: true)
        let scene = SEVStateTests.Scene(machine)
        let plain = machine.pages([])
        let needed = SEVPDHCertificateExport(
            pdhAddress: scene.output, pdhByteCount: 2084, chainAddress: scene.output + 4096, chainByteCount: 6252)
        for (pdh, chain) in [(0, 0), (2083, 6252), (2084, 6251), (0, .max), (.max, 0)] as [(UInt32, UInt32)] {
            var buffer = needed
            buffer.pdhByteCount = pdh
            buffer.chainByteCount = chain
            let result = machine.run(.pdhCertificateExport, buffer.bytes)
            #expect(result.status == .invalidLength)
            #expect(result.bytes == needed.bytes)
        }
        for (pdh, chain, expected) in [
            (plain, scene.output, .invalidPageState), (scene.output, plain, .invalidPageState),
            (.zero, scene.output, .invalidAddress), (scene.output, .zero, .invalidAddress),
        ] as [(SPA, SPA, SEVStatus)] {
            var buffer = needed
            buffer.pdhAddress = pdh
            buffer.chainAddress = chain
            scene.check(.pdhCertificateExport, buffer.bytes, expected, "\(pdh) \(chain)")
        }
        #expect(machine.run(.pdhCertificateExport, needed.bytes).status == .success)
    }
}

/// Something that a closure writes to.
final class Mailbox: @unchecked Sendable {
    // Tests give it to one thread only.
    var bytes: [UInt8] = []
    var count = 0
}
