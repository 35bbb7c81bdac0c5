// IGVM: a guest as a list of directives, for loaders of several hypervisors and platforms.
//
//     fixed header   "IGVM", version, variable headers' offset and length, file length, CRC-32
//     headers        platforms, then initialisation, then directives: u32 type, u32 length, contents, zeroes up to 8
//     data           pages that directives point to by their offset in the file

import SEVABI

/// An IGVM file, version 1 or 2, for x86-64: its directives in file order.
public struct IGVMFile: Sendable {
    /// What a platform mask stands for.
    public struct PlatformType: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
        public var rawValue: UInt8
        public init(rawValue: UInt8) { self.rawValue = rawValue }
        public static let native = PlatformType(rawValue: 0)
        public static let vsm = PlatformType(rawValue: 1)
        public static let snp = PlatformType(rawValue: 2)
        public static let tdx = PlatformType(rawValue: 3)
        public static let sev = PlatformType(rawValue: 4)
        public static let sevES = PlatformType(rawValue: 5)

        /// Nil is a guest that nothing protects.
        public init(of technology: GuestTechnology?) {
            self =
                switch technology {
                case .snp: .snp
                case .sevES: .sevES
                case .sev: .sev
                case nil: .native
                }
        }

        public var description: String {
            switch self {
            case .native: "NATIVE"
            case .vsm: "VSM_ISOLATION"
            case .snp: "SEV_SNP"
            case .tdx: "TDX"
            case .sev: "SEV"
            case .sevES: "SEV_ES"
            default: "type \(rawValue)"
            }
        }
    }

    /// IGVM_VHS_SUPPORTED_PLATFORM.
    public struct Platform: Equatable, Sendable {
        /// One bit.
        public var mask: UInt32
        public var type: PlatformType
        /// SHARED_GPA_BOUNDARY: vTOM, 0 for none.
        public var sharedGPABoundary: UInt64
    }

    /// What a page of IGVM_VHS_PAGE_DATA is.
    public enum PageKind: Equatable, Sendable {
        case normal
        case unmeasured
        /// Shared with the host: neither private nor measured.
        case shared
        case secrets
        case cpuid
        /// A kind or size of page that is not for SNP; said only when it is for the platform in question.
        case unsupported(flags: UInt32, dataType: UInt16)
    }

    /// A directive that matters for what is in the guest's memory when it starts.
    public enum Directive: Equatable, Sendable {
        /// One page; a file offset of 0 is a page of zeroes.
        case page(gpa: UInt64, kind: PageKind, fileOffset: UInt32)
        /// Pages that the loader fills with what it knows: memory map, ACPI tables, command line.
        case parameters(gpa: UInt64, area: UInt32, byteCount: UInt64)
        /// The register state of a processor: a VMSA page.
        case processor(gpa: UInt64, index: UInt16, fileOffset: UInt32)
    }

    /// The file.
    public let bytes: [UInt8]
    public let platforms: [Platform]
    /// Guest policies by platform mask.
    public let policies: [(mask: UInt32, policy: UInt64)]
    /// In file order, each for the platforms whose bits its mask has.
    public let directives: [(mask: UInt32, directive: Directive)]
    /// The launch digests that ID blocks in the file are for, by platform mask.
    let identityDigests: [(mask: UInt32, digest: LaunchDigest)]

    static let subject = "IGVM file"
    static let magic = Array("IGVM".utf8)
    /// A page may be named by many directives; a file that asks for more than this is hostile.
    static let maximumMemoryByteCount: UInt64 = 1 << 30

    static func recognises(_ file: ImageBytes) -> Bool { file.has(magic, at: 0) }

    /// Reads the headers.
    ///
    /// - Throws: ``ImageError``: a wrong checksum, headers out of order, one of an unknown type that a loader may not ignore, or
    ///   one that contradicts the others.
    public init(_ bytes: [UInt8]) throws(ImageError) {
        let file = ImageBytes(bytes, as: Self.subject)
        let headers = try Self.checkedHeaders(of: file)
        var reader = IGVMHeaderReader(file: file)
        var position = UInt64(headers.lowerBound)
        while position < UInt64(headers.upperBound) {
            position = try reader.read(at: position, end: UInt64(headers.upperBound))
        }
        guard !reader.platforms.isEmpty else {
            throw file.malformed("headers", expected: "a supported platform", found: "none")
        }
        self.bytes = bytes
        platforms = reader.platforms
        policies = reader.policies
        directives = reader.directives
        identityDigests = reader.identityDigests
    }

    /// The fixed header; returns where the variable ones lie.
    private static func checkedHeaders(of file: ImageBytes) throws(ImageError) -> Range<Int> {
        guard recognises(file) else {
            throw file.malformed(
                "magic", at: 0, expected: "\"IGVM\"", found: GuestImage.describe(file.bytes), category: .unrecognised)
        }
        let version = try file.integer(at: 4, "format version", as: UInt32.self)
        let offset = UInt64(try file.integer(at: 8, "variable header offset", as: UInt32.self))
        let byteCount = UInt64(try file.integer(at: 12, "variable header size", as: UInt32.self))
        let total = UInt64(try file.integer(at: 16, "total file size", as: UInt32.self))
        let checksum = try file.integer(at: 20, "CRC-32", as: UInt32.self)
        guard version == 1 || version == 2 else {
            throw file.malformed(
                "format version", at: 4, expected: "1 or 2", found: "\(version)",
                cause: "a file that is newer than this program", next: "have the file made in version 1",
                category: .unsupported)
        }
        let fixedByteCount: UInt64 = version == 1 ? 24 : 32
        if version == 2 {
            let architecture = try file.integer(at: 24, "architecture", as: UInt32.self)
            let pageByteCount = try file.integer(at: 28, "page size", as: UInt32.self)
            guard architecture == 0, pageByteCount == 4096 else {
                throw file.malformed(
                    "architecture and page size", at: 24, expected: "x86-64 (0) and 4096",
                    found: "\(architecture) and \(pageByteCount)", cause: "the image is for another processor",
                    next: "use the x86-64 build", category: .unsupported)
            }
        }
        guard total == file.count else {
            throw file.malformed(
                "total file size", at: 16, expected: "\(file.count), the file's length", found: "\(total)",
                cause: "the file is truncated, or something was put behind it",
                category: total > file.count ? .truncated : .malformed)
        }
        guard offset >= fixedByteCount, offset & 7 == 0 else {
            throw file.malformed(
                "variable header offset", at: 8, expected: "a multiple of 8 from \(fixedByteCount)", found: "\(offset)")
        }
        let headers = try file.range(at: offset, byteCount: byteCount, "variable headers")
        var crc = CRC32()
        crc.update(file.bytes[0..<20])
        crc.update([0, 0, 0, 0])
        crc.update(file.bytes[24..<Int(fixedByteCount)])
        crc.update(file.bytes[headers])
        guard crc.value == checksum else {
            throw file.malformed(
                "CRC-32", at: 20, expected: hex(crc.value), found: hex(checksum),
                cause: "the headers were changed or damaged")
        }
        return headers
    }

    /// The launch digests that the file's ID blocks are for, of one technology.
    public func identityDigests(for technology: GuestTechnology) -> [LaunchDigest] {
        let type = PlatformType(of: technology)
        let mask = platforms.first { $0.type == type }?.mask ?? 0
        return identityDigests.filter { $0.mask & mask != 0 }.map(\.digest)
    }

    /// The page at a file offset; zeroes for offset 0.
    func page(at fileOffset: UInt32) throws(ImageError) -> [UInt8] {
        fileOffset == 0
            ? [UInt8](repeating: 0, count: 4096)
            : try ImageBytes(bytes, as: Self.subject).copy(at: UInt64(fileOffset), byteCount: 4096, "page data")
    }
}

/// The checksum of zlib [IEEE 802.3].
struct CRC32 {
    private var state: UInt32 = .max

    var value: UInt32 { ~state }

    mutating func update(_ bytes: some Sequence<UInt8>) {
        for byte in bytes {
            state ^= UInt32(byte)
            for _ in 0..<8 { state = state & 1 == 0 ? state &>> 1 : state &>> 1 ^ 0xedb8_8320 }
        }
    }
}
