// A unified kernel image: one PE file that carries kernel, initrd and command line as sections.

/// The parts of a UKI that a direct boot uses [UAPI UKI specification].
///
/// Sections that describe the image (`.osrel`, `.uname`, `.sbat`, …) are allowed and not used; the EFI stub is not run.
/// In an image with several profiles the sections before the first `.profile` count.
public struct UnifiedKernelImage: Sendable {
    /// `.linux`.
    public let kernel: LinuxKernel
    /// `.initrd`; empty when there is none.
    public let initrd: [UInt8]
    /// `.cmdline` without trailing white space and NULs; empty when there is none.
    public let commandLine: [UInt8]
    /// Every section name of the file, in order.
    public let sectionNames: [String]

    static let subject = "unified kernel image"

    /// The same, of a file in memory.
    public init(_ bytes: [UInt8]) throws(ImageError) { try self.init(ImageSource(bytes)) }

    /// Takes a UKI apart.
    ///
    /// - Throws: ``ImageError`` when there is no `.linux`, a section is there twice, or one reaches beyond the file.
    public init(_ source: ImageSource) throws(ImageError) {
        let image = try PEImage(source)
        let file = ImageBytes(source, as: Self.subject)
        sectionNames = image.sections.map(\.name)
        let base = image.sections.prefix { $0.name != ".profile" }

        func section(_ name: String) throws(ImageError) -> ImageSource? {
            let found = base.filter { $0.name == name }
            guard found.count <= 1 else {
                throw file.malformed(
                    "section \(name)", expected: "one", found: "\(found.count)",
                    cause: "the section was added to an image that had it already",
                    next: "make the image again from the stub")
            }
            guard let only = found.first else { return nil }
            return try image.source(of: only, in: file)
        }
        guard let linux = try section(".linux") else {
            throw ImageError(
                .unsupported, attempt: "find a kernel in the PE image", field: ".linux", expected: "a section .linux",
                found: image.sections.isEmpty
                    ? "no sections" : "sections " + image.sections.map(\.name).joined(separator: " "),
                likelyCause: "it is an EFI program (a boot loader, a shell), not a unified kernel image",
                nextStep: "give a UKI, or a kernel with --kernel")
        }
        kernel = try LinuxKernel(linux)
        initrd = try section(".initrd")?.whole ?? []
        var line = try section(".cmdline")?.whole ?? []
        while let last = line.last, last == 0 || last == 0x0a || last == 0x0d || last == 0x20 { line.removeLast() }
        commandLine = line
    }
}
