import Attestation
import Crypto
import GuestOwner
import LaunchMeasurement
import SEVABI
import SecretRelease
import SoftwarePSP
import TestSupport
import Testing

@Suite("Release of secrets: to the right guest and to no other")
struct ReleaseTests {
    @Test("the right guest gets the secret, as often as it asks, and the log says so")
    func rightGuest() throws {
        let guest = try ReleasingGuest()
        let owner = try TestOwner()
        #expect(try guest.measurement() == MeasuredLaunch(of: try GuestSetup().plan()).digestBytes)
        #expect(try exchange(guest, owner) == .secret(TestOwner.secret))
        #expect(try exchange(guest, owner) == .secret(TestOwner.secret))
        #expect(owner.log.map(\.decision) == [.release, .release])
        let record = try #require(owner.log.first)
        #expect(record.reason == "released")
        #expect(record.secret?.text == "disk/root")
        #expect(record.report?.isGenuine == true)
        #expect(record.report?.chipID == (try guest.setup.chipID))
        #expect(record.report?.measurement == (try guest.measurement()))
        #expect(record.report?.tcb == "blSPL=4 teeSPL=0 snpSPL=24 ucodeSPL=219")
        #expect(record.report?.root?.contains("Software") == true)
    }

    /// A guest that is not the one that the owner wants, and what it is told.
    struct WrongGuest: Sendable, CustomTestStringConvertible {
        let name: String
        let reason: SecretRefusal.Reason
        let field: String
        let change: @Sendable (inout GuestSetup) -> Void

        var testDescription: String { name }
    }

    static let wrongGuests: [WrongGuest] = [
        WrongGuest(name: "another command line", reason: .measurement, field: "MEASUREMENT") {
            $0.commandLine += " init=/bin/sh"
        },
        WrongGuest(name: "one more vCPU", reason: .measurement, field: "MEASUREMENT") { $0.cpus = 2 },
        WrongGuest(name: "a debug policy", reason: .policy, field: "POLICY.DEBUG") { $0.policy = 0xb0000 },
        WrongGuest(name: "another chip", reason: .chip, field: "CHIP_ID") { $0.chipSeed = 2 },
        WrongGuest(name: "an older TCB", reason: .tcb, field: "REPORTED_TCB") {
            $0.tcb = TCBVersion(bootLoader: 4, tee: 0, snp: 23, microcode: 219)
        },
        WrongGuest(name: "other host data", reason: .hostData, field: "HOST_DATA") {
            $0.hostData = [UInt8](repeating: 1, count: 32)
        },
        WrongGuest(name: "a foreign root", reason: .untrustedRoot, field: "key fingerprint") {
            $0.manufacturer = Manufacturer(seed: [0xf0])
        },
    ]

    @Test("a guest that was launched otherwise is refused, each with its reason", arguments: wrongGuests)
    func wrongGuest(_ wrong: WrongGuest) throws {
        var setup = GuestSetup()
        wrong.change(&setup)
        let guest = try ReleasingGuest(setup)
        let owner = try TestOwner()
        #expect(try exchange(guest, owner) == .refused(wrong.reason, wrong.field))
        let record = try #require(owner.log.first)
        #expect(owner.log.count == 1)
        #expect(record.decision == .refuse)
        #expect(record.reason == "\(wrong.reason)")
        #expect(record.report != nil)
        // What was expected is for the owner's eyes.
        #expect(record.causes.contains { $0.contains("expected") })
        // The same guest gets it from an owner that wants it: it is this difference and no other.
        let itsOwner = try TestOwner(for: setup) { policy in
            policy.report.allowsDebug = true
            policy.report.minimumTCB = nil
            policy.report.hostData = [setup.hostData]
        }
        #expect(try exchange(guest, itsOwner) == .secret(TestOwner.secret))
    }

    @Test("a replayed report is refused: it was made for another nonce and key")
    func replayedReport() throws {
        let guest = try ReleasingGuest()
        let owner = try TestOwner()
        let old = try guest.report(
            SecretBinding.reportData(
                nonce: [UInt8](repeating: 3, count: 32), publicKey: P384PrivateKey.random().publicKey,
                id: SecretID("disk/root")!))
        // The guest's agent itself notices, so a hostile client sends it.
        let ending = try hostileExchange(owner, certificates: guest.certificates) { _, _ in old }
        #expect(ending == .refused(.reportData, "REPORT_DATA"))
        #expect(owner.log.map(\.reason) == ["report-data"])
        #expect(owner.log.first?.report?.measurement == (try guest.measurement()))
    }

    /// A client of its own that speaks the protocol with any report, key and nonce.
    private func hostileExchange(
        _ owner: TestOwner, key: P384PrivateKey = .random(), id: String = "disk/root", certificates: [UInt8],
        nonce: [UInt8]? = nil, report: ([UInt8], P384PublicKey) throws -> [UInt8]
    ) throws -> Ending {
        let hello = owner.service.answer(SecretReleaseMessage.hello(versions: 1...1).bytes, peer: "hostile")
        guard case .challenge(let given)? = try message(hello) else { throw ExchangeTests.Unexpected() }
        let nonce = nonce ?? given
        let evidence = SecretEvidence(
            nonce: nonce, report: try report(nonce, key.publicKey), publicKey: key.publicKey, id: SecretID(id)!,
            certificates: certificates)
        switch try message(
            owner.service.answer(SecretReleaseMessage.evidence(evidence).bytes, peer: "hostile"))
        {
        case .release: return .secret([])
        case .refusal(let refusal): return .refused(refusal.reason, refusal.detail)
        default: throw ExchangeTests.Unexpected()
        }
    }

    private func message(_ bytes: [UInt8]) throws -> SecretReleaseMessage? {
        var decoder = SecretReleaseDecoder()
        decoder.append(bytes)
        return try decoder.next()
    }

    @Test("a nonce is good once: the same evidence again, an invented nonce, one that is too old")
    func nonces() throws {
        let guest = try ReleasingGuest()
        let owner = try TestOwner()
        let key = P384PrivateKey.random()
        func report(_ nonce: [UInt8], _ key: P384PublicKey) throws -> [UInt8] {
            try guest.report(SecretBinding.reportData(nonce: nonce, publicKey: key, id: SecretID("disk/root")!))
        }
        var used: [UInt8] = []
        let first = try hostileExchange(owner, key: key, certificates: guest.certificates) { nonce, key in
            used = nonce
            return try report(nonce, key)
        }
        #expect(first == .secret([]))
        // Genuine in every other respect: the report is for this nonce.
        #expect(
            try hostileExchange(owner, key: key, certificates: guest.certificates, nonce: used, report: report)
                == .refused(.nonce, "this nonce has been used"))
        #expect(
            try hostileExchange(
                owner, certificates: guest.certificates, nonce: [UInt8](repeating: 9, count: 32), report: report)
                == .refused(.nonce, "this nonce was not given out here"))
        #expect(
            try hostileExchange(owner, certificates: guest.certificates) { nonce, key in
                owner.pass(milliseconds: owner.service.nonces.lifetimeMilliseconds + 1)
                return try report(nonce, key)
            } == .refused(.nonce, "this nonce is too old"))
        // Another owner's nonce is invented here.
        let other = try TestOwner()
        #expect(
            try hostileExchange(other, certificates: guest.certificates, nonce: used, report: report).reason == .nonce)
        #expect(owner.log.map(\.reason) == ["released", "nonce", "nonce", "nonce"])
    }

    @Test("a report for another key or another secret's name is refused")
    func binding() throws {
        let guest = try ReleasingGuest()
        let owner = try TestOwner()
        let other = P384PrivateKey.random().publicKey
        #expect(
            try hostileExchange(owner, certificates: guest.certificates) { nonce, _ in
                try guest.report(
                    SecretBinding.reportData(nonce: nonce, publicKey: other, id: SecretID("disk/root")!))
            } == .refused(.reportData, "REPORT_DATA"))
        #expect(
            try hostileExchange(owner, certificates: guest.certificates) { nonce, key in
                try guest.report(SecretBinding.reportData(nonce: nonce, publicKey: key, id: SecretID("disk")!))
            } == .refused(.reportData, "REPORT_DATA"))
    }

    @Test("a name that the owner does not have: refused, but only guests that are accepted learn it")
    func unknownSecret() throws {
        let owner = try TestOwner()
        let guest = try ReleasingGuest()
        #expect(try exchange(guest, owner, id: "disk/other").reason == .unknownSecret)
        var setup = GuestSetup()
        setup.commandLine = "other"
        #expect(try exchange(ReleasingGuest(setup), owner, id: "disk/other").reason == .measurement)
        #expect(owner.log.map(\.secret?.text) == ["disk/other", "disk/other"])
    }

    @Test("certificates: missing, the owner's own, garbage")
    func certificates() throws {
        let guest = try ReleasingGuest()
        let owner = try TestOwner()
        #expect(try exchange(guest, owner, certificates: []).reason == .certificates)
        #expect(try exchange(guest, owner, certificates: [1, 2, 3]).reason == .certificates)
        let withOwn = try TestOwner { policy in
            try? policy.certificates.add(guest.certificates, name: "own")
        }
        #expect(try exchange(guest, withOwn, certificates: []) == .secret(TestOwner.secret))
        // AMD's roots only: the software root must be named.
        #expect(try exchange(guest, TestOwner(trusting: [])).reason == .untrustedRoot)
    }

    @Test("every flipped byte of the report is refused")
    func flippedBytes() throws {
        let guest = try ReleasingGuest()
        let owner = try TestOwner()
        for index in stride(from: 0, to: 1184, by: 7) where !(0x50..<0x90).contains(index) {
            let ending = try exchange(guest, owner) { $0[index] ^= 0x10 }
            #expect(ending.reason != nil, "byte \(index)")
        }
        #expect(owner.log.allSatisfy { $0.decision == .refuse })
    }

    @Test("an owner that cannot write its log releases nothing")
    func brokenLog() throws {
        let guest = try ReleasingGuest()
        let owner = try TestOwner()
        owner.breakLog()
        #expect(try exchange(guest, owner) == .refused(.owner, "the owner cannot write its log"))
    }

    @Test("a policy that accepts any measurement has to say so")
    func emptyPolicy() throws {
        #expect(throws: OwnerError.self) { try TestOwner { $0.report.measurements = [] } }
        #expect(throws: OwnerError.self) { try TestOwner { $0.report.familyID = [UInt8](repeating: 1, count: 16) } }
        #expect(throws: OwnerError.self) { try TestOwner { $0.secrets[SecretID("x")!] = SecretBytes([]) } }
        var setup = GuestSetup()
        setup.commandLine = "anything"
        let owner = try TestOwner { $0.report.measurements = nil }
        #expect(try exchange(ReleasingGuest(setup), owner) == .secret(TestOwner.secret))
    }
}
