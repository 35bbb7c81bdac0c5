// The default refuses; each relaxation allows one thing.

import Attestation
import SEVABI
import TestSupport
import Testing

extension ReportPolicy {
    /// Compares no contents: for tests of single fields.
    static var any: ReportPolicy {
        var policy = ReportPolicy()
        policy.measurements = nil
        policy.reportData = nil
        return policy
    }
}

@Suite struct PolicyTests {
    private static let verifier = Result { try TestChain().chain() }

    private func fields(_ policy: ReportPolicy, _ change: (inout TestReport) -> Void = { _ in }) throws -> [String] {
        var report = TestReport()
        change(&report)
        return policy.refusals(of: try Self.verifier.get().verify(report.signed)).map(\.field)
    }

    @Test func theDefaultWantsToKnow() throws {
        #expect(try fields(ReportPolicy()) == ["MEASUREMENT", "REPORT_DATA"])
        var policy = ReportPolicy()
        policy.measurements = [[UInt8](repeating: 1, count: 48), [UInt8](repeating: 0x3e, count: 48)]
        policy.reportData = [[UInt8](repeating: 0xd0, count: 64)]
        #expect(try fields(policy).isEmpty)
        policy.measurements = [[UInt8](repeating: 1, count: 48)]
        policy.reportData = [[UInt8](repeating: 1, count: 64)]
        let verified = try Self.verifier.get().verify(TestReport().signed)
        let refusals = policy.refusals(of: verified)
        #expect(refusals.map(\.field) == ["MEASUREMENT", "REPORT_DATA"])
        #expect(refusals[0].found == String(repeating: "3e", count: 48) && refusals[0].category == .policy)
        #expect(throws: refusals[0]) { try policy.validate(verified) }
    }

    /// (offset, value, field, relaxation)
    @Test func whatTheDefaultRefuses() throws {
        typealias Case = (set: (inout TestReport) -> Void, field: String, allow: ((inout ReportPolicy) -> Void)?)
        let cases: [Case] = [
            ({ $0.set(0x08, 0xb0000 as UInt64) }, "POLICY.DEBUG", { $0.allowsDebug = true }),
            ({ $0.set(0x08, 0x70000 as UInt64) }, "POLICY.MIGRATE_MA", { $0.allowsMigrationAgent = true }),
            ({ $0.set(0x08, 0x23_0000 as UInt64) }, "POLICY.CXL_ALLOW", { $0.allowsCXL = true }),
            ({ $0.set(0x08, 0x10000 as UInt64) }, "POLICY", nil),
            ({ $0.set(0x08, 1 << 26 | 0x30000 as UInt64) }, "POLICY", nil),
            ({ $0.bytes[0x160] = 0 }, "REPORT_ID_MA", { $0.allowsMigrationAgent = true }),
            ({ $0.set(0x30, 1 as UInt32) }, "VMPL", { $0.vmpls = 0...1 }),
            ({ $0.bytes[0xc0] = 1 }, "HOST_DATA", { $0.hostData = nil }),
            ({ $0.set(0x40, 0x125 as UInt64) }, "PLATFORM_INFO", nil),
            ({ $0.bytes[0x3f] = 220 }, "CURRENT_TCB and version", { $0.allowsProvisionalFirmware = true }),
            ({ $0.bytes[0x1e8] = 30 }, "CURRENT_TCB and version", { $0.allowsProvisionalFirmware = true }),
            ({ $0.bytes[0x1f7] = 220 }, "LAUNCH_TCB", nil),
        ]
        for (index, test) in cases.enumerated() {
            #expect(try fields(.any, test.set) == [test.field], "case \(index)")
            guard let allow = test.allow else { continue }
            var policy = ReportPolicy.any
            allow(&policy)
            #expect(try fields(policy, test.set).isEmpty, "case \(index), allowed")
        }
        #expect(try fields(.any) { $0.bytes[0x1e7] = 200 }.contains("REPORTED_TCB"))
    }

    @Test func whatAPolicyCanAskFor() throws {
        typealias Case = (ask: (inout ReportPolicy) -> Void, field: String, meet: ((inout TestReport) -> Void)?)
        let ones = [UInt8](repeating: 1, count: 48)
        func ids(_ report: inout TestReport) {
            for index in 0xe0..<0x140 { report.bytes[index] = 1 }
            for index in 0x10..<0x30 { report.bytes[index] = 5 }
            report.set(0x04, 3 as UInt32)
        }
        let cases: [Case] = [
            ({ $0.idKeyDigests = [ones] }, "ID_KEY_DIGEST", ids),
            ({ $0.authorKeyDigests = [ones] }, "AUTHOR_KEY_DIGEST", ids),
            (
                { $0.allowsSMT = false }, "POLICY.SMT",
                {
                    $0.set(0x08, 0x20000 as UInt64); $0.set(0x40, 0 as UInt64)
                }
            ),
            (
                { $0.requiredGuestPolicy = GuestPolicy(rawValue: 1 << 20) }, "POLICY",
                { $0.set(0x08, 0x13_0000 as UInt64) }
            ),
            ({ $0.exactGuestPolicy = GuestPolicy(rawValue: 0x3001f) }, "POLICY", { $0.set(0x08, 0x3001f as UInt64) }),
            (
                { $0.minimumPolicyABI = AttestationReport.FirmwareVersion(major: 1, minor: 55) },
                "POLICY.ABI_MAJOR and ABI_MINOR",
                { $0.set(0x08, 0x30137 as UInt64) }
            ),
            ({ $0.requiredPlatformInfo = .ciphertextHiding }, "PLATFORM_INFO", { $0.set(0x40, 0x10 as UInt64) }),
            ({ $0.forbiddenPlatformInfo = .smt }, "PLATFORM_INFO", { $0.set(0x40, 0 as UInt64) }),
            ({ $0.chipIDs = [[UInt8](repeating: 1, count: 64)] }, "CHIP_ID", nil),
            ({ $0.signingKeys = [.vlek] }, "SIGNING_KEY", nil),
            (
                { $0.minimumLaunchTCB = SecurityVersions(bootLoader: 0, tee: 0, snp: 25, microcode: 0) }, "LAUNCH_TCB",
                nil
            ),
        ]
        for (index, test) in cases.enumerated() {
            var policy = ReportPolicy.any
            test.ask(&policy)
            #expect(try fields(policy).contains(test.field), "case \(index)")
            if let meet = test.meet { #expect(try fields(policy, meet).isEmpty, "case \(index), met") }
        }
        var policy = ReportPolicy.any
        policy.idKeyDigests = [ones]
        policy.familyID = [UInt8](repeating: 5, count: 16)
        policy.imageID = [UInt8](repeating: 5, count: 16)
        policy.minimumGuestSVN = 3
        #expect(try fields(policy, ids).isEmpty)
        #expect(try fields(policy) == ["ID_KEY_DIGEST", "FAMILY_ID", "IMAGE_ID", "GUEST_SVN"])
        policy = .any
        policy.minimumFirmware = AttestationReport.FirmwareVersion(major: 1, minor: 55, build: 30)
        #expect(try fields(policy).count == 2)
        policy.minimumFirmware = AttestationReport.FirmwareVersion(major: 1, minor: 55, build: 29)
        #expect(try fields(policy).isEmpty)
    }

    @Test func minimumTCBIsComparedByComponent() throws {
        var policy = ReportPolicy.any
        // As one number the report's TCB is larger, but its boot loader is older.
        policy.minimumTCB = SecurityVersions(bootLoader: 5, tee: 0, snp: 0, microcode: 0)
        let refusals = policy.refusals(of: try Self.verifier.get().verify(TestReport().signed))
        #expect(refusals.map(\.field) == ["REPORTED_TCB", "LAUNCH_TCB"])
        #expect(refusals[0].expected == "blSPL at least 5")
        policy.minimumTCB = SecurityVersions(bootLoader: 4, tee: 0, snp: 24, microcode: 219)
        #expect(try fields(policy).isEmpty)
    }

    @Test func policiesThatCannotMeanAnything() throws {
        var short = ReportPolicy.any
        short.measurements = [[1, 2, 3]]
        var claimed = ReportPolicy.any
        claimed.minimumGuestSVN = 1
        var family = ReportPolicy.any
        family.familyID = [UInt8](repeating: 1, count: 16)
        for policy in [short, claimed, family] {
            let refusals = policy.refusals(of: try Self.verifier.get().verify(TestReport().signed))
            #expect(refusals.map(\.category) == [.unusablePolicy])
        }
    }

    @Test func policiesFromFiles() throws {
        func read(_ text: String) throws -> ReportPolicy { try ReportPolicy(json: Array(text.utf8)) }
        // The strict defaults stay.
        #expect(try fields(read("{}")) == ["MEASUREMENT", "REPORT_DATA"])
        let digest = String(repeating: "3e", count: 48)
        let data = String(repeating: "d0", count: 64)
        let good = """
            {"comment": "for tests", "measurement": ["\(String(repeating: "0", count: 96))", "\(digest)"],
             "reportData": "\(data)", "hostData": null, "maximumVMPL": 1, "allowSMT": true, "allowDebug": false,
             "allowMigrationAgent": false, "allowCXL": false, "allowProvisionalFirmware": true, "allowMaskedChipID": false,
             "exactGuestPolicy": "0x30000", "requiredGuestPolicy": 196608, "minimumPolicyABI": "0.0",
             "minimumFirmware": "1.55.29", "requiredPlatformInfo": ["smt", "alias-check"],
             "forbiddenPlatformInfo": ["tio"], "signingKeys": ["VCEK"],
             "minimumTCB": {"bootLoader": 4, "snp": 24, "microcode": 219}, "minimumLaunchTCB": {"tee": 0, "fmc": 3}}
            """
        #expect(try fields(read(good)).isEmpty)
        let policy = try read(good)
        #expect(policy.hostData == nil && policy.vmpls == 0...1 && policy.measurements?.count == 2)
        #expect(policy.minimumLaunchTCB?.fmc == 3 && policy.requiredPlatformInfo == [.smt, .aliasCheckComplete])
        let ones = String(repeating: "01", count: 48)
        let identity = try read(
            """
            {"measurement": null, "reportData": null, "idKeyDigest": "\(ones)", "authorKeyDigest": ["\(ones)"],
             "familyID": "\(String(repeating: "05", count: 16))", "imageID": "\(String(repeating: "05", count: 16))",
             "minimumGuestSVN": 3, "chipID": ["\(String(repeating: "07", count: 64))"]}
            """)
        #expect(
            try fields(identity)
                == ["ID_KEY_DIGEST", "AUTHOR_KEY_DIGEST", "FAMILY_ID", "IMAGE_ID", "GUEST_SVN", "CHIP_ID"])
    }

    /// (member and value, the field that the refusal names)
    @Test(arguments: [
        ("[]", "the file"), ("{", "line 1"), (#"{"measurment": null}"#, "measurment"),
        (#"{"measurement": "00"}"#, "measurement"), (#"{"measurement": 1}"#, "measurement"),
        (#"{"familyID": null}"#, "familyID"), (#"{"allowDebug": 1}"#, "allowDebug"),
        (#"{"allowDebug": null}"#, "allowDebug"), (#"{"maximumVMPL": 4}"#, "maximumVMPL"),
        (#"{"minimumGuestSVN": 4294967296}"#, "minimumGuestSVN"),
        (#"{"exactGuestPolicy": "30000"}"#, "exactGuestPolicy"),
        (#"{"exactGuestPolicy": "0x+1"}"#, "exactGuestPolicy"), (#"{"minimumFirmware": "1.55"}"#, "minimumFirmware"),
        (#"{"minimumFirmware": "1.55.+9"}"#, "minimumFirmware"),
        (#"{"minimumPolicyABI": "1.300"}"#, "minimumPolicyABI"),
        (#"{"requiredPlatformInfo": ["SMT"]}"#, "requiredPlatformInfo"),
        (#"{"signingKeys": []}"#, "signingKeys"), (#"{"signingKeys": ["none"]}"#, "signingKeys"),
        (#"{"minimumTCB": {"bl": 1}}"#, "minimumTCB.bl"), (#"{"minimumTCB": {"snp": 256}}"#, "minimumTCB.snp"),
        (#"{"minimumTCB": 1}"#, "minimumTCB"),
    ])
    func policyFilesThatAreRefused(text: String, field: String) throws {
        let refused = try #require(refusal { _ = try ReportPolicy(json: Array(text.utf8)) })
        #expect(refused.field == field && refused.category == .unusablePolicy, "\(refused)")
    }

    @Test func fieldsAsText() throws {
        let report = try AttestationReport(bytes: TestReport(TestChain.turin(), version: 5).signed)
        let fields = Dictionary(uniqueKeysWithValues: report.fields.map { ($0.name, $0.value) })
        #expect(fields["POLICY"] == "0x30000 (ABI 0.0, SMT allowed)")
        #expect(fields["REPORTED_TCB"] == "fmcSPL=1 blSPL=1 teeSPL=1 snpSPL=4 ucodeSPL=81")
        #expect(fields["PLATFORM_INFO"] == "0x25 (smt, ecc, alias-check)")
        #expect(fields["CURRENT_VERSION"] == "1.55.29" && fields["LAUNCH_MIT_VECTOR"] == "0x0")
        let old = try AttestationReport(bytes: TestReport(TestChain(), version: 2).signed).fields.map(\.name)
        #expect(!old.contains("CPUID_FAM_ID") && !old.contains("LAUNCH_MIT_VECTOR"))
    }

    /// The schema and the reader have the same members, and take the schema's examples.
    @Test func schemaDescribesTheReader() throws {
        let folder = PackageFolder.path + "/Sources/Attestation/Attestation.docc/"
        let file = try #require(readFile(folder + "Resources/policy.schema.json"))
        guard case .object(let members)? = try JSONInput(text: file)["properties"] else {
            Issue.record("the schema has no properties")
            return
        }
        #expect(members.map(\.name).sorted() == ReportPolicy.memberNames.sorted())
        let manual = String(decoding: try #require(readFile(folder + "PolicyFile.md")), as: UTF8.self)
        for member in members {
            #expect(manual.contains("`\(member.name)`"), "PolicyFile.md does not have \(member.name)")
            guard case .array(let examples)? = member.value["examples"], !examples.isEmpty else {
                Issue.record("no example of \(member.name)")
                continue
            }
            for example in examples {
                let text = "{\"\(member.name)\": \(Self.text(example))}"
                #expect(throws: Never.self, "\(text)") { try ReportPolicy(json: Array(text.utf8)) }
            }
            #expect(throws: AttestationError.self) {
                try ReportPolicy(json: Array("{\"\(member.name)\": [[]]}".utf8))
            }
        }
    }

    private static func text(_ value: JSONInput) -> String {
        switch value {
        case .null: "null"
        case .bool(let flag): "\(flag)"
        case .number(let number): "\(number)"
        case .string(let text): "\"\(text)\""
        case .array(let values): "[" + values.map(text).joined(separator: ",") + "]"
        case .object(let members):
            "{" + members.map { "\"\($0.name)\":\(text($0.value))" }.joined(separator: ",") + "}"
        }
    }
}
