// The plan of an IGVM file: what a loader that follows it puts into the guest, in file order.

import SEVABI

/// Makes plans from IGVM files, to be measured.
///
/// Register state comes as VMSA pages with addresses of their own. KVM takes no such pages, so these plans have them among
/// their regions and are not for launching.
public enum IGVMLaunch {
    /// How a loader handles normal pages without file data.
    public enum ZeroPages: Sendable {
        /// As NORMAL pages of zeroes: what the format means.
        case measured
        /// As ZERO pages of the firmware: another digest.
        case native
    }

    /// The plan for the machine's technology.
    ///
    /// Policy and SEV_FEATURES come from the file, where it has them; memory and processor count do not matter.
    /// - Throws: ``ImageError``: no platform of that technology in the file, or pages outside of it.
    public static func plan(
        _ image: IGVMFile, zeroPages: ZeroPages = .measured, on machine: MachineDescription
    ) throws(ImageError) -> LaunchPlan {
        let wanted = IGVMFile.PlatformType(of: machine.technology)
        guard let platform = image.platforms.first(where: { $0.type == wanted }) else {
            throw ImageError(
                .unsupported, attempt: "plan the launch of the \(IGVMFile.subject)", field: "supported platforms",
                expected: "\(wanted)", found: image.platforms.map(\.type.description).joined(separator: ", "),
                likelyCause: "a file for other guests", nextStep: "choose one of its platforms with --confidential")
        }
        var builder = Builder(image: image, technology: machine.technology, zeroPages: zeroPages)
        for (mask, directive) in image.directives where mask & platform.mask != 0 { try builder.add(directive) }
        return LaunchPlan(
            regions: builder.regions, processors: [], guestFeatures: builder.guestFeatures ?? machine.guestFeatures,
            policy: image.policies.last { $0.mask & platform.mask != 0 }?.policy ?? machine.policy,
            technology: machine.technology)
    }

    private struct Builder {
        let image: IGVMFile
        let technology: GuestTechnology?
        let zeroPages: ZeroPages
        var regions: [LaunchPlan.Region] = []
        var guestFeatures: UInt64?
        /// Pages by their place in the file: one that is named often is kept once.
        private var pages: [UInt32: [UInt8]] = [:]
        private var byteCount: UInt64 = 0

        init(image: IGVMFile, technology: GuestTechnology?, zeroPages: ZeroPages) {
            self.image = image
            self.technology = technology
            self.zeroPages = zeroPages
        }

        mutating func add(_ directive: IGVMFile.Directive) throws(ImageError) {
            switch directive {
            case .page(let gpa, let kind, let offset): try addPage(gpa, kind, offset)
            case .parameters(let gpa, let area, let count):
                append("parameter area \(area)", .unmeasured, gpa, count)
            case .processor(let gpa, let index, let offset):
                // SEV has no such pages.
                guard technology?.encryptsState == true else { return }
                let page = try page(at: offset)
                if technology == .snp {
                    guestFeatures = page[0x3b0..<0x3b8].reversed().reduce(0) { $0 &<< 8 | UInt64($1) }
                }
                append("VMSA \(index)", .vmsa, gpa, 4096, page)
            }
        }

        private mutating func addPage(
            _ gpa: UInt64, _ kind: IGVMFile.PageKind, _ offset: UInt32
        ) throws(ImageError) {
            switch kind {
            case .shared: break
            case .normal where offset == 0 && zeroPages == .native && technology == .snp:
                append("zero page", .zero, gpa, 4096)
            case .normal: append(offset == 0 ? "page of zeroes" : "page", .normal, gpa, 4096, try page(at: offset))
            case .unmeasured: append("unmeasured page", .unmeasured, gpa, 4096)
            case .secrets: append("secrets page", .secrets, gpa, 4096)
            case .cpuid: append("CPUID page", .cpuid, gpa, 4096)
            case .unsupported(let flags, let dataType):
                throw ImageError(
                    .unsupported, attempt: "plan the launch of the \(IGVMFile.subject)",
                    field: "page data at GPA \(hex(gpa))",
                    expected: "4 KiB pages, normal, secrets or CPUID, perhaps unmeasured or shared",
                    found: "flags \(hex(flags)), data type \(dataType)",
                    likelyCause: "a file for other guests, or one that is newer than this program",
                    nextStep: "have the file made for SNP")
            }
        }

        /// Only SNP has other pages than measured ones.
        private mutating func append(
            _ label: String, _ type: PageType, _ gpa: UInt64, _ count: UInt64, _ contents: [UInt8] = []
        ) {
            guard technology == .snp || !contents.isEmpty else { return }
            regions.append(.init(label: label, pageType: type, gpa: gpa, byteCount: count, contents: contents))
        }

        private mutating func page(at offset: UInt32) throws(ImageError) -> [UInt8] {
            if let page = pages[offset] { return page }
            byteCount += 4096
            guard byteCount <= IGVMFile.maximumMemoryByteCount else {
                throw ImageError(
                    .malformed, attempt: "plan the launch of the \(IGVMFile.subject)", field: "page data",
                    expected: "at most \(readable(byteCount: IGVMFile.maximumMemoryByteCount)) of pages", found: "more",
                    likelyCause: "a damaged or hostile file", nextStep: "compare its checksum with the original")
            }
            let page = try image.page(at: offset)
            pages[offset] = page
            return page
        }
    }
}
