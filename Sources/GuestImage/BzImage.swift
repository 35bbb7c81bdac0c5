// The setup header of a bzImage: what it takes to enter the kernel at its 64-bit entry point.

/// A Linux bzImage of boot protocol 2.12 or later [Linux x86/boot.rst].
public struct BzImage: Sendable {
    /// Bytes 0x1F1 up to the end of the setup header, as they go into boot_params.
    public let setupHeader: [UInt8]
    /// `version`: 0x020C is 2.12.
    public let protocolVersion: UInt16
    /// The protected-mode part: what is loaded. Zeroes fill its last page.
    public let protectedMode: [UInt8]
    /// `pref_address`.
    public let preferredAddress: UInt64
    /// `kernel_alignment`, a power of two.
    public let alignment: UInt64
    /// `relocatable_kernel` is set.
    public let isRelocatable: Bool
    /// `init_size`, or the loaded bytes if they are more: the RAM the kernel needs from its load address on.
    public let windowByteCount: UInt64
    /// `cmdline_size`: bytes of command line without the NUL.
    public let maximumCommandLineByteCount: UInt64
    /// `initrd_addr_max`: the last address an initrd byte may have.
    public let initrdLastAddress: UInt64

    /// The 64-bit entry point lies this far behind the load address.
    public static let entryOffset: UInt64 = 0x200
    static let subject = "bzImage"

    static func recognises(_ file: ImageBytes) -> Bool { file.has(Array("HdrS".utf8), at: 0x202) }

    /// The same, of a file in memory.
    public init(_ bytes: [UInt8]) throws(ImageError) { try self.init(ImageSource(bytes)) }

    /// Reads and checks the setup header.
    ///
    /// - Throws: ``ImageError``. Bytes after the protected-mode part (a signature, a checksum) are not an error.
    public init(_ source: ImageSource) throws(ImageError) {
        let file = ImageBytes(source, as: Self.subject)
        guard Self.recognises(file) else {
            throw file.malformed(
                "header", at: 0x202, expected: "\"HdrS\"", found: "other bytes", category: .unrecognised)
        }
        let bootFlag = try file.integer(at: 0x1fe, "boot_flag", as: UInt16.self)
        guard bootFlag == 0xaa55 else {
            throw file.malformed("boot_flag", at: 0x1fe, expected: "0xaa55", found: hex(bootFlag))
        }
        protocolVersion = try file.integer(at: 0x206, "version")
        guard protocolVersion >= 0x020c else {
            throw file.malformed(
                "version", at: 0x206, expected: "boot protocol 2.12 (0x20c) or later", found: hex(protocolVersion),
                cause: "the kernel is older than Linux 3.8 and has no 64-bit entry point",
                next: "use a 64-bit kernel, 5.19 or later for an SNP guest", category: .unsupported)
        }
        let xloadflags = try file.integer(at: 0x236, "xloadflags", as: UInt16.self)
        guard xloadflags & 1 != 0 else {
            throw file.malformed(
                "xloadflags", at: 0x236, expected: "bit 0 (XLF_KERNEL_64) set", found: hex(xloadflags),
                cause: "it is a 32-bit kernel", next: "use the amd64 build", category: .unsupported)
        }
        let loadflags = try file.integer(at: 0x211, "loadflags", as: UInt8.self)
        guard loadflags & 1 != 0 else {
            throw file.malformed(
                "loadflags", at: 0x211, expected: "bit 0 (LOADED_HIGH) set", found: hex(loadflags),
                cause: "it is a zImage, which loads below 1 MiB", next: "use a bzImage", category: .unsupported)
        }
        // The header ends where the short jump at 0x200 leads to; boot_params has room for it up to 0x290.
        let headerEnd = 0x202 + UInt64(try file.integer(at: 0x201, "jump", as: UInt8.self))
        guard headerEnd >= 0x264, headerEnd <= 0x290 else {
            throw file.malformed(
                "jump", at: 0x201, expected: "a setup header that ends at 0x264…0x290",
                found: "an end at \(hex(headerEnd))")
        }
        setupHeader = try file.copy(at: 0x1f1, byteCount: headerEnd - 0x1f1, "setup header")

        let alignment = UInt64(try file.integer(at: 0x230, "kernel_alignment", as: UInt32.self))
        guard alignment.nonzeroBitCount == 1 else {
            throw file.malformed("kernel_alignment", at: 0x230, expected: "a power of two", found: hex(alignment))
        }
        self.alignment = alignment
        isRelocatable = try file.integer(at: 0x234, "relocatable_kernel", as: UInt8.self) != 0
        preferredAddress = try file.integer(at: 0x258, "pref_address")
        maximumCommandLineByteCount = UInt64(try file.integer(at: 0x238, "cmdline_size", as: UInt32.self))
        initrdLastAddress = UInt64(try file.integer(at: 0x22c, "initrd_addr_max", as: UInt32.self))

        // 0 means 4: the protocol's own default.
        let setupSectors = UInt64(try file.integer(at: 0x1f1, "setup_sects", as: UInt8.self))
        let setupByteCount = ((setupSectors == 0 ? 4 : setupSectors) + 1) * 512
        let systemByteCount = 16 * UInt64(try file.integer(at: 0x1f4, "syssize", as: UInt32.self))
        guard systemByteCount > Self.entryOffset else {
            throw file.malformed(
                "syssize", at: 0x1f4, expected: "more than \(Self.entryOffset) bytes of protected-mode code",
                found: "\(systemByteCount) bytes")
        }
        // syssize counts 16-byte units rounded up, so the last unit may be short.
        guard setupByteCount < file.count, file.count - setupByteCount + 15 >= systemByteCount else {
            throw ImageError(
                .truncated, attempt: "read the protected-mode part of the bzImage", offset: setupByteCount,
                field: "syssize",
                expected: "\(systemByteCount) bytes there", found: "a file of \(file.count) bytes",
                likelyCause: "the file is truncated", nextStep: "compare its size with the original and copy it again")
        }
        protectedMode = try file.copy(
            at: setupByteCount, byteCount: min(systemByteCount, file.count - setupByteCount), "protected-mode part",
            paddedToPage: true)
        let initByteCount = UInt64(try file.integer(at: 0x260, "init_size", as: UInt32.self))
        windowByteCount = max(initByteCount, pageAlignedUp(systemByteCount))
    }
}
