import SEVABI
import TestSupport
import Testing

@Suite("Guest messages")
struct GuestMessageTests {
    @Test("the header, byte by byte")
    func header() throws {
        var header = GuestMessageHeader(
            type: .reportRequest, messageVersion: 1, payloadByteCount: 0x123, keyIndex: 3,
            sequenceNumber: 0x0102_0304_0506_0708)
        header.tag = (0..<16).map { 0xa0 + UInt8($0) }
        let expected =
            "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf" + String(repeating: "00", count: 16)  // AUTHTAG
            + "0807060504030201" + "0000000000000000"  // MSG_SEQNO
            + "01016000" + "05012301" + "00000000" + "03" + String(repeating: "00", count: 35)
        #expect(header.bytes.hex == expected)
        #expect(header.nonce.hex == "080706050403020100000000")
        #expect(GuestMessageHeader(bytes: header.bytes) == header)
        #expect(GuestMessageHeader(bytes: Array(header.bytes.dropLast())) == nil)
        #expect(GuestMessageType.keyRequest.response == .keyResponse)
        #expect(GuestMessageType.tscInfoRequest.response == .tscInfoResponse)
        #expect(GuestMessageType.reportRequest.response == .reportResponse)
    }

    @Test("every byte of the header is a field or reserved")
    func reservedBytes() throws {
        let base = GuestMessageHeader(type: .keyRequest, payloadByteCount: 32, keyIndex: 0, sequenceNumber: 1).bytes
        let reserved = Set(0x10..<0x20).union(0x28..<0x30).union(0x38..<0x3c).union(0x3d..<0x60)
        for offset in 0..<0x60 {
            var bytes = base
            bytes[offset] ^= 0x80
            let changed = try #require(GuestMessageHeader(bytes: bytes))
            #expect(changed.hasValidReservedBytes == !reserved.contains(offset), "0x\(String(offset, radix: 16))")
            #expect((changed.bytes == bytes) == !reserved.contains(offset))
        }
    }

    @Test("MSG_REPORT_REQ and MSG_REPORT_RSP")
    func report() throws {
        let request = ReportRequest(reportData: [1, 2, 3], vmpl: 2, keySelection: .vlek)
        #expect(
            request.bytes.hex == "010203" + String(repeating: "00", count: 61) + "02000000" + "02000000"
                + String(repeating: "00", count: 24))
        #expect(ReportRequest(bytes: request.bytes) == request)
        #expect(ReportRequest(bytes: request.bytes + [0]) == nil)
        for offset in 0x45..<0x60 {
            var bytes = request.bytes
            bytes[offset] = 1
            #expect(ReportRequest(bytes: bytes)?.hasValidReservedBits == false)
        }
        var bytes = request.bytes
        bytes[0x44] = 4
        #expect(ReportRequest(bytes: bytes)?.hasValidReservedBits == false)

        let response = ReportResponse(report: [UInt8](repeating: 7, count: 0x4a0))
        #expect(response.bytes.count == 0x4c0)
        #expect(
            response.bytes.prefix(0x22).map { $0 } == [0, 0, 0, 0, 0xa0, 4] + [UInt8](repeating: 0, count: 26) + [7, 7])
        #expect(ReportResponse(bytes: response.bytes) == response)
        let refused = ReportResponse(status: .invalidKey)
        #expect(refused.bytes == [0x27] + [UInt8](repeating: 0, count: 0x4bf))
        #expect(ReportResponse(bytes: refused.bytes) == refused)
        #expect(ReportResponse(bytes: [0, 0, 0, 0, 0xa1, 4] + [UInt8](repeating: 0, count: 0x4ba)) == nil)
    }

    @Test("MSG_KEY_REQ in both versions, MSG_KEY_RSP")
    func key() throws {
        let tcb = TCBVersion(rawValue: 0x0807_0605_0403_0201)
        let old = KeyRequest(fields: .all(messageVersion: 1), vmpl: 1, guestSVN: 2, tcbVersion: tcb)
        #expect(
            old.bytes.hex == "0000000000000000" + "3f00000000000000" + "01000000" + "02000000" + "0102030405060708")
        let new = KeyRequest(
            usesVMRK: true, keySelection: .vcek, fields: .all(messageVersion: 2), vmpl: 3, launchMitigationVector: 9,
            messageVersion: 2)
        #expect(
            new.bytes.hex == "0300000000000000" + "7f00000000000000" + "03000000" + "00000000" + "0000000000000000"
                + "0900000000000000")
        #expect(KeyRequest(bytes: old.bytes, messageVersion: 1) == old)
        #expect(KeyRequest(bytes: new.bytes, messageVersion: 2) == new)
        #expect(KeyRequest(bytes: old.bytes, messageVersion: 2) == nil)
        #expect(KeyRequest(bytes: new.bytes, messageVersion: 1) == nil)
        #expect(KeyRequest(bytes: old.bytes, messageVersion: 3) == nil)
        for (offset, bit) in [(0, 3), (1, 0), (4, 0), (7, 7), (8, 6), (9, 0), (15, 7)] as [(Int, UInt8)] {
            var bytes = old.bytes
            bytes[offset] |= 1 << bit
            #expect(KeyRequest(bytes: bytes, messageVersion: 1)?.hasValidReservedBits == false)
        }
        let response = KeyResponse(key: [UInt8](repeating: 5, count: 32))
        #expect(response.bytes.hex == String(repeating: "00", count: 32) + String(repeating: "05", count: 32))
        #expect(KeyResponse(bytes: response.bytes) == response)
        #expect(KeyResponse(status: .invalidParameters).bytes == [0x16] + [UInt8](repeating: 0, count: 63))
    }

    @Test("MSG_TSC_INFO_RSP")
    func tscInfo() throws {
        let response = TSCInfoResponse(scale: TSCInfoResponse.unitScale, offset: 0x1122, factor: 200)
        #expect(
            response.bytes.hex == "0000000000000000" + "0000000001000000" + "2211000000000000" + "c8000000"
                + String(repeating: "00", count: 100))
        #expect(TSCInfoResponse(bytes: response.bytes) == response)
    }

    @Test("SNP_GUEST_REQUEST")
    func commandBuffer() {
        let buffer = SNPGuestRequest(
            context: SPA(rawValue: 0x1000), request: SPA(rawValue: 0x2000), response: SPA(rawValue: 0x3000))
        #expect(buffer.bytes.hex == "0010000000000000" + "0020000000000000" + "0030000000000000")
        #expect(SNPGuestRequest(bytes: buffer.bytes) == buffer)
        #expect(SNPGuestRequest(bytes: Array(buffer.bytes.dropLast())) == nil)
    }

    @Test("a report: every field where it belongs, and nothing else", arguments: [2, 3, 5] as [UInt32])
    func reportBody(_ version: UInt32) {
        func filled(_ value: UInt8, _ count: Int) -> [UInt8] { [UInt8](repeating: value, count: count) }
        var body = AttestationReportBody(version: version)
        body.guestSVN = 0x0403_0201
        body.policy = GuestPolicy(rawValue: 0x30000)
        body.familyID = filled(0x11, 16)
        body.imageID = filled(0x12, 16)
        body.vmpl = 1
        body.currentTCB = TCBVersion(bootLoader: 4, tee: 1, snp: 24, microcode: 219)
        body.platformInformation = [.smtEnabled, .aliasCheckComplete]
        body.hasAuthorKey = true
        body.masksChipKey = true
        body.signingKey = .none
        body.reportData = filled(0x13, 64)
        body.measurement = LaunchDigest(filled(0x14, 48)) ?? LaunchDigest()
        body.hostData = filled(0x15, 32)
        body.idKeyDigest = LaunchDigest(filled(0x16, 48)) ?? LaunchDigest()
        body.authorKeyDigest = LaunchDigest(filled(0x17, 48)) ?? LaunchDigest()
        body.reportID = filled(0x18, 32)
        body.reportedTCB = TCBVersion(fmc: 1, bootLoader: 2, tee: 3, snp: 4, microcode: 5)
        body.fms = 0x00b0_0f21
        body.chipID = filled(0x19, 64)
        body.committedTCB = TCBVersion(rawValue: 0x1a)
        body.currentVersion = ReportedFirmwareVersion(major: 1, minor: 55, build: 29)
        body.committedVersion = ReportedFirmwareVersion(major: 1, minor: 54, build: 6)
        body.launchTCB = TCBVersion(rawValue: 0x1b)
        body.launchMitigationVector = 0x1c
        body.currentMitigationVector = 0x1d

        let parts: [(offset: Int, bytes: [UInt8])] = [
            (0x000, [UInt8(version), 0, 0, 0]), (0x004, [1, 2, 3, 4]), (0x008, [0, 0, 3, 0, 0, 0, 0, 0]),
            (0x010, filled(0x11, 16)), (0x020, filled(0x12, 16)), (0x030, [1, 0, 0, 0]), (0x034, [1, 0, 0, 0]),
            (0x038, [4, 1, 0, 0, 0, 0, 24, 219]), (0x040, [0x21, 0, 0, 0, 0, 0, 0, 0]), (0x048, [0x1f, 0, 0, 0]),
            (0x04c, filled(0, 4)), (0x050, filled(0x13, 64)), (0x090, filled(0x14, 48)), (0x0c0, filled(0x15, 32)),
            (0x0e0, filled(0x16, 48)), (0x110, filled(0x17, 48)), (0x140, filled(0x18, 32)),
            (0x160, filled(0xff, 32)), (0x180, [1, 2, 3, 4, 0, 0, 0, 5]),
            (0x188, version >= 3 ? [0x1a, 0x02, 0x01] : [0, 0, 0]), (0x18b, filled(0, 21)),
            (0x1a0, filled(0x19, 64)), (0x1e0, [0x1a, 0, 0, 0, 0, 0, 0, 0]), (0x1e8, [29, 55, 1, 0]),
            (0x1ec, [6, 54, 1, 0]), (0x1f0, [0x1b, 0, 0, 0, 0, 0, 0, 0]),
            (0x1f8, [version >= 5 ? 0x1c : 0, 0, 0, 0, 0, 0, 0, 0]),
            (0x200, [version >= 5 ? 0x1d : 0, 0, 0, 0, 0, 0, 0, 0]), (0x208, filled(0, 152)),
        ]
        let expected = parts.flatMap { $0.bytes }
        #expect(expected.count == 0x2a0)
        for (offset, bytes) in parts {
            #expect(Array(body.bytes[offset..<(offset + bytes.count)]) == bytes, "0x\(String(offset, radix: 16))")
        }
        #expect(hexDifference(body.bytes, expected) == nil)
        let signature = SignatureField(r: filled(1, 48), s: filled(2, 48))
        let report = body.report(signature: signature)
        #expect(report.count == 0x4a0)
        #expect(
            Array(report[0x2a0...])
                == filled(1, 48) + filled(0, 24) + filled(2, 48) + filled(0, 24) + filled(0, 368))
        #expect(body.report(signature: nil)[0x2a0...].allSatisfy { $0 == 0 })
    }

    @Test("family, model and stepping as the products have them")
    func products() {
        for (product, expected) in [(.milan, [25, 1, 1]), (.genoa, [25, 17, 1]), (.turin, [26, 2, 1])]
            as [(ProcessorProduct, [UInt8])]
        {
            var body = AttestationReportBody(version: 3)
            body.fms = product.fms
            #expect(Array(body.bytes[0x188..<0x18b]) == expected, "\(product)")
        }
        #expect(TCBVersion(fmc: 1, bootLoader: 2, tee: 3, snp: 4, microcode: 5).rawValue == 0x0500_0000_0403_0201)
        let turin = TCBVersion(fmc: 1, bootLoader: 2, tee: 3, snp: 4, microcode: 5)
        #expect(turin.hasValidReservedBytes(in: .turin) && !turin.hasValidReservedBytes(in: .milan))
        #expect(!TCBVersion(rawValue: 1 << 32).hasValidReservedBytes(in: .turin))
        #expect(turin.isAtMost(turin))
        for byte in 0..<8 as Range<UInt64> {
            #expect(!TCBVersion(rawValue: turin.rawValue + 1 << (8 * byte)).isAtMost(turin))
        }
    }
}
