// The foreign launch-digest vectors, read from JSON.

import Crypto
import Foundation
import GuestImage
import SEVABI
import TestSupport
import Testing
import X86Defs

/// One case of `launch-digest/vectors.json` or `upstream-expected.json`.
struct LaunchVector: Decodable, Sendable, CustomTestStringConvertible {
    struct Step: Decodable, Sendable {
        var step: String
        var gpa: String
        var pages: UInt64
        var ld: String
    }

    var id: String?
    var test: String?
    var mode: String
    var vcpus: Int?
    var vcpu_type: String?
    var vcpu_fms: [UInt32]?
    var vcpu_sig: String?
    var firmware: String
    var kernel: String?
    var initrd: String?
    var append: String?
    var vmm_type: String?
    var guest_features: String?
    var digest: String?
    var ovmf_hash: String?
    var expect_error: Bool?
    var hashes_table: String?
    var hashes_table_gpa: String?
    var vmsa_sha384: [String]?
    var vmsa_dump: String?
    var steps: [Step]?

    var testDescription: String { id ?? test ?? digest ?? firmware }
    /// What is launched; nil for a mode that this package has no plan for (an SVSM beside the firmware).
    var technology: GuestTechnology? {
        switch mode {
        case "snp", "snp:ovmf-hash": .snp
        case "seves": .sevES
        case "sev": .sev
        default: nil
        }
    }
    var needsDebianFirmware: Bool { firmware == LaunchVectors.debianFirmwareName }
}

enum LaunchVectors {
    private struct File: Decodable {
        var sha256: [String: String]?
        var vectors: [LaunchVector]
    }

    private static func load(_ name: String) -> File {
        guard let bytes = ForeignVectors.bytes("launch-digest/" + name),
            let file = try? JSONDecoder().decode(File.self, from: Data(bytes))
        else { return File(sha256: nil, vectors: []) }
        return file
    }

    private static let own = load("vectors.json")
    private static let all = (own.vectors + load("upstream-expected.json").vectors).filter { $0.technology != nil }

    static let debianFirmwareName = "debian-OVMF.fd"
    static let withKeptFirmware = all.filter { !$0.needsDebianFirmware }
    static let withDebianFirmware = all.filter(\.needsDebianFirmware)
    static let arePresent = !all.isEmpty

    /// The firmware of Debian's package `ovmf`, if it is the one the vectors were made with.
    static let debianFirmware: [UInt8]? = {
        guard let bytes = readFile("/usr/share/ovmf/OVMF.fd") else { return nil }
        let hash = SHA256.hash(bytes)
        return (0..<32).map { hash[$0] }.hex == own.sha256?["fw/" + debianFirmwareName] ? bytes : nil
    }()

    static func firmware(_ name: String) -> [UInt8]? {
        name == debianFirmwareName ? debianFirmware : ForeignVectors.bytes("launch-digest/fw/" + name)
    }

    /// `EMPTY FILE` in the upstream list is a file without bytes.
    static func file(_ name: String) -> [UInt8]? {
        name == "EMPTY FILE" ? [] : ForeignVectors.bytes("launch-digest/files/" + name)
    }
}

extension LaunchVector {
    /// The plan a user would ask for with the options of this case.
    func plan() throws -> LaunchPlan {
        guard let bytes = LaunchVectors.firmware(firmware) else { throw MissingFile(name: firmware) }
        let image = try FirmwareImage(bytes)
        var signature = ProcessorSignature.epycV4
        if let fms = vcpu_fms {
            signature = ProcessorSignature(family: fms[0], model: fms[1], stepping: fms[2])
        } else if let type = vcpu_type {
            guard let named = ProcessorSignature(typeName: type) else { throw MissingFile(name: type) }
            signature = named
        }
        var files: HashedKernel?
        if let kernel {
            guard let bytes = LaunchVectors.file(kernel) else { throw MissingFile(name: kernel) }
            files = HashedKernel(
                kernel: bytes,
                initrd: try initrd.map { name in
                    guard let bytes = LaunchVectors.file(name) else { throw MissingFile(name: name) }
                    return bytes
                } ?? [], commandLine: Array((append ?? "").utf8))
        }
        // SEV_FEATURES mean nothing to SEV and are 0 in a VMSA of SEV-ES, whatever the case says.
        let features =
            technology == .snp ? guest_features.flatMap { UInt64($0.dropFirst(2), radix: 16) } ?? 1 : nil
        return try FirmwareLaunch.plan(
            image, kernel: files, profile: vmm_type.flatMap { VMMProfile(rawValue: $0) } ?? .qemu,
            on: MachineDescription(
                memoryByteCount: 512 << 20, processorCount: vcpus ?? 1, technology: technology, signature: signature,
                guestFeatures: features))
    }
}

struct MissingFile: Error { var name: String }
