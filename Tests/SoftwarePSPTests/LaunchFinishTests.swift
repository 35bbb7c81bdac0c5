import Crypto
import Glibc
import MemoryController
import SEVABI
import SoftwarePSP
import Testing

@Suite("SNP_LAUNCH_FINISH and the ID block")
struct LaunchFinishTests {
    typealias Fixture = IDBlockFixture

    /// Finishes a guest with one ZERO page at GPA 0x1000, whose digest the fixtures know.
    static func finish(
        _ block: IDBlock, _ authentication: IDAuthentication, author: Bool = false, policy: UInt64 = 0x30000
    ) throws -> SEVStatus {
        let platform = try Platform()
        let context = platform.launchingGuest(policy: policy)
        let page = try platform.preGuestPage(gpa: 0x1000)
        #expect(platform.processor.launchUpdate(context: context, page: page, type: .zero) == .success)
        #expect(platform.processor.launchDigest(of: context)?.array == Fixture.launchDigest)
        let pages = try #require(platform.memory.allocatePages(2))
        try platform.memory.hostWrite(pages, block.bytes)
        try platform.memory.hostWrite(pages + 4096, authentication.bytes)
        let status = platform.submit(
            .snpLaunchFinish,
            SNPLaunchFinish(
                context: context, idBlock: pages, idAuthentication: pages + 4096, usesIDBlock: true,
                usesAuthorKey: author
            ).bytes)
        #expect(platform.processor.guestStatus(of: context)?.state == (status == .success ? .running : .launch))
        return status
    }

    static var good: IDAuthentication { Fixture.authentication(Fixture.matchingR, Fixture.matchingS) }

    @Test("the right block starts the guest")
    func matching() throws {
        #expect(try Self.finish(Fixture.block(), Self.good) == .success)
        #expect(try Self.finish(Fixture.block(), Self.good, author: true) == .success)
    }

    @Test("refusals, and that they come in order: signatures, digest, policy, versions")
    func order() throws {
        // Signature of the block.
        var tampered = Self.good
        tampered.idBlockSignature = SignatureField(r: Fixture.matchingS, s: Fixture.matchingR)
        #expect(try Self.finish(Fixture.block(), tampered) == .badSignature)
        #expect(try Self.finish(Fixture.block(policy: 0xb0000), Self.good) == .badSignature, "not what was signed")
        // Signature of the key: only with AUTH_KEY_EN.
        var author = Self.good
        author.idKeySignature = SignatureField(r: Fixture.idKeyS, s: Fixture.idKeyR)
        #expect(try Self.finish(Fixture.block(), author) == .success)
        #expect(try Self.finish(Fixture.block(), author, author: true) == .badSignature)
        // Digest before policy.
        let digest = [UInt8](repeating: 0, count: 48)
        #expect(
            try Self.finish(
                Fixture.block(digest: digest, policy: 0xb0000),
                Fixture.authentication(Fixture.otherDigestAndPolicyR, Fixture.otherDigestAndPolicyS)) == .badMeasurement
        )
        #expect(
            try Self.finish(
                Fixture.block(digest: digest), Fixture.authentication(Fixture.otherDigestR, Fixture.otherDigestS))
                == .badMeasurement)
        #expect(
            try Self.finish(
                Fixture.block(policy: 0xb0000), Fixture.authentication(Fixture.otherPolicyR, Fixture.otherPolicyS))
                == .policyFailure)
        #expect(try Self.finish(Fixture.block(), Self.good, policy: 0xb0000) == .policyFailure)
        // Version and algorithms.
        #expect(
            try Self.finish(
                Fixture.block(version: 2), Fixture.authentication(Fixture.otherVersionR, Fixture.otherVersionS))
                == .invalidParameter)
        var algorithm = Self.good
        algorithm.idKeyAlgorithm = 2
        #expect(try Self.finish(Fixture.block(), algorithm) == .invalidParameter)
        algorithm = Self.good
        algorithm.authorKeyAlgorithm = 0
        #expect(try Self.finish(Fixture.block(), algorithm) == .success, "no author key, no matter")
        #expect(try Self.finish(Fixture.block(), algorithm, author: true) == .invalidParameter)
        // Keys that are none.
        var key = Self.good
        key.idKey = PublicKeyField(curve: 1, x: Fixture.idKeyX, y: Fixture.idKeyY)
        #expect(try Self.finish(Fixture.block(), key) == .badSignature)
        key.idKey = PublicKeyField(x: Fixture.idKeyY, y: Fixture.idKeyX)
        #expect(try Self.finish(Fixture.block(), key) == .badSignature)
    }

    @Test("addresses and flags")
    func parameters() throws {
        let platform = try Platform()
        let context = platform.launchingGuest()
        func finish(_ block: SPA, _ authentication: SPA) -> SEVStatus {
            platform.submit(
                .snpLaunchFinish,
                SNPLaunchFinish(context: context, idBlock: block, idAuthentication: authentication, usesIDBlock: true)
                    .bytes)
        }
        let page = try #require(platform.memory.allocatePages())
        #expect(finish(.zero, page) == .invalidAddress && finish(page, .zero) == .invalidAddress)
        #expect(finish(SPA(rawValue: .max), page) == .invalidAddress)
        #expect(finish(page, page) == .badSignature)
        var reserved = SNPLaunchFinish(context: context).bytes
        reserved[0x18] = 8
        #expect(platform.submit(.snpLaunchFinish, reserved) == .invalidParameter)
        // Without ID_BLOCK_EN the addresses are not looked at.
        #expect(
            platform.submit(
                .snpLaunchFinish,
                SNPLaunchFinish(context: context, idBlock: SPA(rawValue: 1), usesAuthorKey: true).bytes) == .success)
        #expect(platform.finish(context) == .invalidGuestState, "once")
    }

    // MARK: Foreign vectors

    static let vectors: String? = {
        let folder = unsafe getenv("SNPVMM_VECTORS").map { unsafe String(cString: $0) } ?? "../shared/vectors"
        return readFile("\(folder)/id-block/id_block.bin") == nil ? nil : folder + "/id-block"
    }()

    static func file(_ name: String) throws -> [UInt8] { try #require(readFile("\(vectors!)/\(name)")) }

    @Test(
        "foreign ID block: signatures verify, key digests equal, one flipped bit is refused",
        .enabled(if: vectors != nil, "the foreign vectors are not here (SNPVMM_VECTORS)"),
        arguments: ["id_auth.bin", "id_auth_upstream.bin"])
    func foreign(_ name: String) throws {
        let blockBytes = try Self.file("id_block.bin")
        let page = try #require(IDAuthentication(bytes: try Self.file(name)))
        let block = try #require(IDBlock(bytes: blockBytes))
        #expect(block.bytes == blockBytes)
        #expect(block.policy == .default && block.version == 1 && block.guestSVN == 0)
        let idKey = try #require(P384PublicKey(littleEndianX: page.idKey.x, y: page.idKey.y))
        let authorKey = try #require(P384PublicKey(littleEndianX: page.authorKey.x, y: page.authorKey.y))
        let signature = page.idBlockSignature
        #expect(idKey.isValidSignature(littleEndianR: signature.r, s: signature.s, of: blockBytes))
        #expect(
            authorKey.isValidSignature(
                littleEndianR: page.idKeySignature.r, s: page.idKeySignature.s, of: page.idKey.bytes))
        #expect(!authorKey.isValidSignature(littleEndianR: signature.r, s: signature.s, of: blockBytes))
        var flipped = blockBytes
        flipped[0x54] ^= 1
        #expect(!idKey.isValidSignature(littleEndianR: signature.r, s: signature.s, of: flipped))
        if name == "id_auth.bin" {
            let expected = String(decoding: try Self.file("vectors.json"), as: UTF8.self)
            for (digest, key) in [("id_key_digest", page.idKey), ("author_key_digest", page.authorKey)] {
                #expect(expected.contains("\"\(digest)\": \"\(LaunchDigest(SHA384.hash(key.bytes)))\""))
            }
        }
        // The firmware gets as far as the digest, which is another guest's.
        #expect(try Self.finish(block, page, author: true) == .badMeasurement)
        let flippedBlock = try #require(IDBlock(bytes: flipped))
        #expect(try Self.finish(flippedBlock, page) == .badSignature)
    }
}

/// The bytes of a file, or nil.
func readFile(_ path: String) -> [UInt8]? {
    guard let file = unsafe fopen(path, "rb") else { return nil }
    defer { unsafe fclose(file) }
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 65536)
    while true {
        let count = unsafe fread(&chunk, 1, chunk.count, file)
        if count == 0 { return bytes }
        bytes += chunk[..<count]
    }
}
