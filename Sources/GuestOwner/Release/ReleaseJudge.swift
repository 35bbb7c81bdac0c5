// Is this report genuine, fresh, for this key, and of a guest that the owner wants? The order of the checks is the order of
// trust: nothing in a report is compared before its signature is known to be good.

import Attestation
import Crypto
import SecretRelease

/// Judges reports for the release of secrets.
public struct ReleaseJudge: Sendable {
    public let policy: ReleasePolicy

    public init(_ policy: ReleasePolicy) { self.policy = policy }

    /// Appraises a report that somebody sent.
    ///
    /// - Parameters:
    ///   - report: 1184 bytes.
    ///   - certificates: Files as ``CertificatePool/add(_:name:)`` takes them; they are not trusted, only used.
    ///   - reportData: What must stand in REPORT_DATA: 64 bytes.
    ///   - time: Seconds since 1970-01-01 UTC.
    public func appraise(
        report bytes: [UInt8], certificates: [[UInt8]], reportData: [UInt8], at time: Int64
    ) throws(ReleaseRefusal) -> VerifiedReport {
        let report: AttestationReport
        do throws(AttestationError) { report = try AttestationReport(bytes: bytes) } catch {
            throw ReleaseRefusal(error)
        }
        var pool = policy.certificates
        for file in certificates where !file.isEmpty {
            do throws(AttestationError) { try pool.add(file, name: "the guest's certificates") } catch {
                throw ReleaseRefusal(.certificates, "the certificates that came along", causes: [error.description])
            }
        }
        for root in policy.trustedRoots.named { pool.add(root) }
        let verified: VerifiedReport
        do throws(AttestationError) {
            verified = try pool.chain(for: report, trusted: policy.trustedRoots)
                .verify(bytes, at: policy.checksDates ? time : nil)
        } catch { throw ReleaseRefusal(error) }
        var wanted = policy.report
        wanted.reportData = [reportData]
        var refusals = wanted.refusals(of: verified)
        // A report for something else says nothing about the rest: that is its reason, whatever else is wrong.
        if let index = refusals.firstIndex(where: { $0.field == "REPORT_DATA" }) {
            refusals.insert(refusals.remove(at: index), at: 0)
        }
        guard refusals.isEmpty else { throw ReleaseRefusal(refusals) }
        return verified
    }

    /// The secret of this name. Only for somebody whose report was accepted: others must not learn which names exist.
    public func secret(_ id: SecretID) throws(ReleaseRefusal) -> SecretBytes {
        guard let secret = policy.secrets[id] else {
            throw ReleaseRefusal(.unknownSecret, "this owner has no secret of that name")
        }
        return secret
    }
}
