// A Multiboot 1 image: a 32-bit program that a boot loader enters in protected mode [Multiboot 0.6.96, 3.1].

/// The loadable parts of a Multiboot 1 image, by its ELF program headers or by the addresses in its Multiboot header.
public struct MultibootImage: Sendable {
    /// One part: where it goes, and its bytes; what follows them up to `memoryByteCount` is zero.
    public struct Segment: Sendable {
        public var physicalAddress: UInt64
        public var memoryByteCount: UInt64
        public var contents: [UInt8]
    }

    /// Ascending, without overlap.
    public let segments: [Segment]
    public let entry: UInt32

    static let subject = "Multiboot image"
    private static let magic: UInt32 = 0x1bad_b002
    /// The header is in the first 8 KiB, on a 4-byte boundary.
    private static let searchByteCount = 8192
    /// Bits 0 and 1 (page-aligned modules, memory information) and 16 (address fields) are served.
    private static let servedFlags: UInt32 = 0x1_0003

    /// Reads and checks the headers.
    public init(_ bytes: [UInt8]) throws(ImageError) {
        let file = ImageBytes(bytes, as: Self.subject)
        guard let offset = Self.header(file) else {
            throw file.malformed(
                "Multiboot header", expected: "0x1BADB002, flags and a matching checksum in the first 8192 bytes",
                found: "none", cause: "it is no Multiboot 1 image",
                next: "give a 32-bit ELF with a Multiboot header, or a ROM with --rom", category: .unrecognised)
        }
        let flags = try file.integer(at: offset + 4, "flags", as: UInt32.self)
        // Bits 0 to 15 are requirements.
        guard flags & 0xffff & ~Self.servedFlags == 0 else {
            throw file.malformed(
                "flags", at: offset + 4, expected: "only the requirements page alignment and memory information",
                found: "0x" + String(flags, radix: 16), cause: "an image that needs a video mode",
                next: "build it without", category: .unsupported)
        }
        var found: [Segment]
        if flags & 0x1_0000 != 0 {
            (found, entry) = try Self.byAddresses(file, offset)
        } else {
            (found, entry) = try Self.byProgramHeaders(file)
        }
        found.sort { $0.physicalAddress < $1.physicalAddress }
        for (a, b) in zip(found, found.dropFirst()) where a.physicalAddress + a.memoryByteCount > b.physicalAddress {
            throw file.malformed(
                "segments", expected: "no overlap", found: "two at 0x" + String(b.physicalAddress, radix: 16))
        }
        segments = found
    }

    static func recognises(_ file: ImageBytes) -> Bool { header(file) != nil }

    private static func header(_ file: ImageBytes) -> UInt64? {
        var offset: UInt64 = 0
        while offset < UInt64(searchByteCount), offset + 12 <= file.count {
            if let value = try? file.integer(at: offset, "magic", as: UInt32.self), value == magic,
                let flags = try? file.integer(at: offset + 4, "flags", as: UInt32.self),
                let sum = try? file.integer(at: offset + 8, "checksum", as: UInt32.self), magic &+ flags &+ sum == 0
            {
                return offset
            }
            offset += 4
        }
        return nil
    }

    private static func byAddresses(_ file: ImageBytes, _ header: UInt64) throws(ImageError) -> ([Segment], UInt32) {
        func field(_ n: UInt64, _ name: String) throws(ImageError) -> UInt64 {
            UInt64(try file.integer(at: header + 12 + 4 * n, name, as: UInt32.self))
        }
        let headerAddress = try field(0, "header_addr"), load = try field(1, "load_addr")
        let loadEnd = try field(2, "load_end_addr"), bssEnd = try field(3, "bss_end_addr")
        let entry = UInt32(truncatingIfNeeded: try field(4, "entry_addr"))
        guard load <= headerAddress, headerAddress - load <= header else {
            throw file.malformed("load_addr", expected: "at most header_addr", found: "0x" + String(load, radix: 16))
        }
        let start = header - (headerAddress - load)
        let end = loadEnd == 0 ? load + (file.count - start) : loadEnd
        guard end >= load else {
            throw file.malformed(
                "load_end_addr", expected: "behind load_addr", found: "0x" + String(loadEnd, radix: 16))
        }
        let contents = try file.copy(at: start, byteCount: end - load, "the loaded bytes")
        let memoryEnd = max(end, bssEnd)
        return ([Segment(physicalAddress: load, memoryByteCount: memoryEnd - load, contents: contents)], entry)
    }

    private static func byProgramHeaders(_ file: ImageBytes) throws(ImageError) -> ([Segment], UInt32) {
        guard ELFExecutable.recognises(file), file.has([1, 1], at: 4) else {
            throw file.malformed(
                "EI_CLASS", at: 4, expected: "a 32-bit little-endian ELF, or addresses in the Multiboot header",
                found: "something else", cause: "a 64-bit ELF, which Multiboot 1 does not know",
                next: "convert it with objcopy -O elf32-i386", category: .unsupported)
        }
        let entry = try file.integer(at: 0x18, "e_entry", as: UInt32.self)
        let table = UInt64(try file.integer(at: 0x1c, "e_phoff", as: UInt32.self))
        let count = try file.integer(at: 0x2c, "e_phnum", as: UInt16.self)
        guard count >= 1, count <= ELFExecutable.maximumProgramHeaderCount else {
            throw file.malformed(
                "e_phnum", at: 0x2c, expected: "1…\(ELFExecutable.maximumProgramHeaderCount)", found: "\(count)")
        }
        var segments: [Segment] = []
        for n in 0..<UInt64(count) {
            func field(_ index: UInt64, _ name: String) throws(ImageError) -> UInt64 {
                UInt64(try file.integer(at: table + 32 * n + 4 * index, name, as: UInt32.self))
            }
            guard try field(0, "p_type") == 1 else { continue }
            let byteCount = try field(4, "p_filesz"), memoryByteCount = try field(5, "p_memsz")
            guard memoryByteCount >= byteCount else {
                throw file.malformed("p_memsz", expected: "at least p_filesz", found: "\(memoryByteCount)")
            }
            if memoryByteCount == 0 { continue }
            segments.append(
                Segment(
                    physicalAddress: try field(3, "p_paddr"), memoryByteCount: memoryByteCount,
                    contents: try file.copy(at: try field(1, "p_offset"), byteCount: byteCount, "a segment")))
        }
        guard !segments.isEmpty else {
            throw file.malformed("program headers", expected: "something to load", found: "no PT_LOAD")
        }
        return (segments, entry)
    }
}
