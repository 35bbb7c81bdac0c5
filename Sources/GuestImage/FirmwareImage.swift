// A flat firmware image that ends at 4 GiB and says in a GUIDed table how it wants to be launched.

/// OVMF or a firmware like it: the image, its SEV metadata, its reset block, its hashes table and its secret area.
public struct FirmwareImage: Sendable {
    /// The type of a metadata section. Values of others survive.
    public struct SectionType: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
        public var rawValue: UInt32
        public init(rawValue: UInt32) { self.rawValue = rawValue }
        /// SNP_SEC_MEM: the firmware's early RAM.
        public static let memory = SectionType(rawValue: 1)
        /// SNP_SECRETS.
        public static let secrets = SectionType(rawValue: 2)
        /// CPUID.
        public static let cpuid = SectionType(rawValue: 3)
        /// SVSM_CAA: the SVSM calling area.
        public static let svsmCallingArea = SectionType(rawValue: 4)
        /// SNP_KERNEL_HASHES.
        public static let kernelHashes = SectionType(rawValue: 0x10)

        public var description: String {
            switch self {
            case .memory: "SNP_SEC_MEM"
            case .secrets: "SNP_SECRETS"
            case .cpuid: "CPUID"
            case .svsmCallingArea: "SVSM_CAA"
            case .kernelHashes: "SNP_KERNEL_HASHES"
            default: "type \(hex(rawValue))"
            }
        }
    }

    /// One entry of the ASEV metadata. Page aligned, not empty, below 4 GiB, apart from the others and the image.
    public struct Section: Equatable, Sendable {
        public var gpa: UInt64
        public var byteCount: UInt64
        public var type: SectionType

        public init(gpa: UInt64, byteCount: UInt64, type: SectionType) {
            self.gpa = gpa
            self.byteCount = byteCount
            self.type = type
        }
    }

    /// The image: whole pages, at most 16 MiB.
    public let bytes: [UInt8]
    /// In list order. Empty when the image has no SEV metadata: it was built without SNP support, but may serve SEV and
    /// SEV-ES, which do not use them.
    public let sections: [Section]
    /// Where processors other than the boot one start (SEV-ES reset block), if the image says so.
    public let applicationProcessorEntry: UInt32?
    /// Where the hashes table goes; nil when the image has no entry or one with address 0.
    public let hashesTable: (gpa: UInt64, byteCount: UInt64)?
    /// Where the firmware looks for the owner's secret table (SEV launch secret area); nil when the image has no entry or one
    /// with address 0.
    public let secretArea: (gpa: UInt64, byteCount: UInt64)?

    static let subject = "firmware image"
    /// The image may fill the last 16 MiB below 4 GiB; below lie the local APIC and other devices.
    static let maximumByteCount: UInt64 = 16 << 20
    /// Early RAM is a few hundred KiB in every firmware seen.
    static let maximumSectionByteCount: UInt64 = 64 << 20
    /// The table ends this far before the end of the image.
    static let tableEndDistance: UInt64 = 32
    /// Length and GUID of an entry.
    static let entryHeadByteCount: UInt64 = 18

    /// The guest physical address of the first byte.
    public var loadAddress: UInt64 { (1 << 32) - UInt64(bytes.count) }

    static func recognises(_ file: ImageBytes) -> Bool {
        file.count >= 50 && file.has(GUID.tableFooter.bytes, at: file.count - 48)
    }

    /// Reads the GUIDed table and the ASEV metadata.
    ///
    /// - Throws: ``ImageError``. An image without ASEV metadata is not an error here, only in a plan for SNP
    ///   (``launchSections()``).
    public init(_ bytes: [UInt8]) throws(ImageError) {
        let file = ImageBytes(bytes, as: Self.subject)
        guard Self.recognises(file) else {
            throw file.malformed(
                "GUIDed table", expected: "its footer 48 bytes before the end", found: GuestImage.describe(bytes),
                cause: "the image is no SEV-capable OVMF, or its end is missing",
                next: "use an OVMF build with SEV support (edk2 OvmfPkg X64 or AmdSev)", category: .unsupported)
        }
        guard file.count & 0xfff == 0, file.count <= Self.maximumByteCount else {
            throw file.malformed(
                "image size", expected: "a multiple of 4096, at most \(Self.maximumByteCount)",
                found: "\(file.count) bytes",
                cause: "the beginning of the file is cut off, or something was put before it")
        }
        self.bytes = bytes
        let table = try Self.entries(of: file)
        if let block = table[.sevESResetBlock] {
            applicationProcessorEntry = try file.integer(at: try block.first(4, file), "SEV-ES reset block")
        } else {
            applicationProcessorEntry = nil
        }
        func place(_ guid: GUID, _ name: String) throws(ImageError) -> (gpa: UInt64, byteCount: UInt64)? {
            guard let entry = table[guid] else { return nil }
            let offset = try entry.first(8, file)
            let gpa = UInt64(try file.integer(at: offset, "\(name) address", as: UInt32.self))
            let byteCount = UInt64(try file.integer(at: offset + 4, "\(name) size", as: UInt32.self))
            return gpa == 0 ? nil : (gpa, byteCount)
        }
        hashesTable = try place(.sevHashesTable, "hashes table")
        secretArea = try place(.sevSecretArea, "secret area")
        guard let metadata = table[.sevMetadata] else {
            sections = []
            return
        }
        let distance = UInt64(try file.integer(at: try metadata.first(4, file), "SEV metadata offset", as: UInt32.self))
        sections = try Self.sections(distanceFromEnd: distance, of: file)
    }

    /// The sections for an SNP launch.
    ///
    /// - Throws: ``ImageError`` when the image has no metadata: its digest would describe no SNP launch.
    func launchSections() throws(ImageError) -> [Section] {
        // Metadata without a section is refused when the image is read.
        guard !sections.isEmpty else {
            throw ImageError(
                .unsupported, attempt: "plan an SNP launch of the \(Self.subject)",
                field: "SEV metadata entry dc886566-984a-4798-a75e-5585a7bf67cc",
                expected: "an entry of the GUIDed table", found: "none",
                likelyCause: "the image was built without SNP support (Debian's 4M images are)",
                nextStep:
                    "use an image with SNP metadata, such as Debian's 2M OVMF.fd or OVMF_CODE.fd, or launch this one as "
                    + "SEV or SEV-ES")
        }
        return sections
    }

    /// Where an entry's data lies in the file.
    private struct Entry {
        var guid: GUID
        var offset: UInt64
        var byteCount: UInt64

        /// The offset, after the check that there are enough bytes.
        func first(_ needed: UInt64, _ file: ImageBytes) throws(ImageError) -> UInt64 {
            guard byteCount >= needed else {
                throw file.malformed(
                    "GUIDed table entry", at: offset, expected: "at least \(needed) bytes of data",
                    found: "\(byteCount)")
            }
            return offset
        }
    }

    /// Walks the table from its footer down.
    private static func entries(of file: ImageBytes) throws(ImageError) -> [GUID: Entry] {
        let end = file.count - tableEndDistance
        let footer = end - entryHeadByteCount
        let total = UInt64(try file.integer(at: footer, "GUIDed table length", as: UInt16.self))
        guard total >= entryHeadByteCount, total <= end else {
            throw file.malformed(
                "GUIDed table length", at: footer, expected: "\(entryHeadByteCount)…\(end)", found: "\(total)")
        }
        let start = end - total
        var position = footer
        var entries: [GUID: Entry] = [:]
        while position > start {
            guard position - start >= entryHeadByteCount else {
                throw file.malformed(
                    "GUIDed table length", at: footer, expected: "whole entries",
                    found: "\(position - start) bytes left over")
            }
            let head = position - entryHeadByteCount
            let length = UInt64(try file.integer(at: head, "GUIDed table entry length", as: UInt16.self))
            guard length >= entryHeadByteCount, length <= position - start else {
                throw file.malformed(
                    "GUIDed table entry length", at: head, expected: "\(entryHeadByteCount)…\(position - start)",
                    found: "\(length)")
            }
            let guid = GUID(stored: try file.copy(at: head + 2, byteCount: 16, "GUIDed table entry"))
            // The first one found counts, as for a program that searches for it.
            if entries[guid] == nil {
                entries[guid] = Entry(guid: guid, offset: position - length, byteCount: length - entryHeadByteCount)
            }
            position -= length
        }
        return entries
    }

    /// Reads the ASEV header and its sections.
    private static func sections(distanceFromEnd distance: UInt64, of file: ImageBytes) throws(ImageError) -> [Section]
    {
        guard distance >= 16, distance <= file.count else {
            throw file.malformed(
                "SEV metadata offset", expected: "16…\(file.count) bytes before the end", found: "\(distance)")
        }
        let header = file.count - distance
        guard file.has(Array("ASEV".utf8), at: header) else {
            throw file.malformed("SEV metadata signature", at: header, expected: "\"ASEV\"", found: "other bytes")
        }
        let length = UInt64(try file.integer(at: header + 4, "SEV metadata length", as: UInt32.self))
        let version = try file.integer(at: header + 8, "SEV metadata version", as: UInt32.self)
        let count = UInt64(try file.integer(at: header + 12, "SEV metadata section count", as: UInt32.self))
        guard version == 1 else {
            throw file.malformed(
                "SEV metadata version", at: header + 8, expected: "1", found: "\(version)",
                cause: "the firmware is newer than this program", next: "use an image with version 1",
                category: .unsupported)
        }
        guard count >= 1, length == 16 + 12 * count, length <= distance else {
            throw file.malformed(
                "SEV metadata length", at: header + 4, expected: "16 + 12·\(count), inside the image, with sections",
                found: "\(length)")
        }
        let imageStart = (1 << 32) - file.count
        var sections: [Section] = []
        for index in 0..<count {
            let entry = header + 16 + 12 * index
            let section = Section(
                gpa: UInt64(try file.integer(at: entry, "section address", as: UInt32.self)),
                byteCount: UInt64(try file.integer(at: entry + 4, "section size", as: UInt32.self)),
                type: SectionType(rawValue: try file.integer(at: entry + 8, "section type")))
            guard section.gpa & 0xfff == 0, section.byteCount & 0xfff == 0, section.byteCount > 0,
                section.gpa + section.byteCount <= imageStart
            else {
                throw file.malformed(
                    "SEV metadata section \(index) (\(section.type))", at: entry,
                    expected: "whole pages below the image at \(hex(imageStart))",
                    found: "\(hex(section.gpa)) with \(hex(section.byteCount)) bytes")
            }
            if let other = sections.first(where: {
                $0.gpa < section.gpa + section.byteCount && section.gpa < $0.gpa + $0.byteCount
            }) {
                throw file.malformed(
                    "SEV metadata section \(index) (\(section.type))", at: entry, expected: "pages of its own",
                    found: "\(hex(section.gpa)), which overlaps the section at \(hex(other.gpa))")
            }
            try check(section, index, at: entry, file)
            let isSingle = section.type != .memory && section.type != .svsmCallingArea
            guard !isSingle || !sections.contains(where: { $0.type == section.type }) else {
                throw file.malformed(
                    "SEV metadata section \(index)", at: entry + 8, expected: "one section \(section.type)",
                    found: "two")
            }
            sections.append(section)
        }
        return sections
    }

    /// The rules of the single types.
    private static func check(
        _ section: Section, _ index: UInt64, at entry: UInt64, _ file: ImageBytes
    ) throws(ImageError) {
        switch section.type {
        case .memory, .svsmCallingArea:
            guard section.byteCount <= maximumSectionByteCount else {
                throw file.malformed(
                    "SEV metadata section \(index) (\(section.type))", at: entry + 4,
                    expected: "at most \(readable(byteCount: maximumSectionByteCount))",
                    found: "\(hex(section.byteCount)) bytes")
            }
        case .secrets, .cpuid, .kernelHashes:
            guard section.byteCount == 0x1000 else {
                throw file.malformed(
                    "SEV metadata section \(index) (\(section.type))", at: entry + 4, expected: "one page",
                    found: "\(hex(section.byteCount)) bytes")
            }
        default:
            throw file.malformed(
                "SEV metadata section \(index)", at: entry + 8, expected: "type 1, 2, 3, 4 or 0x10",
                found: section.type.description,
                cause: "the firmware is newer than this program: how the section is measured is not known",
                next: "use an image with the known section types", category: .unsupported)
        }
    }
}
