// `certs show`: what there is, whose it is, how long it lasts, and whether it chains.

import ArgumentParser
import Attestation
import CProcess
import SNPVMM

extension Certs {
    struct Show: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "show", abstract: "Prints what a store, a folder, a file or a certificate table holds.",
            discussion: """
                Nothing is trusted by that: every entry says which root it chains to, or why it does not. Exit status 3 when a \
                file has the name of a certificate and is none.

                Example: swift-snp-vmm certs show store --json
                """)

        @Argument(help: ArgumentHelp("A store, or anything else with certificates.", valueName: "path"))
        var path: String
        @Flag(help: "Prints one JSON object.")
        var json = false

        func run() throws {
            var pool = CertificatePool()
            var parts: [(name: String, contents: CertificatePool)] = []
            var damaged: [(name: String, error: AttestationError)] = []
            for (name, bytes) in try Certs.sources(path).files {
                var contents = CertificatePool()
                do throws(AttestationError) {
                    try contents.add(bytes, name: printable(name))
                } catch {
                    damaged.append((name, error))
                }
                for certificate in contents.certificates { pool.add(certificate) }
                for list in contents.revocationLists { pool.add(list) }
                parts.append((name, contents))
            }
            let entries = parts.flatMap { name, contents in
                contents.certificates.map { (name, CertificateListing($0, in: pool)) }
                    + contents.revocationLists.map { (name, CertificateListing($0, in: pool)) }
            }
            if json {
                var object = JSONObject()
                object.add("certificates", entries.map { Self.json($0, $1) })
                object.add(
                    "damaged",
                    damaged.map { JSONObject([("file", $0.name), ("found", $0.error.found)]) })
                print(object.text)
            } else {
                for (name, entry) in entries { print(Self.text(name, entry)) }
            }
            guard damaged.isEmpty else {
                throw CommandFailure(
                    status: .badInput,
                    message: damaged.map(\.error.description).joined(separator: "\nswift-snp-vmm: "))
            }
            if entries.isEmpty { StandardError.write(line: "no certificates in \(printable(path))") }
        }

        private static func text(_ name: String, _ entry: CertificateListing) -> String {
            let now = process_wall_clock()
            var lines = ["\(entry.kind)  \(printable(name))"]
            func add(_ label: String, _ value: String?) {
                if let value {
                    lines.append("  \(label):" + String(repeating: " ", count: 14 - label.count) + value)
                }
            }
            add(entry.kind == "CRL" ? "issuer" : "subject", entry.subject)
            if entry.kind != "CRL", entry.issuer != entry.subject { add("issuer", entry.issuer) }
            add("product", entry.product)
            add("hwID", entry.hardwareID.map { hexText($0) })
            add("cspID", entry.providerID)
            add("TCB", entry.versions?.description)
            let isOver = entry.notAfter.map { now > $0 } ?? false
            add(
                entry.kind == "CRL" ? "update" : "valid",
                "\(utcText(entry.notBefore)) to \(entry.notAfter.map(utcText) ?? "any time")"
                    + (now < entry.notBefore ? ", NOT YET" : isOver ? ", OVER" : ""))
            add("revoked", entry.revokedCount.map { $0 == 1 ? "1 serial number" : "\($0) serial numbers" })
            add("SHA-256", hexText(entry.fingerprint))
            add("key SHA-256", entry.keyFingerprint.map { hexText($0) })
            switch entry.standing {
            case .amd: add("chain", "to AMD's root")
            case .other(let root): add("chain", "to \(root), WHICH IS NOT KNOWN HERE AS AMD'S")
            case .refused(let error): add("chain", "REFUSED: \(error)")
            }
            return lines.joined(separator: "\n")
        }

        private static func json(_ name: String, _ entry: CertificateListing) -> JSONObject {
            var object = JSONObject()
            object.add("file", name)
            object.add("kind", entry.kind)
            object.add("subject", entry.subject)
            object.add("issuer", entry.issuer)
            if let product = entry.product { object.add("product", product) }
            if let hardwareID = entry.hardwareID { object.add("hardwareID", hexText(hardwareID)) }
            if let providerID = entry.providerID { object.add("providerID", providerID) }
            if let versions = entry.versions {
                var tcb = JSONObject()
                for (name, value) in versions.components { tcb.add(name, value) }
                object.add("tcb", tcb)
            }
            object.add("notBefore", entry.notBefore)
            if let notAfter = entry.notAfter { object.add("notAfter", notAfter) }
            if let count = entry.revokedCount { object.add("revokedCount", count) }
            object.add("sha256", hexText(entry.fingerprint))
            if let key = entry.keyFingerprint { object.add("keySHA256", hexText(key)) }
            switch entry.standing {
            case .amd: object.add("root", "AMD")
            case .other(let root): object.add("root", root)
            case .refused(let error): object.add("refused", error.description)
            }
            return object
        }
    }
}
