// A statically linked x86-64 ELF executable, loaded by its physical addresses: vmlinux, or a small test guest.

/// The loadable segments and the entry point of an ELF64 executable [gABI chapter 5].
public struct ELFExecutable: Sendable {
    /// One PT_LOAD segment.
    public struct Segment: Sendable {
        /// `p_paddr`.
        public var physicalAddress: UInt64
        /// `p_vaddr`.
        public var virtualAddress: UInt64
        /// `p_memsz`: what is not in ``contents`` is zero.
        public var memoryByteCount: UInt64
        /// The `p_filesz` bytes of the file.
        public var contents: [UInt8]

        var physicalEnd: UInt64 { physicalAddress + memoryByteCount }
    }

    /// Ascending by physical address, without overlap, none empty.
    public let segments: [Segment]
    /// The physical address of the first instruction.
    public let entry: UInt64

    static let subject = "ELF executable"
    /// More than any linker makes.
    static let maximumProgramHeaderCount: UInt16 = 128
    /// Physical addresses end here: no x86-64 processor has more than 52 bits.
    static let physicalAddressLimit: UInt64 = 1 << 52

    static func recognises(_ file: ImageBytes) -> Bool { file.has([0x7f, 0x45, 0x4c, 0x46], at: 0) }

    /// The same, of a file in memory.
    public init(_ bytes: [UInt8]) throws(ImageError) { try self.init(ImageSource(bytes)) }

    /// Reads and checks the headers.
    ///
    /// `e_entry` may be physical (as in vmlinux) or virtual; a virtual one is translated by the segment that holds it.
    public init(_ source: ImageSource) throws(ImageError) {
        let file = ImageBytes(source, as: Self.subject)
        guard Self.recognises(file) else {
            throw file.malformed(
                "e_ident", at: 0, expected: "\"\\x7fELF\"", found: "other bytes", category: .unrecognised)
        }
        let identity = try file.copy(at: 0, byteCount: 16, "e_ident")
        guard identity[4] == 2, identity[5] == 1 else {
            throw file.malformed(
                "EI_CLASS, EI_DATA", at: 4, expected: "2, 1 (64-bit, little-endian)",
                found: "\(identity[4]), \(identity[5])",
                cause: "it is an executable for another kind of processor, or a 32-bit one",
                next: "use an x86-64 vmlinux", category: .unsupported)
        }
        let type = try file.integer(at: 0x10, "e_type", as: UInt16.self)
        let machine = try file.integer(at: 0x12, "e_machine", as: UInt16.self)
        guard machine == 62, type == 2 else {
            throw file.malformed(
                "e_type, e_machine", at: 0x10, expected: "2, 62 (ET_EXEC, EM_X86_64)", found: "\(type), \(machine)",
                cause: "it is a relocatable or position-independent program, or one for another processor",
                next: "use an uncompressed x86-64 vmlinux", category: .unsupported)
        }
        let headerByteCount = try file.integer(at: 0x36, "e_phentsize", as: UInt16.self)
        let headerCount = try file.integer(at: 0x38, "e_phnum", as: UInt16.self)
        guard headerByteCount == 56 else {
            throw file.malformed("e_phentsize", at: 0x36, expected: "56", found: "\(headerByteCount)")
        }
        guard headerCount >= 1, headerCount <= Self.maximumProgramHeaderCount else {
            throw file.malformed(
                "e_phnum", at: 0x38, expected: "1…\(Self.maximumProgramHeaderCount)", found: "\(headerCount)")
        }
        let table = try file.integer(at: 0x20, "e_phoff", as: UInt64.self)
        _ = try file.range(at: table, byteCount: 56 * UInt64(headerCount), "program header table")
        var segments: [Segment] = []
        for index in 0..<UInt64(headerCount) {
            if let segment = try Self.segment(at: table + 56 * index, of: file) { segments.append(segment) }
        }
        guard !segments.isEmpty else {
            throw file.malformed(
                "program header table", at: table, expected: "a PT_LOAD segment", found: "none",
                cause: "it is not a program", next: "use an uncompressed vmlinux", category: .unsupported)
        }
        segments.sort { $0.physicalAddress < $1.physicalAddress }
        for (lower, upper) in zip(segments, segments.dropFirst()) where lower.physicalEnd > upper.physicalAddress {
            throw file.malformed(
                "p_paddr", expected: "segments that do not overlap",
                found:
                    "\(hex(lower.physicalAddress))…\(hex(lower.physicalEnd)) and one at \(hex(upper.physicalAddress))")
        }
        self.segments = segments

        let start = try file.integer(at: 0x18, "e_entry", as: UInt64.self)
        func holds(_ base: UInt64, _ segment: Segment) -> Bool {
            start >= base && start - base < UInt64(segment.contents.count)
        }
        if segments.contains(where: { holds($0.physicalAddress, $0) }) {
            entry = start
        } else if let segment = segments.first(where: { holds($0.virtualAddress, $0) }) {
            entry = segment.physicalAddress + (start - segment.virtualAddress)
        } else {
            throw file.malformed(
                "e_entry", at: 0x18, expected: "an address inside a segment's bytes", found: hex(start))
        }
    }

    /// One program header; nil unless it is a PT_LOAD that occupies memory.
    private static func segment(at header: UInt64, of file: ImageBytes) throws(ImageError) -> Segment? {
        guard try file.integer(at: header, "p_type", as: UInt32.self) == 1 else { return nil }
        let offset = try file.integer(at: header + 8, "p_offset", as: UInt64.self)
        let virtual = try file.integer(at: header + 16, "p_vaddr", as: UInt64.self)
        let physical = try file.integer(at: header + 24, "p_paddr", as: UInt64.self)
        let fileByteCount = try file.integer(at: header + 32, "p_filesz", as: UInt64.self)
        let memoryByteCount = try file.integer(at: header + 40, "p_memsz", as: UInt64.self)
        guard memoryByteCount > 0 else { return nil }
        guard fileByteCount <= memoryByteCount else {
            throw file.malformed(
                "p_filesz", at: header + 32, expected: "at most p_memsz (\(hex(memoryByteCount)))",
                found: hex(fileByteCount))
        }
        let (end, overflow) = physical.addingReportingOverflow(memoryByteCount)
        guard !overflow, end <= physicalAddressLimit else {
            throw file.malformed(
                "p_paddr", at: header + 24, expected: "a segment below \(hex(physicalAddressLimit))",
                found: "\(hex(physical)) with \(hex(memoryByteCount)) bytes",
                cause: "the program is linked for virtual addresses without load addresses",
                next: "use a vmlinux, or give the linker script AT() addresses")
        }
        return Segment(
            physicalAddress: physical, virtualAddress: virtual, memoryByteCount: memoryByteCount,
            contents: try file.copy(at: offset, byteCount: fileByteCount, "PT_LOAD segment"))
    }
}
