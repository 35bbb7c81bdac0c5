// The arrows of the report's diagram, and the policy decoded.

import RunReport
import SEVABI
import SNPVMM

/// Turns the steps of a launch into what was said between owner, hypervisor and firmware.
struct ReportMessages {
    private(set) var messages: [RunReportData.Message] = []

    init(_ phases: [Phase], _ technology: GuestTechnology?, regionByteCounts: [UInt64]) {
        guard let technology else { return }
        let isSNP = technology == .snp
        // The update steps are those of the plan's regions, in order.
        var regions = regionByteCounts[...]
        for phase in phases {
            guard let step = phase.step else { continue }
            let time = phase.duration.reportNanoseconds
            let number = Self.number(of: step, technology)
            func say(
                _ from: RunReportData.Party, _ to: RunReportData.Party, _ name: String, number: Int? = nil,
                byteCount: UInt64 = 0, time: UInt64? = nil, detail: String = ""
            ) {
                messages.append(
                    .init(
                        number: number ?? Self.number(of: step, technology) ?? 1, from: from, to: to, name: name,
                        byteCount: byteCount, nanoseconds: time, detail: detail))
            }
            switch step {
            case .exportCertificates:
                say(.hypervisor, .owner, "certificates", detail: "PDH, PEK, OCA, CEK; firmware \(phase.detail)")
            case .session where phase.detail != "none":
                say(.owner, .hypervisor, "session", time: time, detail: "with certificate; \(phase.detail)")
            case .verdict:
                say(.hypervisor, .owner, "measurement", number: 4, byteCount: 48)
                let hasSecret = phase.detail != "no secret"
                say(.owner, .hypervisor, hasSecret ? "secret packet" : "consent", time: time, detail: phase.detail)
            case .measure:
                say(
                    .firmware, .hypervisor, "LAUNCH_MEASURE", byteCount: 48, time: time,
                    detail: String(phase.detail.prefix(28)) + "…")
            case .start, .updateVMSA, .secret, .finish:
                guard number != nil else { continue }
                say(
                    .hypervisor, .firmware, Self.command(step, isSNP: isSNP), byteCount: 0, time: time,
                    detail: phase.detail)
            case .update:
                let command = Self.command(step, isSNP: isSNP)
                let byteCount = regions.popFirst() ?? 0
                if let last = messages.lastIndex(where: { $0.name == command }) {
                    messages[last].callCount &+= 1
                    messages[last].byteCount &+= byteCount
                    messages[last].nanoseconds = (messages[last].nanoseconds ?? 0) &+ time
                } else {
                    say(.hypervisor, .firmware, command, byteCount: byteCount, time: time)
                }
            default: break
            }
        }
        for index in messages.indices
        where messages[index].name.hasSuffix("UPDATE") || messages[index].name.hasSuffix("_DATA") {
            let regions = messages[index].callCount
            messages[index].callCount = 1
            messages[index].detail = "\(regions) \(regions == 1 ? "region" : "regions") of the plan"
        }
    }

    /// AMD's order. SNP has three steps of its own.
    static func number(of step: LaunchStep, _ technology: GuestTechnology) -> Int? {
        switch (step, technology == .snp) {
        case (.exportCertificates, _), (.session, _), (.start, _): 1
        case (.update, _): 2
        case (.finish, true): 3
        case (.updateVMSA, _): 3
        case (.measure, _): 4
        case (.verdict, _), (.secret, _): 5
        case (.finish, false): 6
        default: nil
        }
    }

    static func command(_ step: LaunchStep, isSNP: Bool) -> String {
        let name =
            switch step {
            case .start: "LAUNCH_START"
            case .update: isSNP ? "LAUNCH_UPDATE" : "LAUNCH_UPDATE_DATA"
            case .updateVMSA: "LAUNCH_UPDATE_VMSA"
            case .secret: "LAUNCH_SECRET"
            case .finish: "LAUNCH_FINISH"
            default: step.rawValue
            }
        return isSNP ? "SNP_" + name : name
    }
}

extension [RunReportData.Message] {
    /// The step during which the launch ended, as far as its name says which command it was.
    mutating func fail(_ step: String, _ technology: GuestTechnology?, _ reason: String) {
        let order = [
            "LAUNCH_START", "LAUNCH_UPDATE_DATA", "LAUNCH_UPDATE_VMSA", "LAUNCH_MEASURE", "LAUNCH_SECRET",
            "LAUNCH_FINISH",
        ]
        if step.contains("owner") {
            append(
                .init(
                    number: step.contains("session") ? 1 : 4, from: .owner, to: .hypervisor, name: step, failure: reason
                ))
        } else if technology == .snp {
            let name = step.hasPrefix("SNP_LAUNCH") ? step : "SNP_LAUNCH_UPDATE"
            guard step.hasPrefix("SNP_LAUNCH") || !isEmpty else { return }
            let number = name == "SNP_LAUNCH_START" ? 1 : name == "SNP_LAUNCH_FINISH" ? 3 : 2
            removeAll { $0.name == name }
            append(.init(number: number, from: .hypervisor, to: .firmware, name: name, failure: reason))
        } else if let index = order.firstIndex(where: { step.hasPrefix($0) }) {
            removeAll { $0.name == order[index] }
            append(.init(number: index + 1, from: .hypervisor, to: .firmware, name: order[index], failure: reason))
        }
    }
}

extension RunReportData.Policy {
    init(_ value: UInt64, _ technology: GuestTechnology) {
        if technology == .snp {
            let policy = GuestPolicy(rawValue: value)
            self.init(
                rawValue: value,
                items: [
                    .init("ABI", "firmware interface \(policy.minimumABIMajor).\(policy.minimumABIMinor) or later"),
                    .init("SMT", policy.allowsSMT ? "may run with SMT on" : "SMT must be off"),
                    .init(
                        "MIGRATE_MA",
                        policy.allowsMigrationAgent ? "a migration agent may be bound" : "no migration agent",
                        isWarning: policy.allowsMigrationAgent),
                    .init(
                        "DEBUG",
                        policy.allowsDebug
                            ? "the host may decipher the guest's memory" : "the host may not decipher memory",
                        isWarning: policy.allowsDebug),
                    .init("SINGLE_SOCKET", policy.requiresSingleSocket ? "one socket only" : "any number of sockets"),
                    .init("CXL_ALLOW", policy.allowsCXL ? "CXL memory is allowed" : "no CXL memory"),
                    .init("MEM_AES_256_XTS", policy.requiresAES256 ? "256-bit memory keys" : "any memory key length"),
                    .init(
                        "CIPHERTEXT_HIDING",
                        policy.requiresCiphertextHiding
                            ? "the host must not see ciphertext" : "the host may see ciphertext"),
                ], allowsDebug: policy.allowsDebug)
            return
        }
        let policy = SEVPolicy(rawValue: UInt32(truncatingIfNeeded: value))
        self.init(
            rawValue: value,
            items: [
                .init(
                    "NODBG",
                    policy.allowsDebug
                        ? "the host may decipher the guest's memory" : "the host may not decipher memory",
                    isWarning: policy.allowsDebug),
                .init(
                    "NOKS",
                    policy.allowsKeySharing
                        ? "the key may be shared with other guests" : "the key is this guest's alone"),
                .init("ES", policy.requiresEncryptedState ? "SEV-ES is required" : "SEV is enough"),
                .init("NOSEND", policy.allowsSend ? "may be sent to another platform" : "must stay on this platform"),
                .init("API", "firmware interface \(policy.minimumAPIMajor).\(policy.minimumAPIMinor) or later"),
            ], allowsDebug: policy.allowsDebug)
    }
}
