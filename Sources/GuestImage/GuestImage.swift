// What a file is, found out from its content alone.

/// A file that a guest can be launched from.
public enum GuestImage: Sendable {
    /// A unified kernel image: kernel, initrd and command line in one PE file.
    case unifiedKernelImage(UnifiedKernelImage)
    /// A kernel alone: bzImage or ELF.
    case kernel(LinuxKernel)
    /// A flat firmware image with SEV metadata.
    case firmware(FirmwareImage)
    /// A list of directives for loaders, to be measured.
    case igvm(IGVMFile)

    /// The same, of a file in memory.
    public static func identify(_ bytes: [UInt8]) throws(ImageError) -> GuestImage { try identify(ImageSource(bytes)) }

    /// Recognises and parses an image. The file's name plays no part.
    ///
    /// A Debian kernel is a PE file too (its EFI stub); only one with a section `.linux` is a UKI.
    /// - Throws: ``ImageError`` of category `unrecognised` for a file of no known kind, with what it seems to be; other
    ///   categories for a file of a known kind that cannot be used.
    public static func identify(_ source: ImageSource) throws(ImageError) -> GuestImage {
        let file = ImageBytes(source, as: "image")
        if IGVMFile.recognises(file) { return .igvm(try IGVMFile(source.whole)) }
        if ELFExecutable.recognises(file) { return .kernel(.elf(try ELFExecutable(source))) }
        let isBzImage = BzImage.recognises(file)
        if PEImage.recognises(file) {
            let names = (try? PEImage(source))?.sections.map(\.name) ?? []
            if !isBzImage || names.contains(".linux") { return .unifiedKernelImage(try UnifiedKernelImage(source)) }
        }
        if isBzImage { return .kernel(.bzImage(try BzImage(source))) }
        if FirmwareImage.recognises(file) { return .firmware(try FirmwareImage(source.whole)) }
        throw ImageError(
            .unrecognised, attempt: "recognise the image",
            expected:
                "a UKI (PE with .linux), a bzImage, an ELF vmlinux, a firmware image with a GUIDed table or an IGVM "
                + "file",
            found: describe(source.whole), likelyCause: "the wrong file, or one that is damaged or packed",
            nextStep: "give one of these kinds; an initrd belongs to --initrd beside --kernel")
    }

    /// For logs: "UKI with a bzImage", "bzImage", "ELF vmlinux", "firmware", "IGVM".
    public var formName: String {
        switch self {
        case .unifiedKernelImage(let image): "UKI with a \(image.kernel.formName)"
        case .kernel(let kernel): kernel.formName
        case .firmware: "firmware"
        case .igvm: "IGVM"
        }
    }

    /// What a file of no use seems to be, for messages.
    static func describe(_ bytes: [UInt8]) -> String {
        let file = ImageBytes(bytes, as: "image")
        if bytes.isEmpty { return "an empty file" }
        let known: [([UInt8], UInt64, String)] = [
            ([0x1f, 0x8b], 0, "gzip data (an initrd, or a packed image)"),
            ([0xfd, 0x37, 0x7a, 0x58, 0x5a], 0, "xz data"),
            ([0x28, 0xb5, 0x2f, 0xfd], 0, "zstd data"),
            ([0x02, 0x21, 0x4c, 0x18], 0, "lz4 data"),
            (Array("070701".utf8), 0, "a cpio archive (an initrd)"),
            ([0x51, 0x46, 0x49, 0xfb], 0, "a qcow2 disk image"),
            (IGVMFile.magic, 0, "an IGVM file"),
            (Array("EFI PART".utf8), 512, "a disk image with a GUID partition table"),
            ([0x53, 0xef], 0x438, "an ext file system"),
            ([0x4d, 0x5a], 0, "a DOS or EFI program"),
            ([0x55, 0xaa], 510, "a boot sector or a disk image"),
            ([0xd0, 0x0d, 0xfe, 0xed], 0, "a device tree"),
            (Array("#!".utf8), 0, "a script"),
        ]
        for (magic, offset, name) in known where file.has(magic, at: offset) { return name }
        if bytes.allSatisfy({ $0 == 0 }) { return "\(bytes.count) zero bytes" }
        let head = bytes.prefix(8).map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }
        return "\(bytes.count) bytes that begin \(head.joined(separator: " "))"
    }
}
