// The section table of a PE executable: what a unified kernel image is made of.

/// A PE32+ image for x86-64, as far as its section table [PE/COFF "Section Table"].
public struct PEImage: Sendable {
    /// One section: its name and where its bytes lie in the file.
    public struct Section: Sendable {
        public var name: String
        public var fileOffset: UInt64
        /// Bytes that count: VirtualSize, or SizeOfRawData where VirtualSize is 0.
        public var byteCount: UInt64
        /// SizeOfRawData: bytes in the file, padding included.
        public var rawByteCount: UInt64
    }

    /// In table order.
    public let sections: [Section]

    static let subject = "PE image"
    /// The loader of Windows stops at 96; nobody needs more.
    static let maximumSectionCount: UInt16 = 96

    /// True when the file begins as a DOS and PE header do.
    static func recognises(_ file: ImageBytes) -> Bool {
        guard file.has([0x4d, 0x5a], at: 0), let offset = try? file.integer(at: 0x3c, "e_lfanew", as: UInt32.self)
        else {
            return false
        }
        return file.has([0x50, 0x45, 0, 0], at: UInt64(offset))
    }

    /// The same, of a file in memory.
    public init(_ bytes: [UInt8]) throws(ImageError) { try self.init(ImageSource(bytes)) }

    /// Reads the section table.
    ///
    /// - Throws: ``ImageError``; a section that reaches beyond the file is refused only when it is one of ours
    ///   (``bytes(of:in:)``).
    public init(_ source: ImageSource) throws(ImageError) {
        let file = ImageBytes(source, as: Self.subject)
        guard file.has([0x4d, 0x5a], at: 0) else {
            throw file.malformed("e_magic", at: 0, expected: "\"MZ\"", found: "other bytes", category: .unrecognised)
        }
        let header = UInt64(try file.integer(at: 0x3c, "e_lfanew", as: UInt32.self))
        guard file.has([0x50, 0x45, 0, 0], at: header) else {
            throw file.malformed(
                "PE signature", at: header, expected: "\"PE\\0\\0\"", found: "other bytes", category: .unrecognised)
        }
        let machine = try file.integer(at: header + 4, "Machine", as: UInt16.self)
        guard machine == 0x8664 else {
            throw file.malformed(
                "Machine", at: header + 4, expected: "0x8664 (x86-64)", found: hex(machine),
                cause: "the image is for another processor", next: "use the amd64 build", category: .unsupported)
        }
        let sectionCount = try file.integer(at: header + 6, "NumberOfSections", as: UInt16.self)
        guard sectionCount <= Self.maximumSectionCount else {
            throw file.malformed(
                "NumberOfSections", at: header + 6, expected: "at most \(Self.maximumSectionCount)",
                found: "\(sectionCount)")
        }
        let optionalHeaderByteCount = try file.integer(at: header + 20, "SizeOfOptionalHeader", as: UInt16.self)
        let table = header + 24 + UInt64(optionalHeaderByteCount)
        var sections: [Section] = []
        for index in 0..<UInt64(sectionCount) {
            let entry = table + 40 * index
            let name = try file.copy(at: entry, byteCount: 8, "section table")
            let virtualByteCount = try file.integer(at: entry + 8, "VirtualSize", as: UInt32.self)
            let rawByteCount = try file.integer(at: entry + 16, "SizeOfRawData", as: UInt32.self)
            let fileOffset = try file.integer(at: entry + 20, "PointerToRawData", as: UInt32.self)
            // Raw data is padded to the file alignment; VirtualSize is the true length.
            let byteCount = virtualByteCount == 0 ? rawByteCount : virtualByteCount
            sections.append(
                Section(
                    name: String(decoding: name.prefix { $0 != 0 }, as: UTF8.self), fileOffset: UInt64(fileOffset),
                    byteCount: UInt64(byteCount), rawByteCount: UInt64(rawByteCount)))
        }
        self.sections = sections
    }

    /// The bytes of a section, in the file the table was read from.
    func source(of section: Section, in file: ImageBytes) throws(ImageError) -> ImageSource {
        guard section.byteCount <= section.rawByteCount else {
            throw file.malformed(
                "section \(section.name)", at: section.fileOffset,
                expected: "at most SizeOfRawData (\(section.rawByteCount)) bytes",
                found: "VirtualSize \(section.byteCount)",
                cause: "the section was made larger than its contents", next: "make the image again")
        }
        return try file.part(at: section.fileOffset, byteCount: section.byteCount, "section \(section.name)")
    }
}
