// /dev/sev's platform commands, each in each state of the platform [KVM drivers/crypto/ccp, SEV 5]. They change who a
// machine is, so they run on the software machine only.

import Crypto
import KVMABI
import SEVABI
import SoftwareKVM
import Testing

/// A software machine's /dev/sev.
private final class SEVDevice {
    enum State: CaseIterable, CustomTestStringConvertible {
        case uninitialized, initialized, working
        var testDescription: String { "\(self)" }
    }

    let kernel: SoftwareKVM
    let sev: KernelHandle
    let room: KernelMapping
    private var guest: SEVMachine?

    init(_ state: State = .initialized) throws {
        kernel = try SoftwareKVM()
        sev = try kernel.open(.sev)
        room = try kernel.map(.anonymous, offset: 0, byteCount: 0x1_0000)
        switch state {
        case .uninitialized: #expect(issue(.factoryReset) == .success)
        case .initialized: break
        case .working: guest = try SEVMachine.at(.launching, kernel, .sev)
        }
    }

    func issue(_ command: SEVDeviceCommand, address: UInt64 = 0) -> SEVOutcome {
        var envelope = SEVIssueCommand(command, data: address)
        do throws(Errno) {
            try kernel.call(sev, .sevIssueCommand, &envelope)
            return SEVOutcome(errno: nil, status: FirmwareStatus(rawValue: envelope.error))
        } catch {
            return SEVOutcome(errno: error, status: FirmwareStatus(rawValue: envelope.error))
        }
    }

    func issue<S: KernelStructure>(_ command: SEVDeviceCommand, _ data: inout S) -> SEVOutcome {
        withKernelAddress(of: &data) { (address: UInt64) in issue(command, address: address) }
    }

    var status: SEVUserStatus {
        var status = SEVUserStatus()
        _ = issue(.platformStatus, &status)
        return status
    }

    func signingRequest(byteCount: UInt32 = 2084) -> (outcome: SEVOutcome, byteCount: UInt32) {
        var data = SEVUserPEKCSR(address: room.address, byteCount: byteCount)
        return (issue(.pekCSR, &data), data.byteCount)
    }

    /// PDH at the room's start, the chain at 0x1000.
    func export(pdh: UInt32 = 2084, chain: UInt32 = 6252) -> (outcome: SEVOutcome, pdh: UInt32, chain: UInt32) {
        var data = SEVUserPDHExport()
        (data.certificateAddress, data.certificateByteCount) = (room.address, pdh)
        (data.chainAddress, data.chainByteCount) = (room.address + 0x1000, chain)
        let outcome = issue(.pdhCertificateExport, &data)
        return (outcome, data.certificateByteCount, data.chainByteCount)
    }

    /// PDH, PEK, OCA, CEK.
    func certificates() throws -> [SEVCertificate] {
        try #require(export().outcome == .success)
        return try [0, 0x1000, 0x1824, 0x2048].map { offset in
            try #require(SEVCertificate(bytes: room.copyBytes(at: offset, count: SEVCertificate.byteCount)))
        }
    }

    /// The PEK's certificate at the room's start, the OCA's at 0x1000.
    func importCertificates(_ change: (inout SEVUserPEKCertificateImport) -> Void = { _ in }) -> SEVOutcome {
        var data = SEVUserPEKCertificateImport()
        (data.pekAddress, data.pekByteCount) = (PackedAddress(room.address), 2084)
        (data.ocaAddress, data.ocaByteCount) = (PackedAddress(room.address + 0x1000), 2084)
        change(&data)
        return issue(.pekCertificateImport, &data)
    }
}

extension SEVCertificate {
    fileprivate func isSigned(by signer: SEVCertificate, _ usage: Usage) -> Bool {
        guard let key = P384PublicKey(littleEndianX: signer.publicKey.x, y: signer.publicKey.y) else { return false }
        return signatures.contains {
            $0.usage == usage
                && key.isValidSignature(
                    littleEndianR: $0.value.r, s: $0.value.s, of: signedBytes, hash: .sha256)
        }
    }
}

@Suite struct SEVPlatformTests {
    @Test(arguments: SEVDevice.State.allCases)
    private func `every command in every state`(_ state: SEVDevice.State) throws {
        for number in UInt32(0)...12 {
            let device = try SEVDevice(state)
            let command = SEVDeviceCommand(rawValue: number)
            let room = device.room.address
            let outcome: SEVOutcome
            let expected: SEVOutcome
            switch command {
            case .factoryReset:
                outcome = device.issue(command)
                expected = state == .working ? .refused(.EBUSY) : .success
            case .platformStatus:
                outcome = device.issue(command, address: room)
                expected = .success
            case .pekGenerate:
                outcome = device.issue(command)
                expected = state == .working ? .firmware(.invalidPlatformState) : .success
            case .pekCSR:
                outcome = device.signingRequest().outcome
                expected = .success
            case .pdhGenerate:
                outcome = device.issue(command)
                expected = .success
            case .pdhCertificateExport:
                outcome = device.export().outcome
                expected = .success
            case .pekCertificateImport:
                outcome = device.importCertificates()
                expected = .firmware(state == .working ? .invalidPlatformState : .invalidCertificate)
            case .getID:
                outcome = device.issue(command, address: room)
                expected = .success
            case .getID2:
                var data = SEVUserGetID2(address: room, byteCount: 64)
                outcome = device.issue(command, &data)
                expected = .success
            case .snpVLEKLoad:
                var data = SNPUserVLEKLoad(address: room)
                outcome = device.issue(command, &data)
                expected = .firmware(.badMeasurement)
            default:
                outcome = device.issue(command, address: room)
                expected = .success
            }
            #expect(outcome == expected, "command \(number) while \(state)")
            // Key commands move a platform to INIT; guests stay.
            let moves: Set<UInt32> = [2, 3, 4, 5, 6]
            let after: UInt8 =
                switch state {
                case .uninitialized: moves.contains(number) ? 1 : 0
                case .initialized: command == .factoryReset ? 0 : 1
                case .working: 2
                }
            #expect(device.status.state == after, "after command \(number) while \(state)")
            #expect(device.status.guestCount == (state == .working ? 1 : 0))
        }
    }

    @Test func `a guest brings a reset platform up again`() throws {
        let device = try SEVDevice(.uninitialized)
        #expect(device.status.state == 0)
        for kind in SEVKind.allCases { _ = try SEVMachine.at(.running, device.kernel, kind) }
        #expect(device.status.state == 1)
        #expect(device.status.flags & 1 << 8 != 0, "SEV-ES is configured")
    }

    // MARK: Keys and certificates

    @Test func `the chain is signed from CEK and OCA to PDH`() throws {
        let device = try SEVDevice()
        let certificates = try device.certificates()
        let (pdh, pek, oca, cek) = (certificates[0], certificates[1], certificates[2], certificates[3])
        #expect([pdh.usage, pek.usage, oca.usage, cek.usage] == [.pdh, .pek, .oca, .cek])
        #expect(pdh.isSigned(by: pek, .pek))
        #expect(pek.isSigned(by: oca, .oca) && pek.isSigned(by: cek, .cek))
        #expect(oca.isSigned(by: oca, .oca))
        #expect(try device.certificates() == certificates, "the same again")
        #expect(device.status.flags & 1 == 0, "owns itself")
    }

    @Test func `new keys`() throws {
        let device = try SEVDevice()
        let first = try device.certificates()
        #expect(device.issue(.pdhGenerate) == .success)
        let second = try device.certificates()
        #expect(second[0] != first[0] && Array(second[1...]) == Array(first[1...]), "PDH_GEN changes the PDH alone")
        #expect(device.issue(.pekGenerate) == .success)
        let third = try device.certificates()
        for index in 0...2 { #expect(third[index] != second[index]) }
        #expect(third[3] == first[3], "the chip stays the chip")
        #expect(device.issue(.factoryReset) == .success)
        let fourth = try device.certificates()
        #expect(fourth[1] != third[1] && fourth[3] == first[3])
    }

    @Test func `somebody else owns the platform`() throws {
        let device = try SEVDevice()
        #expect(device.signingRequest() == (.success, 2084))
        let request = try #require(SEVCertificate(bytes: device.room.copyBytes(at: 0, count: 2084)))
        #expect(request.signatures.allSatisfy { $0.usage == .invalid })
        let owner = P384PrivateKey(derivedFrom: [7], label: "owner")
        var oca = SEVCertificate.make(
            usage: .oca, algorithm: .ecdsaSHA256, apiMajor: 1, apiMinor: 55, x: owner.publicKey.littleEndianX,
            y: owner.publicKey.littleEndianY)
        func signature(_ certificate: SEVCertificate) -> SEVCertificate.Signature {
            let (r, s) = owner.sign(certificate.signedBytes, hash: .sha256)
            return .init(usage: .oca, algorithm: .ecdsaSHA256, r: r, s: s)
        }
        oca.setSignature(signature(oca), slot: 0)
        var pek = request
        device.room.write(oca.bytes, at: 0x1000)
        #expect(device.importCertificates() == .firmware(.badSignature), "nobody signed the request")
        pek.setSignature(signature(pek), slot: 0)
        device.room.write(pek.bytes, at: 0)
        #expect(device.importCertificates() == .success)
        #expect(device.status.flags & 1 == 1, "owned")
        #expect(device.importCertificates() == .firmware(.alreadyOwned))
        let chain = try device.certificates()
        #expect(chain[2] == oca && chain[1].isSigned(by: oca, .oca) && chain[1].isSigned(by: chain[3], .cek))
        #expect(device.issue(.factoryReset) == .success)
        #expect(device.issue(.pdhGenerate) == .success)
        #expect(device.status.flags & 1 == 0, "owns itself again")
    }

    // MARK: Lengths and pointers

    @Test func `lengths of the request for a signature`() throws {
        let device = try SEVDevice()
        for length: UInt32 in [0, 1, 2083] {
            #expect(device.signingRequest(byteCount: length) == (.firmware(.invalidLength), 2084))
        }
        #expect(device.signingRequest(byteCount: 16385) == (.refused(.EFAULT), 16385))
        var nowhere = SEVUserPEKCSR(address: 0, byteCount: 2084)
        #expect(device.issue(.pekCSR, &nowhere) == .firmware(.invalidLength), "no address asks for the length")
        #expect(nowhere.byteCount == 2084)
        var bad = SEVUserPEKCSR(address: 1 << 60, byteCount: 2084)
        #expect(device.issue(.pekCSR, &bad) == .refused(.EFAULT))
        #expect(device.issue(.pekCSR, address: 0) == .refused(.EFAULT))
        device.room.fill(0xaa, at: 0, count: 0x4000)
        #expect(device.signingRequest(byteCount: 0x3000) == (.success, 2084))
        #expect(device.room.load(at: 2084, as: UInt8.self) == 0xaa, "nothing behind the certificate")
    }

    @Test func `lengths of the export`() throws {
        let device = try SEVDevice()
        for (pdh, chain): (UInt32, UInt32) in [(0, 0), (0, 6252), (2084, 0), (2083, 6252), (2084, 6251)] {
            let result = device.export(pdh: pdh, chain: chain)
            #expect(result == (.firmware(.invalidLength), 2084, 6252), "\(pdh), \(chain)")
        }
        #expect(device.export(pdh: 16385).outcome == .refused(.EFAULT))
        #expect(device.export(chain: 16385).outcome == .refused(.EFAULT))
        #expect(device.export(pdh: 0x1000, chain: 0x4000) == (.success, 2084, 6252))
        #expect(device.issue(.pdhCertificateExport, address: 0) == .refused(.EFAULT))
        var data = SEVUserPDHExport()
        (data.certificateAddress, data.certificateByteCount) = (1 << 60, 2084)
        (data.chainAddress, data.chainByteCount) = (device.room.address, 6252)
        #expect(device.issue(.pdhCertificateExport, &data) == .refused(.EFAULT))
    }

    @Test func `lengths of the import`() throws {
        let device = try SEVDevice()
        for length: UInt32 in [0, 16385, .max] {
            #expect(device.importCertificates { $0.pekByteCount = length } == .refused(.EINVAL))
            #expect(device.importCertificates { $0.ocaByteCount = length } == .refused(.EINVAL))
        }
        #expect(device.importCertificates { $0.pekAddress = PackedAddress(0) } == .refused(.EINVAL))
        #expect(device.importCertificates { $0.ocaAddress = PackedAddress(1 << 60) } == .refused(.EFAULT))
        for length: UInt32 in [1, 2083, 2085] {
            #expect(device.importCertificates { $0.pekByteCount = length } == .firmware(.invalidLength))
            #expect(device.importCertificates { $0.ocaByteCount = length } == .firmware(.invalidLength))
        }
        for pattern: UInt8 in [0, 0xff] {
            device.room.fill(pattern, at: 0, count: 0x2000)
            #expect(device.importCertificates() == .firmware(.invalidCertificate))
        }
        #expect(device.issue(.pekCertificateImport, address: 0) == .refused(.EFAULT))
    }

    @Test func `the chip's identity`() throws {
        let device = try SEVDevice()
        var query = SEVUserGetID2(address: 0, byteCount: 0)
        #expect(device.issue(.getID2, &query) == .firmware(.invalidLength))
        #expect(query.byteCount == 64, "64 bytes for each socket")
        var short = SEVUserGetID2(address: device.room.address, byteCount: 63)
        #expect(device.issue(.getID2, &short) == .firmware(.invalidLength))
        #expect(short.byteCount == 64)
        var huge = SEVUserGetID2(address: device.room.address, byteCount: .max)
        #expect(device.issue(.getID2, &huge) == .refused(.ENOMEM))
        var good = SEVUserGetID2(address: device.room.address, byteCount: 128)
        #expect(device.issue(.getID2, &good) == .success)
        #expect(good.byteCount == 64)
        var old = SEVUserGetID()
        #expect(device.issue(.getID, &old) == .success)
        #expect(Array(old.kernelBytes[..<64]) == device.room.copyBytes(at: 0, count: 64))
        #expect(old.kernelBytes[64...].allSatisfy { $0 == 0 }, "one socket")
        #expect(device.issue(.getID, address: 0) == .refused(.EFAULT))
    }

    @Test func `loading a VLEK`() throws {
        let device = try SEVDevice()
        #expect(device.issue(.snpVLEKLoad, address: 0) == .refused(.EINVAL))
        #expect(device.issue(.snpVLEKLoad, address: 8) == .refused(.EFAULT))
        func load(_ change: (inout SNPUserVLEKLoad) -> Void) -> SEVOutcome {
            var data = SNPUserVLEKLoad(address: device.room.address)
            change(&data)
            return device.issue(.snpVLEKLoad, &data)
        }
        for length: UInt32 in [0, 15, 17, .max] { #expect(load { $0.byteCount = length } == .refused(.EINVAL)) }
        for version: UInt8 in [1, 255] { #expect(load { $0.version = version } == .refused(.EINVAL)) }
        #expect(load { $0.address = 0 } == .refused(.EINVAL))
        #expect(load { $0.address = 1 << 60 } == .refused(.EFAULT))
        #expect(load { $0.rsvd[0] = 1 } == .firmware(.invalidParameter))
        #expect(load { _ in } == .firmware(.badMeasurement), "no key in the world is wrapped for this chip")
    }

    @Test func `configuration needs an address`() throws {
        let device = try SEVDevice()
        #expect(device.issue(.snpSetConfig, address: 0) == .refused(.EINVAL))
        #expect(device.issue(.snpSetConfig, address: 8) == .refused(.EFAULT))
        #expect(device.issue(.snpPlatformStatus, address: 0) == .refused(.EINVAL))
        #expect(device.issue(.platformStatus, address: 0) == .refused(.EFAULT))
    }
}
