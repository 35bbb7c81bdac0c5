// A line of the audit log. Secrets are never in one: it has no place for them.

import Attestation
import JSONText
import SecretRelease

/// One decision, for the log.
public struct ReleaseRecord: Sendable {
    public enum Decision: String, Sendable {
        /// A secret was released.
        case release
        /// Somebody was accepted, and may ask for secrets (RCAR).
        case accept
        /// Somebody was refused.
        case refuse
        /// Somebody went away, or was too slow, before there was anything to decide.
        case none
    }

    /// Seconds since 1970-01-01 UTC.
    public var time: Int64
    /// Where it came from, as far as the transport knows: "unix", "http 192.0.2.1:4242".
    public var peer: String
    public var decision: Decision
    /// "released", or the refusal's reason.
    public var reason: String
    /// What was asked for; nil when it is not known.
    public var secret: SecretID?
    /// Everything that was wrong.
    public var causes: [String] = []
    /// The report's fields; of a report that was not accepted they are claims. Nil when there was none.
    public var report: Report?

    /// What a report says.
    public struct Report: Sendable {
        /// Its signature and chain were good.
        public var isGenuine: Bool
        public var version: UInt32
        public var chipID: [UInt8]?
        public var measurement: [UInt8]
        public var hostData: [UInt8]
        public var reportID: [UInt8]
        public var policy: UInt64
        public var vmpl: UInt32
        /// REPORTED_TCB; raw unless the report is genuine, since its layout depends on the product.
        public var tcb: String
        /// Who vouches: "AMD Milan" or the root's name.
        public var root: String?

        /// Nil for what is no report.
        init?(claimed bytes: [UInt8]) {
            guard let report = try? AttestationReport(bytes: bytes) else { return nil }
            self.init(report, isGenuine: false, tcb: "0x" + String(report.reportedTCB, radix: 16), root: nil)
        }

        init(_ verified: VerifiedReport) {
            let root =
                switch verified.standing {
                case .amd(let product): "AMD \(product)"
                case .named(let name), .software(let name): "named by the owner: \(name)"
                }
            self.init(verified.report, isGenuine: true, tcb: "\(verified.reportedTCB)", root: root)
        }

        private init(_ report: AttestationReport, isGenuine: Bool, tcb: String, root: String?) {
            self.isGenuine = isGenuine
            version = report.version
            chipID = report.chipID
            measurement = report.measurement
            hostData = report.hostData
            reportID = report.reportID
            policy = report.policy.rawValue
            vmpl = report.vmpl
            self.tcb = tcb
            self.root = root
        }
    }

    /// One line of JSON, without its end.
    public var line: String {
        var object = JSONObject()
        // 2026-11-23T10:15:00Z [RFC 3339].
        let utc = utcText(time).split(separator: " ")
        object.add("time", utc.count == 3 ? "\(utc[0])T\(utc[1])Z" : utcText(time))
        object.add("peer", peer)
        object.add("decision", decision.rawValue)
        object.add("reason", reason)
        if let secret { object.add("secret", secret.text) }
        if let report {
            var fields = JSONObject()
            fields.add("genuine", report.isGenuine)
            fields.add("version", report.version)
            fields.add("chipID", report.chipID.map { hexText($0) } ?? "masked")
            fields.add("measurement", hexText(report.measurement))
            fields.add("tcb", report.tcb)
            fields.add("policy", hex: report.policy)
            fields.add("vmpl", report.vmpl)
            fields.add("hostData", hexText(report.hostData))
            fields.add("reportID", hexText(report.reportID))
            if let root = report.root { fields.add("root", root) }
            object.add("report", fields)
        }
        if !causes.isEmpty { object.add("causes", causes) }
        return object.text
    }
}
