import Crypto
import MemoryController
import SEVABI
import SoftwarePSP
import Testing

/// A running SNP guest that talks to the firmware, with the hypervisor in between: the messages are sealed here by the table
/// of the specification, with nothing of the firmware's own code.
final class MessagingGuest {
    let platform: Platform
    let context: SPA
    let keys: [[UInt8]]
    let request: SPA
    let response: SPA
    /// The last number used with each key.
    var counts: [UInt64] = [0, 0, 0, 0]

    /// - Parameter launch: Runs after LAUNCH_START and ACTIVATE; the guest is finished afterwards.
    convenience init(
        _ platform: Platform, asid: UInt32 = 1, finish: SNPLaunchFinish? = nil,
        launch: (Platform, SPA) throws -> Void = { _, _ in }
    ) throws {
        let context = platform.launchingGuest(asid: asid)
        try launch(platform, context)
        var buffer = finish ?? SNPLaunchFinish(context: context)
        buffer.context = context
        try #require(platform.submit(.snpLaunchFinish, buffer.bytes) == .success)
        try self.init(platform, running: context)
    }

    /// A guest that has been launched.
    init(_ platform: Platform, running context: SPA) throws {
        self.platform = platform
        self.context = context
        keys = try #require(platform.processor.messageKeys(of: context))
        request = try #require(platform.memory.allocatePages())
        response = platform.firmwarePage()
    }

    convenience init(_ change: (inout PlatformProfile) -> Void = { _ in }) throws {
        try self.init(try Platform(change))
    }

    /// A page as a guest makes it. `header` may spoil bytes before they are authenticated.
    func page(
        type: UInt8, version: UInt8 = 1, _ payload: [UInt8], key: Int = 0, number: UInt64? = nil,
        header change: (inout [UInt8]) -> Void = { _ in }
    ) -> [UInt8] {
        let number = number ?? counts[key] + 1
        let numberBytes = (0..<8).map { UInt8(truncatingIfNeeded: number >> (8 * $0)) }
        var header = [UInt8](repeating: 0, count: 32) + numberBytes + [UInt8](repeating: 0, count: 8)
        header += [1, 1, 0x60, 0, type, version, UInt8(payload.count & 255), UInt8(payload.count >> 8)]
        header += [0, 0, 0, 0, UInt8(key)] + [UInt8](repeating: 0, count: 35)
        change(&header)
        let sealed = AES256GCM.seal(
            payload, authenticating: Array(header[0x30...]), key: keys[key], nonce: numberBytes + [0, 0, 0, 0])
        header.replaceSubrange(0..<16, with: sealed.tag)
        return header + sealed.ciphertext + [UInt8](repeating: 0, count: 4096 - 96 - payload.count)
    }

    /// What the hypervisor does with a page: SNP_GUEST_REQUEST.
    func send(_ page: [UInt8]) throws -> SEVStatus {
        try platform.memory.hostWrite(request, page)
        return platform.submit(
            .snpGuestRequest, SNPGuestRequest(context: context, request: request, response: response).bytes)
    }

    /// The payload of the response page, whose header must fit the request.
    func receive(type: UInt8, version: UInt8 = 1, key: Int = 0) throws -> [UInt8] {
        let page = try platform.memory.hostRead(response, byteCount: 4096)
        let number = counts[key] + 2
        let numberBytes = (0..<8).map { UInt8(truncatingIfNeeded: number >> (8 * $0)) }
        #expect(Array(page[0x20..<0x28]) == numberBytes)
        #expect(page[0x10..<0x20].allSatisfy { $0 == 0 } && page[0x28..<0x30].allSatisfy { $0 == 0 })
        #expect(Array(page[0x30..<0x36]) == [1, 1, 0x60, 0, type, version])
        let count = Int(page[0x36]) | Int(page[0x37]) << 8
        #expect(Array(page[0x38..<0x60]) == [0, 0, 0, 0, UInt8(key)] + [UInt8](repeating: 0, count: 35))
        #expect(page[(0x60 + count)...].allSatisfy { $0 == 0 })
        let payload = AES256GCM.open(
            Array(page[0x60..<(0x60 + count)]), tag: Array(page[0..<16]), authenticating: Array(page[0x30..<0x60]),
            key: keys[key], nonce: numberBytes + [0, 0, 0, 0])
        counts[key] = number
        return try #require(payload)
    }

    /// A request that the firmware answers.
    func ask(type: UInt8, version: UInt8 = 1, _ payload: [UInt8], key: Int = 0) throws -> [UInt8] {
        try #require(try send(page(type: type, version: version, payload, key: key)) == .success)
        return try receive(type: type + 1, version: version, key: key)
    }

    /// MSG_REPORT: STATUS and the report.
    func report(
        data: [UInt8] = [UInt8](repeating: 0xda, count: 64), vmpl: UInt8 = 0, keySelection: UInt8 = 0, key: Int = 0
    ) throws -> (status: UInt8, report: [UInt8]) {
        let answer = try ask(
            type: 5, data + [vmpl, 0, 0, 0, keySelection] + [UInt8](repeating: 0, count: 27), key: key)
        #expect(answer.count == 0x4c0)
        #expect(answer[1..<4].allSatisfy { $0 == 0 } && answer[8..<32].allSatisfy { $0 == 0 })
        #expect(Array(answer[4..<8]) == (answer[0] == 0 ? [0xa0, 4, 0, 0] : [0, 0, 0, 0]))
        return (answer[0], Array(answer[32...]))
    }

    /// MSG_KEY: STATUS and the key.
    func derive(
        root: UInt8 = 0, fields: UInt8 = 0, vmpl: UInt8 = 0, svn: UInt8 = 0, tcb: UInt64 = 0,
        mitigations: UInt8? = nil, key: Int = 0
    ) throws -> (status: UInt8, key: [UInt8]) {
        var payload: [UInt8] = [root, 0, 0, 0, 0, 0, 0, 0, fields, 0, 0, 0, 0, 0, 0, 0, vmpl, 0, 0, 0, svn, 0, 0, 0]
        payload += (0..<8).map { UInt8(truncatingIfNeeded: tcb >> UInt64(8 * $0)) }
        if let mitigations { payload += [mitigations, 0, 0, 0, 0, 0, 0, 0] }
        let answer = try ask(type: 3, version: mitigations == nil ? 1 : 2, payload, key: key)
        #expect(answer.count == 64 && answer[1..<32].allSatisfy { $0 == 0 })
        return (answer[0], Array(answer[32...]))
    }
}

extension PlatformStorage {
    /// A chip of a seed, kept nowhere.
    static func seeded(_ seed: UInt8) throws -> PlatformStorage {
        try PlatformStorage(bytes: [], entropy: .seed([seed])) { _ in }
    }
}
