// The evidence of confidential-containers' SNP attester: an ATTESTATION_REPORT as JSON, in the forms that the Rust crate `sev`
// gives it, back into the bytes that were signed.
//
//     { "attestation_report": {…}, "cert_chain": [ { "cert_type": "VCEK", "data": [48, …] }, … ] or null }
//
// The crate up to version 5 writes every field of the structure, reserved ones included, and versions as current_build,
// current_minor, current_major. From version 6 on reserved fields are left out, versions are objects, TCB versions have an
// optional fmc, and key information is one number. What is left out is zero; if it was not, the signature will not verify.

import ABILayout
import Attestation
import SecretRelease

/// A report and certificates, read from JSON. Nothing in it is believed yet.
struct RCAREvidence {
    let report: [UInt8]
    /// DER, each a certificate or a revocation list.
    let certificates: [[UInt8]]

    /// More could not be a chain.
    static let maximumCertificateCount = 16
    static let maximumCertificateByteCount = 16 << 10

    init(_ value: JSONInput) throws(ReleaseRefusal) {
        guard let fields = value["attestation_report"] else {
            throw Self.malformed("attestation_report", "none")
        }
        var writer = ReportWriter(fields: fields)
        try writer.write()
        report = writer.bytes
        certificates = try Self.certificates(value["cert_chain"])
    }

    private static func certificates(_ value: JSONInput?) throws(ReleaseRefusal) -> [[UInt8]] {
        guard let value, value != .null else { return [] }
        guard case .array(let entries) = value, entries.count <= maximumCertificateCount else {
            throw malformed("cert_chain", "no array of at most \(maximumCertificateCount)")
        }
        var result: [[UInt8]] = []
        for entry in entries {
            // What else a table may hold (OTHER, Empty) is no certificate.
            guard case .string(let type)? = entry["cert_type"], ["ARK", "ASK", "VCEK", "VLEK", "CRL"].contains(type)
            else { continue }
            guard let data = entry["data"]?.byteArray, (1...maximumCertificateByteCount).contains(data.count) else {
                throw malformed("cert_chain.data", "no array of at most \(maximumCertificateByteCount) bytes")
            }
            result.append(data)
        }
        return result
    }

    static func malformed(_ field: String, _ found: String) -> ReleaseRefusal {
        ReleaseRefusal(.malformed, "\(field): \(found)")
    }
}

/// Puts the fields of the JSON object where the structure has them [SNP 7.3, table 23].
private struct ReportWriter {
    let fields: JSONInput
    var bytes = [UInt8](repeating: 0, count: AttestationReport.byteCount)

    init(fields: JSONInput) { self.fields = fields }

    mutating func write() throws(ReleaseRefusal) {
        let version: UInt32 = try number("version", at: 0x000)
        _ = try number("guest_svn", at: 0x004) as UInt32
        _ = try number("policy", at: 0x008) as UInt64
        try array("family_id", at: 0x010, 16)
        try array("image_id", at: 0x020, 16)
        _ = try number("vmpl", at: 0x030) as UInt32
        _ = try number("sig_algo", at: 0x034) as UInt32
        _ = try number("plat_info", at: 0x040) as UInt64
        // Older forms have only bit 0 of it under this name; the field was a number then, too.
        _ = try number(fields["key_info"] == nil ? "_author_key_en" : "key_info", at: 0x048) as UInt32
        try array("report_data", at: 0x050, 64)
        try array("measurement", at: 0x090, 48)
        try array("host_data", at: 0x0c0, 32)
        try array("id_key_digest", at: 0x0e0, 48)
        try array("author_key_digest", at: 0x110, 48)
        try array("report_id", at: 0x140, 32)
        try array("report_id_ma", at: 0x160, 32)
        if version >= 3 {
            for (index, name) in ["cpuid_fam_id", "cpuid_mod_id", "cpuid_step"].enumerated() {
                guard let value = fields[name], value != .null else { continue }
                guard case .number(let byte) = value, byte < 256 else { throw wrong(name, "no byte") }
                bytes[0x188 + index] = UInt8(byte)
            }
        }
        // Reserved fields of the older form: what newer firmware has put there was signed, too.
        for (name, offset, count) in [("_reserved_1", 0x188, 24), ("_reserved_4", 0x1f8, 168)]
        where fields[name] != nil { try array(name, at: offset, count) }
        try array("chip_id", at: 0x1a0, 64)
        for (name, offset) in [
            ("current_tcb", 0x038), ("reported_tcb", 0x180), ("committed_tcb", 0x1e0), ("launch_tcb", 0x1f0),
        ] { try tcb(name, at: offset) }
        try firmware("current", at: 0x1e8)
        try firmware("committed", at: 0x1ec)
        for (name, offset) in [("launch_mit_vector", 0x1f8), ("current_mit_vector", 0x200)] {
            if let value = fields[name], value != .null { _ = try number(name, at: offset) as UInt64 }
        }
        guard let signature = fields["signature"] else { throw wrong("signature", "none") }
        try array("r", at: 0x2a0, 72, of: signature)
        try array("s", at: 0x2e8, 72, of: signature)
    }

    private mutating func number<Value: FixedWidthInteger & UnsignedInteger>(
        _ name: String, at offset: Int
    ) throws(ReleaseRefusal) -> Value {
        guard case .number(let number)? = fields[name], let value = Value(exactly: number) else {
            throw wrong(name, "no number of \(Value.bitWidth) bits")
        }
        bytes.storeLittleEndian(value, at: offset)
        return value
    }

    private mutating func array(
        _ name: String, at offset: Int, _ count: Int, of object: JSONInput? = nil
    ) throws(ReleaseRefusal) {
        guard let value = (object ?? fields)[name]?.byteArray, value.count == count else {
            throw wrong(name, "no array of \(count) bytes")
        }
        bytes.replaceSubrange(offset..<(offset + count), with: value)
    }

    /// The layout is Turin's when the component is there that only Turin has.
    private mutating func tcb(_ name: String, at offset: Int) throws(ReleaseRefusal) {
        guard let object = fields[name] else { throw wrong(name, "none") }
        func component(_ key: String) throws(ReleaseRefusal) -> UInt8 {
            guard case .number(let number)? = object[key], number < 256 else {
                throw wrong("\(name).\(key)", "no byte")
            }
            return UInt8(number)
        }
        let hasFMC = object["fmc"].map { $0 != .null } ?? false
        let first = hasFMC ? 1 : 0
        if hasFMC { bytes[offset] = try component("fmc") }
        bytes[offset + first] = try component("bootloader")
        bytes[offset + first + 1] = try component("tee")
        bytes[offset + (hasFMC ? 3 : 6)] = try component("snp")
        bytes[offset + 7] = try component("microcode")
    }

    /// BUILD, MINOR, MAJOR.
    private mutating func firmware(_ name: String, at offset: Int) throws(ReleaseRefusal) {
        for (index, part) in ["build", "minor", "major"].enumerated() {
            guard case .number(let number)? = fields[name]?[part] ?? fields["\(name)_\(part)"], number < 256 else {
                throw wrong("\(name).\(part)", "no byte")
            }
            bytes[offset + index] = UInt8(number)
        }
    }

    private func wrong(_ field: String, _ found: String) -> ReleaseRefusal {
        RCAREvidence.malformed("attestation_report.\(field)", found)
    }
}

extension JSONInput {
    /// An array of numbers below 256; nil for anything else.
    fileprivate var byteArray: [UInt8]? {
        guard case .array(let values) = self else { return nil }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(values.count)
        for value in values {
            guard case .number(let number) = value, number < 256 else { return nil }
            bytes.append(UInt8(number))
        }
        return bytes
    }
}
