// Small images of every kind, made byte by byte from their formats.

import GuestImage
import SEVABI
import TestSupport

extension [UInt8] {
    /// Stores a little-endian number of `width` bytes; nothing outside the array.
    mutating func set(_ offset: Int, _ value: UInt64, width: Int) {
        for index in 0..<width where offset + index < count {
            self[offset + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * index))
        }
    }

    /// Reads a little-endian number.
    func number(_ offset: Int, width: Int) -> UInt64 {
        (0..<width).reduce(0) { $0 | UInt64(self[offset + $1]) << UInt64(8 * $1) }
    }
}

enum SyntheticImages {
    /// A bzImage of protocol 2.15 with two setup sectors and `codeByteCount` bytes of code (a multiple of 16).
    static func bzImage(codeByteCount: Int = 0x800, initByteCount: UInt64 = 0x4000) -> [UInt8] {
        SyntheticKernel.bzImage(codeByteCount: codeByteCount, initByteCount: initByteCount)
    }

    /// An ELF executable. A segment is (physical address, virtual address, contents, bytes in memory).
    static func elf(
        entry: UInt64 = 0x100_0000,
        segments: [(physical: UInt64, virtual: UInt64, contents: [UInt8], memory: UInt64)] = [
            (0x100_0000, 0xffff_ffff_8100_0000, [UInt8](repeating: 0x90, count: 0x1800), 0x2000),
            (0x100_2800, 0xffff_ffff_8100_2800, [UInt8](repeating: 0xcc, count: 0x100), 0x3000),
        ]
    ) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 64 + 56 * segments.count)
        bytes.replaceSubrange(0..<7, with: [0x7f, 0x45, 0x4c, 0x46, 2, 1, 1])
        bytes.set(0x10, 2, width: 2)
        bytes.set(0x12, 62, width: 2)
        bytes.set(0x18, entry, width: 8)
        bytes.set(0x20, 64, width: 8)
        bytes.set(0x36, 56, width: 2)
        bytes.set(0x38, UInt64(segments.count), width: 2)
        for (index, segment) in segments.enumerated() {
            let header = 64 + 56 * index
            bytes.set(header, 1, width: 4)
            bytes.set(header + 8, UInt64(bytes.count), width: 8)
            bytes.set(header + 16, segment.virtual, width: 8)
            bytes.set(header + 24, segment.physical, width: 8)
            bytes.set(header + 32, UInt64(segment.contents.count), width: 8)
            bytes.set(header + 40, segment.memory, width: 8)
            bytes += segment.contents
        }
        return bytes
    }

    /// A PE32+ image with named sections.
    static func pe(_ sections: [(name: String, contents: [UInt8])]) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 0x40 + 24 + 16 + 40 * sections.count)
        bytes.replaceSubrange(0..<2, with: Array("MZ".utf8))
        bytes.set(0x3c, 0x40, width: 4)
        bytes.replaceSubrange(0x40..<0x42, with: Array("PE".utf8))
        bytes.set(0x44, 0x8664, width: 2)
        bytes.set(0x46, UInt64(sections.count), width: 2)
        bytes.set(0x54, 16, width: 2)
        for (index, section) in sections.enumerated() {
            let header = 0x40 + 24 + 16 + 40 * index
            bytes.replaceSubrange(header..<(header + section.name.utf8.count), with: Array(section.name.utf8))
            bytes.set(header + 8, UInt64(section.contents.count), width: 4)
            bytes.set(header + 16, UInt64((section.contents.count + 511) & ~511), width: 4)
            bytes.set(header + 20, UInt64(bytes.count), width: 4)
            bytes += section.contents
        }
        return bytes
    }

    static func uki(commandLine: String = "console=ttyS0\n\0", initrd: [UInt8] = Array("070701".utf8)) -> [UInt8] {
        pe([
            (".osrel", Array("ID=debian".utf8)), (".cmdline", Array(commandLine.utf8)), (".uname", Array("6.1".utf8)),
            (".initrd", initrd), (".linux", bzImage()),
        ])
    }

    /// One section of the ASEV metadata.
    typealias Section = (gpa: UInt64, byteCount: UInt64, type: UInt64)

    static let ordinarySections: [Section] = [
        (0x800000, 0x9000, 1), (0x80b000, 0x1000, 0x10), (0x80d000, 0x1000, 2), (0x80e000, 0x1000, 3),
        (0x80f000, 0x2000, 1), (0x812000, 0x1000, 4),
    ]

    /// A flat firmware image: ASEV metadata 0x600 bytes before the end and a GUIDed table 32 bytes before it.
    static func firmware(
        byteCount: Int = 8192, sections: [Section] = ordinarySections, hasMetadata: Bool = true,
        hashesTable: (UInt64, UInt64)? = (0x80b400, 0x400), secretArea: (UInt64, UInt64)? = nil,
        applicationProcessorEntry: UInt64? = 0x0081_f0e4
    ) -> [UInt8] {
        var bytes = (0..<byteCount).map { UInt8(truncatingIfNeeded: $0 &* 13) }
        let header = byteCount - 0x600
        bytes.replaceSubrange(header..<(header + 4), with: Array("ASEV".utf8))
        bytes.set(header + 4, UInt64(16 + 12 * sections.count), width: 4)
        bytes.set(header + 8, 1, width: 4)
        bytes.set(header + 12, UInt64(sections.count), width: 4)
        for (index, section) in sections.enumerated() {
            bytes.set(header + 16 + 12 * index, section.gpa, width: 4)
            bytes.set(header + 20 + 12 * index, section.byteCount, width: 4)
            bytes.set(header + 24 + 12 * index, section.type, width: 4)
        }
        var table: [UInt8] = []
        func entry(_ guid: String, _ values: [UInt64]) {
            var data = [UInt8](repeating: 0, count: 4 * values.count + 2)
            for (index, value) in values.enumerated() { data.set(4 * index, value, width: 4) }
            data.set(4 * values.count, UInt64(4 * values.count + 18), width: 2)
            table += data + ([UInt8](hex: guid) ?? [])
        }
        // GUIDs as stored: the first three fields little-endian.
        if hasMetadata { entry("666588dc4a989847a75e5585a7bf67cc", [0x600]) }
        if let hashesTable { entry("1f3755723b3a044b927b1da6efa8d454", [hashesTable.0, hashesTable.1]) }
        if let secretArea { entry("61b32e4c9b7dc34c8081127c90d3d294", [secretArea.0, secretArea.1]) }
        if let applicationProcessorEntry { entry("de71f7007e1acb4f890e68c77e2fb44e", [applicationProcessorEntry]) }
        entry("de82b596b21ff745baeaa366c55a082d", [])
        let end = byteCount - 32
        bytes.replaceSubrange((end - table.count)..<end, with: table)
        bytes.set(end - 18, UInt64(table.count), width: 2)
        return bytes
    }

    /// Every kind, with a name.
    static let all: [(name: String, bytes: [UInt8])] = [
        ("bzImage", bzImage()), ("ELF", elf()), ("UKI", uki()), ("firmware", firmware()),
    ]
}

/// A value of an image, forced through everything that reads it: parse, then plan.
func parseAndPlan(
    _ bytes: [UInt8], technology: GuestTechnology? = .snp, memoryByteCount: UInt64 = 64 << 20
) throws(ImageError) -> LaunchPlan {
    let machine = MachineDescription(memoryByteCount: memoryByteCount, technology: technology)
    switch try GuestImage.identify(bytes) {
    case .unifiedKernelImage(let image): return try DirectBoot.plan(BootPayload(image), on: machine)
    case .kernel(let kernel): return try DirectBoot.plan(BootPayload(kernel: kernel), on: machine)
    case .firmware(let image): return try FirmwareLaunch.plan(image, on: machine)
    case .igvm(let image): return try IGVMLaunch.plan(image, on: machine)
    }
}

/// True when an error can be shown to a person: nothing in it is empty.
func isComplete(_ error: ImageError) -> Bool {
    ![error.attempt, error.expected, error.found, error.likelyCause, error.nextStep].contains { $0.isEmpty }
}
