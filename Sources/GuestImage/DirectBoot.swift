// The plan of a direct boot: kernel, initrd, command line and tables are put into memory and measured; there is no
// firmware, the boot processor starts at the kernel's 64-bit entry.

import SEVABI
import X86Defs

/// What a direct boot starts.
public struct BootPayload: Sendable {
    public var kernel: LinuxKernel
    /// Empty for none.
    public var initrd: [UInt8]
    /// Without a NUL; empty for none.
    public var commandLine: [UInt8]

    public init(kernel: LinuxKernel, initrd: [UInt8] = [], commandLine: [UInt8] = []) {
        self.kernel = kernel
        self.initrd = initrd
        self.commandLine = commandLine
    }

    /// The parts of a UKI.
    public init(_ image: UnifiedKernelImage) {
        self.init(kernel: image.kernel, initrd: image.initrd, commandLine: image.commandLine)
    }
}

/// Makes plans without firmware.
public enum DirectBoot {
    /// Lays out the guest's memory.
    ///
    /// An SNP guest gets every page of RAM: contents as NORMAL, the rest as ZERO, then the secrets and CPUID pages. So all
    /// of it is validated and the guest need not accept memory.
    ///
    /// For SEV and SEV-ES the regions are the LAUNCH_UPDATE_DATA calls: the contents, then zeroes for what is read before it
    /// is written. All other RAM is garbage for the guest until it writes there. There
    /// is no secrets page, no CPUID page and no CC blob; ``SecretNode`` is the area for LAUNCH_SECRET. A SEV-ES guest of
    /// several vCPUs starts in ``JumpTablePage``.
    ///
    /// For a plain guest the plan holds only the regions with contents, to be copied into zeroed RAM.
    /// - Throws: ``ImageError``: memory too small (with the least that would do), a kernel that cannot be placed, a command
    ///   line that is too long.
    public static func plan(_ payload: BootPayload, on machine: MachineDescription) throws(ImageError) -> LaunchPlan {
        try machine.check()
        typealias Map = GuestAddressMap
        let ram = Map.ramRanges(memoryByteCount: machine.memoryByteCount)
        let kernel = try PlacedKernel(payload.kernel)
        let commandLine = try terminated(payload.commandLine, limit: kernel.maximumCommandLineByteCount)
        let initrd = try place(
            initrd: payload.initrd, above: kernel, lowRAMEnd: ram[0].upperBound)

        let tables = PageTables(cBit: machine.isConfidential ? machine.cBit : nil)
        let parameters = BootParameters(
            setupHeader: kernel.setupHeader, memoryMap: E820Entry.map(of: machine), initrd: initrd,
            commandLine: Map.commandLine, setupData: machine.technology == .snp ? Map.setupData : Map.secretNode,
            rsdp: Map.acpiTables)

        var regions: [LaunchPlan.Region] = []
        func add(_ label: String, _ gpa: UInt64, _ contents: [UInt8]) {
            guard !contents.isEmpty else { return }
            let pages = contents.paddedToPage()
            regions.append(
                LaunchPlan.Region(
                    label: label, pageType: .normal, gpa: gpa, byteCount: UInt64(pages.count), contents: pages))
        }
        add("page tables", Map.pageTables, tables.bytes)
        add("boot_params", Map.bootParameters, parameters.bytes)
        add("command line", Map.commandLine, commandLine)
        if machine.technology == .snp {
            add(
                "setup_data", Map.setupData,
                ConfidentialComputingBlob.setupDataPage(blob: Map.confidentialComputingBlob))
            add(
                "CC blob", Map.confidentialComputingBlob,
                ConfidentialComputingBlob.blobPage(secrets: Map.secretsPage, cpuid: Map.cpuidPage))
        } else {
            add("secret node", Map.secretNode, SecretNode.page)
        }
        if machine.needsJumpTable {
            add("AP jump table", Map.jumpTable, JumpTablePage.bytes(kernelEntry: kernel.entry))
        }
        add("ACPI tables", Map.acpiTables, ACPITables(processorCount: machine.processorCount).bytes)
        for piece in kernel.pieces { add("kernel", piece.gpa, piece.contents) }
        add("initrd", initrd.lowerBound, payload.initrd)
        switch machine.technology {
        case .snp:
            let special: [LaunchPlan.Region] = [
                .init(label: "secrets page", pageType: .secrets, gpa: Map.secretsPage, byteCount: 4096),
                .init(
                    label: "CPUID page", pageType: .cpuid, gpa: Map.cpuidPage, byteCount: 4096,
                    contents: try GuestCPUID.page(of: machine.cpuid).bytes),
            ]
            regions += zeroRegions(in: ram, around: regions + special) + special
        case .sev, .sevES:
            for var zeroes in zeroRegions(in: zeroesBeforeUse(by: kernel), around: regions) {
                zeroes.label = "zeroes"
                zeroes.pageType = .normal
                zeroes.contents = [UInt8](repeating: 0, count: Int(zeroes.byteCount))
                regions.append(zeroes)
            }
        case nil: break
        }
        let boot = bootState(
            entry: machine.needsJumpTable ? JumpTablePage.bootEntry : kernel.entry, cr3: tables.cr3)
        let others = VMMProfile.qemu.resetState(
            entry: machine.needsJumpTable ? JumpTablePage.othersEntry : VMMProfile.resetVector,
            signature: machine.signature)
        return LaunchPlan(
            regions: regions,
            processors: [boot] + [ProcessorState](repeating: others, count: machine.processorCount - 1),
            guestFeatures: machine.guestFeatures, policy: machine.policy, technology: machine.technology,
            secretArea: secretArea(of: machine.technology))
    }

    /// LAUNCH_SECRET is a command of SEV and SEV-ES alone.
    private static func secretArea(of technology: GuestTechnology?) -> LaunchPlan.SecretArea? {
        switch technology {
        case .sev, .sevES:
            LaunchPlan.SecretArea(
                gpa: GuestAddressMap.secretArea, byteCount: GuestAddressMap.secretAreaByteCount)
        case .snp, nil: nil
        }
    }

    /// What a SEV guest reads before anybody has written it, and so has to be launched as zeroes; ascending.
    ///
    /// - Low memory: Linux reads the BIOS data area and scans 0x80000–0x9FFFF and 0xC0000–0xFFFFF for tables. Zeroes say
    ///   that there are none, garbage might say anything.
    /// - An ELF kernel's memory beyond its contents: whoever loads an ELF file owes it zeroes there. A bzImage clears its
    ///   `.bss` and page tables itself, and the rest of its init_size window it writes before it reads.
    private static func zeroesBeforeUse(by kernel: PlacedKernel) -> [Range<UInt64>] {
        typealias Map = GuestAddressMap
        return [0..<Map.lowMemoryEnd, Map.optionROMs..<Map.highMemory] + kernel.zeroed
    }

    /// The boot processor at a 64-bit kernel entry [Linux x86/boot.rst "64-bit boot protocol"], as the VMM sets it.
    ///
    /// KVM adds EFER.SVME and CR4.MCE when it seals the state.
    static func bootState(entry: UInt64, cr3: UInt64) -> ProcessorState {
        var state = ProcessorState()
        // 64-bit code, present, accessed, 4 KiB granular; the selectors are those of the kernel's own boot GDT.
        state.cs = SegmentRegister(selector: 0x10, attributes: 0xa9b, limit: 0xffff_ffff)
        let data = SegmentRegister(selector: 0x18, attributes: 0xc93, limit: 0xffff_ffff)
        state.ds = data
        state.es = data
        state.ss = data
        state.fs = data
        state.gs = data
        state.ldtr = SegmentRegister(attributes: 0x82, limit: 0xffff)
        state.tr = SegmentRegister(attributes: 0x8b, limit: 0xffff)
        // CR0: PG, ET, PE. CR4: PAE. EFER: LME, LMA.
        state.cr0 = 0x8000_0011
        state.cr4 = 0x20
        state.cr3 = cr3
        state.efer = 0x500
        state.rip = entry
        // RSI.
        state.generalRegisters[6] = GuestAddressMap.bootParameters
        return state
    }

    /// The command line with its NUL.
    private static func terminated(_ line: [UInt8], limit: UInt64) throws(ImageError) -> [UInt8] {
        guard UInt64(line.count) <= limit else {
            throw ImageError(
                .badInput, attempt: "place the command line", field: "cmdline_size", expected: "at most \(limit) bytes",
                found: "\(line.count)", likelyCause: "the kernel has no room for a longer one",
                nextStep: "shorten the command line")
        }
        guard !line.contains(0) else {
            throw ImageError(
                .badInput, attempt: "place the command line", expected: "no NUL bytes", found: "a NUL inside",
                likelyCause: "it was read from a binary file", nextStep: "pass plain text")
        }
        return line + [0]
    }

    /// Puts the initrd as high as it may be, page aligned.
    private static func place(
        initrd: [UInt8], above kernel: PlacedKernel, lowRAMEnd: UInt64
    ) throws(ImageError) -> Range<UInt64> {
        let initrdPages = pageAlignedUp(UInt64(initrd.count))
        // Both addends are far below 2^63: the kernel's end is checked to be below 2^53, the initrd is in memory.
        let needed = kernel.end + initrdPages
        let limit = min(GuestAddressMap.lowRAMLimit, initrd.isEmpty ? .max : (kernel.initrdLastAddress &+ 1) & ~0xfff)
        guard needed <= limit else {
            throw ImageError(
                .unsupported, attempt: "place kernel and initrd", expected: "kernel and initrd below \(hex(limit))",
                found: "\(hex(kernel.start))…\(hex(kernel.end)) for the kernel, \(initrd.count) bytes of initrd",
                likelyCause: "the initrd is too large, or a size field of the kernel is damaged",
                nextStep: "use a smaller initrd; check the kernel's checksum")
        }
        guard needed <= lowRAMEnd else {
            let least = (needed + 0xf_ffff) & ~0xf_ffff
            throw ImageError(
                .memoryTooSmall, attempt: "place kernel and initrd",
                expected: "at least \(readable(byteCount: least)) of memory",
                found: readable(byteCount: lowRAMEnd),
                likelyCause:
                    "--memory is too small: the kernel needs \(hex(kernel.start))…\(hex(kernel.end)) while it unpacks "
                    + "itself, the initrd \(initrd.count) bytes",
                nextStep: "pass --memory \((least >> 20) + 32)M or more")
        }
        let start = (min(lowRAMEnd, limit) - UInt64(initrd.count)) & ~0xfff
        return initrd.isEmpty ? 0..<0 : start..<(start + UInt64(initrd.count))
    }

    /// ZERO regions for all RAM that `regions` leave over, ascending, as few as possible.
    private static func zeroRegions(in ram: [Range<UInt64>], around regions: [LaunchPlan.Region]) -> [LaunchPlan.Region]
    {
        let taken = regions.map { $0.gpa..<($0.gpa + $0.byteCount) }.sorted { $0.lowerBound < $1.lowerBound }
        var free: [Range<UInt64>] = []
        for range in ram {
            var start = range.lowerBound
            for region in taken where region.lowerBound >= range.lowerBound && region.lowerBound < range.upperBound {
                if start < region.lowerBound { free.append(start..<region.lowerBound) }
                start = region.upperBound
            }
            if start < range.upperBound { free.append(start..<range.upperBound) }
        }
        return free.map {
            LaunchPlan.Region(
                label: "RAM", pageType: .zero, gpa: $0.lowerBound, byteCount: $0.upperBound - $0.lowerBound)
        }
    }
}
