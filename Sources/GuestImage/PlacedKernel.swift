// Where a kernel goes in guest memory.

/// A kernel with its addresses chosen.
struct PlacedKernel {
    /// Page-aligned pieces with contents, ascending, without overlap.
    var pieces: [(gpa: UInt64, contents: [UInt8])]
    /// Everything in `start ..< end` must be RAM that nothing else is put into. Page aligned.
    var start: UInt64
    var end: UInt64
    /// What of these ranges is not in ``pieces`` has to be zero at the entry. Page aligned, ascending, without overlap.
    var zeroed: [Range<UInt64>]
    /// The physical address of the 64-bit entry.
    var entry: UInt64
    /// For boot_params; empty for an ELF kernel.
    var setupHeader: [UInt8]
    var maximumCommandLineByteCount: UInt64
    var initrdLastAddress: UInt64

    /// COMMAND_LINE_SIZE of x86 without the NUL; what vmlinux takes.
    static let defaultCommandLineByteCount: UInt64 = 2047
    /// The command line has one page.
    static let commandLinePageByteCount: UInt64 = 4095

    init(_ kernel: LinuxKernel) throws(ImageError) {
        switch kernel {
        case .bzImage(let image): try self.init(image)
        case .elf(let image): try self.init(image)
        }
    }

    private init(_ image: BzImage) throws(ImageError) {
        if image.isRelocatable {
            start = (GuestAddressMap.kernel + image.alignment - 1) & ~(image.alignment - 1)
        } else {
            start = image.preferredAddress
        }
        let (limit, overflow) = start.addingReportingOverflow(image.windowByteCount)
        guard start & 0xfff == 0, start >= GuestAddressMap.highMemory, !overflow,
            limit <= ELFExecutable.physicalAddressLimit
        else {
            throw ImageError(
                .malformed, attempt: "place the kernel", offset: 0x258, field: "pref_address",
                expected: "a page-aligned load address from \(hex(GuestAddressMap.highMemory)) on", found: hex(start),
                likelyCause: "the setup header is damaged", nextStep: "check the kernel's checksum")
        }
        end = pageAlignedUp(limit)
        zeroed = []
        entry = start + BzImage.entryOffset
        pieces = [(start, image.protectedMode)]
        setupHeader = image.setupHeader
        maximumCommandLineByteCount = min(image.maximumCommandLineByteCount, Self.commandLinePageByteCount)
        initrdLastAddress = image.initrdLastAddress
    }

    private init(_ image: ELFExecutable) throws(ImageError) {
        let first = image.segments[0].physicalAddress
        guard first >= GuestAddressMap.highMemory else {
            throw ImageError(
                .unsupported, attempt: "place the kernel", field: "p_paddr",
                expected: "segments from \(hex(GuestAddressMap.highMemory)) on", found: hex(first),
                likelyCause: "the program is linked for low memory, where the boot data lies, or has no load addresses",
                nextStep: "use a vmlinux, or link at 0x1000000")
        }
        start = first & ~0xfff
        end = pageAlignedUp(image.segments.map(\.physicalEnd).max() ?? first)
        entry = image.entry
        zeroed = []
        for segment in image.segments where segment.memoryByteCount > 0 {
            let pages = (segment.physicalAddress & ~0xfff)..<pageAlignedUp(segment.physicalEnd)
            if let last = zeroed.last, last.upperBound >= pages.lowerBound {
                zeroed[zeroed.count - 1] = last.lowerBound..<pages.upperBound
            } else {
                zeroed.append(pages)
            }
        }
        pieces = []
        for segment in image.segments where !segment.contents.isEmpty {
            let page = segment.physicalAddress & ~0xfff
            let lead = Int(segment.physicalAddress - page)
            // Two segments may meet inside a page: then they are one piece.
            if let last = pieces.last, pageAlignedUp(last.gpa + UInt64(last.contents.count)) > page {
                let offset = Int(segment.physicalAddress - last.gpa)
                let gap = offset - last.contents.count
                pieces[pieces.count - 1].contents += [UInt8](repeating: 0, count: gap) + segment.contents
            } else {
                pieces.append((page, [UInt8](repeating: 0, count: lead) + segment.contents))
            }
        }
        setupHeader = []
        maximumCommandLineByteCount = Self.defaultCommandLineByteCount
        // As the kernels themselves say in their bzImage form.
        initrdLastAddress = 0x7fff_ffff
    }
}
