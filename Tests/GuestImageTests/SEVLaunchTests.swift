// Plans for SEV and SEV-ES: what is encrypted in which order, and what is left to the guest.

import GuestImage
import SEVABI
import TestSupport
import Testing
import X86Defs

/// The rules of LAUNCH_UPDATE_DATA, for every region: 16-byte units, contents, inside RAM or the firmware's place, apart.
func expectSoundPlan(_ plan: LaunchPlan, memoryByteCount: UInt64) {
    let ram = GuestAddressMap.ramRanges(memoryByteCount: memoryByteCount)
    for region in plan.regions {
        #expect(region.pageType == .normal && region.byteCount > 0, "\(region.label)")
        #expect(region.gpa % 16 == 0 && region.byteCount % 16 == 0, "\(region.label)")
        #expect(UInt64(region.contents.count) == region.byteCount, "\(region.label)")
        let end = region.gpa + region.byteCount
        #expect(
            region.label == "firmware"
                ? end == 1 << 32 : ram.contains { $0.lowerBound <= region.gpa && end <= $0.upperBound },
            "\(region.label) at \(region.gpa)")
    }
    let taken = plan.regions.map { $0.gpa..<($0.gpa + $0.byteCount) }.sorted { $0.lowerBound < $1.lowerBound }
    for (lower, upper) in zip(taken, taken.dropFirst()) {
        #expect(lower.upperBound <= upper.lowerBound, "\(lower) and \(upper) overlap")
    }
    if let area = plan.secretArea {
        #expect(area.gpa % 16 == 0 && area.byteCount % 16 == 0 && area.byteCount > 0)
        #expect(area.gpa >> 12 == (area.gpa + area.byteCount - 1) >> 12)
        #expect(ram.contains { $0.lowerBound <= area.gpa && area.gpa + area.byteCount <= $0.upperBound })
    }
}

private let both: [GuestTechnology] = [.sev, .sevES]

struct SEVDirectBootTests {
    private func payload() throws -> BootPayload {
        BootPayload(
            kernel: try LinuxKernel(SyntheticImages.bzImage()), initrd: [UInt8](repeating: 7, count: 5000),
            commandLine: Array("quiet".utf8))
    }

    @Test(arguments: both, [64 << 20, 3 << 30, 5 << 30] as [UInt64])
    func regions(_ technology: GuestTechnology, _ memoryByteCount: UInt64) throws {
        let machine = MachineDescription(memoryByteCount: memoryByteCount, processorCount: 2, technology: technology)
        let plan = try DirectBoot.plan(payload(), on: machine)
        expectSoundPlan(plan, memoryByteCount: memoryByteCount)
        let needsTable = technology == .sevES
        #expect(
            plan.regions.map(\.label) == ["page tables", "boot_params", "command line", "secret node"]
                + (needsTable ? ["AP jump table"] : []) + ["ACPI tables", "kernel", "initrd"]
                + [String](repeating: "zeroes", count: needsTable ? 5 : 4))
        #expect(plan.technology == technology && plan.guestFeatures == 0 && plan.processors.count == 2)
        #expect(plan.policy == (technology == .sev ? 3 : 7))
        #expect(plan.processors[0].cr3 == 0x2000 | 1 << 51)
        #expect(plan.processors[0].rip == (needsTable ? 0xc040 : 0x100_0200))
    }

    /// Several SEV-ES vCPUs start in a page of ours, which the kernel finds empty and reserved; one starts in the kernel.
    @Test func jumpTable() throws {
        func machine(_ count: Int) -> MachineDescription {
            MachineDescription(memoryByteCount: 64 << 20, processorCount: count, technology: .sevES)
        }
        let plan = try DirectBoot.plan(payload(), on: machine(3))
        let page = try #require(plan.regions.first { $0.label == "AP jump table" })
        #expect(page.gpa == 0xc000 && page.byteCount == 4096 && page.contents.prefix(16).allSatisfy { $0 == 0 })
        // The kernel's entry, in the last instruction but one: mov rax, entry; jmp rax.
        let entry: [UInt8] = [0x48, 0xb8, 0x00, 0x02, 0x00, 0x01, 0, 0, 0, 0, 0xff, 0xe0]
        let starts = page.contents.indices.dropLast(entry.count)
        #expect(starts.contains { Array(page.contents[$0..<($0 + entry.count)]) == entry })
        for other in plan.processors.dropFirst() {
            #expect(other.cs.base == 0 && other.rip == 0xc010 && other.cr0 & 1 == 0)
        }
        let map = E820Entry.map(of: machine(3))
        #expect(map.contains { $0.base == 0xc000 && $0.byteCount == 0x2000 && $0.kind == .reserved })
        #expect(!E820Entry.map(of: machine(1)).contains { $0.base == 0xc000 })
        let single = try DirectBoot.plan(payload(), on: machine(1))
        #expect(single.processors.map(\.rip) == [0x100_0200])
        #expect(!single.regions.contains { $0.label == "AP jump table" })
    }

    /// Every byte that Linux reads before it writes is launched; what nobody needs is not.
    @Test(arguments: both)
    func launchedMemory(_ technology: GuestTechnology) throws {
        let plan = try DirectBoot.plan(
            payload(), on: MachineDescription(memoryByteCount: 64 << 20, technology: technology))
        let memory = PlannedMemory(plan: plan)
        for gpa in stride(from: 0 as UInt64, to: 0x100000, by: 0x1000) {
            let isDisplay = gpa >= 0xa0000 && gpa < 0xc0000
            #expect((memory.bytes(gpa, 4096) == nil) == isDisplay, "\(gpa)")
        }
        // The BIOS data area, the scans' ranges, the page below the secret's and the one above the command line.
        for gpa: UInt64 in [0, 0x1000, 0xb000, 0xc000, 0xd000, 0xe000, 0xf000, 0x80000, 0x9f000, 0xc0000, 0xff000] {
            #expect(memory.bytes(gpa, 4096)?.allSatisfy { $0 == 0 } == true, "\(gpa)")
        }
        let setUp: Set = [
            "page tables", "boot_params", "command line", "secret node", "ACPI tables", "kernel", "initrd",
        ]
        for region in plan.regions where !setUp.contains(region.label) { #expect(region.gpa < 0x100000) }
        // The bzImage's window has only the file's bytes.
        #expect(plan.regions.first { $0.label == "kernel" }?.byteCount == 0x1000)
        #expect(memory.bytes(0x100_1000, 1) == nil)
    }

    /// The kernel's own `.bss` begins as zeroes, gaps between segments are nobody's.
    @Test(arguments: both)
    func segmentsOfAnELFAreFilledUp(_ technology: GuestTechnology) throws {
        let kernel = SyntheticImages.elf(segments: [
            (0x100_0000, 0x100_0000, [1], 0x3000), (0x110_0800, 0x110_0800, [2, 3], 0x2000),
            (0x110_2800, 0x110_2800, [], 0x900), (0x120_0000, 0x120_0000, [], 0x1000),
        ])
        let plan = try DirectBoot.plan(
            BootPayload(kernel: try LinuxKernel(kernel)),
            on: MachineDescription(memoryByteCount: 64 << 20, technology: technology))
        expectSoundPlan(plan, memoryByteCount: 64 << 20)
        let memory = PlannedMemory(plan: plan)
        for page: UInt64 in [0x100_0000, 0x100_1000, 0x100_2000, 0x110_0000, 0x110_1000, 0x110_2000, 0x110_3000] {
            #expect(memory.bytes(page, 4096) != nil, "\(page)")
        }
        #expect(memory.bytes(0x120_0000, 4096) == [UInt8](repeating: 0, count: 4096))
        for page: UInt64 in [0x100_3000, 0x10f_f000, 0x110_4000, 0x120_1000] { #expect(memory.bytes(page, 1) == nil) }
        #expect(memory.bytes(0x110_0800, 3) == [2, 3, 0])
    }

    @Test(arguments: both)
    func secretNode(_ technology: GuestTechnology) throws {
        let plan = try DirectBoot.plan(
            payload(), on: MachineDescription(memoryByteCount: 64 << 20, technology: technology))
        #expect(plan.secretArea == LaunchPlan.SecretArea(gpa: 0x8010, byteCount: 4080))
        let memory = PlannedMemory(plan: plan)
        // boot_params: setup_data. The node: next, type "SEVS", length, zeroes.
        #expect(memory.number(0x9250, width: 8) == 0x8000)
        #expect(memory.bytes(0x8000, 16)?.hex == "0000000000000000" + "53455653" + "f00f0000")
        #expect(memory.bytes(0x8010, 4080)?.allSatisfy { $0 == 0 } == true)
    }

    /// No secrets page, CPUID page or CC blob, and no reserved memory for them.
    @Test(arguments: both)
    func nothingOfSNP(_ technology: GuestTechnology) throws {
        let machine = MachineDescription(
            memoryByteCount: 64 << 20, technology: technology,
            // More leaves than a CPUID page takes: there is no page.
            cpuid: (0..<65).map { CPUIDLeaf(function: 0x8000_0000 + $0, eax: 1) })
        let plan = try DirectBoot.plan(payload(), on: machine)
        #expect(plan.regions.allSatisfy { $0.pageType == .normal })
        #expect(
            E820Entry.map(of: machine)
                == E820Entry.map(of: MachineDescription(memoryByteCount: 64 << 20, technology: nil)))
        let snp = try DirectBoot.plan(payload(), on: MachineDescription(memoryByteCount: 64 << 20))
        #expect(snp.technology == .snp && snp.secretArea == nil)
        #expect(!snp.regions.contains { $0.label == "secret node" })
    }

    @Test func refusals() throws {
        let payload = try payload()
        func category(_ machine: MachineDescription) -> ImageError.Category? {
            do throws(ImageError) {
                _ = try DirectBoot.plan(payload, on: machine)
                return nil
            } catch { return error.category }
        }
        for technology in both {
            func machine(memory: UInt64 = 64 << 20, cBit: UInt8 = 47, features: UInt64? = nil, policy: UInt64? = nil)
                -> MachineDescription
            {
                MachineDescription(
                    memoryByteCount: memory, technology: technology, cBit: cBit, guestFeatures: features, policy: policy
                )
            }
            #expect(category(machine()) == nil)
            #expect(category(machine(policy: 0xffff_ffff)) == nil)
            #expect(category(machine(policy: 1 << 32)) == .badInput)
            #expect(category(machine(features: 1)) == .badInput)
            #expect(category(machine(features: 0x20)) == .badInput)
            #expect(category(machine(cBit: 45)) == .badInput)
            #expect(category(machine(memory: 16 << 20)) == .memoryTooSmall)
        }
    }

    @Test func defaults() {
        for technology in GuestTechnology.allCases {
            let machine = MachineDescription(memoryByteCount: 1 << 30, technology: technology)
            #expect(machine.isConfidential)
            #expect(machine.policy == MachineDescription.defaultPolicy(for: technology))
            #expect(machine.guestFeatures == (technology == .snp ? 1 : 0))
        }
        #expect(!MachineDescription(memoryByteCount: 1 << 30, technology: nil).isConfidential)
        #expect(MachineDescription(memoryByteCount: 1 << 30).policy == 0x30000)
    }
}

struct SEVFirmwareTests {
    private func machine(
        _ technology: GuestTechnology?, memory: UInt64 = 64 << 20, processors: Int = 1
    ) -> MachineDescription {
        MachineDescription(memoryByteCount: memory, processorCount: processors, technology: technology)
    }

    @Test(arguments: both)
    func imageThenHashes(_ technology: GuestTechnology) throws {
        let bytes = SyntheticImages.firmware()
        let image = try FirmwareImage(bytes)
        let bare = try FirmwareLaunch.plan(image, on: machine(technology))
        expectSoundPlan(bare, memoryByteCount: 64 << 20)
        #expect(bare.regions.map(\.label) == ["firmware"] && bare.regions[0].contents == bytes)
        #expect(bare.technology == technology && bare.guestFeatures == 0 && bare.secretArea == nil)

        let kernel = HashedKernel(kernel: [1, 2, 3], initrd: [4], commandLine: Array("quiet".utf8))
        let plan = try FirmwareLaunch.plan(image, kernel: kernel, on: machine(technology))
        expectSoundPlan(plan, memoryByteCount: 64 << 20)
        #expect(plan.regions.map(\.gpa) == [0xffff_e000, 0x80b400] && plan.regions[1].byteCount == 176)
        #expect(plan.regions[1].contents == KernelHashesTable(of: kernel).bytes)
        #expect(plan.processors[0].cs.base == 0xffff_0000 && plan.processors[0].rip == 0xfff0)
    }

    /// SNP's metadata is not asked for, neither for its sections nor for their place in memory.
    @Test func metadataIsNotNeeded() throws {
        let image = try FirmwareImage(SyntheticImages.firmware(hasMetadata: false))
        #expect(image.sections.isEmpty)
        for technology in both + [nil] { _ = try FirmwareLaunch.plan(image, on: machine(technology, memory: 0x1000)) }
        let error = #expect(throws: ImageError.self) { try FirmwareLaunch.plan(image, on: machine(.snp)) }
        #expect(error?.category == .unsupported && error?.nextStep.contains("SEV-ES") == true)
        let noSection = try FirmwareImage(SyntheticImages.firmware(sections: [(0x80d000, 0x1000, 2)]))
        _ = try FirmwareLaunch.plan(noSection, kernel: HashedKernel(kernel: [1]), on: machine(.sev))
    }

    @Test(arguments: both)
    func refusals(_ technology: GuestTechnology) throws {
        func category(_ image: [UInt8], memory: UInt64 = 64 << 20) throws -> ImageError.Category? {
            let image = try FirmwareImage(image)
            do throws(ImageError) {
                _ = try FirmwareLaunch.plan(
                    image, kernel: HashedKernel(kernel: [1]), on: machine(technology, memory: memory))
                return nil
            } catch {
                #expect(isComplete(error))
                return error.category
            }
        }
        for table in [nil, (0, 0x400), (0x80b408, 0x400), (0x80b400, 175), (0xffff_f000, 0x400), (0xbfff_ff60, 0x400)]
            as [(UInt64, UInt64)?]
        {
            #expect(
                try category(SyntheticImages.firmware(hashesTable: table)) == .unsupported,
                "\(String(describing: table))")
        }
        #expect(try category(SyntheticImages.firmware(), memory: 0x80b000) == .memoryTooSmall)
        #expect(try category(SyntheticImages.firmware(hashesTable: (0x80b400, 176)), memory: 0x80c000) == nil)
    }

    /// Only a sealed processor needs to know where it will start.
    @Test func applicationProcessors() throws {
        let image = try FirmwareImage(SyntheticImages.firmware())
        for technology in both {
            let plan = try FirmwareLaunch.plan(image, on: machine(technology, processors: 3))
            #expect(plan.processors.count == 3 && plan.processors[2].cs.base == 0x81_0000)
        }
        let bare = try FirmwareImage(SyntheticImages.firmware(applicationProcessorEntry: nil))
        #expect(try FirmwareLaunch.plan(bare, on: machine(.sev, processors: 2)).processors.count == 2)
        #expect(throws: ImageError.self) { try FirmwareLaunch.plan(bare, on: machine(.sevES, processors: 2)) }
    }

    /// What of the firmware's secret area one LAUNCH_SECRET can fill.
    @Test(
        arguments: [
            ((0x80b000, 0xc00), 0x80b000, 0xc00), ((0x80b000, 0x2000), 0x80b000, 0x1000),
            ((0x80b008, 0x20), 0x80b010, 0x10),
            ((0x80bff0, 0x400), 0x80bff0, 0x10), ((0x80b400, 0x10), 0x80b400, 0x10),
        ] as [((UInt64, UInt64), UInt64, UInt64)])
    func secretArea(_ entry: (UInt64, UInt64), _ gpa: UInt64, _ byteCount: UInt64) throws {
        let image = try FirmwareImage(SyntheticImages.firmware(secretArea: entry))
        for technology in both {
            let plan = try FirmwareLaunch.plan(image, on: machine(technology))
            #expect(plan.secretArea == LaunchPlan.SecretArea(gpa: gpa, byteCount: byteCount))
            expectSoundPlan(plan, memoryByteCount: 64 << 20)
        }
        #expect(try FirmwareLaunch.plan(image, on: machine(.snp)).secretArea == nil)
    }

    @Test(
        arguments: [(0, 0x400), (0x80b000, 0), (0x80b008, 8), (0xffff_fff8, 0xffff_ffff), (0x400_0000, 0x1000)]
            as [(UInt64, UInt64)])
    func noSecretArea(_ entry: (UInt64, UInt64)) throws {
        let image = try FirmwareImage(SyntheticImages.firmware(secretArea: entry))
        #expect(try FirmwareLaunch.plan(image, on: machine(.sev)).secretArea == nil)
    }
}
