// What somebody pastes from a log: any of request, errno, firmware status, exit or termination, in the spellings that
// kernels and VMMs print. Nothing in it can trap; a word that means nothing is named.
//
//     -22   EINVAL   ret=-22   errno=22            an errno (a bare number is both an errno and a status)
//     0x16  INVALID_PARAM  fw_error=22             a firmware status
//     SNP_LAUNCH_START   KVM_CREATE_VM   /dev/sev  a request
//     KVM_EXIT_MEMORY_FAULT   suberror=1           the end of a guest
//     1/2   0x21100                                a termination: set and reason, or the GHCB MSR

import KVMABI
import SEVABI

/// A question to the catalogue.
public struct ErrorQuestion: Sendable {
    public private(set) var request: String?
    public private(set) var errno: Errno?
    public private(set) var firmwareStatus: FirmwareStatus?
    public private(set) var ends: [GuestEnd] = []
    /// Reason sets and reasons.
    public private(set) var terminations: [(set: UInt8, reason: UInt8)] = []

    /// A word that means nothing here; empty where there was no word at all.
    public struct Failure: Error, Equatable, Sendable {
        public var word: String
        public init(word: String) { self.word = word }
    }

    /// Every request that the catalogue can be asked about.
    public static let requests: [String] = {
        var names = Set(ErrorCatalogue.entries.compactMap(\.request))
        names.formUnion(IoctlRequest.named.compactMap(\.kernelName))
        names.formUnion((0..<128).map { SEVCommandID(rawValue: $0).description }.filter { $0.hasPrefix("KVM_") })
        names.formUnion((0..<32).map { SEVDeviceCommand(rawValue: $0).description }.filter { !$0.contains(" ") })
        return names.sorted()
    }()

    public init(_ text: String) throws(Failure) {
        var numbers: [Substring] = []
        for word in Self.words(text) where !(try takeName(word)) { numbers.append(word) }
        for word in numbers { try takeNumber(word) }
        if request == nil, errno == nil, firmwareStatus == nil, ends.isEmpty, terminations.isEmpty {
            throw Failure(word: "")
        }
    }

    /// The words, without quoted text and punctuation.
    private static func words(_ text: String) -> [Substring] {
        let unquoted = text.split(separator: "'", omittingEmptySubsequences: false).enumerated()
            .filter { $0.offset & 1 == 0 }.map(\.element).joined(separator: " ")
        return unquoted.split { " \t\n\r,;:()\"".contains($0) }
    }

    // MARK: Names

    /// False for what may be a number.
    private mutating func takeName(_ word: Substring) throws(Failure) -> Bool {
        let name = word.uppercased()
        let tables = [GuestEnd.exits, GuestEnd.internalErrors, GuestEnd.systemEvents]
        if let end = tables.joined().first(where: { $0.name == name }) {
            ends.append(end)
        } else if let number = Errno(name: name) {
            errno = number
        } else if let status = FirmwareStatus(name: name.hasPrefix("SEV_RET_") ? String(name.dropFirst(8)) : name) {
            firmwareStatus = status
        } else if let found = Self.request(name) {
            request = found
        } else if word.contains("=") || word.contains("/") || word.contains(where: \.isNumber) {
            return false
        } else if !["OPEN", "FIRMWARE", "STATUS", "ERRNO", "FAILED", "REASON"].contains(name) {
            throw Failure(word: String(word))
        }
        return true
    }

    private static func request(_ name: String) -> String? {
        if name.hasPrefix("/DEV/") { return requests.first { $0.uppercased() == "OPEN " + name } }
        for prefix in ["", "KVM_", "KVM_SEV_", "KVM_SEV_SNP_", "SEV_", "SNP_"] {
            if let found = requests.first(where: { $0.uppercased() == prefix + name }) { return found }
        }
        return nil
    }

    // MARK: Numbers

    private mutating func takeNumber(_ word: Substring) throws(Failure) {
        let failure = Failure(word: String(word))
        let parts = word.split(separator: "=", omittingEmptySubsequences: false)
        if parts.count == 2 {
            guard let value = Self.number(parts[1]) else { throw failure }
            try take(value.magnitude, named: parts[0].lowercased(), failure)
        } else if let slash = word.firstIndex(of: "/") {
            guard let set = UInt8(word[..<slash]), let reason = UInt8(word[word.index(after: slash)...]) else {
                throw failure
            }
            terminations.append((set, reason))
        } else {
            guard let value = Self.number(word) else { throw failure }
            take(value, isHex: word.lowercased().hasPrefix("0x"))
        }
    }

    /// Sign and magnitude.
    private static func number(_ text: Substring) -> (magnitude: UInt64, isNegative: Bool)? {
        let isNegative = text.hasPrefix("-")
        let digits = isNegative ? text.dropFirst() : text
        guard let first = digits.first, first.isNumber else { return nil }
        let value = digits.lowercased().hasPrefix("0x") ? UInt64(digits.dropFirst(2), radix: 16) : UInt64(digits)
        return value.map { ($0, isNegative) }
    }

    private mutating func take(_ value: UInt64, named name: String, _ failure: Failure) throws(Failure) {
        guard let value = UInt32(exactly: value) else { throw failure }
        switch name {
        case "ret", "errno", "error", "r":
            // 0 is a success, and says nothing.
            if let number = Int32(exactly: value), number != 0 { errno = Errno(rawValue: number) }
        case "fw_error", "fw_err", "firmware", "status", "fw":
            // Status 0 with another errno than EIO only says that the firmware was not asked.
            if value != 0 || errno == .EIO { firmwareStatus = FirmwareStatus(rawValue: value) }
        case "suberror": ends += GuestEnd.internalErrors.filter { $0.number == value }
        case "exit_reason", "exit": ends += GuestEnd.exits.filter { $0.number == value }
        case "type", "event": ends += GuestEnd.systemEvents.filter { $0.number == value }
        default: throw failure
        }
    }

    /// A bare number: what it can be depends on what is known already.
    private mutating func take(_ value: (magnitude: UInt64, isNegative: Bool), isHex: Bool) {
        let number = value.magnitude
        // "EINVAL (22)", "INVALID_PARAM (0x16)": the number of the name before it.
        if let errno, Int64(errno.rawValue) == Int64(truncatingIfNeeded: number), !isHex { return }
        if let firmwareStatus, UInt64(firmwareStatus.rawValue) == number { return }
        let msr = GHCBMSR(rawValue: number)
        if isHex, number > 0xfff, msr.code == .terminationRequest {
            terminations.append((msr.terminationReasonSet, msr.terminationReason))
            return
        }
        if !isHex, errno == nil, let small = Int32(exactly: number) { errno = Errno(rawValue: small) }
        if !value.isNegative, firmwareStatus == nil, request == nil || isHex, let status = UInt32(exactly: number) {
            firmwareStatus = FirmwareStatus(rawValue: status)
        }
    }
}
