// Reports that do not fit their certificate, and bytes that are no reports.

import Attestation
import Crypto
import SEVABI
import TestSupport
import Testing

@Suite struct ReportTests {
    @Test func everyFlippedByteIsRefused() throws {
        for chain in [TestChain(), TestChain.turin()] {
            let verifier = try chain.chain()
            let good = TestReport(chain, version: 5).signed
            #expect(throws: Never.self) { try verifier.verify(good) }
            for index in good.indices {
                var report = good
                report[index] ^= 0x80 >> UInt8(index % 8)
                #expect(throws: AttestationError.self, "byte \(index)") { try verifier.verify(report) }
            }
        }
    }

    /// Each of these is signed, so only the binding can refuse it.
    @Test(arguments: [TestChain(), TestChain.turin()])
    func everyComponentIsBound(chain: TestChain) throws {
        let verifier = try chain.chain()
        for (index, component) in chain.versions.components.enumerated() {
            var versions = chain.versions
            switch component.name {
            case "fmcSPL": versions.fmc! &+= 1
            case "blSPL": versions.bootLoader &+= 1
            case "teeSPL": versions.tee &+= 1
            case "snpSPL": versions.snp &+= 1
            default: versions.microcode &+= 1
            }
            var report = TestReport(chain)
            report.set(0x180, versions.tcbVersion(of: chain.product))
            let refused = try #require(refusal { _ = try verifier.verify(report.signed) }, "component \(index)")
            #expect(refused.field == "REPORTED_TCB" && refused.category == .binding)
            #expect(refused.expected.contains("\(chain.versions)") && refused.found == "\(versions)")
        }
        for offset in [0x38, 0x180, 0x1e0, 0x1f0] {
            var report = TestReport(chain)
            report.set(offset, chain.versions.tcbVersion(of: chain.product) | 1 << 32)
            #expect(refusal { _ = try verifier.verify(report.signed) }?.category == .binding, "offset \(offset)")
        }
    }

    @Test func chipIDIsBound() throws {
        for chain in [TestChain(), TestChain.turin()] {
            let verifier = try chain.chain()
            for index in [0, 7, 8, 63] {
                var report = TestReport(chain)
                report.bytes[0x1a0 + index] ^= 1
                #expect(refusal { _ = try verifier.verify(report.signed) }?.field == "CHIP_ID", "byte \(index)")
            }
            var masked = TestReport(chain)
            for index in 0x1a0..<0x1e0 { masked.bytes[index] = 0 }
            let verified = try verifier.verify(masked.signed)
            #expect(verified.chipIDIsMasked && verified.report.chipID == nil)
            var policy = ReportPolicy.any
            #expect(policy.refusals(of: verified).isEmpty)
            policy.allowsMaskedChipID = false
            #expect(policy.refusals(of: verified).map(\.field) == ["CHIP_ID"])
        }
    }

    @Test func kindOfKeyIsBound() throws {
        var vlek = TestChain()
        vlek.kind = .vlek
        for (chain, other) in [(TestChain(), vlek), (vlek, TestChain())] {
            let refused = refusal { _ = try chain.chain().verify(TestReport(other).signed) }
            #expect(refused?.field == "SIGNING_KEY")
        }
        for (value, field) in [(UInt32(2), "key information"), (7 << 2, "key information"), (3 << 2, "SIGNING_KEY")] {
            var report = TestReport()
            report.set(0x48, value)
            #expect(refusal { _ = try TestChain().chain().verify(report.signed) }?.field == field)
        }
    }

    @Test func processorIsBound() throws {
        let verifier = try TestChain().chain()
        for (family, model, found) in [
            (UInt8(0x19), UInt8(0x11), "Genoa"), (0x19, 0xa0, "Genoa"), (0x1a, 2, "Turin"), (0x1a, 0x50, "Venice"),
            (0x1a, 0x9f, "Venice"), (0x17, 0x31, "no product"),
        ] {
            var report = TestReport()
            report.bytes[0x188] = family
            report.bytes[0x189] = model
            let refused = try #require(refusal { _ = try verifier.verify(report.signed) })
            #expect(refused.field == "CPUID family and model" && refused.found.contains(found))
        }
    }

    @Test func reservedFieldsMustBeZero() throws {
        let verifier = try TestChain().chain()
        var offsets = [0x4c, 0x4f, 0x18b, 0x19f, 0x1eb, 0x1ef, 0x208, 0x29f].map { ($0, UInt32(5)) }
        offsets += [0x188, 0x18a, 0x1f8, 0x207].map { ($0, UInt32(2)) }
        offsets += [0x1f8, 0x207].map { ($0, UInt32(3)) }
        for (offset, version) in offsets {
            var report = TestReport(TestChain(), version: version)
            report.bytes[offset] = 1
            let refused = refusal { _ = try verifier.verify(report.signed) }
            #expect(refused?.category == .malformed, "offset \(offset) in version \(version)")
        }
        for offset in [0x2d0, 0x2e7, 0x318, 0x32f, 0x330, 0x49f] {
            var report = TestReport().signed
            report[offset] = 1
            #expect(refusal { _ = try verifier.verify(report) }?.category == .malformed)
        }
        for (offset, value, field) in [(0x34, UInt32(2), "SIGNATURE_ALGO"), (0x30, 4, "VMPL")] {
            var report = TestReport()
            report.set(offset, value)
            #expect(refusal { _ = try verifier.verify(report.signed) }?.field == field)
        }
        for count in [0, 1, 1183, 1185, 4000] {
            #expect(refusal { _ = try verifier.verify([UInt8](repeating: 2, count: count)) }?.field == "length")
        }
    }

    @Test func aWrongLeafIsExplained() throws {
        var other = TestChain()
        other.versions.snp = 23
        var report = TestReport(other).signed
        report[0x2a0] ^= 1
        let refused = try #require(refusal { _ = try TestChain().chain().verify(report) })
        #expect(refused.category == .signature && refused.likelyCause.contains("another TCB"))
    }

    @Test func productOfVersion2IsGuessedForShowing() throws {
        #expect(try AttestationReport(bytes: TestReport(TestChain(), version: 2).signed).layout == .milan)
        let turin = try AttestationReport(bytes: TestReport(TestChain.turin(), version: 2).signed)
        #expect(turin.layout == .turin && turin.product == .turin)
        var vlek = TestChain()
        vlek.kind = .vlek
        #expect(try AttestationReport(bytes: TestReport(vlek, version: 2).signed).layout == nil)
    }

    /// Seeded mutations of everything that is parsed: nothing traps, and nothing that was changed is genuine.
    @Test func mutatedBytesNeverTrap() throws {
        var random = SeededGenerator(seed: 4)
        let chain = TestChain()
        let verifier = try chain.chain()
        let report = TestReport(chain, version: 5).signed
        let leaf = chain.leaf.der
        let crl = chain.revocationListBytes(revoking: [1, 2, 3])
        #expect(X509RevocationList(der: crl)?.revokedSerialNumbers == ["1", "2", "3"])
        let table = CertificateTable(entries: [.init(.vcek, leaf), .init(.crl, [1, 2, 3])]).bytes
        let text = Array(#"{"measurement": ["00", 1, true, null, {"a": "A"}], "b": 18446744073709551615}"#.utf8)
        func mutated(_ bytes: [UInt8]) -> [UInt8] {
            var bytes = bytes
            for _ in 0...random.below(4) where !bytes.isEmpty {
                let index = random.below(bytes.count)
                switch random.below(4) {
                case 0: bytes[index] = random.edge()
                case 1: bytes.removeSubrange(index..<min(bytes.count, index + random.below(32)))
                case 2: bytes.insert(contentsOf: random.bytes(random.below(32)), at: index)
                default: bytes[index] ^= 1 << UInt8(random.below(8))
                }
            }
            return bytes
        }
        var refusedReports = 0
        for _ in 0..<300 {
            let changed = mutated(report)
            if changed != report, (try? verifier.verify(changed)) == nil { refusedReports += 1 }
            if let certificate = X509Certificate(der: mutated(leaf)) { _ = try? EndorsementCertificate(certificate) }
            _ = X509RevocationList(der: mutated(crl))
            _ = try? CertificateTable(bytes: mutated(table))
            _ = try? JSONInput(text: mutated(text))
            var pool = CertificatePool()
            try? pool.add(mutated(table), name: "table")
            _ = try? CertificateTable(bytes: random.bytes(random.below(200)))
            _ = try? AttestationReport(bytes: random.bytes(1184))
        }
        #expect(refusedReports > 250)
    }
}
