// A report as lines of text, in the order of its fields.

import SEVABI

extension AttestationReport {
    /// Every field by its name in the specification; what this version does not have is left out.
    public var fields: [(name: String, value: String)] {
        var fields: [(String, String)] = [
            ("VERSION", "\(version)"), ("GUEST_SVN", "\(guestSVN)"), ("POLICY", Self.policyText(policy)),
            ("FAMILY_ID", hexText(familyID)), ("IMAGE_ID", hexText(imageID)), ("VMPL", "\(vmpl)"),
            ("SIGNATURE_ALGO", "1 (ECDSA P-384 with SHA-384)"), ("CURRENT_TCB", tcbText(currentTCB)),
            ("PLATFORM_INFO", platformInfo.text), ("AUTHOR_KEY_EN", keyInformation.hasAuthorKey ? "1" : "0"),
            ("MASK_CHIP_KEY", keyInformation.masksChipKey ? "1" : "0"), ("SIGNING_KEY", "\(keyInformation.signingKey)"),
            ("REPORT_DATA", hexText(reportData)), ("MEASUREMENT", hexText(measurement)),
            ("HOST_DATA", hexText(hostData)), ("ID_KEY_DIGEST", idKeyDigest.map { hexText($0) } ?? "none"),
            ("AUTHOR_KEY_DIGEST", authorKeyDigest.map { hexText($0) } ?? "none"), ("REPORT_ID", hexText(reportID)),
            ("REPORT_ID_MA", migrationAgentReportID.map { hexText($0) } ?? "none (no migration agent)"),
            ("REPORTED_TCB", tcbText(reportedTCB)),
        ]
        if let processor {
            fields.append(("CPUID_FAM_ID", "\(processor.family)"))
            fields.append(("CPUID_MOD_ID", "\(processor.model)"))
            fields.append(("CPUID_STEP", "\(processor.stepping)"))
        }
        fields += [
            ("CHIP_ID", chipID.map { hexText($0) } ?? "masked"), ("COMMITTED_TCB", tcbText(committedTCB)),
            ("CURRENT_VERSION", "\(currentVersion)"), ("COMMITTED_VERSION", "\(committedVersion)"),
            ("LAUNCH_TCB", tcbText(launchTCB)),
        ]
        if let launchMitigationVector, let currentMitigationVector {
            fields.append(("LAUNCH_MIT_VECTOR", hexText(launchMitigationVector)))
            fields.append(("CURRENT_MIT_VECTOR", hexText(currentMitigationVector)))
        }
        return fields
    }

    private func tcbText(_ value: UInt64) -> String {
        guard let layout, let versions = SecurityVersions(tcbVersion: value, of: layout) else {
            return hexText(value) + " (the product is not known)"
        }
        return "\(versions)"
    }

    private static func policyText(_ policy: GuestPolicy) -> String {
        let names: [(Bool, String)] = [
            (policy.allowsSMT, "SMT allowed"), (policy.allowsMigrationAgent, "MIGRATION AGENT ALLOWED"),
            (policy.allowsDebug, "DEBUG ALLOWED"), (policy.requiresSingleSocket, "single socket"),
            (policy.allowsCXL, "CXL allowed"), (policy.requiresAES256, "AES-256"),
            (policy.requiresRAPLDisabled, "RAPL off"), (policy.requiresCiphertextHiding, "ciphertext hiding"),
            (policy.disablesPageSwap, "no page swap"),
        ]
        let parts = ["ABI \(policy.minimumABIMajor).\(policy.minimumABIMinor)"] + names.filter(\.0).map(\.1)
        return "\(hexText(policy.rawValue)) (\(parts.joined(separator: ", ")))"
    }
}
