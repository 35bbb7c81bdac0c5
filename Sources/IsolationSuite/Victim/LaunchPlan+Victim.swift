// A victim as a launch plan: executed on the kernel under attack, and measured by the owner without it.

import GuestImage
import SEVABI
import X86Defs

extension VictimImage {
    /// Policies that the suite's owners ask for: SNP with SMT allowed, SEV and SEV-ES without debugging [SEV 3, SNP 4.3].
    var policy: UInt64 {
        let (major, minor) = (UInt64(minimumVersion.major), UInt64(minimumVersion.minor))
        return switch subject {
        case .plain: 0
        case .sev: 1 | major << 16 | minor << 24
        case .sevES: 1 | 1 << 2 | major << 16 | minor << 24
        case .snp: 0x30000 | major << 8 | minor
        }
    }

    /// The launch of this image.
    ///
    /// - Parameter cpuid: The CPUID page of an SNP guest.
    func plan(cpuid: CPUIDTable) -> LaunchPlan {
        let memory = memory
        func region(_ label: String, _ range: Range<UInt64>) -> LaunchPlan.Region {
            LaunchPlan.Region(
                label: label, pageType: .normal, gpa: range.lowerBound,
                byteCount: range.upperBound - range.lowerBound,
                contents: Array(memory[Int(range.lowerBound)..<Int(range.upperBound)]))
        }
        var regions = [region("program", 0x1000..<VictimLayout.ghcb)]
        if subject == .snp {
            regions.append(
                LaunchPlan.Region(
                    label: "CPUID page", pageType: .cpuid, gpa: VictimLayout.cpuidPage, byteCount: 0x1000,
                    contents: cpuid.bytes))
        }
        regions.append(region("initrd and command line", VictimLayout.initrd..<VictimLayout.firstPage))
        if subject == .snp {
            regions.append(
                LaunchPlan.Region(
                    label: "pages", pageType: .zero, gpa: VictimLayout.firstPage,
                    byteCount: UInt64(VictimLayout.launchedPageCount * VictimLayout.pageByteCount)))
        }
        return LaunchPlan(
            regions: regions, processors: [processor], guestFeatures: subject == .snp ? 1 : 0, policy: policy,
            technology: subject.technology)
    }
}
