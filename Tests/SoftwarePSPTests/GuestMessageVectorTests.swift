import Crypto
import SEVABI
import SoftwarePSP
import TestSupport
import Testing

/// Pages computed by another program from the same table.
@Suite("Guest messages: foreign pages", .enabled(if: ForeignVectors.arePresent, "\(ForeignVectors.absence)"))
struct GuestMessageVectorTests {
    static let names = [
        "report_req", "report_rsp", "key_req_v1", "key_req_v2", "key_rsp", "tsc_info_req", "tsc_info_rsp",
    ]

    /// One object of the index; its values are strings and numbers.
    static func entry(_ name: String) throws -> [String: String] {
        let bytes = try #require(ForeignVectors.bytes("guest-message/vectors.json"))
        let text = String(decoding: bytes, as: UTF8.self)
        let objects = text.split(separator: "{").map(String.init)
        let object = try #require(objects.first { $0.contains("\"name\": \"\(name)\"") })
        var values: [String: String] = [:]
        for line in object.split(separator: "\n") {
            let parts = line.split(separator: ":", maxSplits: 1).map {
                String($0.filter { !"\" ,".contains($0) })
            }
            if parts.count == 2 { values[parts[0]] = parts[1] }
        }
        return values
    }

    @Test("opened they give the payload, sealed it gives the page", arguments: names)
    func page(_ name: String) throws {
        let entry = try Self.entry(name)
        func number(_ field: String) throws -> UInt64 { try #require(entry[field].flatMap { UInt64($0) }) }
        let page = try #require(ForeignVectors.bytes("guest-message/\(name).bin"))
        let key = try #require(entry["vmpck"].flatMap { [UInt8](hex: $0) })
        let header = try #require(GuestMessageHeader(bytes: page))
        #expect(header.hasValidReservedBytes)
        #expect(UInt64(header.type.rawValue) == (try number("msg_type")))
        #expect(UInt64(header.messageVersion) == (try number("msg_version")))
        #expect(UInt64(header.keyIndex) == (try number("vmpck_id")))
        #expect(header.sequenceNumber == (try number("seqno")))
        #expect(UInt64(header.payloadByteCount) == (try number("payload_len")))
        #expect(header.bytes[0x30...].map { $0 }.hex == entry["aad"])
        #expect(header.tag.hex == entry["tag"])
        let payload = try #require(GuestMessageCipher.open(page, header, key: key))
        #expect(SHA2Hasher(.sha256).hash(payload).hex == entry["payload_sha256"])
        if let expected = [UInt8](hex: entry["payload"] ?? "-") { #expect(payload == expected) }
        let fresh = GuestMessageHeader(
            type: GuestMessageType(rawValue: UInt8(try number("msg_type"))),
            messageVersion: UInt8(try number("msg_version")), payloadByteCount: payload.count,
            keyIndex: UInt8(try number("vmpck_id")), sequenceNumber: try number("seqno"))
        #expect(hexDifference(GuestMessageCipher.seal(payload, fresh, key: key), page) == nil)

        // The payloads are those that our types read and write.
        switch name {
        case "report_req": #expect(ReportRequest(bytes: payload)?.bytes == payload)
        case "report_rsp": #expect(ReportResponse(bytes: payload)?.bytes == payload)
        case "key_req_v1": #expect(KeyRequest(bytes: payload, messageVersion: 1)?.bytes == payload)
        case "key_req_v2": #expect(KeyRequest(bytes: payload, messageVersion: 2)?.bytes == payload)
        case "key_rsp": #expect(KeyResponse(bytes: payload)?.bytes == payload)
        case "tsc_info_rsp": #expect(TSCInfoResponse(bytes: payload)?.bytes == payload)
        default: #expect(payload == [UInt8](repeating: 0, count: TSCInfoRequest.byteCount))
        }
    }

    @Test("a type changed after sealing is not authentic")
    func changedType() throws {
        let page = try #require(ForeignVectors.bytes("guest-message/bad_type.bin"))
        let key = try #require(try Self.entry("report_req")["vmpck"].flatMap { [UInt8](hex: $0) })
        let header = try #require(GuestMessageHeader(bytes: page))
        #expect(header.type != .reportRequest)
        #expect(GuestMessageCipher.open(page, header, key: key) == nil)
        var repaired = page
        repaired[0x34] = GuestMessageType.reportRequest.rawValue
        let repairedHeader = try #require(GuestMessageHeader(bytes: repaired))
        #expect(GuestMessageCipher.open(repaired, repairedHeader, key: key) != nil)
    }
}
