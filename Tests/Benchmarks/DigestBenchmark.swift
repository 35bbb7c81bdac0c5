// The launch digest of a large guest against SHA-384 alone over the same bytes: what the measurement adds.

import Crypto
import GuestImage
import LaunchMeasurement
import TestSupport

enum DigestBenchmark {
    /// Measures a plan of pages with contents, and the rest of memory as zero pages.
    /// - Parameter expected: The first digits of the digest, as found once and checked ever since.
    static func run(memoryByteCount: Int, contentsByteCount: Int, expected: String) throws {
        var numbers = SeededGenerator(seed: 384)
        let contents = numbers.bytes(contentsByteCount)
        let plan = LaunchPlan(
            regions: [
                .init(
                    label: "contents", pageType: .normal, gpa: 0, byteCount: UInt64(contentsByteCount),
                    contents: contents),
                .init(
                    label: "zero", pageType: .zero, gpa: UInt64(contentsByteCount),
                    byteCount: UInt64(memoryByteCount - contentsByteCount)),
            ], processors: [])

        var start = now()
        let digest = MeasuredLaunch(of: plan).digest
        let measured = now() - start
        guard "\(digest)".hasPrefix(expected) else {
            throw BenchmarkFailure(description: "the digest is \(digest), expected \(expected)…")
        }

        // The same hashing without the plan: every page, and one PAGE_INFO of 112 bytes for every page of memory.
        let pages = contentsByteCount / 4096
        start = now()
        var sum: UInt8 = 0
        let bytes = contents.span
        for page in 0..<pages { sum ^= SHA384.hash(bytes.extracting(page * 4096..<(page + 1) * 4096))[0] }
        let info = [UInt8](repeating: 0, count: 112)
        for _ in 0..<memoryByteCount / 4096 { sum ^= SHA384.hash(info)[0] }
        let bare = now() - start

        print("digest of \(memoryByteCount >> 20) MiB, \(contentsByteCount >> 20) MiB of them with contents")
        print(
            "  measured in \(decimal(measured, 3)) s (\(decimal(Double(contentsByteCount) / measured / 1e6, 0)) MB/s of contents),"
                + " bare SHA-384 \(decimal(bare, 3)) s, ratio \(decimal(measured / bare, 2))")
        print("  result \(expected)…, as expected (\(sum))")
    }
}
