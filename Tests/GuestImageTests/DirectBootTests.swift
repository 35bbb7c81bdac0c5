// The plan of a direct boot: what lies where, and that nothing lies twice.

import GuestImage
import SEVABI
import TestSupport
import Testing
import X86Defs

/// The RAM page ranges of a plan, checked to be disjoint and to be all of the guest's RAM.
func expectExactCover(_ plan: LaunchPlan, memoryByteCount: UInt64) {
    let taken = plan.regions.map { $0.gpa..<($0.gpa + $0.byteCount) }.sorted { $0.lowerBound < $1.lowerBound }
    for (lower, upper) in zip(taken, taken.dropFirst()) {
        #expect(lower.upperBound <= upper.lowerBound, "\(lower) and \(upper) overlap")
    }
    var merged: [Range<UInt64>] = []
    for range in taken {
        if let last = merged.last, last.upperBound == range.lowerBound {
            merged[merged.count - 1] = last.lowerBound..<range.upperBound
        } else {
            merged.append(range)
        }
    }
    #expect(merged == GuestAddressMap.ramRanges(memoryByteCount: memoryByteCount))
    for region in plan.regions {
        #expect(region.gpa & 0xfff == 0 && region.byteCount & 0xfff == 0 && region.byteCount > 0)
        #expect(region.contents.isEmpty || UInt64(region.contents.count) == region.byteCount)
        #expect(region.pageType != .normal || !region.contents.isEmpty)
    }
}

/// Reads the plan's memory as the guest will see it.
struct PlannedMemory {
    let plan: LaunchPlan

    func bytes(_ gpa: UInt64, _ byteCount: Int) -> [UInt8]? {
        guard let region = plan.regions.first(where: { $0.gpa <= gpa && gpa < $0.gpa + $0.byteCount }) else {
            return nil
        }
        let start = Int(gpa - region.gpa)
        if region.contents.isEmpty { return [UInt8](repeating: 0, count: byteCount) }
        guard start + byteCount <= region.contents.count else { return nil }
        return Array(region.contents[start..<(start + byteCount)])
    }

    func number(_ gpa: UInt64, width: Int) -> UInt64? { bytes(gpa, width)?.number(0, width: width) }
}

struct DirectBootTests {
    static let memorySizes: [UInt64] = [
        64 << 20, 512 << 20, 3 << 30, (3 << 30) + 4096, 5 << 30, 1 << 40,
    ]

    private func payload(initrd: Int = 5000, commandLine: String = "console=ttyS0") throws -> BootPayload {
        BootPayload(
            kernel: try LinuxKernel(SyntheticImages.bzImage()),
            initrd: (0..<initrd).map { UInt8(truncatingIfNeeded: $0) }, commandLine: Array(commandLine.utf8))
    }

    @Test(arguments: memorySizes)
    func coversAllMemoryOnce(_ memoryByteCount: UInt64) throws {
        let machine = MachineDescription(memoryByteCount: memoryByteCount, processorCount: 3)
        let plan = try DirectBoot.plan(payload(), on: machine)
        expectExactCover(plan, memoryByteCount: memoryByteCount)
        #expect(plan.processors.count == 3)
        let elf = try LinuxKernel(SyntheticImages.elf())
        expectExactCover(
            try DirectBoot.plan(BootPayload(kernel: elf), on: machine), memoryByteCount: memoryByteCount)
    }

    /// Contents first, ascending within their kinds; then zeroes; then what the firmware makes.
    @Test func launchOrder() throws {
        let plan = try DirectBoot.plan(payload(), on: MachineDescription(memoryByteCount: 64 << 20))
        #expect(
            plan.regions.prefix(8).map(\.label) == [
                "page tables", "boot_params", "command line", "setup_data", "CC blob", "ACPI tables", "kernel",
                "initrd",
            ])
        let types = plan.regions.map(\.pageType)
        #expect(Array(types.suffix(2)) == [.secrets, .cpuid])
        #expect(types.dropFirst(8).dropLast(2).allSatisfy { $0 == .zero })
        let zeroes = plan.regions.filter { $0.pageType == .zero }
        #expect(zeroes.map(\.gpa) == zeroes.map(\.gpa).sorted())
        #expect(plan.guestFeatures == 1 && plan.policy == 0x30000)
    }

    @Test func bootProcessor() throws {
        let plan = try DirectBoot.plan(payload(), on: MachineDescription(memoryByteCount: 64 << 20))
        let state = plan.processors[0]
        #expect(state.rip == 0x1000200 && state.rflags == 2)
        #expect(state.generalRegisters[6] == 0x9000)
        for register in 0..<16 where register != 6 { #expect(state.generalRegisters[register] == 0) }
        #expect(state.cr0 == 0x8000_0011 && state.cr4 == 0x20 && state.cr3 == 0x2000 | 1 << 51 && state.efer == 0x500)
        #expect(state.cs.attributes == 0xa9b && state.cs.limit == 0xffff_ffff && state.cs.base == 0)
        for segment in [state.ds, state.es, state.ss, state.fs, state.gs] {
            #expect(segment.attributes == 0xc93 && segment.limit == 0xffff_ffff && segment.base == 0)
        }
        #expect(state.ldtr.attributes == 0x82 && state.tr.attributes == 0x8b && state.tr.limit == 0xffff)
        #expect(state.gdtr == DescriptorTableRegister() && state.idtr == DescriptorTableRegister())
        #expect(state.dr6 == 0xffff_0ff0 && state.dr7 == 0x400 && state.pat == 0x0007_0406_0007_0406)
        #expect(state.xcr0 == 1 && state.mxcsr == 0x1f80 && state.fcw == 0x37f)
    }

    @Test func bootParameters() throws {
        let initrdByteCount = 5000
        let plan = try DirectBoot.plan(
            payload(initrd: initrdByteCount, commandLine: "quiet"), on: MachineDescription(memoryByteCount: 64 << 20))
        let memory = PlannedMemory(plan: plan)
        func field(_ offset: UInt64, _ width: Int) -> UInt64? { memory.number(0x9000 + offset, width: width) }
        #expect(field(0x070, 8) == GuestAddressMap.acpiTables)
        #expect(field(0x13c, 4) == 0 && field(0x1c0, 4) == 0 && field(0x1ef, 1) == 0)
        #expect(memory.bytes(0x9000, 0x40)?.allSatisfy { $0 == 0 } == true)
        #expect(field(0x1f1, 1) == 2 && field(0x1fe, 2) == 0xaa55 && field(0x202, 4) == 0x5372_6448)
        #expect(field(0x206, 2) == 0x020f && field(0x210, 1) == 0xff && field(0x211, 1) == 1)
        #expect(field(0x228, 4) == GuestAddressMap.commandLine && field(0x250, 8) == GuestAddressMap.setupData)
        #expect(field(0x230, 4) == 0x20_0000)
        #expect(memory.bytes(GuestAddressMap.commandLine, 6) == Array("quiet\0".utf8))
        let initrd = try #require(field(0x218, 4))
        #expect(field(0x21c, 4) == UInt64(initrdByteCount))
        #expect(initrd == (64 << 20) - 8192)
        #expect(memory.bytes(initrd, 4) == [0, 1, 2, 3])
        #expect(memory.bytes(initrd + 5000, 100)?.allSatisfy { $0 == 0 } == true)
        // setup_data: next, type, length, blob. Blob: magic, secrets and CPUID pages.
        #expect(memory.bytes(0xb000, 20)?.hex == "0000000000000000" + "07000000" + "04000000" + "00c00000")
        #expect(
            memory.bytes(0xc000, 40)?.hex == "414d4445" + "00000000" + "00d0000000000000" + "00100000" + "00000000"
                + "00e0000000000000" + "00100000" + "00000000")
    }

    @Test(arguments: memorySizes, [.snp, .sevES, .sev, nil] as [GuestTechnology?])
    func memoryMap(_ memoryByteCount: UInt64, _ technology: GuestTechnology?) throws {
        let machine = MachineDescription(memoryByteCount: memoryByteCount, technology: technology)
        let map = E820Entry.map(of: machine)
        for (lower, upper) in zip(map, map.dropFirst()) { #expect(lower.base + lower.byteCount <= upper.base) }
        for entry in map { #expect(entry.byteCount > 0 && entry.base & 0xfff == 0 && entry.byteCount & 0xfff == 0) }
        func kind(_ address: UInt64) -> UInt32? {
            map.first { $0.base <= address && address < $0.base + $0.byteCount }?.kind.rawValue
        }
        for address: UInt64 in [
            0, 0x2000, 0x8000, 0x9000, 0xa000, 0xb000, 0xf000, 0x20000, 0x9e000, 0x100000, 0x1000000,
        ] {
            #expect(kind(address) == 1, "\(address)")
        }
        for address: UInt64 in [0xc000, 0xd000, 0xe000] { #expect(kind(address) == (technology == .snp ? 2 : 1)) }
        #expect(kind(0x10000) == 3 && kind(0x1f000) == 3 && kind(0x9f000) == 2)
        for address: UInt64 in [0xa0000, 0xc0000, 0xfffff, 0xc000_0000, 0xfec0_0000, 0xfed1_0000] {
            #expect(kind(address) == nil)
        }
        let high = map.filter { $0.base >= 0x100000 }.reduce(0) { $0 + $1.byteCount }
        #expect(high == memoryByteCount - 0x100000)
    }

    /// Walks the tables as the processor does: every page of the first 4 GiB maps to itself, private.
    @Test(arguments: [51, 47, nil] as [UInt8?])
    func pageTablesAreIdentity(_ cBit: UInt8?) {
        let tables = PageTables(cBit: cBit)
        let encrypted: UInt64 = cBit.map { 1 << UInt64($0) } ?? 0
        let base = GuestAddressMap.pageTables
        #expect(tables.bytes.count == Int(GuestAddressMap.pageTablesEnd - base))
        func entry(_ table: UInt64, _ index: UInt64) -> UInt64 {
            tables.bytes.number(Int((table & ~encrypted & ~0xfff) - base + 8 * index), width: 8)
        }
        #expect(tables.cr3 & encrypted == encrypted)
        for address in stride(from: UInt64(0), to: 1 << 32, by: 1 << 21) {
            let level4 = entry(tables.cr3, address >> 39 & 511)
            let level3 = entry(level4, address >> 30 & 511)
            let level2 = entry(level3, address >> 21 & 511)
            for value in [level4, level3, level2] { #expect(value & 0x23 == 0x23 && value & encrypted == encrypted) }
            #expect(level4 & 0x80 == 0 && level3 & 0x80 == 0 && level2 & 0x80 == 0x80)
            if level2 & ~encrypted & ~0x1f_ffff != address { Issue.record("\(address) maps to \(level2)") }
        }
        for index in 1..<512 as Range<UInt64> { #expect(entry(tables.cr3, index) == 0) }
        for index in 4..<512 as Range<UInt64> { #expect(entry(entry(tables.cr3, 0), index) == 0) }
    }

    @Test func memoryTooSmallNamesTheMinimum() throws {
        let initrdByteCount = 3 << 20
        var kernel = SyntheticImages.bzImage()
        // 16 MiB of window from 16 MiB on, then 3 MiB of initrd: 35 MiB.
        kernel.set(0x260, 16 << 20, width: 4)
        let payload = BootPayload(
            kernel: try LinuxKernel(kernel), initrd: [UInt8](repeating: 1, count: initrdByteCount))
        func plan(_ memoryByteCount: UInt64) throws -> LaunchPlan {
            try DirectBoot.plan(payload, on: MachineDescription(memoryByteCount: memoryByteCount))
        }
        expectExactCover(try plan(35 << 20), memoryByteCount: 35 << 20)
        for memoryByteCount: UInt64 in [(35 << 20) - 4096, 16 << 20, 1 << 20, 4096] {
            let error = #expect(throws: ImageError.self) { try plan(memoryByteCount) }
            #expect(error?.category == .memoryTooSmall)
            #expect(error?.expected.contains("35 MiB") == true)
            #expect(error?.nextStep.contains("--memory") == true)
        }
    }

    @Test func machineLimits() throws {
        let payload = try payload()
        func category(_ machine: MachineDescription) -> ImageError.Category? {
            do throws(ImageError) {
                _ = try DirectBoot.plan(payload, on: machine)
                return nil
            } catch { return error.category }
        }
        for memory: UInt64 in [0, 4095, (64 << 20) + 1, .max, 1 << 46] {
            #expect(category(MachineDescription(memoryByteCount: memory)) == .badInput)
        }
        for count in [0, -1, 256, .max, .min] {
            #expect(category(MachineDescription(memoryByteCount: 64 << 20, processorCount: count)) == .badInput)
        }
        for bit: UInt8 in [0, 12, 45, 52, 255] {
            #expect(category(MachineDescription(memoryByteCount: 64 << 20, cBit: bit)) == .badInput)
        }
        #expect(category(MachineDescription(memoryByteCount: 64 << 20, guestFeatures: 0)) == .badInput)
        #expect(category(MachineDescription(memoryByteCount: 64 << 20, processorCount: 255)) == nil)
    }

    @Test func commandLineLimits() throws {
        func plan(_ line: [UInt8]) throws -> LaunchPlan {
            try DirectBoot.plan(
                BootPayload(kernel: try LinuxKernel(SyntheticImages.bzImage()), commandLine: line),
                on: MachineDescription(memoryByteCount: 64 << 20))
        }
        _ = try plan([UInt8](repeating: 65, count: 2047))
        #expect(throws: ImageError.self) { try plan([UInt8](repeating: 65, count: 2048)) }
        #expect(throws: ImageError.self) { try plan([65, 0, 66]) }
    }

    @Test func initrdLimits() throws {
        var kernel = SyntheticImages.bzImage()
        kernel.set(0x22c, 0x1ff_ffff, width: 4)
        let limited = BootPayload(kernel: try LinuxKernel(kernel), initrd: [1, 2, 3])
        let plan = try DirectBoot.plan(limited, on: MachineDescription(memoryByteCount: 512 << 20))
        #expect(plan.regions.first { $0.label == "initrd" }?.gpa == 0x1ff_f000)
        kernel.set(0x22c, 0xff_ffff, width: 4)
        let impossible = BootPayload(kernel: try LinuxKernel(kernel), initrd: [1, 2, 3])
        let error = #expect(throws: ImageError.self) {
            try DirectBoot.plan(impossible, on: MachineDescription(memoryByteCount: 512 << 20))
        }
        #expect(error?.category == .unsupported)
        // No initrd: no limit to break.
        _ = try DirectBoot.plan(
            BootPayload(kernel: impossible.kernel), on: MachineDescription(memoryByteCount: 512 << 20))
    }

    @Test func kernelAlignment() throws {
        var kernel = SyntheticImages.bzImage()
        kernel.set(0x230, 1 << 26, width: 4)
        let plan = try DirectBoot.plan(
            BootPayload(kernel: try LinuxKernel(kernel)), on: MachineDescription(memoryByteCount: 128 << 20))
        #expect(plan.regions.first { $0.label == "kernel" }?.gpa == 1 << 26)
        // Not relocatable: exactly where it wants to be.
        kernel.set(0x234, 0, width: 1)
        kernel.set(0x258, 0x30_0000, width: 8)
        let fixed = try DirectBoot.plan(
            BootPayload(kernel: try LinuxKernel(kernel)), on: MachineDescription(memoryByteCount: 128 << 20))
        #expect(fixed.processors[0].rip == 0x30_0200)
    }

    /// Two segments that meet inside a page become one piece, with zeroes between them.
    @Test func segmentsOfAnELF() throws {
        let plan = try DirectBoot.plan(
            BootPayload(kernel: try LinuxKernel(SyntheticImages.elf())),
            on: MachineDescription(memoryByteCount: 64 << 20))
        let kernel = plan.regions.filter { $0.label == "kernel" }
        #expect(kernel.map(\.gpa) == [0x100_0000, 0x100_2000])
        #expect(kernel[0].contents.prefix(0x1800).allSatisfy { $0 == 0x90 })
        #expect(kernel[0].contents.dropFirst(0x1800).allSatisfy { $0 == 0 })
        #expect(kernel[1].contents[0x7ff] == 0 && kernel[1].contents[0x800] == 0xcc && kernel[1].contents[0x900] == 0)
        #expect(plan.processors[0].rip == 0x100_0000)

        let tight = SyntheticImages.elf(segments: [
            (0x100_0000, 0x100_0000, [1, 2, 3], 0x10), (0x100_0010, 0x100_0010, [4], 0x10),
        ])
        let merged = try DirectBoot.plan(
            BootPayload(kernel: try LinuxKernel(tight)), on: MachineDescription(memoryByteCount: 64 << 20))
        let piece = try #require(merged.regions.first { $0.label == "kernel" })
        #expect(Array(piece.contents.prefix(18)) == [1, 2, 3] + [UInt8](repeating: 0, count: 13) + [4, 0])
        let memory = PlannedMemory(plan: merged)
        // An ELF kernel gets a setup header of its own.
        #expect(memory.number(0x9206, width: 2) == 0x020f && memory.number(0x9202, width: 4) == 0x5372_6448)
    }

    @Test func virtualEntryIsTranslated() throws {
        let image = try ELFExecutable(SyntheticImages.elf(entry: 0xffff_ffff_8100_0123))
        #expect(image.entry == 0x100_0123)
    }

    @Test func plainMachine() throws {
        let machine = MachineDescription(memoryByteCount: 64 << 20, technology: nil)
        let plan = try DirectBoot.plan(payload(), on: machine)
        #expect(plan.regions.allSatisfy { $0.pageType == .normal })
        #expect(!plan.regions.contains { ["setup_data", "CC blob", "secrets page", "CPUID page"].contains($0.label) })
        #expect(plan.processors[0].cr3 == 0x2000)
        let memory = PlannedMemory(plan: plan)
        #expect(memory.number(0x9250, width: 8) == GuestAddressMap.secretNode)
        #expect(memory.bytes(0x8000, 4096) == SecretNode.page)
        #expect(memory.number(0x2000, width: 8) == 0x3023)
        #expect(plan.technology == nil && plan.secretArea == nil)
    }
}
