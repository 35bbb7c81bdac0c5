// Is this report genuine: signed by the key of this chip at this TCB?

import Crypto
import SEVABI

/// A report that is genuine. Whether it is about the guest that was wanted is for ``ReportPolicy``.
public struct VerifiedReport: Sendable {
    public let report: AttestationReport
    public let product: ProductLine
    public let endorsement: EndorsementCertificate
    public let standing: RootStanding
    /// CHIP_ID was masked, so it could not be compared with the certificate's.
    public let chipIDIsMasked: Bool
    /// Certificates were valid at a time that the caller gave; otherwise dates were not looked at.
    public let datesChecked: Bool
    /// A revocation list was looked at.
    public let revocationsChecked: Bool
    public let currentTCB: SecurityVersions
    public let reportedTCB: SecurityVersions
    public let committedTCB: SecurityVersions
    public let launchTCB: SecurityVersions

    /// What everybody who sees the result has to know.
    public var warnings: [String] { standing.warning.map { [$0] } ?? [] }
}

extension EndorsementChain {
    /// Verifies a report: the signature over the bytes as they came, and that report and certificate belong together.
    ///
    /// - Parameters:
    ///   - bytes: The report, 1184 bytes.
    ///   - time: Seconds since 1970-01-01 UTC at which all certificates must be valid; nil: dates are not checked.
    /// - Throws: ``AttestationError``.
    public func verify(_ bytes: [UInt8], at time: Int64? = nil) throws(AttestationError) -> VerifiedReport {
        let report = try AttestationReport(bytes: bytes)
        if let time { try checkValidity(at: time) }
        guard !report.keyInformation.masksChipKey, report.keyInformation.signingKey != .none else {
            throw refusal(
                .signature, "key information", expected: "a report that is signed",
                found: report.keyInformation.masksChipKey ? "MASK_CHIP_KEY set" : "SIGNING_KEY none",
                cause: "the host configured the platform not to sign (SNP_CONFIG)",
                next: "clear MASK_CHIP_KEY on the host, and fetch the report again")
        }
        guard report.keyInformation.signingKey == leaf.kind else {
            throw refusal(
                .binding, "SIGNING_KEY", expected: "\(leaf.kind), the certificate that was given",
                found: "\(report.keyInformation.signingKey)", cause: "the certificate of the other kind of key",
                next: "give the \(report.keyInformation.signingKey) certificate")
        }
        try checkProcessor(of: report)
        guard
            leaf.key.isValidSignature(
                littleEndianR: report.signatureR, s: report.signatureS, of: report.signedBytes, hash: .sha384)
        else { throw signatureRefusal(report) }
        let reported = try versions(report.reportedTCB, "REPORTED_TCB")
        for (mine, certified) in zip(reported.components, leaf.versions.components) where mine.value != certified.value
        {
            throw tcbRefusal(reported)
        }
        try checkChipID(of: report)
        return VerifiedReport(
            report: report, product: leaf.product, endorsement: leaf, standing: standing,
            chipIDIsMasked: report.chipID == nil, datesChecked: time != nil, revocationsChecked: revocationsChecked,
            currentTCB: try versions(report.currentTCB, "CURRENT_TCB"), reportedTCB: reported,
            committedTCB: try versions(report.committedTCB, "COMMITTED_TCB"),
            launchTCB: try versions(report.launchTCB, "LAUNCH_TCB"))
    }

    private func checkProcessor(of report: AttestationReport) throws(AttestationError) {
        guard let processor = report.processor else { return }
        let found: String
        switch ProductLine.identify(family: processor.family, model: processor.model) {
        case .known(leaf.product): return
        case .known(let other): found = other.rawValue
        case .unsupported(let name): found = "\(name), which is not supported"
        case .unknown: found = "no product that is known here"
        }
        throw refusal(
            .binding, "CPUID family and model", expected: "\(leaf.product), as the certificate",
            found: "\(found) (family \(hexText(processor.family)), model \(hexText(processor.model)))",
            cause: "the certificate of another machine, or a product that is newer than this program",
            next: "use the certificate of the machine that made the report")
    }

    private func checkChipID(of report: AttestationReport) throws(AttestationError) {
        // A VLEK is not bound to a chip, and a host may mask the chip id.
        guard let hardwareID = leaf.hardwareID, let chipID = report.chipID else { return }
        let count = hardwareID.count
        guard chipID.prefix(count).elementsEqual(hardwareID), chipID.dropFirst(count).allSatisfy({ $0 == 0 }) else {
            throw refusal(
                .binding, "CHIP_ID", expected: "\(hexText(hardwareID)), the certificate's hwID",
                found: hexText(chipID), cause: "the certificate of another chip",
                next: "use the VCEK of the chip that made the report")
        }
    }

    /// A signature that does not verify, with the cause that report and certificate let one guess.
    private func signatureRefusal(_ report: AttestationReport) -> AttestationError {
        var cause = "the report was changed after it was signed"
        var next = "fetch the report again, and hand it on unchanged"
        if let hardwareID = leaf.hardwareID, let chipID = report.chipID, !chipID.starts(with: hardwareID) {
            cause =
                "the certificate is another chip's: its hwID is \(hexText(hardwareID)), CHIP_ID is \(hexText(chipID))"
            next = "use the VCEK of the chip that made the report"
        } else if let reported = SecurityVersions(tcbVersion: report.reportedTCB, of: leaf.product),
            reported != leaf.versions
        {
            cause = "the certificate is for another TCB (\(leaf.versions)) than REPORTED_TCB (\(reported))"
            next = "use the certificate for REPORTED_TCB"
        }
        return refusal(
            .signature, "SIGNATURE", expected: "a valid one by the \(leaf.kind)'s key",
            found: "one that does not verify",
            cause: cause, next: next)
    }

    private func tcbRefusal(_ reported: SecurityVersions) -> AttestationError {
        refusal(
            .binding, "REPORTED_TCB", expected: "\(leaf.versions), the certificate's", found: "\(reported)",
            cause: "the certificate for another TCB of the same chip", next: "use the certificate for REPORTED_TCB")
    }

    private func versions(_ value: UInt64, _ field: String) throws(AttestationError) -> SecurityVersions {
        guard let versions = SecurityVersions(tcbVersion: value, of: leaf.product) else {
            throw refusal(
                .binding, field, expected: "TCB_VERSION as \(leaf.product) has it, reserved bytes zero",
                found: hexText(value), cause: "the report of another product",
                next: "use the certificate of the machine that made the report")
        }
        return versions
    }

    private func refusal(
        _ category: AttestationError.Category, _ field: String, expected: String, found: String, cause: String,
        next: String
    ) -> AttestationError {
        AttestationError(
            category, attempt: "verify the report", subject: "report", field: field, expected: expected, found: found,
            likelyCause: cause, nextStep: next)
    }
}
