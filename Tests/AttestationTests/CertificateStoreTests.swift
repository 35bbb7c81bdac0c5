// A store of certificates: what names say, what is taken in, where it goes, and what is found again.

import Attestation
import Crypto
import TestSupport
import Testing

@Suite struct CertificateStoreTests {
    static let chip = (0..<64).map { UInt8($0) }

    @Test func namesOfTheToolsAreRead() throws {
        let spl: [String: UInt8] = ["blSPL": 4, "teeSPL": 0, "snpSPL": 24, "ucodeSPL": 219]
        let chip = Self.chip.hex
        let turin = "1e550a8ee5cf9f4d"
        func name(_ path: String) throws -> CertificateFileName {
            try #require(CertificateFileName(path: path), "\(path)")
        }
        // (path, role, kind, product, hwID, versions)
        let cases: [(String, CertificateFileName.Role, SigningKey?, ProductLine?, String?, [String: UInt8])] = [
            (
                "https://kds.example/vcek/v1/Milan/\(chip)?blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219", .endorsement,
                .vcek,
                .milan, chip, spl
            ),
            (
                "mirror/vcek/v1/Turin/\(turin)@ucodeSPL=09&fmcSPL=01", .endorsement, .vcek, .turin, turin,
                ["ucodeSPL": 9, "fmcSPL": 1]
            ),
            ("vcek/v1/genoa/cert_chain", .authorities, .vcek, .genoa, nil, [:]),
            ("vcek/v1/Milan/crl", .revocationList, .vcek, .milan, nil, [:]),
            ("vlek/v1/Milan/crl", .revocationList, .vlek, .milan, nil, [:]),
            ("vlek/v1/Milan/cert?blSPL=4", .endorsement, .vlek, .milan, nil, ["blSPL": 4]),
            ("kds-store/vcek/\(chip)/bl04_tee00_snp24_ucode219_vcek.der", .endorsement, .vcek, nil, chip, spl),
            (
                "vcek/\(turin)/bl01_tee00_snp04_ucode81_fmc02_vcek.der", .endorsement, .vcek, nil, turin,
                ["blSPL": 1, "teeSPL": 0, "snpSPL": 4, "ucodeSPL": 81, "fmcSPL": 2]
            ),
            ("vcek/\(chip)/vcek.der", .endorsement, .vcek, nil, chip, [:]),
            ("certs/vcek.pem", .endorsement, .vcek, nil, nil, [:]),
            ("certs/VLEK.PEM", .endorsement, .vlek, nil, nil, [:]),
            ("certs/asvk.der", .authorities, .vlek, nil, nil, [:]),
            ("ark", .authorities, nil, nil, nil, [:]), ("ask.cert", .authorities, nil, nil, nil, [:]),
            ("crl.pem", .revocationList, nil, nil, nil, [:]), ("Milan.crl", .revocationList, nil, .milan, nil, [:]),
            ("\(chip)", .endorsement, .vcek, nil, chip, [:]), ("mine.pem", .any, nil, nil, nil, [:]),
        ]
        for (path, role, kind, product, hardwareID, versions) in cases {
            let found = try name(path)
            #expect(found.role == role && found.kind == kind && found.product == product, "\(path): \(found)")
            #expect(found.hardwareID?.hex == hardwareID && found.versions == versions, "\(path): \(found)")
        }
        for path in [
            "", "/", "report.bin", "README.md", "vcek/v1/Milan/notes", ".pem", "cert", "\(turin)00", "?blSPL=1",
        ] {
            #expect(CertificateFileName(path: path) == nil, "\(path)")
        }
        // Values that no component can have say nothing.
        #expect(try name("vlek/v1/Milan/cert?blSPL=256&teeSPL=-1&snpSPL=0x4&ucodeSPL=0004").versions.isEmpty)
    }

    @Test func namesSayWhatMayServe() throws {
        let report = try AttestationReport(bytes: TestReport().signed)
        let chip = Self.chip.hex
        let other = String(repeating: "09", count: 64)
        for (path, serves) in [
            ("vcek/\(chip)/bl04_tee00_snp24_ucode219_vcek.der", true), ("vcek/\(chip)/vcek.der", true),
            ("vcek/\(chip)/bl04_tee00_snp24_ucode218_vcek.der", false),
            ("vcek/\(other)/bl04_tee00_snp24_ucode219_vcek.der", false), ("vlek.pem", false), ("vcek.pem", true),
            ("vcek/v1/Milan/cert_chain", true), ("vcek/v1/Milan/crl", true), ("anything.pem", true),
            ("vcek/v1/Turin/1e550a8ee5cf9f4d?ucodeSPL=219", false),
        ] {
            let name = try #require(CertificateFileName(path: path))
            #expect(name.mayServe(report) == serves, "\(path)")
        }
    }

    /// A store as a dictionary: what an import writes is what the next one finds.
    struct Store {
        var files: [String: [UInt8]] = [:]

        var authorities: CertificatePool {
            get throws {
                var pool = CertificatePool()
                for (path, bytes) in files where CertificateFileName(path: path)?.role != .endorsement {
                    try pool.add(bytes, name: path)
                }
                return pool
            }
        }

        @discardableResult
        mutating func take(
            _ sources: [(name: String, bytes: [UInt8])], trusted: [X509Certificate] = [TestChain().root]
        ) throws -> [CertificateStoreImport.Change] {
            var imported = CertificateStoreImport(
                authorities: try authorities, trusted: TrustedRoots(named: trusted))
            for (name, bytes) in sources { try imported.add(bytes, name: name) }
            let changes = try imported.changes { files[$0] }
            for change in changes where change.action != .present { files[change.path] = change.bytes }
            return changes
        }

        func pool() throws -> CertificatePool {
            var pool = CertificatePool()
            for (path, bytes) in files { try pool.add(bytes, name: path) }
            return pool
        }
    }

    private func chainFile(_ chain: TestChain) -> (name: String, bytes: [UInt8]) {
        let text = [chain.intermediate, chain.root].map { PEM.text(PEM.Block(label: "CERTIFICATE", bytes: $0.der)) }
        return ("cert_chain", Array(text.joined().utf8))
    }

    @Test func aFleetIsTakenInAndFoundAgain() throws {
        var chains = [TestChain(), TestChain(), TestChain(), TestChain.turin(), TestChain()]
        chains[1].versions.microcode = 100
        chains[2].hardwareID = [UInt8](repeating: 9, count: 64)
        chains[4].kind = .vlek
        let roots = [chains[0].root, chains[3].root]
        var store = Store()
        let changes = try store.take(
            [
                chainFile(chains[0]), chainFile(chains[3]), ("asvk.der", chains[4].intermediate.der),
                ("table", CertificateTable(entries: [.init(.vcek, chains[0].leaf.der)]).bytes),
                ("b.der", chains[1].leaf.der), ("c.der", chains[2].leaf.der), ("d.der", chains[3].leaf.der),
                ("vlek.der", chains[4].leaf.der), ("crl", chains[0].revocationListBytes(revoking: [7])),
            ], trusted: roots)
        let root = "roots/\(Array(chains[0].root.keyFingerprint.prefix(8)).hex)"
        // Both products have one root key here.
        let paths = [
            "vcek/\(String(repeating: "09", count: 64))/bl04_tee00_snp24_ucode219_vcek.der",
            "vcek/\(Self.chip.hex)/bl04_tee00_snp24_ucode100_vcek.der",
            "vcek/\(Self.chip.hex)/bl04_tee00_snp24_ucode219_vcek.der",
            "vcek/98162f781c9bca3a/bl01_tee01_snp04_ucode81_fmc01_vcek.der", "vcek/v1/Milan/cert_chain",
            "vcek/v1/Milan/crl", "vcek/v1/Turin/cert_chain", "vlek/v1/Milan/cert_chain",
            "vlek/v1/Milan/CN_tests/bl04_tee00_snp24_ucode219_\(Array(chains[4].leaf.keyFingerprint.prefix(4)).hex)_vlek.der",
        ].map { "\(root)/\($0)" }
        #expect(Set(changes.map(\.path)) == Set(paths) && changes.allSatisfy { $0.action == .added })
        for change in changes where change.path.hasSuffix(".der") {
            #expect(CertificateFileName(path: change.path)?.role == .endorsement, "\(change.path)")
        }
        let pool = try store.pool()
        for chain in chains {
            let report = TestReport(chain).signed
            let found = try pool.chain(for: AttestationReport(bytes: report), trusted: TrustedRoots(named: roots))
            #expect(try found.verify(report).reportedTCB == chain.versions)
            #expect(found.leaf.kind == (chain.kind == .vlek ? .vlek : .vcek))
        }
        // The same again changes nothing.
        let again = try store.take([chainFile(chains[0]), ("b.der", chains[1].leaf.der)], trusted: roots)
        #expect(again.allSatisfy { $0.action == .present && $0.bytes.isEmpty } && again.count == 2)
    }

    @Test func newerIssuesReplaceOlderOnes() throws {
        let chain = TestChain()
        var store = Store()
        try store.take([
            chainFile(chain), ("vcek.der", chain.leaf.der), ("crl", chain.revocationListBytes(revoking: [])),
        ])
        var newer = chain
        (newer.notBefore, newer.notAfter) = ("250101000000Z", "320101000000Z")
        let renewed = try store.take([("vcek.der", newer.leaf.der)])
        #expect(renewed.map(\.action) == [.renewed])
        let isNewer = store.files[renewed[0].path] == newer.leaf.der
        #expect(isNewer)
        #expect(try store.take([("vcek.der", chain.leaf.der)]).map(\.action) == [.present])
        // Both in one import: the newer one stays, in either order.
        for files in [[chain.leaf, newer.leaf], [newer.leaf, chain.leaf]] {
            var empty = Store()
            try empty.take([chainFile(chain)] + files.map { ("x.der", $0.der) })
            #expect(empty.files[renewed[0].path] == newer.leaf.der)
        }
        let list = chain.revocationListBytes(revoking: [9], this: "260101000000Z")
        #expect(try store.take([("crl", list)]).map(\.action) == [.renewed])
        let old = chain.revocationListBytes(revoking: [], this: "240101000000Z")
        #expect(try store.take([("crl", old)]).map(\.action) == [.present])
        #expect(try store.pool().chain(of: newer.leaf, trusted: TrustedRoots(named: [chain.root])).revocationsChecked)
    }

    @Test func whatDoesNotBelongIsRefused() throws {
        let chain = TestChain()
        var store = Store()
        try store.take([chainFile(chain)])
        let before = store.files
        var other = TestChain()
        other.hasOtherLeafKey = true
        var foreign = TestChain()
        foreign.organization = "Somebody else"
        var noCA = TestChain()
        noCA.intermediatePathLength = 3
        var plain = TestChain()
        plain.leavesOut = ["1", "2", "3.1", "3.2", "3.3", "3.8", "4"]
        let wrongChip = "vcek/\(String(repeating: "09", count: 64))/vcek.der"
        // (sources, category, what is said)
        let cases: [([(String, [UInt8])], AttestationError.Category, String)] = [
            ([("a.der", chain.leaf.der), ("b.der", other.leaf.der)], .chain, "public key"),
            ([("f.der", foreign.leaf.der)], .missing, "ASK certificate"),
            ([("ask.der", foreign.intermediate.der)], .missing, "ARK certificate"),
            ([("ask.der", noCA.intermediate.der)], .chain, "ASK in ask.der"),
            ([("plain.der", plain.leaf.der)], .chain, "another kind"),
            ([("crl", foreign.revocationListBytes(revoking: []))], .missing, "ARK certificate"),
            ([(wrongChip, chain.leaf.der)], .binding, "hwID: expected 0909"),
            ([("bl04_tee00_snp24_ucode218_vcek.der", chain.leaf.der)], .binding, "ucodeSPL: expected 218"),
            ([("vcek/v1/Genoa/\(Self.chip.hex)?blSPL=4", chain.leaf.der)], .binding, "productName"),
            ([("vlek.der", chain.leaf.der)], .binding, "kind: expected VLEK"),
            (
                [("crl", chain.revocationListBytes(revoking: [0x10001])), ("vcek.der", chain.leaf.der)], .revocation,
                "revoked"
            ),
        ]
        for (sources, category, text) in cases {
            let refused = refusal { _ = try store.take(sources.map { ($0.0, $0.1) }) }
            #expect(refused?.category == category, "\(sources.map(\.0)): \(String(describing: refused))")
            #expect(refused?.description.contains(text) == true, "\(String(describing: refused))")
            let isUnchanged = store.files == before
            #expect(isUnchanged)
        }
        // Another key for a chip and TCB that the store has.
        try store.take([("a.der", chain.leaf.der)])
        #expect(refusal { try store.take([("b.der", other.leaf.der)]) }?.field == "public key")
        // Roots of a store are not believed by themselves.
        #expect(refusal { try store.take([("a.der", chain.leaf.der)], trusted: []) }?.category == .untrusted)
        // Names cannot leave the store.
        var sly = TestChain()
        sly.kind = .vlek
        sly.provider = "../../../etc/../."
        let changes = try store.take([("asvk.der", sly.intermediate.der), ("vlek.der", sly.leaf.der)])
        for change in changes {
            #expect(change.path.split(separator: "/").allSatisfy { !$0.hasPrefix(".") }, "\(change.path)")
        }
        // A damaged file of the store is no reason to write over it.
        let path = try #require(store.files.keys.first { $0.hasSuffix("_vcek.der") })
        store.files[path] = [1, 2, 3]
        #expect(refusal { try store.take([("a.der", chain.leaf.der)]) }?.category == .malformed)
    }

    @Test func ofSeveralKeysTheSignersIsTaken() throws {
        var mine = TestChain()
        mine.kind = .vlek
        var other = mine
        other.hasOtherLeafKey = true
        other.provider = "CN=another provider"
        other.notAfter = "330101000000Z"
        let trusted = TrustedRoots(named: [mine.root])
        var pool = CertificatePool()
        for certificate in [other.leaf, mine.leaf, mine.intermediate, mine.root] { pool.add(certificate) }
        let report = TestReport(mine).signed
        let chain = try pool.chain(for: AttestationReport(bytes: report), trusted: trusted)
        #expect(chain.leaf.providerID == "CN=tests")
        #expect(throws: Never.self) { try chain.verify(report) }
        // Chosen by words: several are refused, and named.
        var selection = CertificateSelection()
        selection.kind = .vlek
        let refused = refusal { _ = try pool.chain(selecting: selection, trusted: trusted) }
        #expect(refused?.expected == "one key" && refused?.found.contains("snpSPL=24") == true)
        selection.versions = try #require(CertificateSelection.versions("blSPL=4 snpSPL=25"))
        #expect(refusal { _ = try pool.chain(selecting: selection, trusted: trusted) }?.category == .missing)
        selection.kind = .vcek
        selection.versions = ["ucodeSPL": 219]
        selection.chipID = Self.chip
        pool.add(TestChain().leaf)
        pool.add(TestChain().intermediate)
        #expect(try pool.chain(selecting: selection, trusted: trusted).leaf.hardwareID == Self.chip)
        for text in ["", "blSPL", "blSPL=256", "blSPL=4,xSPL=1"] { #expect(CertificateSelection.versions(text) == nil) }
    }

    /// Two platforms whose roots have one name: each answers for its own list.
    @Test func revocationListsBelongToTheRootThatSigned() throws {
        let chain = TestChain()
        var pool = CertificatePool()
        for certificate in [chain.leaf, chain.intermediate, chain.root] { pool.add(certificate) }
        var list = chain.revocationListBytes(revoking: [])
        list[list.count - 1] ^= 1
        pool.add(try #require(X509RevocationList(der: list)))
        let trusted = TrustedRoots(named: [chain.root])
        #expect(refusal { _ = try pool.chain(of: chain.leaf, trusted: trusted) }?.category == .revocation)
    }

    @Test func listingsSayWhatThereIs() throws {
        let chain = TestChain.turin()
        var pool = CertificatePool()
        for certificate in [chain.leaf, chain.intermediate, chain.root] { pool.add(certificate) }
        let kinds = pool.certificates.map { CertificateListing($0, in: pool) }
        #expect(kinds.map(\.kind) == ["VCEK", "ASK", "ARK"] && kinds.allSatisfy { $0.product == "Turin" })
        #expect(kinds[0].hardwareID == chain.hardwareID && kinds[0].versions == chain.versions)
        for listing in kinds {
            guard case .other(let name) = listing.standing else {
                Issue.record("\(listing.standing)")
                continue
            }
            #expect(name.contains("CN=ARK-Turin"))
        }
        let list = CertificateListing(chain.revocationList(revoking: [1, 2]), in: pool)
        #expect(list.kind == "CRL" && list.revokedCount == 2)
        guard case .refused(let error) = CertificateListing(chain.leaf, in: CertificatePool()).standing else {
            Issue.record("a leaf without its chain")
            return
        }
        #expect(error.category == .missing)
    }

    @Test func tablesOfChains() throws {
        let chain = TestChain()
        let list = chain.revocationList(revoking: [])
        let table = CertificateTable(of: try chain.chain(revocationLists: [list]), revocationList: list)
        #expect(table.entries.map(\.identifier) == [.vcek, .ask, .ark, .crl])
        var pool = CertificatePool()
        try pool.add(table.bytes, name: "table")
        let trusted = TrustedRoots(named: [chain.root])
        #expect(try pool.chain(of: chain.leaf, trusted: trusted).newestRevocationList?.der == list.der)
    }

    @Test func foreignTextIsHarmlessOnATerminal() {
        #expect(printable("a\u{1b}[2Jb\nc\u{202e}d") == #"a\u{1b}[2Jb\u{a}c\u{202e}d"#)
        #expect(printable("Zürich/名") == "Zürich/名")
    }
}
