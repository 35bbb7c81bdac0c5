// The plan of a launch with firmware: the image, the sections its metadata asks for, processors at the reset vector.

import SEVABI
import X86Defs

/// Makes plans from firmware images.
public enum FirmwareLaunch {
    /// SNP: firmware pages ascending, then the metadata sections, then the processors.
    ///
    /// SEV and SEV-ES: the firmware image, then, with a kernel, the 176 bytes of the hashes table alone at their address.
    /// The metadata sections are not used. A plain guest gets the firmware pages alone.
    /// - Parameters:
    ///   - kernel: What the firmware is to boot; its hashes go where the image wants its hashes table.
    ///   - profile: Whose conventions to measure with.
    /// - Throws: ``ImageError``: a kernel for an image that has no place for its hashes, several processors for an image
    ///   without a reset block, sections or hashes table beyond the guest's memory, SNP for an image without metadata.
    public static func plan(
        _ image: FirmwareImage, kernel: HashedKernel? = nil, profile: VMMProfile = .qemu, on machine: MachineDescription
    ) throws(ImageError) -> LaunchPlan {
        try machine.check()
        var regions = [
            LaunchPlan.Region(
                label: "firmware", pageType: .normal, gpa: image.loadAddress, byteCount: UInt64(image.bytes.count),
                contents: image.bytes)
        ]
        let lowRAMEnd = min(machine.memoryByteCount, GuestAddressMap.lowRAMLimit)
        switch machine.technology {
        case .snp:
            let hashes = try hashesPage(of: kernel, for: image)
            var sections = try image.launchSections()
            if profile == .ec2 {
                sections = sections.filter { $0.type != .cpuid } + sections.filter { $0.type == .cpuid }
            }
            for section in sections {
                guard section.gpa + section.byteCount <= lowRAMEnd else {
                    throw tooSmall("section \(section.type)", end: section.gpa + section.byteCount, lowRAMEnd)
                }
                var region = LaunchPlan.Region(
                    label: section.type.description, pageType: .zero, gpa: section.gpa, byteCount: section.byteCount)
                switch section.type {
                case .memory where profile == .gce:
                    region.pageType = .unmeasured
                    region.contents = [UInt8](repeating: 0, count: Int(section.byteCount))
                case .secrets: region.pageType = .secrets
                case .cpuid:
                    region.pageType = .cpuid
                    region.contents = try GuestCPUID.page(of: machine.cpuid).bytes
                case .kernelHashes:
                    if let hashes {
                        region.pageType = .normal
                        region.contents = hashes
                    }
                default: break
                }
                regions.append(region)
            }
        case .sev, .sevES:
            if let kernel {
                let table = try hashesTable(of: image, lowRAMEnd: lowRAMEnd)
                regions.append(
                    LaunchPlan.Region(
                        label: "kernel hashes", pageType: .normal, gpa: table,
                        byteCount: UInt64(KernelHashesTable.byteCount), contents: KernelHashesTable(of: kernel).bytes))
            }
        case nil:
            // Nobody measures, so nobody needs the hashes; but an image that could not take them is no better for it.
            _ = try hashesPage(of: kernel, for: image)
        }
        var processors = [profile.resetState(entry: VMMProfile.resetVector, signature: machine.signature)]
        if machine.processorCount > 1 {
            // Without a VMSA a processor starts where its SIPI says, whatever was set here.
            let needsEntry = machine.technology?.encryptsState == true
            guard let entry = image.applicationProcessorEntry ?? (needsEntry ? nil : VMMProfile.resetVector) else {
                throw ImageError(
                    .unsupported, attempt: "plan \(machine.processorCount) processors",
                    field: "SEV-ES reset block 00f771de-1a7e-4fcb-890e-68c77e2fb44e",
                    expected: "an entry of the firmware's GUIDed table", found: "none",
                    likelyCause: "the firmware supports one processor only",
                    nextStep: "pass --cpus 1 or use another image")
            }
            let other = profile.resetState(entry: entry, signature: machine.signature)
            processors += [ProcessorState](repeating: other, count: machine.processorCount - 1)
        }
        return LaunchPlan(
            regions: regions, processors: processors, guestFeatures: machine.guestFeatures, policy: machine.policy,
            technology: machine.technology,
            secretArea: machine.technology == .sev || machine.technology == .sevES
                ? secretArea(of: image, lowRAMEnd: lowRAMEnd) : nil)
    }

    /// The part of the image's secret area that LAUNCH_SECRET can fill: inside RAM and one page, in units of 16 bytes.
    private static func secretArea(of image: FirmwareImage, lowRAMEnd: UInt64) -> LaunchPlan.SecretArea? {
        guard let area = image.secretArea else { return nil }
        // Both numbers have 32 bits.
        let start = (area.gpa + 15) & ~15
        let end = min(area.gpa + area.byteCount, (start | 0xfff) + 1, lowRAMEnd) & ~15
        return start < end ? LaunchPlan.SecretArea(gpa: start, byteCount: end - start) : nil
    }

    /// Where the hashes table of a SEV or SEV-ES guest goes.
    private static func hashesTable(of image: FirmwareImage, lowRAMEnd: UInt64) throws(ImageError) -> UInt64 {
        guard let table = image.hashesTable else {
            throw refuseHashes("hashes table address", "an address", "none or 0")
        }
        let byteCount = UInt64(KernelHashesTable.byteCount)
        guard table.gpa & 15 == 0, table.byteCount >= byteCount else {
            throw refuseHashes(
                "hashes table", "at least \(byteCount) bytes at a multiple of 16",
                "\(table.byteCount) bytes at \(hex(table.gpa))")
        }
        guard table.gpa + byteCount <= min(GuestAddressMap.lowRAMLimit, image.loadAddress) else {
            throw refuseHashes(
                "hashes table address", "an address in RAM, below \(hex(GuestAddressMap.lowRAMLimit))", hex(table.gpa))
        }
        guard table.gpa + byteCount <= lowRAMEnd else {
            throw tooSmall("hashes table", end: table.gpa + byteCount, lowRAMEnd)
        }
        return table.gpa
    }

    /// The page with the hashes table at its place; nil without a kernel.
    private static func hashesPage(of kernel: HashedKernel?, for image: FirmwareImage) throws(ImageError) -> [UInt8]? {
        guard let kernel else { return nil }
        guard let section = image.sections.first(where: { $0.type == .kernelHashes }) else {
            throw refuseHashes("SEV metadata", "a section SNP_KERNEL_HASHES", "none")
        }
        guard let table = image.hashesTable else {
            throw refuseHashes("hashes table address", "an address", "none or 0")
        }
        let byteCount = UInt64(KernelHashesTable.byteCount)
        guard table.gpa >= section.gpa, table.gpa - section.gpa <= section.byteCount - byteCount,
            table.byteCount >= byteCount
        else {
            throw refuseHashes(
                "hashes table address", "\(byteCount) bytes inside the section at \(hex(section.gpa))",
                "\(hex(table.gpa)) with \(table.byteCount) bytes")
        }
        var page = [UInt8](repeating: 0, count: Int(section.byteCount))
        page.store(KernelHashesTable(of: kernel).bytes, at: Int(table.gpa - section.gpa))
        return page
    }

    private static func refuseHashes(_ field: String, _ expected: String, _ found: String) -> ImageError {
        ImageError(
            .unsupported, attempt: "put the kernel's hashes into the firmware's memory", field: field,
            expected: expected, found: found,
            likelyCause: "the firmware was not built for measured direct boot (Debian's OVMF images are not)",
            nextStep:
                "use an OVMF AmdSev build, or leave --firmware out for a direct boot that measures the kernel itself")
    }

    private static func tooSmall(_ what: String, end: UInt64, _ lowRAMEnd: UInt64) -> ImageError {
        let least = (end + 0xf_ffff) & ~0xf_ffff
        return ImageError(
            .memoryTooSmall, attempt: "place the firmware's \(what)",
            expected: "memory up to \(hex(end)), at least \(readable(byteCount: least))",
            found: readable(byteCount: lowRAMEnd), likelyCause: "--memory is too small",
            nextStep: "pass --memory \(max(least >> 20, 128))M or more")
    }
}
