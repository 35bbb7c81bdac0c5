// The two forms of a Linux kernel that a direct boot can load.

/// A kernel that is entered in 64-bit mode.
public enum LinuxKernel: Sendable {
    case bzImage(BzImage)
    case elf(ELFExecutable)

    /// The same, of a file in memory.
    public init(_ bytes: [UInt8]) throws(ImageError) { try self.init(ImageSource(bytes)) }

    /// Recognises the form by content.
    public init(_ source: ImageSource) throws(ImageError) {
        let file = ImageBytes(source, as: "kernel")
        if ELFExecutable.recognises(file) {
            self = .elf(try ELFExecutable(source))
        } else if BzImage.recognises(file) {
            self = .bzImage(try BzImage(source))
        } else {
            throw ImageError(
                .unrecognised, attempt: "recognise the kernel",
                expected: "a bzImage (\"HdrS\" at 0x202) or an ELF file",
                found: GuestImage.describe(source.whole),
                likelyCause: "the file is not a kernel, or a compressed one that has to be unpacked first",
                nextStep: "give /boot/vmlinuz-… or an uncompressed vmlinux")
        }
    }

    /// For logs: "bzImage" or "ELF vmlinux".
    public var formName: String {
        switch self {
        case .bzImage: BzImage.subject
        case .elf: "ELF vmlinux"
        }
    }
}
