// The software platform's state, which lies in a file that anything may have happened to: whatever its bytes are, they are refused
// or are a platform that keeps its own rules, and writes what it reads again.

import Crypto
import MemoryController
import SEVABI
import SoftwarePSP
import Synchronization
import TestSupport

let platformStateFuzzers = [
    Fuzzer(
        name: "platform-state",
        summary: "a platform's file of either version with changed bytes, most with a fitting checksum",
        smokeIterations: 300, generate: platformState, check: checkPlatformState)
]

/// What is kept, with the closure's form.
private final class Kept: Sendable {
    let bytes = Mutex<[UInt8]>([])
}

private enum Samples {
    /// Version 1; version 2 of each product; with a VLEK and masks.
    static let all: [[UInt8]] = {
        func made(_ settings: PlatformSettings?) -> [UInt8] {
            let kept = Kept()
            guard
                (try? PlatformStorage(
                    bytes: [], entropy: .seed([1]), settings: settings,
                    save: { new in
                        kept.bytes.withLock { $0 = new }
                    })) != nil
            else { return [] }
            return kept.bytes.withLock { $0 }
        }
        var samples = [made(nil)] + ProcessorProduct.allCases.map { made(PlatformSettings(of: $0)) }
        // Flags and a hashstick by hand: what the firmware writes after SNP_VLEK_LOAD and SNP_CONFIG.
        var loaded = Array(samples[1].dropLast(32))
        loaded[0xc] = 0xe
        for index in 0x1128..<0x1130 { loaded[index] = loaded[index - 0x18] }
        for index in 0x1130..<loaded.count { loaded[index] = 7 }
        samples.append(sealed(loaded))
        return samples
    }()

    static func sealed(_ bytes: [UInt8]) -> [UInt8] { bytes + SHA2Hasher(.sha256).hash(bytes) }
}

private func platformState(_ numbers: inout SeededGenerator) -> [UInt8] {
    let whole = Samples.all[numbers.below(Samples.all.count)]
    var bytes = Array(whole.dropLast(32))
    for _ in 0..<numbers.below(4) where !bytes.isEmpty {
        // Where something is to be read: the head, and what follows the certificates.
        let index =
            switch numbers.below(3) {
            case 0: numbers.below(min(bytes.count, 0xc0))
            case 1 where bytes.count > 0x1108: 0x1108 + numbers.below(min(0x30, bytes.count - 0x1108))
            default: numbers.below(bytes.count)
            }
        bytes[index] = numbers.below(2) == 0 ? numbers.edge() : bytes[index] ^ 1 << UInt8(numbers.below(8))
    }
    if numbers.below(16) == 0 { bytes.removeLast(numbers.below(bytes.count + 1)) }
    return numbers.below(8) == 0 ? bytes + whole.suffix(32) : Samples.sealed(bytes)
}

private func checkPlatformState(_ bytes: [UInt8]) -> Outcome {
    guard !bytes.isEmpty else { return .uninteresting("a new platform") }
    let kept = Kept()
    let storage: PlatformStorage
    do throws(PlatformStorageError) {
        storage = try PlatformStorage(bytes: bytes) { new in kept.bytes.withLock { $0 = new } }
    } catch {
        switch error {
        case .notPlatformState: return .uninteresting("not platform state")
        case .version: return .uninteresting("version")
        case .damaged: return .uninteresting("damaged")
        case .replaced, .notKept: return .impossible("\(error)")
        }
    }
    guard kept.bytes.withLock({ $0.isEmpty }) else { return .impossible("reading has written") }
    if let settings = storage.settings {
        guard settings.reportedTCB.isAtMost(settings.committedTCB), settings.committedTCB.isAtMost(settings.currentTCB),
            [2, 3, 5].contains(settings.reportVersion)
        else { return .impossible("versions that contradict each other: \(settings)") }
    }
    // What was read is written as it was.
    guard (try? storage.changeSettings({ _ in .success })) == .success else { return .impossible("cannot be written") }
    let written = kept.bytes.withLock { $0 }
    if storage.settings != nil, written != bytes { return .impossible("it is another file now") }
    // And a machine starts with it.
    guard let memory = try? SystemMemory(byteCount: 1 << 20) else { return .uninteresting("no memory") }
    let processor = SecureProcessor(
        memory: memory, profile: .milan(cpuid: CPUIDProfile(supported: [])), entropy: .seed([1]), storage: storage)
    var buffer = SNPInitEx().bytes
    guard processor.submit(.snpInitializeEx, &buffer) == .success else { return .impossible("SNP_INIT_EX refuses") }
    buffer = SNPConfig(masksChipID: true).bytes
    guard processor.submit(.snpConfig, &buffer) == .success,
        processor.snpPlatformStatus().features.contains(.maskChipID)
    else { return .impossible("SNP_CONFIG refuses") }
    return .fine(storage.settings == nil ? "version 1" : "version 2")
}
