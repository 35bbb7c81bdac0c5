// Reports and certificates made by AMD's processors and by other people's tools: each gives its documented verdict.

import Attestation
import Crypto
import SEVABI
import TestSupport
import Testing

@Suite(.enabled(if: ForeignVectors.arePresent, Comment(rawValue: ForeignVectors.absence)))
struct ForeignReportTests {
    static let real = [
        "gsg-milan-v2", "trustee-milan-v2-idkey", "trustee-milan-v3-vlek", "azure-milan-v3-a", "oak-milan-v3-cb",
        "oak-genoa-v5",
    ].map { "report-real/" + $0 }
    static let synthetic = ["synth-milan-v3", "synth-turin-v5"].map { "report-synthetic/" + $0 }

    struct Sample {
        let report: [UInt8]
        let leaf: X509Certificate
        let intermediate: X509Certificate
        let root: X509Certificate

        init(_ folder: String) throws {
            func certificate(_ names: String...) throws -> X509Certificate {
                let bytes = try #require(names.lazy.compactMap { ForeignVectors.bytes("\(folder)/\($0).der") }.first)
                return try #require(X509Certificate(der: bytes))
            }
            report = try #require(ForeignVectors.bytes("\(folder)/report.bin"))
            leaf = try certificate("vcek", "vlek")
            intermediate = try certificate("ask", "asvk")
            root = try certificate("ark")
        }

        func chain(_ trusted: TrustedRoots = .amd) throws(AttestationError) -> EndorsementChain {
            try EndorsementChain(leaf: leaf, intermediate: intermediate, root: root, trusted: trusted)
        }
    }

    @Test(arguments: real)
    func realReportIsGenuine(folder: String) throws {
        let sample = try Sample(folder)
        let verified = try sample.chain().verify(sample.report)
        #expect(verified.standing == .amd(folder.contains("genoa") ? .genoa : .milan))
        #expect(verified.warnings.isEmpty)
        #expect(verified.chipIDIsMasked == folder.contains("vlek"))
        try expectFields(verified, folder)
    }

    @Test(arguments: synthetic)
    func syntheticReportNeedsItsRootNamed(folder: String) throws {
        let sample = try Sample(folder)
        let refused = try #require(refusal { _ = try sample.chain() })
        #expect(refused.category == .untrusted)
        #expect(refused.found.contains("Simulated Micro Devices"))
        let verified = try sample.chain(TrustedRoots(named: [sample.root])).verify(sample.report)
        guard case .software(let name) = verified.standing else {
            Issue.record("\(verified.standing)")
            return
        }
        #expect(name.contains("Simulated Micro Devices"))
        #expect(verified.warnings.joined().contains("NOT AN AMD CHAIN"))
        try expectFields(verified, folder)
    }

    /// Every field of expected.json.
    private func expectFields(_ verified: VerifiedReport, _ folder: String) throws {
        let file = try #require(ForeignVectors.bytes("\(folder)/expected.json"))
        let expected = try #require(try JSONInput(text: file)["report"])
        let report = verified.report
        func text(_ name: String) throws -> String {
            guard case .string(let text)? = expected[name] else {
                Issue.record("no \(name)")
                return ""
            }
            return text
        }
        func bytes(_ name: String) throws -> [UInt8] { try #require(try [UInt8](hex: text(name))) }
        func number(_ name: String) throws -> UInt64 {
            if case .number(let value)? = expected[name] { return value }
            return try #require(UInt64(try text(name).dropFirst(2), radix: 16))
        }
        #expect(UInt64(report.version) == (try number("version")))
        #expect(UInt64(report.guestSVN) == (try number("guest_svn")))
        #expect(report.policy.rawValue == (try number("policy")))
        #expect(report.familyID == (try bytes("family_id")))
        #expect(report.imageID == (try bytes("image_id")))
        #expect(UInt64(report.vmpl) == (try number("vmpl")))
        #expect(report.platformInfo.rawValue == (try number("platform_info")))
        #expect(UInt64(report.keyInformation.rawValue) == (try number("key_info")))
        #expect(report.reportData == (try bytes("report_data")))
        #expect(report.measurement == (try bytes("measurement")))
        #expect(report.hostData == (try bytes("host_data")))
        let none = [UInt8](repeating: 0, count: 48)
        #expect((report.idKeyDigest ?? none) == (try bytes("id_key_digest")))
        #expect((report.authorKeyDigest ?? none) == (try bytes("author_key_digest")))
        #expect(report.reportID == (try bytes("report_id")))
        #expect(report.migrationAgentReportID == nil)
        #expect((report.chipID ?? [UInt8](repeating: 0, count: 64)) == (try bytes("chip_id")))
        #expect(report.currentVersion.description == (try text("current_version")))
        #expect(report.committedVersion.description == (try text("committed_version")))
        for (name, versions) in [
            ("current_tcb", verified.currentTCB), ("reported_tcb", verified.reportedTCB),
            ("committed_tcb", verified.committedTCB), ("launch_tcb", verified.launchTCB),
        ] {
            let wanted = try #require(expected[name])
            func part(_ name: String) -> UInt8? {
                guard case .number(let value)? = wanted[name] else { return nil }
                return UInt8(value)
            }
            #expect(versions.fmc == part("fmc"))
            #expect(versions.bootLoader == part("bootloader"))
            #expect(versions.tee == part("tee"))
            #expect(versions.snp == part("snp"))
            #expect(versions.microcode == part("microcode"))
        }
        if case .array(let parts)? = expected["cpuid_fms"], report.version >= 3 {
            let processor = try #require(report.processor)
            #expect(
                parts == [processor.family, processor.model, processor.stepping].map { JSONInput.number(UInt64($0)) })
        } else {
            #expect(report.processor == nil && report.version == 2)
        }
        #expect((report.launchMitigationVector != nil) == (report.version == 5))
        if report.version == 5 {
            #expect(report.launchMitigationVector == (try number("launch_mit_vector")))
            #expect(report.currentMitigationVector == (try number("current_mit_vector")))
        }
    }

    /// What expected.json says of the certificate.
    @Test(arguments: real + synthetic)
    func leafIsReadAsDocumented(folder: String) throws {
        let sample = try Sample(folder)
        let file = try #require(ForeignVectors.bytes("\(folder)/expected.json"))
        let expected = try #require(try JSONInput(text: file)["leaf"])
        let leaf = try EndorsementCertificate(sample.leaf)
        func text(_ name: String) -> String? {
            guard case .string(let text)? = expected[name] else { return nil }
            return text
        }
        // Written from the last part to the first, without spaces.
        func reversed(_ name: String) -> String { name.split(separator: ", ").reversed().joined(separator: ",") }
        #expect(text("subject") == reversed(sample.leaf.subject.description))
        #expect(text("issuer") == reversed(sample.leaf.issuer.description))
        func moment(_ seconds: Int64) -> String { utcText(seconds).replacing(" UTC", with: "+00:00") }
        #expect(text("not_before") == moment(sample.leaf.notBefore))
        #expect(text("not_after") == moment(sample.leaf.notAfter))
        let extensions = try #require(expected["amd_extensions"])
        func number(_ name: String) -> UInt8? {
            guard case .number(let value)? = extensions[name] else { return nil }
            return UInt8(exactly: value)
        }
        #expect(number("struct_version") == leaf.structVersion)
        #expect(extensions["product_name"] == .string(leaf.productName))
        for (name, value) in leaf.versions.components {
            #expect(number(name.replacing("SPL", with: "_spl")) == value, "\(name)")
        }
        #expect(extensions["hwid"] == leaf.hardwareID.map { .string($0.hex) })
        #expect(extensions["csp_id"] == leaf.providerID.map { .string($0) })
    }

    @Test func everyOtherLeafIsRefused() throws {
        let samples = try (Self.real + Self.synthetic).map { ($0, try Sample($0)) }
        let trusted = TrustedRoots(named: samples.map(\.1.root))
        for (folder, sample) in samples {
            for (other, donor) in samples where donor.leaf.p384Key?.littleEndianX != sample.leaf.p384Key?.littleEndianX
            {
                let chain = try donor.chain(trusted)
                let refused = refusal { _ = try chain.verify(sample.report) }
                #expect([.signature, .binding].contains(refused?.category), "\(folder) with the leaf of \(other)")
            }
        }
    }

    @Test(arguments: real + synthetic)
    func everyFlippedByteIsRefused(folder: String) throws {
        let sample = try Sample(folder)
        let chain = try sample.chain(TrustedRoots(named: [sample.root]))
        for index in sample.report.indices {
            var report = sample.report
            report[index] ^= 1 << UInt8(index % 8)
            #expect(throws: AttestationError.self, "byte \(index)") { try chain.verify(report) }
        }
    }

    @Test func datesAreCheckedWhenAsked() throws {
        let sample = try Sample("report-real/trustee-milan-v3-vlek")
        let chain = try sample.chain()
        // 2025-06-01 and 2026-06-01; the VLEK is valid to 2025-12-10.
        #expect(try chain.verify(sample.report, at: 1_748_736_000).datesChecked)
        let refused = try #require(refusal { _ = try chain.verify(sample.report, at: 1_780_272_000) })
        #expect(refused.category == .validity && refused.field == "notAfter" && refused.subject == "VLEK")
        #expect(refused.expected == "2024-12-10 22:14:21 UTC to 2025-12-10 22:14:21 UTC")
        #expect(refused.found == "2026-06-01 00:00:00 UTC")
        #expect(refusal { _ = try chain.verify(sample.report, at: 0) }?.field == "notBefore")
    }

    @Test func turinCertificate() throws {
        let leaf = try #require(X509Certificate(der: ForeignVectors.bytes("cert-only/turin-vcek.der") ?? []))
        let intermediate = try pem("turin-ask")
        let chain = try EndorsementChain(leaf: leaf, intermediate: intermediate, root: pem("turin-ark"))
        #expect(chain.standing == .amd(.turin))
        #expect(chain.leaf.structVersion == 1 && chain.leaf.productName == "Turin")
        #expect(chain.leaf.hardwareID?.hex == "1e550a8ee5cf9f4d")
        #expect(chain.leaf.versions == SecurityVersions(fmc: 0, bootLoader: 0, tee: 0, snp: 0, microcode: 9))
        #expect(leaf.extensionValue("1.3.6.1.4.1.3704.1.3.4") == nil)
        #expect(leaf.serialNumber == "0" && intermediate.serialNumber == "30001")
    }

    @Test func badSignatureWithRawHardwareID() throws {
        let bytes = try #require(ForeignVectors.bytes("cert-only/milan-vcek-badsig-raw-hwid.der"))
        let certificate = try #require(X509Certificate(der: bytes))
        let leaf = try EndorsementCertificate(certificate)
        #expect(leaf.versions == SecurityVersions(bootLoader: 3, tee: 0, snp: 10, microcode: 169))
        #expect(leaf.hardwareID == (0..<64).map { UInt8($0) })
        let refused = refusal {
            _ = try EndorsementChain(leaf: certificate, intermediate: pem("milan-ask"), root: pem("milan-ark"))
        }
        #expect(refused?.subject == "VCEK" && refused?.field == "signature")
    }

    @Test(arguments: ["milan", "turin"])
    func intermediatesAreSignedByTheirRoots(product: String) throws {
        let root = try pem("\(product)-ark")
        #expect(root.isSigned(by: root))
        for name in ["ask", "asvk"] {
            let intermediate = try pem("\(product)-\(name)")
            #expect(intermediate.isSigned(by: root) && !root.isSigned(by: intermediate))
            #expect(intermediate.pathLength == 0 && intermediate.isAuthority && intermediate.isWellFormed)
        }
        let fingerprint = [
            "milan": "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd",
            "turin": "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a",
        ]
        let digest = SHA256.hash(root.der)
        #expect(digest.indices.map { digest[$0] }.hex == fingerprint[product])
    }

    @Test func exchangedIntermediatesAreRefused() throws {
        let sample = try Sample("report-real/trustee-milan-v3-vlek")
        let ask = try pem("milan-ask")
        let refused = refusal {
            _ = try EndorsementChain(leaf: sample.leaf, intermediate: ask, root: sample.root)
        }
        #expect(refused?.category == .chain && refused?.subject == "VLEK")
    }

    @Test func poolFindsTheChain() throws {
        var pool = CertificatePool()
        var reports: [[UInt8]] = []
        var roots: [X509Certificate] = []
        for folder in Self.real + Self.synthetic {
            let sample = try Sample(folder)
            reports.append(sample.report)
            if folder.hasPrefix("report-synthetic") { roots.append(sample.root) }
            try pool.add(sample.leaf.der, name: folder)
            try pool.add(try #require(ForeignVectors.bytes(folder + "/cert_chain.pem")), name: folder)
        }
        for report in reports {
            let chain = try pool.chain(for: AttestationReport(bytes: report), trusted: TrustedRoots(named: roots))
            _ = try chain.verify(report)
        }
    }

    @Test(arguments: ["vcek.bin", "vlek.bin"])
    func certificateTable(file: String) throws {
        let bytes = try #require(ForeignVectors.bytes("cert-table/" + file))
        let table = try CertificateTable(bytes: bytes)
        guard case .array(let files) = try JSONInput(text: ForeignVectors.bytes("cert-table/vectors.json") ?? []),
            let entry = files.first(where: { $0["file"] == .string(file) }), case .array(let parts)? = entry["entries"]
        else {
            Issue.record("vectors.json has another form")
            return
        }
        #expect(parts.count == table.entries.count)
        for (part, entry) in zip(parts, table.entries) {
            let digest = SHA256.hash(entry.bytes)
            #expect(part["guid"] == .string(entry.identifier.description))
            #expect(part["length"] == .number(UInt64(entry.bytes.count)))
            #expect(part["sha256"] == .string(digest.indices.map { digest[$0] }.hex))
        }
        #expect(table.bytes == bytes && table.pageCount == 2)
        #expect(try CertificateTable(bytes: bytes + [UInt8](repeating: 0xaa, count: 3433)) == table)
        var pool = CertificatePool()
        try pool.add(bytes, name: file)
        let report = try #require(
            ForeignVectors.bytes(
                file == "vcek.bin"
                    ? "report-real/oak-genoa-v5/report.bin" : "report-real/trustee-milan-v3-vlek/report.bin"))
        _ = try pool.chain(for: AttestationReport(bytes: report)).verify(report)
    }

    @Test(arguments: ["id_auth.bin", "id_auth_upstream.bin"])
    func idBlock(file: String) throws {
        let expected = try JSONInput(text: ForeignVectors.bytes("id-block/vectors.json") ?? [])
        let block = try #require(IDBlock(bytes: ForeignVectors.bytes("id-block/id_block.bin") ?? []))
        let authentication = try #require(IDAuthentication(bytes: ForeignVectors.bytes("id-block/" + file) ?? []))
        let signed = SignedIDBlock(block: block, authentication: authentication)
        try signed.check(launchDigest: block.launchDigest, policy: GuestPolicy(rawValue: 0x30000))
        if file == "id_auth.bin" {
            #expect(expected["id_key_digest"] == .string(signed.idKeyDigest.hex))
            #expect(expected["author_key_digest"] == .string(try #require(signed.authorKeyDigest).hex))
        }
        #expect(expected["id_block"] == .string(block.bytes.hex))
        for (offset, field) in [(0x50, "ID_BLOCK_SIG"), (0x690, "ID_KEY_SIG")] {
            var bytes = authentication.bytes
            bytes[offset] ^= 1
            let changed = SignedIDBlock(block: block, authentication: try #require(IDAuthentication(bytes: bytes)))
            #expect(refusal { try changed.check() }?.field == field)
        }
    }

    private func pem(_ name: String) throws -> X509Certificate {
        let file = try #require(ForeignVectors.bytes("cert-only/\(name).pem"))
        let block = try #require(PEM.blocks(file)?.first)
        return try #require(X509Certificate(der: block.bytes))
    }
}
