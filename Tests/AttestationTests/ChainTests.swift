// Chains of our own, right and wrong: which certificate, which field.

import Attestation
import Crypto
import Testing

@Suite struct ChainTests {
    @Test func everyProductAndKindIsAccepted() throws {
        var genoa = TestChain()
        genoa.product = .genoa
        var vlek = TestChain()
        vlek.kind = .vlek
        var wrapped = TestChain()
        wrapped.wrapsHardwareID = true
        var wrappedTurin = TestChain.turin()
        wrappedTurin.wrapsHardwareID = true
        var stepping = TestChain()
        stepping.productName = "Milan-B0"
        for chain in [TestChain(), genoa, TestChain.turin(), vlek, wrapped, wrappedTurin, stepping] {
            let verified = try chain.chain().verify(TestReport(chain).signed)
            #expect(verified.product == chain.product)
            #expect(verified.reportedTCB == chain.versions)
            #expect(verified.warnings.count == 1 && verified.warnings[0].contains("NOT AN AMD CHAIN"))
            #expect(verified.chipIDIsMasked == (chain.kind == .vlek))
        }
        #expect(try vlek.chain().leaf.providerID == "CN=tests")
    }

    @Test func everyVersionIsRead() throws {
        let chain = TestChain()
        let verifier = try chain.chain()
        for version: UInt32 in [2, 3, 4, 5] {
            let report = try verifier.verify(TestReport(chain, version: version).signed).report
            #expect((report.processor == nil) == (version == 2))
            #expect((report.launchMitigationVector == nil) == (version < 5))
        }
        for version: UInt32 in [0, 1, 6, 0xffff_ffff] {
            let refused = refusal { _ = try verifier.verify(TestReport(chain, version: version).signed) }
            #expect(refused?.field == "VERSION" && refused?.category == .malformed)
        }
    }

    @Test func rootsAreRefusedUnlessNamed() throws {
        let refused = try #require(refusal { _ = try TestChain().chain(trusted: .amd) })
        #expect(refused.category == .untrusted && refused.nextStep.contains("--trusted-root"))
        // A root that claims to be AMD's is refused as well, and named only with a warning.
        var forged = TestChain()
        forged.organization = "Advanced Micro Devices"
        let forgery = refusal { _ = try forged.chain(trusted: .amd) }
        #expect(forgery?.category == .untrusted && forgery?.likelyCause.contains("forged") == true)
        let named = try forged.chain().verify(TestReport(forged).signed)
        #expect(named.warnings.joined().contains("not known here as AMD's"))
    }

    @Test(arguments: 0..<14)
    func wrongChains(index: Int) throws {
        var wrong = TestChain()
        let (subject, field): (String, String)
        switch index {
        case 0: (subject, field) = ("ARK", "basic constraints and key usage"); wrong.rootUsage = 0x02
        case 1: (subject, field) = ("ASK", "basic constraints and key usage"); wrong.intermediatePathLength = 1
        case 2: (subject, field) = ("ASK", "basic constraints and key usage"); wrong.intermediatePathLength = nil
        case 3: (subject, field) = ("ASK", "subject CN"); wrong.intermediateCommonName = "SEV-VLEK-Milan"
        case 4: (subject, field) = ("VCEK", "version and extensions"); wrong.leafIsAuthority = true
        case 5: (subject, field) = ("VCEK", "signatureAlgorithm"); wrong.leafSalt = 32
        case 6: (subject, field) = ("VCEK", "subject CN"); wrong.leafCommonName = "SEV-OTHER"
        case 7: (subject, field) = ("VCEK", "productName"); wrong.productName = "Venice"
        case 8: (subject, field) = ("VCEK", "structVersion"); wrong.structVersion = 1
        case 9: (subject, field) = ("VCEK", "hwID"); wrong.hardwareID = [1, 2, 3]
        case 10: (subject, field) = ("VCEK", "hwID"); wrong.leavesOut = ["4"]
        case 11: (subject, field) = ("VCEK", "snpSPL"); wrong.leavesOut = ["3.3"]
        case 12:
            (subject, field) = ("VCEK", "ucodeSPL")
            wrong.extraExtensions = [TestChain.amd("3.8", DER.integer(1))]
        default:
            (subject, field) = ("VCEK", "snpSPL")
            wrong.leavesOut = ["3.3"]
            wrong.extraExtensions = [TestChain.amd("3.3", DER.integer(256))]
        }
        let refused = try #require(refusal { _ = try wrong.chain() }, "case \(index)")
        #expect(refused.subject == subject && refused.field == field, "\(refused)")
    }

    @Test func certificatesOfAnotherIssuerAreRefused() throws {
        var other = TestChain()
        other.organization = "Somebody else"
        let chain = TestChain()
        func make(_ leaf: TestChain, _ intermediate: TestChain, _ root: TestChain) -> AttestationError? {
            refusal {
                _ = try EndorsementChain(
                    leaf: leaf.leaf, intermediate: intermediate.intermediate, root: root.root,
                    trusted: TrustedRoots(named: [chain.root]))
            }
        }
        #expect(make(chain, chain, chain) == nil)
        #expect(make(other, chain, chain)?.subject == "VCEK")
        #expect(make(chain, other, chain)?.subject == "ASK")
        #expect(make(chain, chain, other)?.subject == "ASK")
        // The leaf in the place of the intermediate, and the intermediate in the place of the root.
        let leaf = chain.leaf
        let intermediate = chain.intermediate
        #expect(
            refusal { _ = try EndorsementChain(leaf: leaf, intermediate: leaf, root: chain.root, trusted: .amd) } != nil
        )
        #expect(
            refusal { _ = try EndorsementChain(leaf: leaf, intermediate: intermediate, root: intermediate) }?.subject
                == "ARK")
    }

    @Test func damagedCertificatesAreRefused() throws {
        let chain = TestChain()
        let (root, intermediate) = (chain.root, chain.intermediate)
        let der = chain.leaf.der
        for index in stride(from: 0, to: der.count, by: 7) {
            var changed = der
            changed[index] ^= 0x10
            guard let leaf = X509Certificate(der: changed) else { continue }
            #expect(throws: AttestationError.self, "byte \(index)") {
                try EndorsementChain(
                    leaf: leaf, intermediate: intermediate, root: root, trusted: TrustedRoots(named: [root]))
            }
        }
        #expect(X509Certificate(der: der + [0]) == nil && X509Certificate(der: Array(der.dropLast())) == nil)
    }

    @Test func revokedCertificatesAreRefused() throws {
        let chain = TestChain()
        let good = try chain.chain(revocationLists: [chain.revocationList(revoking: [7])])
        #expect(try good.verify(TestReport(chain).signed, at: 1_780_272_000).revocationsChecked)
        for (serial, subject) in [(UInt32(0x10001), "ASK"), (0x10000, "ARK")] {
            let list = chain.revocationList(revoking: [7, serial])
            let newer = chain.revocationList(revoking: [], this: "250601000000Z")
            let refused = refusal { _ = try chain.chain(revocationLists: [newer, list]) }
            #expect(refused?.category == .revocation && refused?.subject == subject)
        }
        var other = chain
        other.organization = "Somebody else"
        for list in [
            other.revocationList(revoking: []), chain.revocationList(revoking: [], critical: true),
        ] {
            #expect(refusal { _ = try chain.chain(revocationLists: [list]) }?.category == .revocation)
        }
        // 2026-06-01 is behind the list's next update.
        let old = try chain.chain(revocationLists: [chain.revocationList(revoking: [], next: "260101000000Z")])
        #expect(refusal { _ = try old.verify(TestReport(chain).signed, at: 1_780_272_000) }?.category == .revocation)
        #expect(throws: Never.self) { try old.verify(TestReport(chain).signed) }
    }

    @Test func poolTakesTheLeafThatFits() throws {
        var chains = [TestChain(), TestChain(), TestChain()]
        chains[1].versions.microcode = 100
        chains[2].hardwareID = [UInt8](repeating: 9, count: 64)
        var pool = CertificatePool()
        let text = chains.map { PEM.text(PEM.Block(label: "CERTIFICATE", bytes: $0.leaf.der)) }.joined()
        try pool.add(Array(("a chain\n" + text).utf8), name: "leaves")
        let root = chains[0].root
        try pool.add(
            CertificateTable(entries: [.init(.ask, chains[0].intermediate.der), .init(.ark, root.der)]).bytes,
            name: "table")
        try pool.add(chains[0].revocationListBytes(revoking: []), name: "list")
        #expect(pool.certificates.count == 5)
        for chain in chains {
            let report = TestReport(chain).signed
            let found = try pool.chain(for: AttestationReport(bytes: report), trusted: TrustedRoots(named: [root]))
            #expect(try found.verify(report).reportedTCB == chain.versions)
            #expect(found.revocationsChecked)
        }
        #expect(
            refusal { _ = try CertificatePool().chain(for: AttestationReport(bytes: TestReport().signed)) }?.category
                == .missing)
        for junk in [
            "-----BEGIN CERTIFICATE-----\nAAAA\n", "-----BEGIN CERTIFICATE-----\nAA=A\n-----END CERTIFICATE-----",
        ] {
            #expect(refusal { try pool.add(Array(junk.utf8), name: "junk") }?.category == .malformed)
        }
    }
}
