// The secure processor's firmware: version, state, versions in reports.

import SEVABI

extension HostRule {
    private static let update =
        "update the SEV firmware: amd_sev_*.sbin of linux-firmware "
        + "in /lib/firmware/amd (or the BIOS), then reboot"

    static let firmware: [HostRule] = [
        HostRule("firmware.answer", "Secure processor", .confidential) { patient in
            guard let answer = patient.facts.text(.firmwareAnswer) else {
                return patient.facts.text(.nodeSEV) == "ok" ? .unknown(patient.facts.absence(of: .firmwareAnswer)) : nil
            }
            return answer == "ok" ? .ok("answers") : refusal(answer)
        },
        HostRule("firmware.version", "SEV firmware", .confidential) { patient in
            guard let api = patient.facts.text(.firmwareAPI) else { return nil }
            let build = patient.facts.number(.firmwareBuild).map { ".\($0)" } ?? ""
            let parts = api.split(separator: ".").compactMap { UInt64($0) }
            guard parts.count == 2 else { return .unknown("version \(api)") }
            let version = (parts[0], parts[1])
            guard patient.technology == .snp else { return .ok("API \(api)\(build)") }
            if version < (1, 51) {
                return .failed("API \(api)\(build) is from before SNP (1.51)", update)
            }
            // Reports of version 3 and guest contexts of the present form.
            return version < (1, 55)
                ? .warning("API \(api)\(build) is old: reports of version 2, known weaknesses", update)
                : .ok("API \(api)\(build)")
        },
        HostRule("firmware.state", "SEV platform", .confidential) { patient in
            guard let state = patient.facts.number(.firmwareState) else { return nil }
            let guests = patient.facts.number(.firmwareGuests).map { ", \($0) guests" } ?? ""
            let isES = patient.facts.number(.firmwareFlags).map { $0 >> 8 & 1 != 0 } ?? true
            switch state {
            case 0:
                return .warning(
                    "not initialised yet",
                    "nothing to do where a guest starts it (kernels from 6.16); else see dmesg | grep -i ccp")
            case 1, 2:
                if patient.technology == .sevES, !isES {
                    return .failed(
                        "initialised without SEV-ES", "modprobe kvm_amd sev_es=1, and look at dmesg | grep -i ccp")
                }
                return .ok((state == 1 ? "initialised" : "working") + guests)
            default: return .unknown("state \(state)")
            }
        },
        HostRule("snp.answer", "SNP in the firmware", .snp) { patient in
            guard let answer = patient.facts.text(.snpAnswer) else { return nil }
            return answer == "ok" ? .ok("answers") : refusal(answer)
        },
        HostRule("snp.state", "SNP platform", .snp) { patient in
            let facts = patient.facts
            guard let state = facts.number(.snpState) else { return nil }
            let hasRMP = facts.number(.snpRMPFlags).map { $0 & 1 != 0 } ?? true
            guard state == 1, hasRMP else {
                // The kernel leaves it alone where it has no SNP: that is said above.
                return .failed(
                    hasRMP ? "SNP_INIT never ran" : "SNP_INIT never ran, or failed: the RMP is not initialised",
                    "dmesg | grep -i -e SEV-SNP -e ccp; update the SEV firmware, and start the host from cold")
            }
            return .ok("initialised" + (facts.number(.snpGuests).map { ", \($0) guests" } ?? ""))
        },
        HostRule("snp.tcb", "TCB in reports", .snp) { patient in
            guard let current = patient.facts.number(.currentTCB), let reported = patient.facts.number(.reportedTCB)
            else {
                return nil
            }
            let running = "0x" + String(current, radix: 16)
            if current == reported { return .ok("\(running), as it runs") }
            let text = "reported 0x\(String(reported, radix: 16)), running \(running)"
            return TCBVersion(rawValue: reported).isAtMost(TCBVersion(rawValue: current))
                ? .warning(
                    "\(text): reports tell older versions than run",
                    "swift-snp-vmm platform set-tcb --commit, when the new firmware is to stay (it cannot go back)")
                : .warning("\(text): reports tell newer versions than run", "reset what is reported: platform set-tcb")
        },
        HostRule("snp.masks", "Reports", .snp) { patient in
            guard let flags = patient.facts.number(.snpFlags) else { return nil }
            if flags & 2 != 0 {
                return .warning(
                    "not signed: the chip key is masked", "SNP_SET_CONFIG without MASK_CHIP_KEY (snphost config)")
            }
            if flags & 1 != 0 {
                return .warning(
                    "without the chip's id: owners cannot find the VCEK by it", "SNP_SET_CONFIG without MASK_CHIP_ID")
            }
            return .ok(flags & 4 != 0 ? "signed with the VLEK or the VCEK" : "signed with the VCEK")
        },
    ]

    /// What the catalogue says of an answer such as "SNP_PLATFORM_STATUS EIO INVALID_COMMAND".
    static func refusal(_ answer: String) -> Judgement {
        guard let question = try? ErrorQuestion(answer), let cause = ErrorAnswer(question).sections.first?.causes.first
        else {
            return .failed(answer, "look at dmesg on the host")
        }
        return .failed("\(answer): \(cause.text)", cause.nextStep)
    }

    // MARK: KVM

    static let kvm: [HostRule] = [
        HostRule("kvm.api", "KVM", .all) { patient in
            guard let version = patient.facts.number(.kvmVersion) else { return nil }
            return version == 12
                ? .ok("API 12" + (patient.facts.number(.maximumVCPUs).map { ", \($0) vCPUs" } ?? ""))
                : .failed("API \(version), expected 12", "use a current kernel")
        },
        HostRule("kvm.init2", "KVM_SEV_INIT2", .confidential) { patient in
            switch patient.facts[.vmsaFeatures] {
            case nil: nil
            case .unreadable(let reason)?:
                .failed(
                    "\(reason): the kernel has no KVM_SEV_INIT2",
                    "install a newer kernel: 6.10 for SEV and SEV-ES, 6.11 for SNP")
            default: .ok("known")
            }
        },
        HostRule("kvm.type", "VM type", .confidential) { patient in
            guard let types = patient.facts.number(.vmTypes), let technology = patient.technology else { return nil }
            let bit: UInt64 =
                switch technology {
                case .sev: 2
                case .sevES: 3
                case .snp: 4
                }
            return types >> bit & 1 != 0
                ? .ok("offered")
                : .failed(
                    "the kernel does not offer \(technology.displayName) VMs",
                    "mend what is red above, then load kvm_amd again")
        },
        HostRule("kvm.memory", "Private memory", .snp) { patient in
            let facts = patient.facts
            guard facts.number(.kvmVersion) != nil else { return nil }
            let needs: [(HostFact, UInt64, String)] = [
                (.guestMemfd, 1, "guest_memfd"), (.memoryAttributes, 8, "memory attributes"),
                (.userMemory2, 1, "slots"),
                (.exitHypercall, 1 << 12, "page-state exits"),
            ]
            let missing = needs.filter { need in facts.number(need.0).map { $0 & need.1 != need.1 } ?? true }.map(\.2)
            return missing.isEmpty
                ? .ok("guest_memfd, attributes, page-state exits")
                : .failed(
                    "the kernel has no " + missing.joined(separator: ", "), "install a newer kernel: 6.11 for SNP")
        },
        HostRule("kvm.policy", "Guest policies", .snp) { patient in
            guard let bits = patient.facts.number(.policyBits) else {
                return .ok("bits not told by this kernel (before 6.19): 0x30000 is taken by all")
            }
            return bits & 0x30000 == 0x30000
                ? .ok("bits 0x" + String(bits, radix: 16))
                : .warning(
                    "the kernel accepts 0x\(String(bits, radix: 16)): not the usual 0x30000",
                    "load kvm_amd with sev_snp=1")
        },
        HostRule("kvm.certificates", "Certificates for guests", .snp) { patient in
            guard patient.facts.number(.kvmVersion) != nil else { return nil }
            return patient.facts.number(.certificateRequests).map { $0 != 0 } == true
                ? .ok("passed on request")
                : .warning("this kernel passes none (before 7.0)", "the owner brings them: certs import, owner serve")
        },
        HostRule("kvm.launch", "A VM for a moment", .confidential) { patient in
            let fact: HostFact =
                switch patient.technology {
                case .sev?: .initializeSEV
                case .sevES?: .initializeSEVES
                default: .initializeSNP
                }
            guard let answer = patient.facts.text(fact) else { return nil }
            return answer == "ok" ? .ok("made and initialised") : refusal(answer)
        },
    ]
}
