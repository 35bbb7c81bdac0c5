// The firmware's side writes reports, this side reads them, and the two were written apart: they must agree on every field.

import Attestation
import Crypto
import SEVABI
import TestSupport
import Testing

@Suite struct FirmwareAgreementTests {
    @Test(arguments: [UInt32(2), 3, 5], ProcessorProduct.allCases)
    func whatFirmwareWritesIsRead(version: UInt32, product: ProcessorProduct) throws {
        var numbers = SeededGenerator(seed: UInt64(version))
        var chain = product == .turin ? TestChain.turin() : TestChain()
        chain.product = try #require(ProductLine(rawValue: product.rawValue))
        var body = AttestationReportBody(version: version)
        body.guestSVN = 7
        body.policy = GuestPolicy(rawValue: 0x3_0137)
        body.familyID = numbers.bytes(16)
        body.imageID = numbers.bytes(16)
        body.vmpl = 2
        let tcb = TCBVersion(rawValue: chain.versions.tcbVersion(of: chain.product))
        (body.currentTCB, body.reportedTCB, body.committedTCB, body.launchTCB) = (tcb, tcb, tcb, tcb)
        body.platformInformation = .init(rawValue: 0x25)
        body.hasAuthorKey = true
        body.reportData = numbers.bytes(64)
        body.measurement = try #require(LaunchDigest(numbers.bytes(48)))
        body.hostData = numbers.bytes(32)
        body.idKeyDigest = try #require(LaunchDigest(numbers.bytes(48)))
        body.authorKeyDigest = try #require(LaunchDigest(numbers.bytes(48)))
        body.reportID = numbers.bytes(32)
        body.fms = product.fms
        body.chipID = chain.hardwareID + [UInt8](repeating: 0, count: 64 - chain.hardwareID.count)
        (body.currentVersion.major, body.currentVersion.minor, body.currentVersion.build) = (1, 55, 43)
        (body.committedVersion.major, body.committedVersion.minor, body.committedVersion.build) = (1, 55, 29)
        body.launchMitigationVector = 0x1_0000_0001
        body.currentMitigationVector = 3
        let signature = TestKeys.vcek.sign(body.bytes, hash: .sha384)
        let bytes = body.report(signature: SignatureField(r: signature.r, s: signature.s))

        let verified = try chain.chain().verify(bytes)
        let report = verified.report
        #expect(report.version == version && report.guestSVN == 7 && report.policy == body.policy && report.vmpl == 2)
        #expect(report.familyID == body.familyID && report.imageID == body.imageID)
        #expect(report.platformInfo.rawValue == 0x25 && report.keyInformation.hasAuthorKey)
        #expect(report.reportData == body.reportData && report.hostData == body.hostData)
        #expect(report.measurement == body.measurement.array && report.reportID == body.reportID)
        #expect(report.idKeyDigest == body.idKeyDigest.array && report.authorKeyDigest == body.authorKeyDigest.array)
        #expect(report.migrationAgentReportID == nil && report.chipID == body.chipID)
        #expect(report.currentVersion.description == "1.55.43" && report.committedVersion.description == "1.55.29")
        for versions in [verified.currentTCB, verified.reportedTCB, verified.committedTCB, verified.launchTCB] {
            #expect(versions == chain.versions)
        }
        #expect((report.processor != nil) == (version >= 3))
        #expect(report.launchMitigationVector == (version == 5 ? 0x1_0000_0001 : nil))
        #expect(report.currentMitigationVector == (version == 5 ? 3 : nil))
    }
}
