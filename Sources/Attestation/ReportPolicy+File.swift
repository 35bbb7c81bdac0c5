// Policies as JSON files: every member is known, every value has the right form, or the file is refused.

import ABILayout
import SEVABI

extension ReportPolicy {
    /// Every member that a policy file can have.
    public static let memberNames = [
        "$schema", "comment", "measurement", "reportData", "hostData", "idKeyDigest", "authorKeyDigest", "chipID",
        "familyID", "imageID", "minimumGuestSVN", "maximumVMPL", "allowDebug", "allowMigrationAgent", "allowSMT",
        "allowCXL", "allowProvisionalFirmware", "allowMaskedChipID", "requiredGuestPolicy", "exactGuestPolicy",
        "minimumPolicyABI", "minimumFirmware", "requiredPlatformInfo", "forbiddenPlatformInfo", "minimumTCB",
        "minimumLaunchTCB", "signingKeys",
    ]

    /// Reads a policy. Members that are absent keep the strict defaults; null says "not compared" where that is possible.
    ///
    /// See <doc:PolicyFile>.
    ///
    /// - Parameter text: JSON, UTF-8.
    /// - Throws: ``AttestationError`` of category `unusablePolicy` that names the member.
    public init(json text: [UInt8]) throws(AttestationError) {
        let value: JSONInput
        do {
            value = try JSONInput(text: text)
        } catch {
            throw PolicyMember.refusal("line \(error.line)", expected: "strict JSON", found: error.found)
        }
        guard case .object(let members) = value else {
            throw PolicyMember.refusal("the file", expected: "an object", found: "another value")
        }
        self.init()
        for member in members {
            guard Self.memberNames.contains(member.name) else {
                throw PolicyMember.refusal(
                    member.name, expected: "a member that policies have", found: "an unknown one")
            }
            try set(PolicyMember(name: member.name, value: member.value))
        }
    }

    private mutating func set(_ member: PolicyMember) throws(AttestationError) {
        switch member.name {
        case "$schema", "comment": _ = try member.text()
        case "measurement": measurements = try member.byteLists(48)
        case "reportData": reportData = try member.byteLists(64)
        case "hostData": hostData = try member.byteLists(32)
        case "idKeyDigest": idKeyDigests = try member.byteLists(48)
        case "authorKeyDigest": authorKeyDigests = try member.byteLists(48)
        case "chipID": chipIDs = try member.byteLists(64)
        case "familyID": familyID = try member.bytes(16)
        case "imageID": imageID = try member.bytes(16)
        case "minimumGuestSVN": minimumGuestSVN = UInt32(truncatingIfNeeded: try member.number(atMost: 0xffff_ffff))
        case "maximumVMPL": vmpls = 0...UInt32(truncatingIfNeeded: try member.number(atMost: 3))
        case "allowDebug": allowsDebug = try member.flag()
        case "allowMigrationAgent": allowsMigrationAgent = try member.flag()
        case "allowSMT": allowsSMT = try member.flag()
        case "allowCXL": allowsCXL = try member.flag()
        case "allowProvisionalFirmware": allowsProvisionalFirmware = try member.flag()
        case "allowMaskedChipID": allowsMaskedChipID = try member.flag()
        case "requiredGuestPolicy": requiredGuestPolicy = GuestPolicy(rawValue: try member.wideNumber())
        case "exactGuestPolicy": exactGuestPolicy = GuestPolicy(rawValue: try member.wideNumber())
        case "minimumPolicyABI": minimumPolicyABI = try member.version(parts: 2)
        case "minimumFirmware": minimumFirmware = try member.version(parts: 3)
        case "requiredPlatformInfo": requiredPlatformInfo = try member.platformInfo()
        case "forbiddenPlatformInfo": forbiddenPlatformInfo = try member.platformInfo()
        case "minimumTCB": minimumTCB = try member.versions()
        case "minimumLaunchTCB": minimumLaunchTCB = try member.versions()
        case "signingKeys": signingKeys = try member.signingKeys()
        default: preconditionFailure("a member of the list that is not read: \(member.name)")
        }
    }
}

/// One member of a policy file.
private struct PolicyMember {
    let name: String
    let value: JSONInput

    static func refusal(_ field: String, expected: String, found: String) -> AttestationError {
        AttestationError(
            .unusablePolicy, attempt: "read the policy file", subject: "policy", field: field, expected: expected,
            found: found, likelyCause: "a mistake in the file", nextStep: "correct it; the manual lists all members")
    }

    func wrong(_ expected: String) -> AttestationError {
        let found =
            switch value {
            case .null: "null"
            case .bool(let flag): "\(flag)"
            case .number(let number): "\(number)"
            case .string(let text):
                "\"\(text.unicodeScalars.filter { $0.isASCII && $0.value >= 0x20 }.prefix(100).map(String.init).joined())\""
            case .array(let values): "an array of \(values.count)"
            case .object: "an object"
            }
        return Self.refusal(name, expected: expected, found: found)
    }

    func text() throws(AttestationError) -> String {
        guard case .string(let text) = value else { throw wrong("a string") }
        return text
    }

    func flag() throws(AttestationError) -> Bool {
        guard case .bool(let flag) = value else { throw wrong("true or false") }
        return flag
    }

    func number(atMost limit: UInt64) throws(AttestationError) -> UInt64 {
        guard case .number(let number) = value, number <= limit else { throw wrong("a number from 0 to \(limit)") }
        return number
    }

    /// A number, or a string of hex digits behind 0x.
    func wideNumber() throws(AttestationError) -> UInt64 {
        switch value {
        case .number(let number): return number
        case .string(let text):
            if text.hasPrefix("0x"), text.utf8.dropFirst(2).first != UInt8(ascii: "+"),
                let number = UInt64(text.dropFirst(2), radix: 16)
            {
                return number
            }
        default: break
        }
        throw wrong("a number, or \"0x…\" of at most 64 bits")
    }

    func bytes(_ count: Int) throws(AttestationError) -> [UInt8] {
        guard let bytes = Self.bytes(value, count) else { throw wrong("\(2 * count) hex digits") }
        return bytes
    }

    /// One value or an array of them; null: not compared.
    func byteLists(_ count: Int) throws(AttestationError) -> [[UInt8]]? {
        if value == .null { return nil }
        let values: [JSONInput] = if case .array(let values) = value { values } else { [value] }
        let lists = values.compactMap { Self.bytes($0, count) }
        guard lists.count == values.count else { throw wrong("\(2 * count) hex digits, an array of such, or null") }
        return lists
    }

    private static func bytes(_ value: JSONInput, _ count: Int) -> [UInt8]? {
        guard case .string(let text) = value else { return nil }
        guard text.utf8.count == 2 * count else { return nil }
        return ABILayout.bytes(hexadecimal: text)
    }

    /// "1.55" or "1.55.29".
    func version(parts count: Int) throws(AttestationError) -> AttestationReport.FirmwareVersion {
        if case .string(let text) = value, !text.contains("+") {
            let parts = text.split(separator: ".", omittingEmptySubsequences: false).map { UInt8($0) }
            if parts.count == count, let major = parts[0], let minor = parts[1] {
                if count == 2 { return .init(major: major, minor: minor) }
                if let build = parts[2] { return .init(major: major, minor: minor, build: build) }
            }
        }
        throw wrong(count == 2 ? "\"major.minor\"" : "\"major.minor.build\"")
    }

    func platformInfo() throws(AttestationError) -> PlatformInfo {
        guard case .array(let values) = value else { throw wrong("an array of names") }
        var result: PlatformInfo = []
        for value in values {
            guard case .string(let name) = value, let bit = PlatformInfo.names.first(where: { $0.name == name })?.bit
            else {
                throw PolicyMember(name: name, value: value).wrong(
                    PlatformInfo.names.map(\.name).joined(separator: ", "))
            }
            result.insert(bit)
        }
        return result
    }

    func signingKeys() throws(AttestationError) -> Set<SigningKey> {
        guard case .array(let values) = value, !values.isEmpty else { throw wrong("an array of \"VCEK\" and \"VLEK\"") }
        var result: Set<SigningKey> = []
        for value in values {
            switch value {
            case .string("VCEK"): result.insert(.vcek)
            case .string("VLEK"): result.insert(.vlek)
            default: throw PolicyMember(name: name, value: value).wrong("\"VCEK\" or \"VLEK\"")
            }
        }
        return result
    }

    /// {"fmc": 0, "bootLoader": 4, "tee": 0, "snp": 24, "microcode": 219}; what is absent is not compared.
    func versions() throws(AttestationError) -> SecurityVersions {
        guard case .object(let members) = value else { throw wrong("an object of components") }
        var result = SecurityVersions(bootLoader: 0, tee: 0, snp: 0, microcode: 0)
        for member in members {
            let part = PolicyMember(name: "\(name).\(member.name)", value: member.value)
            let number = UInt8(truncatingIfNeeded: try part.number(atMost: 255))
            switch member.name {
            case "fmc": result.fmc = number
            case "bootLoader": result.bootLoader = number
            case "tee": result.tee = number
            case "snp": result.snp = number
            case "microcode": result.microcode = number
            default:
                throw Self.refusal(
                    part.name, expected: "fmc, bootLoader, tee, snp or microcode", found: "an unknown component")
            }
        }
        return result
    }
}
