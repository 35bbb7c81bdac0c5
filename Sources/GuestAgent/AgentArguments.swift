// The agent's command line. Read by hand: an argument library would be half of a program that every guest image carries and
// every launch measures.

import ABILayout
import SEVABI

/// What the agent is asked to do.
public enum AgentCommand: Equatable, Sendable {
    case help
    case report(ReportRequest, output: String?)
    case extendedReport(ReportRequest, output: String?, certificates: String?)
    case deriveKey(KeyRequest, SecretSink)
    case getSecret(id: String, from: OwnerAddress, expectedDigest: [UInt8]?, SecretSink)
}

/// Where a secret goes. Never to the terminal.
public enum SecretSink: Equatable, Sendable {
    /// A file for this user alone.
    case file(String)
    /// The standard input of a program, whose exit status becomes the agent's.
    case program([String])
    /// Nowhere: only its SHA-256 is shown.
    case digest
}

/// Where the guest's owner is.
public enum OwnerAddress: Equatable, Sendable, CustomStringConvertible {
    /// A port of a machine on the virtual socket bus; 2 is the host.
    case vsock(cid: UInt32, port: UInt32)
    /// A socket of this machine.
    case unix(String)

    public var description: String {
        switch self {
        case .vsock(let cid, let port): "vsock \(cid):\(port)"
        case .unix(let path): path
        }
    }
}

extension AgentCommand {
    public static let usage = """
        usage: snp-guest-agent COMMAND [OPTION...]

        report        asks the firmware for an attestation report
          --data HEX            REPORT_DATA, up to 64 bytes; filled up with zeroes
          --vmpl N              VMPL to report, 0 to 3 (0)
          --key vcek|vlek       the key to sign with (the firmware's choice)
          --out FILE            the report's bytes, instead of text between BEGIN and END

        ext-report    the same with the certificates that the host has for it
          --certs-out FILE      the certificate table; needs --out

        derive-key    derives a key that this guest gets again, and no other
          --root vcek|vlek|vmrk what it is derived from (the firmware's choice)
          --mix LIST            what goes into it besides: policy,image-id,family-id,measurement,guest-svn,tcb (none)
          --vmpl N  --guest-svn N  --tcb HEX
          --out FILE | --digest | -- PROGRAM [ARGUMENT...]

        get-secret    proves to the owner what this guest is, and gets a secret
          --vsock CID:PORT      where the owner is; 2 is the host
          --unix PATH           the same on this machine
          --id NAME             which secret
          --expect SHA256       refuses any other secret: who answers has to prove nothing otherwise
          --out FILE | --digest | -- PROGRAM [ARGUMENT...]

        --out makes a file that only this user can read: put it on a tmpfs. -- PROGRAM runs a program with the secret on its
        standard input. --digest shows its SHA-256 and forgets it.

        exit status: 0 done, 2 wrong usage, 3 unusable input, 4 no device or no owner, 5 refused; with -- PROGRAM that
        program's own
        example: snp-guest-agent get-secret --vsock 2:999 --id disk -- cryptsetup open /dev/vda data --key-file -
        """

    /// Reads the arguments that follow the program's name.
    public init(_ arguments: [String]) throws(AgentError) {
        guard let name = arguments.first else { throw Self.wrong("no command") }
        var options = AgentOptions(Array(arguments.dropFirst()))
        switch name {
        case "help", "--help", "-h":
            self = .help
            return
        case "report":
            let request = try options.reportRequest()
            self = .report(request, output: try options.value("--out"))
        case "ext-report":
            let request = try options.reportRequest()
            let output = try options.value("--out")
            let certificates = try options.value("--certs-out")
            guard certificates == nil || output != nil else { throw Self.wrong("--certs-out needs --out") }
            self = .extendedReport(request, output: output, certificates: certificates)
        case "derive-key":
            let request = try options.keyRequest()
            self = .deriveKey(request, try options.sink())
        case "get-secret":
            guard let id = try options.value("--id") else { throw Self.wrong("get-secret needs --id") }
            let owner = try options.owner()
            let digest = try options.hexadecimal("--expect", byteCounts: 32...32)
            self = .getSecret(id: id, from: owner, expectedDigest: digest, try options.sink())
        default:
            throw Self.wrong("there is no command \(name)")
        }
        try options.finish()
    }

    static func wrong(_ what: String) -> AgentError {
        AgentError(
            .usage, attempt: "read the command line", subject: "snp-guest-agent", found: what,
            likelyCause: "a mistyped option", nextStep: "see snp-guest-agent --help")
    }
}

/// `--name value` pairs, then `-- PROGRAM...`.
private struct AgentOptions {
    private var values: [String: String] = [:]
    private var flags: Set<String> = []
    private var program: [String] = []
    private var leftover: String?

    init(_ arguments: [String]) {
        var rest = arguments[...]
        while let name = rest.popFirst() {
            if name == "--" {
                program = Array(rest)
                return
            } else if name == "--digest" {
                flags.insert(name)
            } else if name.hasPrefix("--"), values[name] == nil, let value = rest.popFirst() {
                values[name] = value
            } else {
                leftover = name
                return
            }
        }
    }

    /// The value of an option, once.
    mutating func value(_ name: String) throws(AgentError) -> String? {
        guard let value = values.removeValue(forKey: name) else { return nil }
        guard !value.isEmpty else { throw AgentCommand.wrong("\(name) is empty") }
        return value
    }

    mutating func number(_ name: String, limit: UInt32 = .max) throws(AgentError) -> UInt32? {
        guard let text = try value(name) else { return nil }
        guard let number = UInt32(text), number <= limit else {
            throw AgentCommand.wrong("\(name) \(text) is no number up to \(limit)")
        }
        return number
    }

    mutating func hexadecimal(_ name: String, byteCounts: ClosedRange<Int>) throws(AgentError) -> [UInt8]? {
        guard let text = try value(name) else { return nil }
        guard let bytes = bytes(hexadecimal: text), byteCounts.contains(bytes.count) else {
            throw AgentCommand.wrong("\(name) needs \(byteCounts.upperBound) bytes in hexadecimal digits")
        }
        return bytes
    }

    mutating func reportRequest() throws(AgentError) -> ReportRequest {
        guard let data = try hexadecimal("--data", byteCounts: 0...64) else {
            throw AgentCommand.wrong("a report needs --data: one that binds nothing can be shown by anybody")
        }
        let vmpl = try number("--vmpl", limit: 3) ?? 0
        return ReportRequest(
            reportData: data, vmpl: vmpl, keySelection: try keySelection("--key", allowsVMRK: false).key)
    }

    mutating func keyRequest() throws(AgentError) -> KeyRequest {
        let root = try keySelection("--root", allowsVMRK: true)
        var fields: KeyRequest.Fields = []
        for name in (try value("--mix") ?? "").split(separator: ",") {
            switch name {
            case "policy": fields.insert(.policy)
            case "image-id": fields.insert(.imageID)
            case "family-id": fields.insert(.familyID)
            case "measurement": fields.insert(.measurement)
            case "guest-svn": fields.insert(.guestSVN)
            case "tcb": fields.insert(.tcbVersion)
            default: throw AgentCommand.wrong("--mix \(name) is none of the fields that go into a key")
            }
        }
        let tcb = try value("--tcb")
        guard let version = UInt64(tcb ?? "0", radix: 16) else {
            throw AgentCommand.wrong("--tcb needs up to 16 hexadecimal digits")
        }
        return KeyRequest(
            usesVMRK: root.isVMRK, keySelection: root.key, fields: fields, vmpl: try number("--vmpl", limit: 3) ?? 0,
            guestSVN: try number("--guest-svn") ?? 0, tcbVersion: TCBVersion(rawValue: version))
    }

    private mutating func keySelection(
        _ name: String, allowsVMRK: Bool
    ) throws(AgentError) -> (key: EndorsementKeySelection, isVMRK: Bool) {
        switch try value(name) {
        case nil: (.automatic, false)
        case "vcek": (.vcek, false)
        case "vlek": (.vlek, false)
        case "vmrk" where allowsVMRK: (.automatic, true)
        case .some(let other): throw AgentCommand.wrong("\(name) \(other) is no key")
        }
    }

    mutating func owner() throws(AgentError) -> OwnerAddress {
        switch (try value("--vsock"), try value("--unix")) {
        case (let address?, nil):
            let parts = address.split(separator: ":", omittingEmptySubsequences: false)
            guard parts.count == 2, let cid = UInt32(parts[0]), let port = UInt32(parts[1]) else {
                throw AgentCommand.wrong("--vsock needs CID:PORT, such as 2:999")
            }
            return .vsock(cid: cid, port: port)
        case (nil, let path?): return .unix(path)
        default: throw AgentCommand.wrong("get-secret needs either --vsock or --unix")
        }
    }

    mutating func sink() throws(AgentError) -> SecretSink {
        let file = try value("--out")
        let digest = flags.remove("--digest") != nil
        let program = self.program
        self.program = []
        switch (file, digest, program.isEmpty) {
        case (let file?, false, true): return .file(file)
        case (nil, true, true): return .digest
        case (nil, false, false): return .program(program)
        default: throw AgentCommand.wrong("a secret needs one of --out, --digest and -- PROGRAM")
        }
    }

    /// Nothing is left that no command has asked for.
    func finish() throws(AgentError) {
        if let leftover { throw AgentCommand.wrong("\(leftover) has no place here, or no value") }
        if let name = values.keys.min() ?? flags.min() {
            throw AgentCommand.wrong("this command has no option \(name)")
        }
        if let program = program.first { throw AgentCommand.wrong("this command runs no program such as \(program)") }
    }
}
