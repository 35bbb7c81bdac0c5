import Glibc
import MemoryController
import SEVABI
import SoftwarePSP
import Testing

/// A launch of many steps, whose digests an independent tool computed.
@Suite("Launch digests against foreign vectors")
struct ForeignDigestTests {
    static let folder: String? = {
        let folder = unsafe getenv("SNPVMM_VECTORS").map { unsafe String(cString: $0) } ?? "../shared/vectors"
        return readFile("\(folder)/launch-digest/vectors.json") == nil ? nil : folder + "/launch-digest"
    }()

    /// Every string value of `key` in one case of vectors.json, in order. The file is machine-made: one form only.
    static func values(_ key: String, of identifier: String) throws -> [String] {
        let text = String(decoding: try #require(readFile("\(folder!)/vectors.json")), as: UTF8.self)
        let start = try #require(
            text.split(separator: "\"id\": \"", omittingEmptySubsequences: false)
                .first { $0.hasPrefix("\(identifier)\"") })
        return start.split(separator: "\"\(key)\": \"", omittingEmptySubsequences: false).dropFirst().map {
            String($0.prefix { $0 != "\"" })
        }
    }

    @Test(
        "firmware, secrets, CPUID, kernel hashes, zero pages and two VMSAs, step by step",
        .enabled(if: folder != nil, "the foreign vectors are not here (SNPVMM_VECTORS)"))
    func ec2Case() throws {
        let digests = try Self.values("ld", of: "s06")
        let table = try Self.values("hashes_table", of: "s06").first
        let hashes = hex(try #require(table))
        let firmware = try #require(readFile("\(Self.folder!)/fw/ovmf-amdsev-suffix.bin"))
        func vmsa(_ name: String) throws -> [UInt8] {
            let bytes = try #require(readFile("\(Self.folder!)/vmsa/\(name)"))
            return try #require(VMSA(bytes: bytes)).page
        }
        var hashesPage = [UInt8](repeating: 0, count: 4096)
        hashesPage.replaceSubrange(0xc00..<(0xc00 + hashes.count), with: hashes)
        let steps: [(PageType, UInt64, Int, [UInt8])] = [
            (.normal, 0xffff_f000, 1, firmware), (.zero, 0x80_0000, 9, []), (.zero, 0x80_a000, 3, []),
            (.secrets, 0x80_d000, 1, []), (.zero, 0x80_f000, 1, []), (.normal, 0x81_0000, 1, hashesPage),
            (.zero, 0x81_1000, 15, []), (.cpuid, 0x80_e000, 1, CPUIDTable(entries: Platform.cpuid.supported).bytes),
            (.vmsa, PageInfo.vmsaGPA, 1, try vmsa("s06-bsp.bin")), (.vmsa, PageInfo.vmsaGPA, 1, try vmsa("s06-ap.bin")),
        ]
        #expect(digests.count == steps.count)
        let platform = try Platform()
        let context = platform.launchingGuest()
        for (index, (type, gpa, pageCount, contents)) in steps.enumerated() {
            for page in 0..<pageCount {
                let spa = try platform.preGuestPage(gpa: gpa + UInt64(page) * 4096, contents)
                #expect(platform.processor.launchUpdate(context: context, page: spa, type: type) == .success)
            }
            #expect(platform.processor.launchDigest(of: context)?.description == digests[index], "step \(index)")
        }
        #expect(platform.finish(context) == .success)
        let digest = try Self.values("digest", of: "s06").first
        #expect(platform.processor.launchDigest(of: context)?.description == digest)
    }
}
