// Launch digests of IGVM files against vectors that another program made.

import Foundation
import GuestImage
import LaunchMeasurement
import SEVABI
import TestSupport
import Testing

@Suite(.enabled(if: ForeignVectors.arePresent, "\(ForeignVectors.absence)"))
struct IGVMVectorTests {
    struct Case: Decodable, Sendable {
        struct Platform: Decodable, Sendable {
            struct Step: Decodable, Sendable {
                var what: String
                var gpa: String
                var ld: String
            }
            var compatibility_mask: UInt32
            var platform: String
            var launch_digest: String?
            var launch_digest_native_zero: String?
            var steps: [Step]?
        }
        var file: String
        var size: Int?
        var platforms: [Platform]?
    }

    static let cases: [Case] =
        ForeignVectors.bytes("igvm/expected.json")
        .flatMap { try? JSONDecoder().decode([Case].self, from: Data($0)) } ?? []

    @Test func everyCaseIsThere() { #expect(Self.cases.count >= 3) }

    @Test(arguments: cases)
    func digest(vector: Case) throws {
        let bytes = try #require(ForeignVectors.bytes("igvm/" + vector.file))
        guard let platforms = vector.platforms else {
            let error = #expect(throws: ImageError.self) { try IGVMFile(bytes) }
            #expect(error?.field == "CRC-32")
            return
        }
        #expect(vector.size == bytes.count)
        let file = try IGVMFile(bytes)
        #expect(file.platforms.map(\.mask) == platforms.map(\.compatibility_mask))
        #expect(file.platforms.map(\.type.description) == platforms.map(\.platform))
        for platform in platforms where platform.platform == "SEV_SNP" {
            let machine = MachineDescription(memoryByteCount: 64 << 20)
            let measured = MeasuredLaunch(of: try IGVMLaunch.plan(file, on: machine))
            #expect(measured.digestText == platform.launch_digest)
            let steps = try #require(platform.steps)
            #expect(measured.steps.map(\.digestText) == steps.map(\.ld))
            #expect(measured.steps.map { "0x" + String($0.gpa, radix: 16) } == steps.map(\.gpa))
            let native = MeasuredLaunch(of: try IGVMLaunch.plan(file, zeroPages: .native, on: machine))
            #expect(native.digestText == platform.launch_digest_native_zero)
        }
    }
}
