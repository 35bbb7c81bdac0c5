// A scenario as a file:
//
//     {"name":"my-host","about":"SNP is off in the BIOS","stops":"snp",
//      "vmTypes":["plain","sev","sev-es"],
//      "closedNodes":{"/dev/sev":"EACCES"},
//      "withoutCapabilities":["KVM_CAP_GUEST_MEMFD"],"deviceAttributes":1,
//      "acceptedPolicyBits":"0x7ffff","requiredPolicyBits":"0x10000",
//      "lockedMemory":65536,"memory":8388608,"pagesPerUpdate":3,
//      "asids":{"snp":0,"sev":410,"inUse":false},
//      "firmware":{"api":"1.49","build":3,"initialisesSNP":false,"reportedTCB":"0x0","refusedCPUID":[{"leaf":7,"register":"ebx","bits":"0x20"}]},
//      "answers":[{"request":"KVM_SEV_SNP_LAUNCH_UPDATE","errno":"EAGAIN","firmwareStatus":"SUCCESS","after":1,"times":3,"every":2}],
//      "facts":{"msr.rmpBase":"0x0"}}
//
// Every member may be absent. Facts are those of HostDiagnosis. An unknown member, name or value is refused by its place.

import HostDiagnosis
import JSONText
import KVMABI
import SEVABI

extension HostScenario {
    /// What is wrong with a file.
    public struct FileError: Error, Equatable, Sendable, CustomStringConvertible {
        public let description: String
        init(_ description: String) { self.description = description }
    }

    /// - Parameter text: UTF-8.
    public init(json text: [UInt8]) throws(FileError) {
        let value: JSONInput
        do { value = try JSONInput(text: text) } catch { throw FileError("line \(error.line): \(error.found)") }
        var members = try Members(value, "the scenario")
        name = try members.text("name") ?? "file"
        about = try members.text("about") ?? ""
        if let kind = try members.text("stops") {
            guard let technology = GuestTechnology(rawValue: kind) else {
                throw FileError("stops: expected sev, sev-es or snp")
            }
            stops = technology
        }
        if let list = try members.list("vmTypes") {
            let types: [String: VMType] = ["plain": .plain, "sev": .sev, "sev-es": .sevES, "snp": .snp]
            vmTypes = Set(try list.map { value throws(FileError) in try Members.choice(value, types, "vmTypes") })
        }
        if var nodes = try members.object("closedNodes") {
            for node in DeviceNode.allCases { closedNodes[node] = try nodes.errno(node.rawValue) }
            try nodes.end()
        }
        if let list = try members.list("withoutCapabilities") {
            missingCapabilities = Set(
                try list.map { value throws(FileError) in
                    try Members.choice(value, Self.capabilities, "withoutCapabilities")
                })
        }
        deviceAttributeCount = try members.number("deviceAttributes", limit: 3) ?? deviceAttributeCount
        acceptedPolicyBits = try members.number("acceptedPolicyBits")
        requiredPolicyBits = try members.number("requiredPolicyBits") ?? 0
        lockedMemoryLimit = try members.number("lockedMemory")
        // What is touched becomes resident, and the machine's own pages have to fit.
        systemMemoryByteCount = try members.number("memory", limit: 1 << 44).map { max($0 & ~0xfffff, 4 << 20) }
        pagesPerUpdate = try members.number("pagesPerUpdate")
        if var asids = try members.object("asids") {
            stateASIDCount = try asids.number("snp", limit: 99).map { UInt32($0) }
            memoryASIDCount = try asids.number("sev", limit: 410).map { UInt32($0) }
            hasASIDsInUse = try asids.flag("inUse") ?? false
            try asids.end()
        }
        if var firmware = try members.object("firmware") {
            try read(&firmware)
            try firmware.end()
        }
        answers =
            try members.list("answers")?.map { value throws(FileError) in try ScriptedAnswer(value) } ?? []
        if let facts = members.take("facts") {
            do { self.facts = try HostFacts(facts) } catch { throw FileError("facts: \(error)") }
        }
        try members.end()
    }

    private mutating func read(_ firmware: inout Members) throws(FileError) {
        if let api = try firmware.text("api") {
            let parts = api.split(separator: ".", omittingEmptySubsequences: false).map { UInt8($0) }
            guard parts.count == 2, let major = parts[0], let minor = parts[1] else {
                throw FileError("firmware, api: expected two numbers such as 1.55")
            }
            let build = try firmware.number("build", limit: 255) ?? 0
            firmwareAPI = FirmwareVersion(apiMajor: major, apiMinor: minor, build: UInt8(build))
        }
        reportedTCB = try firmware.number("reportedTCB").map { TCBVersion(rawValue: $0) }
        initializesSNP = try firmware.flag("initialisesSNP") ?? true
        let list = try firmware.list("refusedCPUID") ?? []
        refusedCPUID = try list.map { value throws(FileError) in
            var bits = try Members(value, "refusedCPUID")
            let registers: [String: CPUIDBits.Register] = ["eax": .eax, "ebx": .ebx, "ecx": .ecx, "edx": .edx]
            let result = CPUIDBits(
                leaf: UInt32(try bits.number("leaf", limit: 0xffff_ffff) ?? 0),
                register: try bits.choice("register", registers) ?? .eax,
                bits: UInt32(try bits.number("bits", limit: 0xffff_ffff) ?? 0))
            try bits.end()
            return result
        }
    }

    /// Capabilities by the kernel's names.
    private static let capabilities: [String: Capability] = {
        var table: [String: Capability] = [:]
        for number in UInt32(0)..<512 {
            let capability = Capability(rawValue: number)
            if capability.description.hasPrefix("KVM_CAP_") { table[capability.description] = capability }
        }
        return table
    }()
}

extension HostScenario.ScriptedAnswer {
    fileprivate init(_ value: JSONInput) throws(HostScenario.FileError) {
        var members = try Members(value, "answers")
        guard let request = try members.text("request"), ErrorQuestion.requests.contains(request) else {
            throw .init("answers: a request that is not known")
        }
        guard let errno = try members.errno("errno") else { throw .init("answers: \(request) without an errno") }
        var status = FirmwareStatus.success
        if let name = try members.text("firmwareStatus") {
            guard let named = FirmwareStatus(name: name) else { throw .init("answers: the firmware status \(name)") }
            status = named
        }
        self.init(
            request, errno, status, after: try members.number("after") ?? 0, times: try members.number("times"),
            every: try members.number("every") ?? 1)
        try members.end()
    }
}

/// The members of an object, taken one by one: what is left at the end is unknown.
private struct Members {
    private var values: [String: JSONInput] = [:]
    private let place: String

    init(_ value: JSONInput, _ place: String) throws(HostScenario.FileError) {
        guard case .object(let members) = value else { throw .init("\(place): expected an object") }
        for member in members { values[member.name] = member.value }
        self.place = place
    }

    mutating func take(_ name: String) -> JSONInput? { values.removeValue(forKey: name) }

    /// Refuses what nobody took.
    func end() throws(HostScenario.FileError) {
        if let name = values.keys.min() { throw .init("\(place): the unknown member \"\(name.prefix(64))\"") }
    }

    mutating func text(_ name: String) throws(HostScenario.FileError) -> String? {
        switch take(name) {
        case nil: return nil
        case .string(let text)? where text.utf8.count <= HostFacts.maximumTextByteCount: return text
        default: throw .init("\(place), \(name): expected a short string")
        }
    }

    mutating func flag(_ name: String) throws(HostScenario.FileError) -> Bool? {
        switch take(name) {
        case nil: return nil
        case .bool(let flag)?: return flag
        default: throw .init("\(place), \(name): expected true or false")
        }
    }

    /// A number, or "0x…".
    mutating func number(_ name: String, limit: UInt64 = .max) throws(HostScenario.FileError) -> UInt64? {
        let value: UInt64?
        switch take(name) {
        case nil: return nil
        case .number(let number)?: value = number
        case .string(let text)? where text.hasPrefix("0x") && text.dropFirst(2).allSatisfy(\.isHexDigit):
            value = UInt64(text.dropFirst(2), radix: 16)
        default: value = nil
        }
        guard let value, value <= limit else {
            throw .init("\(place), \(name): expected a number" + (limit == .max ? "" : " up to \(limit)"))
        }
        return value
    }

    mutating func errno(_ name: String) throws(HostScenario.FileError) -> Errno? {
        guard let text = try text(name) else { return nil }
        guard let errno = Errno(name: text) else { throw .init("\(place), \(name): expected an errno such as EACCES") }
        return errno
    }

    mutating func list(_ name: String) throws(HostScenario.FileError) -> [JSONInput]? {
        switch take(name) {
        case nil: return nil
        case .array(let values)? where values.count <= 1000: return values
        default: throw .init("\(place), \(name): expected a list")
        }
    }

    mutating func object(_ name: String) throws(HostScenario.FileError) -> Members? {
        guard let value = take(name) else { return nil }
        return try Members(value, name)
    }

    mutating func choice<Value>(_ name: String, _ table: [String: Value]) throws(HostScenario.FileError) -> Value? {
        guard let value = take(name) else { return nil }
        return try Self.choice(value, table, name)
    }

    static func choice<Value>(_ value: JSONInput, _ table: [String: Value], _ place: String) throws(HostScenario
        .FileError)
        -> Value
    {
        guard case .string(let text) = value, let result = table[text] else {
            throw .init("\(place): expected one of " + table.keys.sorted().prefix(8).joined(separator: ", "))
        }
        return result
    }
}
