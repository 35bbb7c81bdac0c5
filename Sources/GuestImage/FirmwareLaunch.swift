// The plan of a launch with firmware: the image, the sections its metadata asks for, processors at the reset vector.

import SEVABI
import X86Defs

/// Makes plans from firmware images.
public enum FirmwareLaunch {
    /// Firmware pages ascending, then the metadata sections, then the processors.
    ///
    /// A plain guest gets the firmware pages alone.
    /// - Parameters:
    ///   - kernel: What the firmware is to boot; its hashes go into the image's kernel-hashes section.
    ///   - profile: Whose conventions to measure with.
    /// - Throws: ``ImageError``: a kernel for an image that has no place for its hashes, several processors for an image
    ///   without a reset block, sections beyond the guest's memory.
    public static func plan(
        _ image: FirmwareImage, kernel: HashedKernel? = nil, profile: VMMProfile = .qemu, on machine: MachineDescription
    ) throws(ImageError) -> LaunchPlan {
        try machine.check()
        var regions = [
            LaunchPlan.Region(
                label: "firmware", pageType: .normal, gpa: image.loadAddress, byteCount: UInt64(image.bytes.count),
                contents: image.bytes)
        ]
        let hashes = try hashesPage(of: kernel, for: image)
        if machine.isConfidential {
            var sections = image.sections
            if profile == .ec2 {
                sections = sections.filter { $0.type != .cpuid } + sections.filter { $0.type == .cpuid }
            }
            let lowRAMEnd = min(machine.memoryByteCount, GuestAddressMap.lowRAMLimit)
            for section in sections {
                guard section.gpa + section.byteCount <= lowRAMEnd else {
                    throw tooSmall(section, lowRAMEnd)
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
        }
        var processors = [profile.resetState(entry: VMMProfile.resetVector, signature: machine.signature)]
        if machine.processorCount > 1 {
            guard let entry = image.applicationProcessorEntry else {
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
            regions: regions, processors: processors, guestFeatures: machine.guestFeatures, policy: machine.policy)
    }

    /// The page with the hashes table at its place; nil without a kernel.
    private static func hashesPage(of kernel: HashedKernel?, for image: FirmwareImage) throws(ImageError) -> [UInt8]? {
        guard let kernel else { return nil }
        func refuse(_ field: String, _ expected: String, _ found: String) -> ImageError {
            ImageError(
                .unsupported, attempt: "put the kernel's hashes into the firmware's memory", field: field,
                expected: expected, found: found,
                likelyCause: "the firmware was not built for measured direct boot (Debian's OVMF images are not)",
                nextStep:
                    "use an OVMF AmdSev build, or leave --firmware out for a direct boot that measures the kernel itself"
            )
        }
        guard let section = image.sections.first(where: { $0.type == .kernelHashes }) else {
            throw refuse("SEV metadata", "a section SNP_KERNEL_HASHES", "none")
        }
        guard let table = image.hashesTable else {
            throw refuse("hashes table address", "an address", "none or 0")
        }
        let byteCount = UInt64(KernelHashesTable.byteCount)
        guard table.gpa >= section.gpa, table.gpa - section.gpa <= section.byteCount - byteCount,
            table.byteCount >= byteCount
        else {
            throw refuse(
                "hashes table address", "\(byteCount) bytes inside the section at \(hex(section.gpa))",
                "\(hex(table.gpa)) with \(table.byteCount) bytes")
        }
        var page = [UInt8](repeating: 0, count: Int(section.byteCount))
        page.store(KernelHashesTable(of: kernel).bytes, at: Int(table.gpa - section.gpa))
        return page
    }

    private static func tooSmall(_ section: FirmwareImage.Section, _ lowRAMEnd: UInt64) -> ImageError {
        let least = (section.gpa + section.byteCount + 0xf_ffff) & ~0xf_ffff
        return ImageError(
            .memoryTooSmall, attempt: "place the firmware's section \(section.type)",
            expected: "memory up to \(hex(section.gpa + section.byteCount)), at least \(readable(byteCount: least))",
            found: readable(byteCount: lowRAMEnd), likelyCause: "--memory is too small",
            nextStep: "pass --memory \(max(least >> 20, 128))M or more")
    }
}
