// Processor and firmware set-up: what no command can mend.

import SEVABI

extension HostRule {
    /// The BIOS menus of AMD's own firmware; vendors call them otherwise.
    static let rmpEntry =
        "BIOS: AMD CBS > CPU Common Options > SNP Memory (RMP Table) Coverage: Enabled; NBIO > SEV-SNP Support: Enable"
    static let smeeEntry = "BIOS: AMD CBS > CPU Common Options > SMEE: Enable"
    static let asidEntry = "BIOS: AMD CBS > CPU Common Options > SEV-ES ASID Space Limit"
    private static let readMSR = "modprobe msr, and run doctor as root"

    static let board: [HostRule] = [
        HostRule("cpu.vendor", "Processor", .confidential) { patient in
            guard let vendor = patient.facts.text(.cpuVendor) else {
                return .unknown(patient.facts.absence(of: .cpuVendor))
            }
            guard vendor == "AuthenticAMD" else {
                return .failed("\(vendor), which has no SEV", "use an AMD EPYC, or --backend software")
            }
            let name = patient.facts.text(.cpuBrand) ?? vendor
            guard let signature = patient.facts.number(.cpuSignature) else { return .ok(name) }
            return .ok("\(name) (0x\(String(signature, radix: 16)))")
        },
        HostRule("cpu.guest", "Bare metal", .confidential) { patient in
            switch patient.facts.flag(.cpuIsGuest) {
            case nil: .unknown(patient.facts.absence(of: .cpuIsGuest))
            case true?:
                .failed(
                    "this host is itself a virtual machine, and gets no SEV from below",
                    "use a bare-metal host, or --backend software")
            case false?: .ok("yes")
            }
        },
        HostRule("cpu.generation", "Generation", .confidential) { patient in
            guard let signature = patient.facts.number(.cpuSignature) else {
                return .unknown(patient.facts.absence(of: .cpuSignature))
            }
            // CPUID 1 EAX: base family 0xF, extended family in bits 27:20.
            let family = (signature >> 8 & 0xf) + (signature >> 20 & 0xff)
            let model = signature >> 16 & 0xf
            let (name, rank): (String, Int) =
                switch (family, model) {
                case (0x17, 3): ("Zen 2 (EPYC 7002)", 2)
                case (0x17, _): ("Zen 1 (EPYC 7001)", 1)
                case (0x19, 1), (0x19, 0xa): ("Zen 4 (EPYC 9004, 8004)", 3)
                case (0x19, _): ("Zen 3 (EPYC 7003)", 3)
                case (0x1a, _): ("Zen 5 (EPYC 9005)", 3)
                default: ("family \(family)", family > 0x1a ? 3 : 0)
                }
            let needed = patient.technology == .snp ? 3 : 1
            guard rank >= needed else {
                let what = patient.technology == .snp ? "SNP" : "SEV"
                return .failed(
                    "\(name) has no \(what)",
                    patient.technology == .snp ? "use an EPYC 7003 or later" : "use an EPYC 7001 or later")
            }
            return .ok(name)
        },
        HostRule("cpu.features", "CPUID 0x8000001F", .confidential) { patient in
            guard let features = patient.facts.number(.sevFeatures) else {
                return .unknown(patient.facts.absence(of: .sevFeatures))
            }
            let bits: [(UInt64, String)] = [(1, "SEV"), (3, "SEV-ES"), (4, "SEV-SNP")]
            let needed: Set<UInt64> =
                switch patient.technology {
                case nil: []
                case .sev?: [1]
                case .sevES?: [1, 3]
                case .snp?: [1, 3, 4]
                }
            let missing = bits.filter { needed.contains($0.0) && features >> $0.0 & 1 == 0 }.map(\.1)
            guard missing.isEmpty else {
                return .failed("the processor does not show " + missing.joined(separator: ", "), smeeEntry)
            }
            return .ok(bits.filter { features >> $0.0 & 1 != 0 }.map(\.1).joined(separator: ", "))
        },
        HostRule("bios.smee", "Memory encryption (SMEE)", .confidential) { patient in
            guard let syscfg = patient.facts.number(.syscfg) else {
                return .unknown("SYSCFG " + patient.facts.absence(of: .syscfg), readMSR)
            }
            return syscfg >> 23 & 1 != 0 ? .ok("on") : .failed("off in the BIOS (SYSCFG bit 23)", smeeEntry)
        },
        HostRule("bios.smmlock", "SMM lock", .confidential) { patient in
            guard let hwcr = patient.facts.number(.hwcr) else {
                return .unknown("HWCR " + patient.facts.absence(of: .hwcr), readMSR)
            }
            return hwcr & 1 != 0
                ? .ok("locked")
                : .failed(
                    "the BIOS left SMM open (HWCR bit 0), and the kernel turns SEV off",
                    "BIOS: SMM Lock: Enabled; update it")
        },
        HostRule("bios.asids", "ASIDs by the BIOS", .confidential) { patient in
            guard let count = patient.facts.number(.sevASIDs), let minimum = patient.facts.number(.sevMinimumASID)
            else {
                return .unknown(patient.facts.absence(of: .sevASIDs))
            }
            // No SEV, no ASIDs: said above.
            if count == 0, minimum == 0 { return nil }
            let state = minimum > 0 ? minimum - 1 : 0
            let memory = count >= minimum ? (count - minimum) &+ 1 : 0
            let text = "\(state) for SEV-ES and SNP, \(memory) for SEV"
            if patient.technology == .sev, memory == 0 {
                return .failed("\(text): the minimum SEV ASID is above the highest", asidEntry + ": lower it")
            }
            if patient.technology != .sev, state == 0 {
                return .failed(
                    "\(text): the minimum SEV ASID is \(minimum)", asidEntry + ": 100, for 99 SEV-ES and SNP guests")
            }
            return .ok(text)
        },
        HostRule("bios.rmp", "RMP memory", .snp) { patient in
            let facts = patient.facts
            guard let base = facts.number(.rmpBase), let end = facts.number(.rmpEnd) else {
                return .unknown("RMP_BASE " + facts.absence(of: .rmpBase), readMSR)
            }
            if facts.number(.rmpConfiguration).map({ $0 & 1 != 0 }) == true, base != 0 { return .ok("in segments") }
            guard base != 0, end > base else {
                return .failed("SNP is off in the BIOS: it sets no memory aside for the RMP", rmpEntry)
            }
            // 16 KiB of the processor's own, then 16 bytes a page [APM2 15.36.4].
            let byteCount = end &- base
            let covered = (byteCount > 16 << 10 ? (byteCount &- 16 << 10 &+ 1) / 16 : 0)
                .multipliedReportingOverflow(by: 4096)
            let reach = covered.overflow ? UInt64.max : covered.partialValue
            guard let total = facts.number(.memoryTotal) else { return .ok("covers \(readable(reach))") }
            guard reach >= total else {
                return .failed(
                    "the RMP covers \(readable(reach)) of \(readable(total)) of memory, and the kernel leaves SNP off",
                    "let the RMP cover all of the memory. " + rmpEntry)
            }
            return .ok("covers \(readable(reach)), the host has \(readable(total))")
        },
    ]

    static func readable(_ byteCount: UInt64) -> String {
        byteCount >= 1 << 30 ? "\(byteCount >> 30) GiB" : "\(byteCount >> 20) MiB"
    }
}
