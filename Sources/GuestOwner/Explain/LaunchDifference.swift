// Where two launches differ, in the terms of the specification.

import Attestation
import GuestImage
import LaunchMeasurement
import SEVABI
import X86Defs

/// One thing in which two launches differ.
public struct LaunchDifference: Equatable, Sendable {
    /// "page", "VMSA", "vCPU count", "policy", "technology", "host data", "launch order".
    public var subject: String
    /// "0xa000 (command line), contents", "vCPU 0, RIP".
    public var place: String
    public var a: String
    public var b: String
    /// It enters the launch digest of this technology.
    public var isMeasured: Bool
    /// What one should know beside it.
    public var note: String?

    init(_ subject: String, _ place: String, _ a: String, _ b: String, isMeasured: Bool = true, note: String? = nil) {
        self.subject = subject
        self.place = place
        self.a = a
        self.b = b
        self.isMeasured = isMeasured
        self.note = note
    }
}

extension LaunchRecord {
    /// Everything in which this launch and another one differ, as far as both are known: what the digest is made of first, in
    /// launch order.
    ///
    /// Long runs of differing pages are one difference, which names the first page and how many there are.
    public func differences(from other: LaunchRecord) -> [LaunchDifference] {
        var result: [LaunchDifference] = []
        if technology != other.technology {
            result.append(
                LaunchDifference(
                    "technology", "technology", technology?.rawValue ?? "none", other.technology?.rawValue ?? "none"))
        }
        if let mine = runs, let others = other.runs {
            let memory = MemoryComparison(mine, others)
            result += memory.differences
            if memory.differences.isEmpty,
                let order = Self.orderDifference(mine, others, byDigest: memory.hasUnknownContents)
            {
                result.append(order)
            }
        }
        if let mine = states, let others = other.states { result += Self.stateDifferences(mine, others) }
        if let policy, let otherPolicy = other.policy, policy != otherPolicy {
            result.append(Self.policyDifference(policy, otherPolicy, isSNP: technology == .snp))
        }
        if let hostData, let otherHostData = other.hostData, hostData != otherHostData {
            result.append(LaunchDifference("host data", "HOST_DATA", hostData, otherHostData, isMeasured: false))
        }
        return result
    }

    /// The same pages, launched in another order; or, where contents are not known, the first ones behind which the running
    /// digests differ.
    private static func orderDifference(_ a: [Run], _ b: [Run], byDigest: Bool) -> LaunchDifference? {
        var (i, j) = (0, 0)
        // What is left of the runs at i and j.
        var (x, y) = (a.first, b.first)
        while let left = x, let right = y {
            guard left.gpa == right.gpa else {
                return LaunchDifference(
                    "launch order", "after \(hexText(left.gpa)) or \(hexText(right.gpa)) came",
                    "\(left.label) at \(hexText(left.gpa))", "\(right.label) at \(hexText(right.gpa))")
            }
            if byDigest, left.byteCount == right.byteCount, let mine = left.launchDigest,
                let others = right.launchDigest,
                mine != others
            {
                return LaunchDifference(
                    "page", "\(hexText(left.gpa)) to \(hexText(left.end)) (\(left.label)), digest behind them", mine,
                    others,
                    note: "one of these pages; `measure --json --pages` and a newer launch log tell which")
            }
            let count = min(left.byteCount, right.byteCount)
            func rest(_ run: Run, _ runs: [Run], _ index: inout Int) -> Run? {
                guard run.byteCount > count else {
                    index += 1
                    return index < runs.count ? runs[index] : nil
                }
                var run = run
                run.gpa = run.gpa &+ count
                run.byteCount = run.byteCount &- count
                return run
            }
            x = rest(left, a, &i)
            y = rest(right, b, &j)
        }
        return nil
    }

    // MARK: Register states

    private static func stateDifferences(_ a: [[UInt8]], _ b: [[UInt8]]) -> [LaunchDifference] {
        var result: [LaunchDifference] = []
        if a.count != b.count { result.append(LaunchDifference("vCPU count", "VMSAs", "\(a.count)", "\(b.count)")) }
        var previous: [LaunchDifference] = []
        var repeated = 0
        for (index, pair) in zip(a, b).enumerated() where pair.0 != pair.1 {
            let found = registerDifferences(pair.0, pair.1, index)
            // Every vCPU but the first is as the one before it: say so once.
            let isSame =
                found.map(\.a) == previous.map(\.a) && found.map(\.b) == previous.map(\.b)
                && found.map { $0.place.drop { $0 != "," } } == previous.map { $0.place.drop { $0 != "," } }
            if isSame, !previous.isEmpty {
                repeated += 1
            } else {
                result += found
            }
            previous = found
        }
        if repeated > 0, let last = result.indices.last {
            result[last].note =
                [result[last].note, "the same in the next \(repeated == 1 ? "vCPU" : "\(repeated) vCPUs")"].compactMap(
                    \.self
                ).joined(separator: "; ")
        }
        return result
    }

    private static func registerDifferences(_ a: [UInt8], _ b: [UInt8], _ index: Int) -> [LaunchDifference] {
        func value(_ page: [UInt8], _ field: VMSA.NamedField) -> UInt64? {
            guard page.count >= field.offset + field.byteCount else { return nil }
            return page[field.offset..<(field.offset + field.byteCount)].reversed().reduce(0) { $0 &<< 8 | UInt64($1) }
        }
        var covered = Set<Int>()
        var result: [LaunchDifference] = []
        for field in VMSA.namedFields {
            covered.formUnion(field.offset..<(field.offset + field.byteCount))
            guard let mine = value(a, field), let others = value(b, field), mine != others else { continue }
            result.append(
                LaunchDifference(
                    "VMSA", "vCPU \(index), \(field.name)", hexText(mine), hexText(others),
                    note: note(field.name, mine, others)))
        }
        for offset in 0..<min(a.count, b.count) where a[offset] != b[offset] && !covered.contains(offset) {
            result.append(
                LaunchDifference(
                    "VMSA", "vCPU \(index), reserved byte at \(hexText(offset))", hexText(a[offset]),
                    hexText(b[offset])))
            break
        }
        return result
    }

    private static func note(_ field: String, _ a: UInt64, _ b: UInt64) -> String? {
        switch field {
        case "SEV_FEATURES":
            return bitText(a ^ b, VMSA.featureNames) + " on one side only"
        case "RDX":
            let (mine, others) = (Self.typeName(a), Self.typeName(b))
            guard mine != nil || others != nil else { return nil }
            return "the CPU signature: \(mine ?? "none that is known") and \(others ?? "none that is known")"
        default: return nil
        }
    }

    /// The processor type that a signature belongs to, by its plainest name.
    static func typeName(_ signature: UInt64) -> String? {
        ProcessorSignature.types.first { UInt64($0.signature.rawValue) == signature }?.name
    }

    static func bitText(_ bits: UInt64, _ names: [(bit: Int, name: String)]) -> String {
        let parts = (0..<64).filter { bits &>> UInt64($0) & 1 != 0 }.map { bit in
            names.first { $0.bit == bit }.map { "\($0.name) (bit \(bit))" } ?? "bit \(bit)"
        }
        return parts.joined(separator: ", ")
    }

    // MARK: Policy

    private static func policyDifference(_ a: UInt64, _ b: UInt64, isSNP: Bool) -> LaunchDifference {
        var note = "no part of the launch digest"
        if isSNP {
            let bits = bitText((a ^ b) & ~0xffff, GuestPolicy.bitNames)
            let abi = (a ^ b) & 0xffff == 0 ? "" : "the least ABI version"
            let differs = [bits, abi].filter { !$0.isEmpty }.joined(separator: ", ")
            note = differs + "; " + note + ", but of the report"
        }
        return LaunchDifference("policy", "POLICY", hexText(a), hexText(b), isMeasured: false, note: note)
    }
}

/// `0x…` in lower case.
func hexText(_ value: some BinaryInteger) -> String { "0x" + String(value, radix: 16) }
