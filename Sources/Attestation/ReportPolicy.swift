// What a guest must be for its owner. The default refuses whatever the owner did not ask for.

import SEVABI

/// The owner's policy for reports.
///
/// Of the lists, nil means "not compared" and an empty one "nothing is good enough": a policy must say what it wants, or say
/// that it does not care.
public struct ReportPolicy: Sendable {
    /// MEASUREMENT: launch digests of 48 bytes. Empty by default: name yours.
    public var measurements: [[UInt8]]? = []
    /// REPORT_DATA: values of 64 bytes. Empty by default: name the nonce or key digest that the guest was to put there.
    public var reportData: [[UInt8]]? = []
    /// HOST_DATA: values of 32 bytes. Zeroes by default, which is what a guest launched without host data has.
    public var hostData: [[UInt8]]? = [[UInt8](repeating: 0, count: 32)]
    /// Digests of ID keys of which one must have signed the guest's ID block; nil by default.
    public var idKeyDigests: [[UInt8]]?
    /// Digests of author keys of which one must have signed the ID key; nil by default.
    public var authorKeyDigests: [[UInt8]]?
    /// FAMILY_ID, 16 bytes. Needs ``idKeyDigests`` or ``authorKeyDigests``: anybody can sign an ID block.
    public var familyID: [UInt8]?
    /// IMAGE_ID, 16 bytes. Needs ``idKeyDigests`` or ``authorKeyDigests``.
    public var imageID: [UInt8]?
    /// GUEST_SVN. More than 0 needs ``idKeyDigests`` or ``authorKeyDigests``.
    public var minimumGuestSVN: UInt32 = 0
    /// CHIP_ID: machines of which one must have made the report, 64 bytes each; nil by default.
    public var chipIDs: [[UInt8]]?
    /// VMPL that the report may have been requested for: 0 by default, the most privileged one.
    public var vmpls: ClosedRange<UInt32> = 0...0
    /// POLICY.DEBUG: the host may read and write the guest's memory.
    public var allowsDebug = false
    /// POLICY.MIGRATE_MA, and REPORT_ID_MA that is set.
    public var allowsMigrationAgent = false
    /// POLICY.SMT and PLATFORM_INFO's SMT bit. True by default: KVM launches no guest without the policy's bit.
    public var allowsSMT = true
    /// POLICY.CXL_ALLOW.
    public var allowsCXL = false
    /// Bits of POLICY that must be set: single socket, AES-256, RAPL, ciphertext hiding, page swap.
    public var requiredGuestPolicy = GuestPolicy(rawValue: 0)
    /// POLICY must be this and nothing else.
    public var exactGuestPolicy: GuestPolicy?
    /// POLICY's ABI_MAJOR and ABI_MINOR must be at least these: the guest must not have run on older firmware.
    public var minimumPolicyABI: AttestationReport.FirmwareVersion?
    /// PLATFORM_INFO bits that must be set.
    public var requiredPlatformInfo: PlatformInfo = []
    /// PLATFORM_INFO bits that must not be set. Bits that have no meaning yet are always refused.
    public var forbiddenPlatformInfo: PlatformInfo = []
    /// REPORTED_TCB, by component; it is at most the committed and the current one. A component that this or the product
    /// lacks is not compared.
    public var minimumTCB: SecurityVersions?
    /// LAUNCH_TCB, by component; nil: ``minimumTCB`` counts for it, too.
    public var minimumLaunchTCB: SecurityVersions?
    /// Firmware version, of the committed and of the current firmware.
    public var minimumFirmware: AttestationReport.FirmwareVersion?
    /// Current firmware or TCB that is not committed: the host can still go back.
    public var allowsProvisionalFirmware = false
    /// Which keys may sign. Both by default; a VLEK vouches for a provider, not for a chip.
    public var signingKeys: Set<SigningKey> = [.vcek, .vlek]
    /// CHIP_ID that is zero because the host masks it; meaningless for a VLEK.
    public var allowsMaskedChipID = true

    public init() {}
}

extension ReportPolicy {
    /// Compares a genuine report with the policy.
    ///
    /// - Throws: The first refusal; ``refusals(of:)`` gives all.
    public func validate(_ verified: VerifiedReport) throws(AttestationError) {
        if let refusal = refusals(of: verified).first { throw refusal }
    }

    /// Every field that is not as the policy wants it; empty when the report is accepted.
    public func refusals(of verified: VerifiedReport) -> [AttestationError] {
        if let refusal = unusable { return [refusal] }
        var check = PolicyCheck(report: verified.report)
        compareContents(&check)
        compareIdentity(&check)
        compareGuestPolicy(&check)
        comparePlatform(&check, verified)
        return check.refusals
    }

    /// A policy that could only be a mistake, and refuses every report; nil for one that can be used.
    public var unusable: AttestationError? {
        func wrong(_ field: String, _ expected: String, _ found: String) -> AttestationError {
            AttestationError(
                .unusablePolicy, attempt: "use the policy", subject: "policy", field: field, expected: expected,
                found: found, likelyCause: "a mistake in the policy", nextStep: "correct the policy")
        }
        let lists: [(String, [[UInt8]]?, Int)] = [
            ("measurement", measurements, 48), ("report data", reportData, 64), ("host data", hostData, 32),
            ("ID key digest", idKeyDigests, 48), ("author key digest", authorKeyDigests, 48),
            ("family id", familyID.map { [$0] }, 16), ("image id", imageID.map { [$0] }, 16), ("chip id", chipIDs, 64),
        ]
        for (name, values, count) in lists {
            if let value = values?.first(where: { $0.count != count }) {
                return wrong(name, "\(count) bytes", "\(value.count) bytes")
            }
        }
        if familyID != nil || imageID != nil || minimumGuestSVN > 0, idKeyDigests == nil, authorKeyDigests == nil {
            return wrong(
                "family id, image id or guest SVN", "an ID key or author key digest with them",
                "none: anybody can sign an ID block that claims them")
        }
        return nil
    }

    private func compareContents(_ check: inout PolicyCheck) {
        let report = check.report
        check.oneOf(
            "MEASUREMENT", measurements, report.measurement,
            cause: "another image, command line, number or type of vCPUs, or guest features than measured",
            next: "compute the digest with `measure` from the files and options of the launch")
        check.oneOf(
            "REPORT_DATA", reportData, report.reportData,
            cause: "a report that was made for another nonce, or replayed", next: "ask the guest for a fresh report")
        check.oneOf(
            "HOST_DATA", hostData, report.hostData, cause: "the host launched the guest with other host data",
            next: "launch with the host data that the policy names, or name what was used")
        check.require(
            vmpls.contains(report.vmpl), "VMPL",
            expected: vmpls.count == 1 ? "\(vmpls.lowerBound)" : "\(vmpls.lowerBound) to \(vmpls.upperBound)",
            found: "\(report.vmpl)", cause: "the report was requested by or for less privileged software",
            next: "have the software at the wanted VMPL request it, or allow this one")
    }

    private func compareIdentity(_ check: inout PolicyCheck) {
        let report = check.report
        let none = [UInt8](repeating: 0, count: 48)
        check.oneOf(
            "ID_KEY_DIGEST", idKeyDigests, report.idKeyDigest ?? none,
            cause: report.idKeyDigest == nil ? "a launch without an ID block" : "an ID block signed with another key",
            next: "launch with the ID block of the key that the policy names")
        check.oneOf(
            "AUTHOR_KEY_DIGEST", authorKeyDigests, report.authorKeyDigest ?? none,
            cause: report.authorKeyDigest == nil ? "an ID block without an author key" : "another author key",
            next: "launch with an ID block whose ID key the named author key has signed")
        check.oneOf(
            "FAMILY_ID", familyID.map { [$0] }, report.familyID, cause: "the ID block of another family",
            next: "launch with the right ID block")
        check.oneOf(
            "IMAGE_ID", imageID.map { [$0] }, report.imageID, cause: "the ID block of another image",
            next: "launch with the right ID block")
        check.require(
            report.guestSVN >= minimumGuestSVN, "GUEST_SVN", expected: "at least \(minimumGuestSVN)",
            found: "\(report.guestSVN)", cause: "the ID block of an older image", next: "launch the newer image")
    }

    private func compareGuestPolicy(_ check: inout PolicyCheck) {
        let policy = check.report.policy
        let launch = "launch the guest with another policy (`--policy`)"
        check.require(
            policy.hasValidReservedBits, "POLICY", expected: "bit 17 set, bits 63:26 zero",
            found: hexText(policy.rawValue), cause: "policy bits that are newer than this program", next: launch)
        if let exactGuestPolicy {
            check.require(
                policy == exactGuestPolicy, "POLICY", expected: hexText(exactGuestPolicy.rawValue),
                found: hexText(policy.rawValue), cause: "launched with another policy", next: launch)
        }
        check.require(
            allowsDebug || !policy.allowsDebug, "POLICY.DEBUG", expected: "0", found: "1",
            cause: "a debug launch: the host can read and write the guest's memory", next: launch)
        check.require(
            allowsMigrationAgent || !policy.allowsMigrationAgent, "POLICY.MIGRATE_MA", expected: "0", found: "1",
            cause: "a migration agent may be bound, which then has the guest's keys", next: launch)
        if !allowsMigrationAgent, let agent = check.report.migrationAgentReportID {
            check.require(
                false, "REPORT_ID_MA", expected: "all ones (no migration agent)", found: hexText(agent),
                cause: "a migration agent is bound, which has the guest's keys", next: "launch without one")
        }
        check.require(
            allowsSMT || !policy.allowsSMT, "POLICY.SMT", expected: "0", found: "1",
            cause: "the guest may share a core with others", next: launch)
        check.require(
            allowsCXL || !policy.allowsCXL, "POLICY.CXL_ALLOW", expected: "0", found: "1",
            cause: "the guest's memory may be behind CXL", next: launch)
        let missing = requiredGuestPolicy.rawValue & ~policy.rawValue
        check.require(
            missing == 0, "POLICY", expected: "bits \(hexText(requiredGuestPolicy.rawValue)) set",
            found: "\(hexText(policy.rawValue)), which lacks \(hexText(missing))",
            cause: "launched with another policy",
            next: launch)
        if let minimumPolicyABI {
            let abi = AttestationReport.FirmwareVersion(major: policy.minimumABIMajor, minor: policy.minimumABIMinor)
            check.require(
                abi >= AttestationReport.FirmwareVersion(major: minimumPolicyABI.major, minor: minimumPolicyABI.minor),
                "POLICY.ABI_MAJOR and ABI_MINOR",
                expected: "at least \(minimumPolicyABI.major).\(minimumPolicyABI.minor)",
                found: "\(abi.major).\(abi.minor)", cause: "launched with another policy", next: launch)
        }
    }

    private func comparePlatform(_ check: inout PolicyCheck, _ verified: VerifiedReport) {
        let report = check.report
        let info = report.platformInfo
        let host = "configure the host, or allow it in the policy"
        let unknown = info.subtracting(.known)
        check.require(
            unknown.isEmpty, "PLATFORM_INFO", expected: "bits 63:8 zero", found: info.text,
            cause: "firmware that is newer than this program", next: "use a program that knows these bits")
        check.require(
            info.isSuperset(of: requiredPlatformInfo), "PLATFORM_INFO", expected: "\(requiredPlatformInfo.text) set",
            found: info.text, cause: "the host is configured otherwise, or has older firmware", next: host)
        var forbidden = forbiddenPlatformInfo
        if !allowsSMT { forbidden.insert(.smt) }
        check.require(
            info.isDisjoint(with: forbidden), "PLATFORM_INFO", expected: "\(forbidden.text) clear", found: info.text,
            cause: "the host is configured otherwise", next: host)
        compareVersions(&check, verified)
        check.require(
            signingKeys.contains(verified.endorsement.kind), "SIGNING_KEY",
            expected: signingKeys.map(\.description).sorted().joined(separator: " or "),
            found: "\(verified.endorsement.kind)", cause: "the provider signs with another kind of key",
            next: "have the guest ask for the other key (KEY_SEL), or allow this one")
        if let chipIDs {
            check.oneOf(
                "CHIP_ID", chipIDs, report.chipID ?? [UInt8](repeating: 0, count: 64), cause: "another machine",
                next: "run the guest on a machine that the policy names")
        }
        check.require(
            allowsMaskedChipID || !verified.chipIDIsMasked, "CHIP_ID", expected: "one that is not masked",
            found: "zeroes",
            cause: "the host masks it (MASK_CHIP_ID), or signs with a VLEK", next: host)
    }

    private func compareVersions(_ check: inout PolicyCheck, _ verified: VerifiedReport) {
        let report = check.report
        for (field, versions, least) in [
            ("REPORTED_TCB", verified.reportedTCB, minimumTCB),
            ("LAUNCH_TCB", verified.launchTCB, minimumLaunchTCB ?? minimumTCB),
        ] {
            guard let least, let below = versions.firstBelow(least) else { continue }
            check.require(
                false, field, expected: "\(below.name) at least \(below.least)", found: "\(below.value) (\(versions))",
                cause: "older firmware or microcode", next: "update the host, and launch the guest again")
        }
        // The firmware keeps this order; a report without it cannot mean what its fields say.
        for (field, lower, name, upper) in [
            ("COMMITTED_TCB", verified.committedTCB, "CURRENT_TCB", verified.currentTCB),
            ("LAUNCH_TCB", verified.launchTCB, "CURRENT_TCB", verified.currentTCB),
            ("REPORTED_TCB", verified.reportedTCB, "COMMITTED_TCB", verified.committedTCB),
        ] {
            guard let above = upper.firstBelow(lower) else { continue }
            check.require(
                false, field, expected: "no component above \(name) (\(upper))",
                found: "\(above.name) is \(above.least)", cause: "firmware that does not keep its own rules",
                next: "do not trust this platform; tell AMD")
        }
        if let minimumFirmware {
            for (field, version) in [("CURRENT", report.currentVersion), ("COMMITTED", report.committedVersion)] {
                check.require(
                    version >= minimumFirmware, "\(field)_MAJOR, MINOR and BUILD",
                    expected: "at least \(minimumFirmware)",
                    found: "\(version)", cause: "older firmware", next: "update the host's firmware, and commit it")
            }
        }
        check.require(
            allowsProvisionalFirmware
                || (report.currentVersion == report.committedVersion && report.currentTCB == report.committedTCB),
            "CURRENT_TCB and version",
            expected: "the committed ones (\(verified.committedTCB), \(report.committedVersion))",
            found: "\(verified.currentTCB), \(report.currentVersion)",
            cause: "an update that the host has not committed: it can still go back",
            next: "have the host commit it (SNP_COMMIT), or allow provisional firmware")
    }
}

/// Collects refusals.
private struct PolicyCheck {
    let report: AttestationReport
    var refusals: [AttestationError] = []

    init(report: AttestationReport) { self.report = report }

    mutating func require(
        _ holds: Bool, _ field: String, expected: @autoclosure () -> String, found: @autoclosure () -> String,
        cause: String, next: String
    ) {
        guard !holds else { return }
        refusals.append(
            AttestationError(
                .policy, attempt: "accept the report", subject: "report", field: field, expected: expected(),
                found: found(), likelyCause: cause, nextStep: next))
    }

    mutating func oneOf(_ field: String, _ values: [[UInt8]]?, _ found: [UInt8], cause: String, next: String) {
        guard let values else { return }
        guard !values.isEmpty else {
            return require(
                false, field, expected: "a value that the policy names", found: "\(hexText(found)), and none named",
                cause: "a policy that does not say what it wants", next: "name the value, or say that any will do")
        }
        require(
            values.contains(found), field, expected: values.map { hexText($0) }.joined(separator: " or "),
            found: hexText(found), cause: cause, next: next)
    }
}
