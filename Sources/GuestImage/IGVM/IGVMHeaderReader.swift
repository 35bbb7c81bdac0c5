// The variable headers of an IGVM file, one after the other.

import SEVABI

/// Reads headers in file order and keeps what they say.
struct IGVMHeaderReader {
    /// Sections come in this order, and no header goes back.
    private enum Section: Int {
        case platforms
        case initialisation
        case directives
    }

    let file: ImageBytes
    var platforms: [IGVMFile.Platform] = []
    var policies: [(mask: UInt32, policy: UInt64)] = []
    var directives: [(mask: UInt32, directive: IGVMFile.Directive)] = []
    var identityDigests: [(mask: UInt32, digest: LaunchDigest)] = []
    private var section = Section.platforms
    /// Byte counts of parameter areas by their index.
    private var areas: [UInt32: UInt64] = [:]

    init(file: ImageBytes) { self.file = file }

    /// One header.
    ///
    /// - Returns: Where the next one begins.
    mutating func read(at position: UInt64, end: UInt64) throws(ImageError) -> UInt64 {
        let type = try file.integer(at: position, "header type", as: UInt32.self)
        let byteCount = UInt64(try file.integer(at: position + 4, "header length", as: UInt32.self))
        let next = position + 8 + (byteCount + 7) & ~7
        guard next <= end else {
            throw file.malformed(
                "header length", at: position + 4, expected: "at most \(end - min(end, position + 8))",
                found: "\(byteCount)")
        }
        // The contents lie inside the file, since `end` does.
        let field = IGVMHeaderFields(file: file, type: type, start: position + 8, byteCount: byteCount)
        try enter(type, at: position)
        switch type {
        case 0x001: try addPlatform(field)
        case 0x101:
            try field.check(16)
            policies.append((try mask(field, at: 8), try field.integer(0)))
        case 0x102, 0x103:
            throw file.malformed(
                "header type", at: position, expected: "no relocation", found: hex(type),
                cause: "an image whose place the loader chooses, which no measurement can foresee",
                next: "have the file made without relocations", category: .unsupported)
        case 0x301: try addArea(field)
        case 0x302: try addPage(field)
        case 0x303: try addParameters(field)
        case 0x304: try addProcessor(field)
        case 0x30b: try addIdentity(field)
        // Required memory, VP count, SRAT, MADT, MMIO ranges, memory map, error range, command line, SLIT, PPTT, VBS, device
        // tree, environment: nothing that is measured.
        case 0x305, 0x306...0x30a, 0x30c...0x313: break
        default:
            // Bit 31: a loader may ignore it.
            guard type & 1 << 31 != 0 else {
                throw file.malformed(
                    "header type", at: position, expected: "a known type, or one that may be ignored",
                    found: hex(type), cause: "a file that is newer than this program",
                    next: "have the file made without this header", category: .unsupported)
            }
        }
        return next
    }

    private mutating func enter(_ type: UInt32, at position: UInt64) throws(ImageError) {
        let wanted: Section
        switch type & 0x7fff_ffff {
        case 0x001...0x100: wanted = .platforms
        case 0x101...0x200: wanted = .initialisation
        case 0x301...0x400: wanted = .directives
        default: return
        }
        guard wanted.rawValue >= section.rawValue else {
            throw file.malformed(
                "header type", at: position, expected: "platforms, then initialisation, then directives",
                found: "\(hex(type)) behind a later section")
        }
        section = wanted
    }

    private mutating func addPlatform(_ field: IGVMHeaderFields) throws(ImageError) {
        try field.check(16)
        let mask: UInt32 = try field.integer(0)
        let version: UInt16 = try field.integer(6)
        guard mask.nonzeroBitCount == 1, !platforms.contains(where: { $0.mask == mask }) else {
            throw field.wrong("compatibility mask", expected: "one bit of its own", found: hex(mask))
        }
        let type = IGVMFile.PlatformType(rawValue: try field.integer(5))
        guard version == 1 else {
            throw field.wrong("platform version", expected: "1", found: "\(version)", category: .unsupported)
        }
        platforms.append(.init(mask: mask, type: type, sharedGPABoundary: try field.integer(8)))
    }

    private mutating func addArea(_ field: IGVMHeaderFields) throws(ImageError) {
        try field.check(16)
        let byteCount: UInt64 = try field.integer(0)
        let index: UInt32 = try field.integer(8)
        guard byteCount > 0, byteCount & 0xfff == 0, byteCount <= IGVMFile.maximumMemoryByteCount else {
            throw field.wrong("parameter area size", expected: "whole pages", found: hex(byteCount))
        }
        guard areas[index] == nil else {
            throw field.wrong("parameter area index", expected: "one of its own", found: "\(index) again")
        }
        areas[index] = byteCount
    }

    private mutating func addPage(_ field: IGVMHeaderFields) throws(ImageError) {
        try field.check(24)
        let offset: UInt32 = try field.integer(12)
        let flags: UInt32 = try field.integer(16)
        let type: UInt16 = try field.integer(20)
        let kind: IGVMFile.PageKind
        switch (type, flags) {
        case (_, _) where flags & ~6 != 0 || type > 3: kind = .unsupported(flags: flags, dataType: type)
        case (0, 0): kind = .normal
        case (0, 2): kind = .unmeasured
        case (_, 4...): kind = .shared
        case (1, _): kind = .secrets
        default: kind = .cpuid
        }
        let page = IGVMFile.Directive.page(gpa: try gpa(field), kind: kind, fileOffset: offset)
        directives.append((try mask(field, at: 8), page))
    }

    private mutating func addParameters(_ field: IGVMHeaderFields) throws(ImageError) {
        try field.check(16)
        let index: UInt32 = try field.integer(12)
        guard let byteCount = areas[index] else {
            throw field.wrong("parameter area index", expected: "one that was declared before", found: "\(index)")
        }
        let gpa = try gpa(field)
        guard !gpa.addingReportingOverflow(byteCount).overflow else {
            throw field.wrong("GPA", expected: "an address with room for the area", found: hex(gpa))
        }
        directives.append((try mask(field, at: 8), .parameters(gpa: gpa, area: index, byteCount: byteCount)))
    }

    private mutating func addProcessor(_ field: IGVMHeaderFields) throws(ImageError) {
        try field.check(20)
        let offset: UInt32 = try field.integer(12)
        directives.append(
            (
                try mask(field, at: 8),
                .processor(gpa: try gpa(field), index: try field.integer(16), fileOffset: offset)
            ))
    }

    /// IGVM_VHS_SNP_ID_BLOCK: the digest that the block is for. The rest is for `id-block check`.
    private mutating func addIdentity(_ field: IGVMHeaderFields) throws(ImageError) {
        try field.check(696)
        let bytes = try file.copy(at: field.start + 8, byteCount: 48, "ID block launch digest")
        if let digest = LaunchDigest(bytes) { identityDigests.append((try mask(field, at: 0), digest)) }
    }

    /// Only bits of platforms that were declared.
    private func mask(_ field: IGVMHeaderFields, at offset: UInt64) throws(ImageError) -> UInt32 {
        let mask: UInt32 = try field.integer(offset)
        let known = platforms.reduce(0) { $0 | $1.mask }
        guard mask & ~known == 0, mask != 0 else {
            throw field.wrong(
                "compatibility mask", expected: "bits of declared platforms (\(hex(known)))", found: hex(mask))
        }
        return mask
    }

    private func gpa(_ field: IGVMHeaderFields) throws(ImageError) -> UInt64 {
        let gpa: UInt64 = try field.integer(0)
        guard gpa & 0xfff == 0, gpa < 1 << 52 else {
            throw field.wrong("GPA", expected: "a page's address below 2^52", found: hex(gpa))
        }
        return gpa
    }
}

/// The contents of one header.
struct IGVMHeaderFields {
    let file: ImageBytes
    let type: UInt32
    /// Of the contents in the file.
    let start: UInt64
    let byteCount: UInt64

    func check(_ expected: UInt64) throws(ImageError) {
        guard byteCount == expected else {
            throw wrong("header length", expected: "\(expected)", found: "\(byteCount)")
        }
    }

    func integer<T: FixedWidthInteger & UnsignedInteger>(_ offset: UInt64) throws(ImageError) -> T {
        try file.integer(at: start + offset, "header \(hex(type))")
    }

    func wrong(
        _ field: String, expected: String, found: String, category: ImageError.Category = .malformed
    ) -> ImageError {
        file.malformed(
            "\(field) of header \(hex(type))", at: start, expected: expected, found: found, category: category)
    }
}
