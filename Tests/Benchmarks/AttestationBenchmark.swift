// Verifications of a report per second on one core, against the bare signature check of libcrypto in the same run and
// against tools in Python.

import Attestation
import COpenSSL
import Crypto
import TestSupport

enum AttestationBenchmark {
    /// A real Genoa report; without the vectors there is nothing to measure.
    static func run(count: Int) throws {
        let folder = "report-real/oak-genoa-v5/"
        guard let report = ForeignVectors.bytes(folder + "report.bin"),
            let files = ["vcek.der", "ask.der", "ark.der"].map({ ForeignVectors.bytes(folder + $0) }) as? [[UInt8]]
        else {
            print("attestation: \(ForeignVectors.absence)")
            return
        }
        func chain() throws -> EndorsementChain {
            let certificates = files.compactMap { X509Certificate(der: $0) }
            guard certificates.count == 3 else { throw BenchmarkFailure(description: "certificates that do not parse") }
            return try EndorsementChain(leaf: certificates[0], intermediate: certificates[1], root: certificates[2])
        }
        let cached = try chain()
        let bare = try BareVerification(report, cached)
        // Alternating rounds: what else the machine does hits both alike.
        var ours: [Double] = []
        var theirs: [Double] = []
        for _ in 0..<5 {
            var start = now()
            for _ in 0..<count { _ = try cached.verify(report) }
            ours.append((now() - start) / Double(count))
            start = now()
            for _ in 0..<count where !bare.verify() {
                throw BenchmarkFailure(description: "libcrypto refuses the signature")
            }
            theirs.append((now() - start) / Double(count))
        }
        var wholes: [Double] = []
        for _ in 0..<3 {
            let start = now()
            for _ in 0..<count { _ = try chain().verify(report) }
            wholes.append((now() - start) / Double(count))
        }
        let whole = median(wholes)
        let (mine, plain) = (median(ours), median(theirs))
        print("attestation: a report of version 5, \(count) verifications in each of 5 rounds")
        print(
            "  cached chain \(decimal(1 / mine, 0)) per second, bare P-384 verification \(decimal(1 / plain, 0)), ratio "
                + "\(decimal(plain / mine, 2)) (bar 0.7)")
        print("  with the whole chain, parsed and verified anew: \(decimal(1 / whole, 0)) per second")
        guard count > 2 else { return }
        // They verify the whole chain each time.
        for peer in try PythonPeers.run("verify", (ForeignVectors.folder ?? "") + "/" + folder, "\(count / 8)") {
            guard let seconds = peer.seconds else {
                print("  \(peer.name): refuses this report (\(peer.result))")
                continue
            }
            print(
                "  \(peer.name), whole chain: \(decimal(1 / seconds, 0)) per second; we \(decimal(seconds / whole, 1)) times as "
                    + "many, with a cached chain \(decimal(seconds / mine, 1)) times")
        }
    }
}

/// EVP_PKEY_verify of one digest, everything prepared.
private final class BareVerification {
    private let context: OpaquePointer
    private let key: OpaquePointer
    private let signature: [UInt8]
    private let digest: [UInt8]

    init(_ report: [UInt8], _ chain: EndorsementChain) throws {
        let information = chain.leaf.certificate.subjectPublicKeyInfo
        let key = information.withUnsafeBufferPointer { buffer in
            var position = buffer.baseAddress
            return d2i_PUBKEY(nil, &position, buffer.count)
        }
        guard let key, let context = EVP_PKEY_CTX_new(key, nil), EVP_PKEY_verify_init(context) == 1 else {
            throw BenchmarkFailure(description: "libcrypto does not take the key")
        }
        self.key = key
        self.context = context
        func integer(_ littleEndian: ArraySlice<UInt8>) -> [UInt8] {
            var bytes = Array(littleEndian.reversed().drop { $0 == 0 })
            if bytes.first.map({ $0 >= 0x80 }) != false { bytes.insert(0, at: 0) }
            return [0x02, UInt8(bytes.count)] + bytes
        }
        let numbers = integer(report[0x2a0..<0x2d0]) + integer(report[0x2e8..<0x318])
        signature = [0x30, UInt8(numbers.count)] + numbers
        let hash = SHA384.hash(Array(report[..<0x2a0]))
        digest = hash.indices.map { hash[$0] }
    }

    deinit {
        EVP_PKEY_CTX_free(context)
        EVP_PKEY_free(key)
    }

    func verify() -> Bool { EVP_PKEY_verify(context, signature, signature.count, digest, digest.count) == 1 }
}
