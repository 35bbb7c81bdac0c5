// The launch digest of a large guest against SHA-384 alone over the same bytes: what the measurement adds.

import Crypto
import GuestImage
import LaunchMeasurement
import TestSupport

enum DigestBenchmark {
    /// The bar: bare SHA-384 over the same bytes, as a part of the time that measuring a plan of them takes.
    static let bar = 0.8

    /// A plan that has contents everywhere, against SHA-384 over all of them in one piece.
    static func runWhole(byteCount: Int, rounds: Int) throws {
        var numbers = SeededGenerator(seed: 256)
        let block = numbers.bytes(1 << 20)
        var contents: [UInt8] = []
        contents.reserveCapacity(byteCount)
        while contents.count < byteCount { contents += block }
        let plan = LaunchPlan(
            regions: [
                .init(
                    label: "contents", pageType: .normal, gpa: 0, byteCount: UInt64(byteCount), contents: contents)
            ], processors: [])
        var ours: [Double] = []
        var bares: [Double] = []
        var sum: UInt8 = 0
        for _ in 0..<rounds {
            var start = now()
            sum ^= MeasuredLaunch(of: plan).digestBytes[0]
            ours.append(now() - start)
            start = now()
            sum ^= SHA384.hash(contents.span)[0]
            bares.append(now() - start)
        }
        let (measured, bare) = (median(ours), median(bares))
        print("digest of a plan with \(byteCount >> 20) MiB of contents, \(rounds) rounds in turn")
        print(
            "  measured in \(decimal(measured, 3)) s (\(decimal(Double(byteCount) / measured / 1e6, 0)) MB/s), SHA-384 over the "
                + "same bytes \(decimal(bare, 3)) s, ratio \(decimal(bare / measured, 2)) (bar \(decimal(bar, 1)); "
                + "35 blocks for the 32 of a page allow 0.91) (\(sum))")
    }

    /// A firmware image of 16 MiB, against a tool in Python. Both must find the same digest.
    static func runAgainstPeers() throws {
        guard let end = ForeignVectors.bytes("launch-digest/fw/synth-a.bin") else {
            print("digest, peers: \(ForeignVectors.absence)")
            return
        }
        var numbers = SeededGenerator(seed: 16)
        let image = try FirmwareImage(numbers.bytes((16 << 20) - end.count) + end)
        let machine = MachineDescription(memoryByteCount: 512 << 20)
        var seconds: [Double] = []
        var digest = ""
        for _ in 0..<5 {
            let start = now()
            digest = MeasuredLaunch(of: try FirmwareLaunch.plan(image, on: machine)).digestText
            seconds.append(now() - start)
        }
        let ours = median(seconds)
        print("digest of a firmware image of 16 MiB: \(decimal(ours * 1000, 1)) ms")
        let path = (environment("TMPDIR") ?? "/tmp") + "/snp-vmm-bench-\(BuiltProgram.processIdentifier).fd"
        guard writeFile(path, image.bytes) else { throw BenchmarkFailure(description: "cannot write \(path)") }
        defer { removeFile(path) }
        for peer in try PythonPeers.run("digest", path, "5") {
            guard let theirs = peer.seconds else {
                print("  \(peer.name): refuses this image (\(peer.result))")
                continue
            }
            guard peer.result == digest else {
                throw BenchmarkFailure(description: "\(peer.name) finds \(peer.result), we \(digest)")
            }
            print(
                "  \(peer.name), the same digest: \(decimal(theirs * 1000, 1)) ms, \(decimal(theirs / ours, 2)) times ours"
            )
        }
    }

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
