// MSG_REPORT: a signed report about the guest that asks.

import Crypto
import SEVABI

extension Firmware {
    /// MSG_REPORT_REQ [SNP 7.3]. Nil for a version or length that does not exist.
    ///
    /// STATUS is INVALID_PARAM for reserved bits, a VMPL that the sender may not speak for, or a reserved KEY_SEL;
    /// INVALID_KEY for a VLEK that is not loaded or too old, or a VCEK that the launch has disabled.
    mutating func report(_ message: Message, _ context: GuestContext) -> [UInt8]? {
        guard message.version == 1, let request = ReportRequest(bytes: message.payload) else { return nil }
        guard request.hasValidReservedBits, message.maySpeak(for: request.vmpl) else {
            return ReportResponse(status: .invalidParameters).bytes
        }
        switch endorsementKind(request.keySelection, for: context) {
        case .failure(let error): return ReportResponse(status: error.status).bytes
        case .success(let kind): return ReportResponse(report: signedReport(request, context, kind)).bytes
        }
    }

    private mutating func signedReport(
        _ request: ReportRequest, _ context: GuestContext, _ kind: EndorsementKeyKind
    ) -> [UInt8] {
        var body = reportBody(of: context)
        body.vmpl = request.vmpl
        body.reportData = request.reportData
        // A platform that masks its key signs nothing: the signature is zeroes.
        guard !masksChipKey, let secret = endorsementSecret(kind) else {
            body.signingKey = .none
            return body.report(signature: nil)
        }
        body.signingKey = kind == .vlek ? .vlek : .vcek
        let (r, s) = EndorsementKey.signingKey(from: secret).sign(body.bytes, hash: .sha384)
        return body.report(signature: SignatureField(r: r, s: s))
    }

    /// What is true of platform and guest, whoever asks.
    private mutating func reportBody(of context: GuestContext) -> AttestationReportBody {
        let profile = profile
        var body = AttestationReportBody(version: profile.reportVersion)
        body.policy = context.policy
        body.measurement = context.pageInfo.currentDigest
        body.hostData = context.hostData
        body.reportID = context.reportID
        if let block = context.idBlock {
            body.guestSVN = block.guestSVN
            body.familyID = (0..<16).map { block.familyID[$0] }
            body.imageID = (0..<16).map { block.imageID[$0] }
            body.idKeyDigest = context.idKeyDigest
            body.authorKeyDigest = context.authorKeyDigest
            body.hasAuthorKey = context.hasAuthorKey
        }
        body.launchTCB = context.launchTCB
        body.launchMitigationVector = context.launchMitigationVector

        body.platformInformation = platformInformation
        body.currentTCB = profile.currentTCB
        body.committedTCB = committedTCB
        body.reportedTCB = reportedTCB
        body.currentMitigationVector = profile.mitigationVector
        body.fms = profile.fms
        // There is one firmware, so what runs is what is committed.
        body.currentVersion = ReportedFirmwareVersion(
            major: profile.apiMajor, minor: profile.apiMinor, build: profile.build)
        body.committedVersion = body.currentVersion
        body.masksChipKey = masksChipKey
        if !masksChipID { body.chipID = withIdentity { $0.chipID(socket: 0, of: profile.product) } }
        return body
    }

    private var platformInformation: PlatformInformation {
        var result: PlatformInformation = []
        if profile.smtEnabled { result.insert(.smtEnabled) }
        if profile.raplDisabled { result.insert(.raplDisabled) }
        if profile.ciphertextHiding { result.insert(.ciphertextHidingEnabled) }
        // Known since ABI 1.55.
        if (profile.apiMajor, profile.apiMinor) >= (1, 55) { result.insert(.aliasCheckComplete) }
        return result
    }
}
