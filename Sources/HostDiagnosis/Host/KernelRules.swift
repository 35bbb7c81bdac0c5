// The kernel, its options and modules, and the IOMMU.

import SEVABI

extension HostRule {
    static let kernel: [HostRule] = [
        HostRule("kernel.release", "Kernel", .all) { patient in
            guard let release = patient.facts.text(.kernelRelease) else {
                return .unknown(patient.facts.absence(of: .kernelRelease))
            }
            // Said for people; what the kernel can do is asked below.
            let parts = release.split { !$0.isNumber }.prefix(2).compactMap { UInt64($0) }
            guard patient.technology != nil, parts.count == 2 else { return .ok(release) }
            let needed: (UInt64, UInt64) = patient.technology == .snp ? (6, 11) : (6, 10)
            return (parts[0], parts[1]) >= needed
                ? .ok(release)
                : .warning(
                    "\(release): mainline has this kind of guest from \(needed.0).\(needed.1) on",
                    "install a newer kernel (Debian: apt install -t bookworm-backports linux-image-amd64)")
        },
        HostRule("kernel.options", "Kernel options", .confidential) { patient in
            guard let options = patient.facts.text(.kernelOptions) else {
                return .unknown(patient.facts.absence(of: .kernelOptions))
            }
            let words = options.split(separator: " ").map(String.init)
            let off = ["0", "n", "N"].flatMap { ["kvm_amd.sev=\($0)"] }
            if let word = words.first(where: { off.contains($0) }) {
                return .failed("\(word) turns SEV off", "remove \(word) from the kernel's command line")
            }
            if patient.technology == .snp,
                let word = words.first(where: {
                    ["iommu=pt", "iommu=off", "amd_iommu=off", "iommu.passthrough=1"].contains($0)
                })
            {
                return .failed(
                    "\(word) keeps SNP off: it needs the IOMMU", "remove \(word) from the kernel's command line")
            }
            return .ok(options.isEmpty ? "none that matter" : options)
        },
        HostRule("iommu", "IOMMU", .snp) { patient in
            let facts = patient.facts
            guard let count = facts.number(.iommuCount) else { return .unknown(facts.absence(of: .iommuCount)) }
            guard count > 0 else {
                return .failed(
                    "none: SNP needs it to keep devices away from guests",
                    "BIOS: AMD CBS > NBIO Common Options > IOMMU: Enabled")
            }
            if facts.text(.iommuDomain) == "identity" {
                return .failed("in passthrough mode, and the kernel leaves SNP off", "boot with iommu=nopt")
            }
            return .ok("\(count), " + (facts.text(.iommuDomain).map { "domains: \($0)" } ?? "domains not seen"))
        },
        HostRule("module.ccp", "Module ccp", .confidential) { patient in
            switch patient.facts.flag(.ccpIsLoaded) {
            case nil: .unknown(patient.facts.absence(of: .ccpIsLoaded))
            case true?: .ok("loaded")
            case false?: .failed("not loaded: nobody speaks to the secure processor", "modprobe ccp")
            }
        },
        HostRule("module.kvm_amd", "Module kvm_amd", .confidential) { patient in
            switch patient.facts.flag(.kvmAMDIsLoaded) {
            case nil: .unknown(patient.facts.absence(of: .kvmAMDIsLoaded))
            case true?: .ok("loaded")
            case false?: .failed("not loaded", "modprobe kvm_amd; if it refuses, BIOS: SVM Mode: Enabled")
            }
        },
        parameter("sev", .parameterSEV, .confidential),
        parameter("sev_es", .parameterSEVES, .stateOrSNP),
        parameter("sev_snp", .parameterSNP, .snp),
        HostRule("kernel.snp", "SNP turned on by the kernel", .snp) { patient in
            guard let syscfg = patient.facts.number(.syscfg) else {
                return .unknown("SYSCFG " + patient.facts.absence(of: .syscfg))
            }
            return syscfg >> 24 & 1 != 0
                ? .ok("SYSCFG bit 24")
                : .failed(
                    "the kernel did not turn SNP on (SYSCFG bit 24)",
                    "dmesg | grep -i -e SEV-SNP -e RMP says why; a kernel with CONFIG_KVM_AMD_SEV of 6.11 or later")
        },
    ]

    private static func parameter(_ name: String, _ fact: HostFact, _ need: Need) -> HostRule {
        HostRule("module.kvm_amd.\(name)", "kvm_amd \(name)", need) { patient in
            guard let value = patient.facts.text(fact) else {
                // A module that is not there has no parameters: said above.
                if patient.facts.flag(.kvmAMDIsLoaded) == false { return nil }
                guard case .unreadable("ENOENT")? = patient.facts[fact] else {
                    return .unknown(patient.facts.absence(of: fact))
                }
                let release = patient.facts.text(.kernelRelease).map { "kernel \($0)" } ?? "the kernel"
                return .failed(
                    "kvm_amd has no parameter \(name): \(release) is too old for it",
                    "install a newer kernel: 6.11 for SNP")
            }
            return ["Y", "1"].contains(value)
                ? .ok("on")
                : .failed(
                    "off: loaded with \(name)=0, or turned off because something above is missing",
                    "rmmod kvm_amd; modprobe kvm_amd sev=1 sev_es=1 sev_snp=1; to stay: options kvm_amd sev=1 sev_es=1 "
                        + "sev_snp=1 in /etc/modprobe.d/kvm_amd.conf")
        }
    }

    // MARK: Nodes

    static let nodes: [HostRule] = [
        node("/dev/kvm", .nodeKVM, .nodeKVMMode, .all),
        HostRule("user.group", "Group of /dev/kvm", .all) { patient in
            let facts = patient.facts
            guard facts.flag(.userIsRoot) != true, let isMember = facts.flag(.userIsInKVMGroup) else { return nil }
            return isMember
                ? .ok("the user is in it") : .warning("the user is not in it", "usermod -aG kvm USER, and log in again")
        },
        node("/dev/sev", .nodeSEV, .nodeSEVMode, .confidential),
    ]

    private static func node(_ path: String, _ fact: HostFact, _ mode: HostFact, _ need: Need) -> HostRule {
        HostRule("node.\(path.dropFirst(5))", path, need) { patient in
            guard let answer = patient.facts.text(fact) else { return .unknown(patient.facts.absence(of: fact)) }
            let permissions = patient.facts.text(mode).map { ", mode \($0)" } ?? ""
            if answer == "ok" { return .ok("opens" + permissions) }
            guard let question = try? ErrorQuestion("\(path) \(answer)"),
                let cause = ErrorAnswer(question).sections.first?.causes.first
            else { return .failed("\(path): \(answer)", "see dmesg on the host") }
            return .failed("\(answer)\(permissions): \(cause.text)", cause.nextStep)
        }
    }
}
