// What a bare machine starts with: a Multiboot image and its information block, or a ROM below 4 GiB.
//
//     0x9_0000   Multiboot information, memory map, command line, module list      (Multiboot only)
//     image      where its headers say
//     modules    page-aligned behind the image
//     0xE_0000   the last 128 KiB of the ROM, once more                            (ROM only)
//     4 GiB - n  the ROM

import X86Defs

/// A machine without any of our own boot code.
public enum BareLaunch: Sendable {
    case multiboot(MultibootImage, commandLine: [UInt8], modules: [[UInt8]])
    case rom([UInt8])

    static let information: UInt64 = 0x9_0000
    static let informationByteCount = 0x1_0000
    /// In EAX at the entry.
    static let magic: UInt64 = 0x2bad_b002
    public static let maximumROMByteCount = 16 << 20
    static let lowROM: UInt64 = 0xe_0000

    /// The plan for a plain machine: pages to copy, and one register state for each processor.
    ///
    /// - Throws: ``ImageError`` when something does not fit into the memory.
    public func plan(memoryByteCount: UInt64, processorCount: Int) throws(ImageError) -> LaunchPlan {
        let (regions, state) =
            switch self {
            case .multiboot(let image, let commandLine, let modules):
                try Self.multiboot(image, commandLine, modules, memoryByteCount)
            case .rom(let bytes): try Self.rom(bytes)
            }
        var processors = [state]
        // The others wait for INIT and SIPI.
        while processors.count < processorCount { processors.append(ProcessorState()) }
        return LaunchPlan(regions: regions, processors: processors, guestFeatures: 0, policy: 0, technology: nil)
    }

    private static func region(_ label: String, _ gpa: UInt64, _ contents: [UInt8]) -> LaunchPlan.Region {
        LaunchPlan.Region(
            label: label, pageType: .normal, gpa: gpa, byteCount: UInt64(contents.count), contents: contents)
    }

    // MARK: ROM

    private static func rom(_ bytes: [UInt8]) throws(ImageError) -> ([LaunchPlan.Region], ProcessorState) {
        guard bytes.count >= 16, bytes.count <= maximumROMByteCount, bytes.count % 4096 == 0 else {
            throw ImageError(
                .malformed, attempt: "place the ROM", field: "size",
                expected: "a multiple of 4096 up to \(maximumROMByteCount) bytes", found: "\(bytes.count) bytes",
                likelyCause: "a part of an image, or a file that is no ROM",
                nextStep: "pad it in front, so that its last 16 bytes stay the reset vector")
        }
        var regions = [region("ROM", 0x1_0000_0000 - UInt64(bytes.count), bytes)]
        let low = min(bytes.count, 0x2_0000)
        regions.append(region("ROM below 1 MiB", 0x10_0000 - UInt64(low), Array(bytes.suffix(low))))
        return (regions, ProcessorState())
    }

    // MARK: Multiboot

    private static func multiboot(
        _ image: MultibootImage, _ commandLine: [UInt8], _ modules: [[UInt8]], _ memoryByteCount: UInt64
    ) throws(ImageError) -> ([LaunchPlan.Region], ProcessorState) {
        let lowEnd = GuestAddressMap.ramRanges(memoryByteCount: memoryByteCount).first?.upperBound ?? 0
        var regions: [LaunchPlan.Region] = []
        var end: UInt64 = 0x10_0000
        func fits(_ gpa: UInt64, _ byteCount: UInt64, _ what: String) throws(ImageError) {
            guard gpa < lowEnd, byteCount <= lowEnd - gpa else {
                throw ImageError(
                    .badInput, attempt: "place \(what)", offset: gpa, expected: "memory up to there",
                    found: "RAM that ends at 0x\(String(lowEnd, radix: 16))", likelyCause: "--memory is too small",
                    nextStep: "use a larger --memory")
            }
        }
        for segment in image.segments {
            try fits(segment.physicalAddress, segment.memoryByteCount, "the image")
            if !segment.contents.isEmpty {
                regions.append(region("image", segment.physicalAddress, segment.contents))
            }
            end = max(end, segment.physicalAddress + segment.memoryByteCount)
        }
        var info = [UInt8](repeating: 0, count: 128)
        var tail = [UInt8]()
        func place(_ bytes: [UInt8]) -> UInt32 {
            let address = UInt32(truncatingIfNeeded: information) + 128 + UInt32(truncatingIfNeeded: tail.count)
            tail += bytes + [UInt8](repeating: 0, count: (4 - bytes.count % 4) % 4)
            return address
        }
        var list = [UInt8]()
        for module in modules {
            let start = pageAlignedUp(end)
            try fits(start, UInt64(module.count), "a module")
            if !module.isEmpty { regions.append(region("module", start, module)) }
            end = start + UInt64(module.count)
            list.append(littleEndian: UInt32(truncatingIfNeeded: start))
            list.append(littleEndian: UInt32(truncatingIfNeeded: end))
            list.append(littleEndian: place([0]))
            list.append(littleEndian: UInt32(0))
        }
        // Memory, command line, modules, memory map, loader's name.
        info.store(UInt32(1 << 0 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9), at: 0)
        info.store(UInt32(639), at: 4)
        info.store(UInt32(truncatingIfNeeded: (lowEnd - 0x10_0000) >> 10), at: 8)
        info.store(place(commandLine + [0]), at: 16)
        info.store(UInt32(truncatingIfNeeded: modules.count), at: 20)
        info.store(place(list), at: 24)
        let map = memoryMap(memoryByteCount)
        info.store(UInt32(truncatingIfNeeded: map.count), at: 44)
        info.store(place(map), at: 48)
        info.store(place(Array("swift-snp-vmm\0".utf8)), at: 64)
        guard tail.count <= informationByteCount - 128 - 0x1000 else {
            throw ImageError(
                .badInput, attempt: "make the Multiboot information", field: "command line",
                expected: "at most \(informationByteCount - 0x1080) bytes with the module list",
                found: "\(tail.count)", likelyCause: "a very long command line or very many modules",
                nextStep: "shorten it")
        }
        regions.append(region("Multiboot information", information, (info + tail).paddedToPage()))
        var state = ProcessorState()
        state.generalRegisters[0] = magic
        state.generalRegisters[3] = information
        state.rip = UInt64(image.entry)
        // Protected mode, no paging, flat segments [Multiboot 3.2]; there is no GDT until the image makes one.
        state.cr0 = 0x11
        state.cs = SegmentRegister(selector: 8, attributes: 0xc9b, limit: 0xffff_ffff)
        let data = SegmentRegister(selector: 0x10, attributes: 0xc93, limit: 0xffff_ffff)
        (state.ds, state.es, state.fs, state.gs, state.ss) = (data, data, data, data, data)
        state.gdtr = DescriptorTableRegister(base: 0, limit: 0)
        state.tr = SegmentRegister(selector: 0, attributes: 0x8b, limit: 0xffff)
        return (regions, state)
    }

    /// Entries of `size` 20: base, length, type 1 (RAM) or 2.
    private static func memoryMap(_ memoryByteCount: UInt64) -> [UInt8] {
        var map = [UInt8]()
        func entry(_ start: UInt64, _ end: UInt64, _ type: UInt32) {
            guard end > start else { return }
            map.append(littleEndian: UInt32(20))
            map.append(littleEndian: start)
            map.append(littleEndian: end - start)
            map.append(littleEndian: type)
        }
        entry(0, 0x9_fc00, 1)
        entry(0x9_fc00, 0x10_0000, 2)
        for range in GuestAddressMap.ramRanges(memoryByteCount: memoryByteCount) {
            entry(max(range.lowerBound, 0x10_0000), range.upperBound, 1)
        }
        return map
    }
}
