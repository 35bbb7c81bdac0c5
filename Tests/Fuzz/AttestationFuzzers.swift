// What a guest, a host or a file can hand to a verifier: whatever bytes come, nothing traps, and nothing but the genuine
// report and key is accepted.

import Attestation
import Crypto
import TestSupport

let attestationFuzzers = [
    Fuzzer(
        name: "attestation-reports", summary: "a genuine report with changed bytes, or cut short",
        smokeIterations: 1_000, generate: { changed(Genuine.shared?.report ?? $0.bytes(1184), &$0) }, check: checkReport
    ),
    Fuzzer(
        name: "attestation-certificates",
        summary: "a genuine report's certificate table with changed bytes, or cut short",
        smokeIterations: 1_000, generate: { changed(Genuine.shared?.table ?? $0.bytes(200), &$0) },
        check: checkCertificates),
    Fuzzer(
        name: "attestation-policies", summary: "policy files with changed text",
        smokeIterations: 2_000, generate: { changed(policyText, &$0) }, check: checkPolicy),
]

/// A real report with its certificates; nil without the foreign vectors, when the inputs are random bytes.
private struct Genuine {
    static let shared = Genuine()

    let report: [UInt8]
    let table: [UInt8]
    let chain: EndorsementChain

    private init?() {
        guard let report = ForeignVectors.bytes("report-real/oak-genoa-v5/report.bin"),
            let table = ForeignVectors.bytes("cert-table/vcek.bin")
        else { return nil }
        var pool = CertificatePool()
        guard (try? pool.add(table, name: "table")) != nil, let parsed = try? AttestationReport(bytes: report),
            let chain = try? pool.chain(for: parsed)
        else { return nil }
        self.report = report
        self.table = table
        self.chain = chain
    }
}

/// One to four changes: extremes, bits, pieces that are missing, twice or new.
func changed(_ bytes: [UInt8], _ numbers: inout SeededGenerator) -> [UInt8] {
    var bytes = bytes
    for _ in 0...numbers.below(4) where !bytes.isEmpty {
        let index = numbers.below(bytes.count)
        let end = min(bytes.count, index + 1 + numbers.below(16))
        switch numbers.below(6) {
        case 0: bytes[index] = numbers.edge()
        case 1: bytes.removeSubrange(index..<end)
        case 2: bytes.insert(contentsOf: bytes[index..<end], at: index)
        case 3: bytes.insert(contentsOf: numbers.bytes(4), at: index)
        case 4: bytes.removeLast(numbers.below(8) == 0 ? bytes.count - index : 0)
        default: bytes[index] ^= 1 << UInt8(numbers.below(8))
        }
    }
    return bytes
}

private func checkReport(_ bytes: [UInt8]) -> Outcome {
    if let report = try? AttestationReport(bytes: bytes) { _ = report.fields }
    guard let genuine = Genuine.shared else { return .uninteresting("no genuine report here") }
    do {
        _ = try genuine.chain.verify(bytes)
        return bytes == genuine.report ? .fine("genuine") : .impossible("a changed report verifies")
    } catch { return .uninteresting("\(error.category)") }
}

private func checkCertificates(_ bytes: [UInt8]) -> Outcome {
    var pool = CertificatePool()
    do {
        try pool.add(bytes, name: "table")
        guard let genuine = Genuine.shared, let report = try? AttestationReport(bytes: genuine.report) else {
            return .uninteresting("no genuine report here")
        }
        let chain = try pool.chain(for: report)
        // The table may have changed where nothing is signed; the key may not.
        guard chain.leaf.certificate.subjectPublicKeyInfo == genuine.chain.leaf.certificate.subjectPublicKeyInfo,
            chain.root.keyFingerprint == genuine.chain.root.keyFingerprint
        else { return .impossible("another key is accepted") }
        _ = try chain.verify(genuine.report)
        return .fine("genuine")
    } catch { return .uninteresting("\(error.category)") }
}

private let policyText = Array(
    """
    {"measurement": ["\(String(repeating: "3e", count: 48))"], "reportData": null, "maximumVMPL": 1,
     "exactGuestPolicy": "0x30000", "minimumFirmware": "1.55.29", "requiredPlatformInfo": ["smt", "alias-check"],
     "minimumTCB": {"bootLoader": 4, "snp": 24}, "signingKeys": ["VCEK"], "comment": "\\u00e9\\ud83d\\ude00"}
    """.utf8)

private func checkPolicy(_ bytes: [UInt8]) -> Outcome {
    do {
        let policy = try ReportPolicy(json: bytes)
        return policy.allowsDebug ? .impossible("a policy that nobody wrote allows debugging") : .fine("read")
    } catch { return .uninteresting("\(error.category)") }
}
