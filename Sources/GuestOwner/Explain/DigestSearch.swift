// A digest alone does not tell how it came about. So the likely changes to a launch are tried, until one gives it.

import ABILayout
import Crypto
import GuestImage
import LaunchMeasurement
import SEVABI
import X86Defs

/// Looks for the change to a launch that gives a digest. SNP only: no other guest has reports.
public struct DigestSearch: Sendable {
    /// The launch with one thing changed that enters its memory, or with nothing changed.
    public struct Variant: Sendable {
        /// "memory 1 GiB"; empty for the launch itself.
        public var change: String
        /// VMSAs may be added for more vCPUs: the memory does not depend on how many there are.
        public var hasFreeProcessorCount: Bool
        /// How many vCPUs the launch has; the record may hold states of more, to say what the others would start with.
        public var processorCount: Int
        public var record: LaunchRecord

        public init(change: String, hasFreeProcessorCount: Bool, processorCount: Int? = nil, record: LaunchRecord) {
            self.change = change
            self.hasFreeProcessorCount = hasFreeProcessorCount
            self.processorCount = processorCount ?? record.states?.count ?? 0
            self.record = record
        }
    }

    /// vCPU counts up to this are tried.
    public static let maximumProcessorCount = 128

    private let target: LaunchDigest
    private let signatures: [(value: UInt64, name: String)]
    /// How many launches have been measured so far.
    public private(set) var triedCount = 0

    /// - Parameters:
    ///   - target: What the report has.
    ///   - processor: What the report says of the processor it ran on: a signature worth trying.
    public init?(target: LaunchRecord) {
        guard let text = target.launchDigest,
            let digest = ABILayout.bytes(hexadecimal: text).flatMap({ LaunchDigest($0) })
        else { return nil }
        self.target = digest
        var known: [(value: UInt64, name: String)] = []
        for type in ProcessorSignature.types
        where !known.contains(where: { $0.value == UInt64(type.signature.rawValue) }) {
            let value = UInt64(type.signature.rawValue)
            known.append((value, LaunchRecord.typeName(value) ?? type.name))
        }
        if let processor = target.processor {
            let value = ProcessorSignature(
                family: UInt32(processor.family), model: UInt32(processor.model), stepping: UInt32(processor.stepping))
            if !known.contains(where: { $0.value == UInt64(value.rawValue) }) {
                known.append((UInt64(value.rawValue), "the report's processor"))
            }
        }
        signatures = known
    }

    /// Tries one variant of the memory with every likely change to the register states.
    ///
    /// - Returns: The changes that give the digest, the fewest that do; empty for the launch itself. Nil when none does.
    public mutating func changes(in variant: Variant) -> [String]? {
        guard let start = variant.record.digestBeforeStates, let states = variant.record.states else { return nil }
        let base = variant.change.isEmpty ? [] : [variant.change]
        var best: [String]?
        func offer(_ changes: [String]) { if changes.count < best?.count ?? .max { best = changes } }
        if states.isEmpty {
            triedCount += 1
            return start == target ? base : nil
        }
        for (features, featureChange) in featureChanges(states) {
            for (signature, signatureChange) in signatureChanges(states) {
                let changed = states.map { Self.state($0, features: features, signature: signature) }
                let digests = changed.prefix(2).map { LaunchDigest(SHA2Hasher(.sha384).hash384($0.span)) }
                // What the VMSAs of a launch as it is have: all of them, in their order.
                let all =
                    changed.count <= 2 ? digests : changed.map { LaunchDigest(SHA2Hasher(.sha384).hash384($0.span)) }
                var running = RunningLaunchDigest(from: start)
                let limit = variant.hasFreeProcessorCount ? max(Self.maximumProcessorCount, all.count) : all.count
                for count in 1...max(1, limit) {
                    // Only the first vCPU is known to be another than the rest.
                    guard let digest = count <= all.count ? all[count - 1] : all.count > 1 ? all[1] : nil else { break }
                    running.extend(stateDigest: digest)
                    guard variant.hasFreeProcessorCount || count == variant.processorCount else { continue }
                    triedCount += 1
                    guard running.digest == target else { continue }
                    let countChange =
                        count == variant.processorCount ? nil : "\(count) vCPUs instead of \(variant.processorCount)"
                    offer(base + [countChange, signatureChange, featureChange].compactMap(\.self))
                }
            }
        }
        return best
    }

    /// What the search has tried, for an honest answer.
    public var signatureNames: String { signatures.map(\.name).joined(separator: ", ") }

    private func featureChanges(_ states: [[UInt8]]) -> [(UInt64?, String?)] {
        guard let now = states.first.flatMap({ Self.integer($0, 0x3b0) }) else { return [(nil, nil)] }
        var changes: [(UInt64?, String?)] = [(nil, nil)]
        for (bit, name) in VMSA.featureNames where bit != 0 {
            let verb = now &>> UInt64(bit) & 1 == 0 ? "with" : "without"
            changes.append((now ^ 1 &<< UInt64(bit), "\(verb) SEV_FEATURES bit \(bit), \(name)"))
        }
        if now != 1 { changes.append((1, "SEV_FEATURES 0x1 instead of \(hexText(now))")) }
        return changes
    }

    /// Only states that hold a signature in RDX, as after reset under QEMU.
    private func signatureChanges(_ states: [[UInt8]]) -> [(UInt64?, String?)] {
        let held = states.compactMap { Self.integer($0, 0x310) }.first { value in
            signatures.contains { $0.value == value }
        }
        guard let held else { return [(nil, nil)] }
        return [(nil, nil)]
            + signatures.filter { $0.value != held }.map {
                ($0.value, "CPU signature \(hexText($0.value)) (\($0.name)) instead of \(hexText(held))")
            }
    }

    private static func integer(_ page: [UInt8], _ offset: Int) -> UInt64? {
        guard page.count >= offset + 8 else { return nil }
        return page[offset..<(offset + 8)].reversed().reduce(0) { $0 &<< 8 | UInt64($1) }
    }

    private static func state(_ page: [UInt8], features: UInt64?, signature: UInt64?) -> [UInt8] {
        var page = page
        func put(_ offset: Int, _ value: UInt64) {
            for index in 0..<8 where offset + index < page.count {
                page[offset + index] = UInt8(truncatingIfNeeded: value &>> UInt64(8 * index))
            }
        }
        if let features { put(0x3b0, features) }
        if let signature,
            ProcessorSignature.types.contains(where: { UInt64($0.signature.rawValue) == integer(page, 0x310) })
        {
            put(0x310, signature)
        }
        return page
    }
}
