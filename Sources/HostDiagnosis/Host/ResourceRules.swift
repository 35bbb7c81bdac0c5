// What can run out: ASIDs, memory, limits.

import SEVABI

extension HostRule {
    static let resources: [HostRule] = [
        HostRule("cgroup.asids", "ASIDs", .confidential) { patient in
            let isState = patient.technology != .sev
            let facts = patient.facts
            guard let capacity = facts.number(isState ? .capacitySEVES : .capacitySEV) else {
                return .unknown("misc.capacity " + facts.absence(of: isState ? .capacitySEVES : .capacitySEV))
            }
            guard let used = facts.number(isState ? .usedSEVES : .usedSEV) else { return .ok("\(capacity) in all") }
            return used < capacity
                ? .ok("\(capacity - used) of \(capacity) free")
                : .failed(
                    capacity == 0 ? "none" : "all \(capacity) in use",
                    capacity == 0 ? asidEntry : "end another guest of this kind, or raise misc.max of the cgroup")
        },
        HostRule("memory", "Memory", .all) { patient in
            guard let available = patient.facts.number(.memoryAvailable) else {
                return .unknown(patient.facts.absence(of: .memoryAvailable))
            }
            return available >= 256 << 20
                ? .ok("\(readable(available)) available")
                : .warning("\(readable(available)) available", "free memory, or use a smaller --memory")
        },
        HostRule("limit.memlock", "Locked memory", .pinned) { patient in
            guard let limit = patient.facts.number(.limitMemoryLock) else {
                return .unknown(patient.facts.absence(of: .limitMemoryLock))
            }
            if limit == .max { return .ok("no limit") }
            if patient.facts.flag(.userIsRoot) == true { return .ok("\(readable(limit)), which root need not heed") }
            return limit >= 512 << 20
                ? .ok("\(readable(limit))")
                : .warning(
                    "\(readable(limit)): SEV and SEV-ES guests are pinned as a whole",
                    "ulimit -l unlimited (LimitMEMLOCK=infinity, or /etc/security/limits.d), or CAP_IPC_LOCK")
        },
        HostRule("limit.nofile", "Open files", .all) { patient in
            guard let limit = patient.facts.number(.limitOpenFiles) else {
                return .unknown(patient.facts.absence(of: .limitOpenFiles))
            }
            return limit >= 256 ? .ok("\(limit)") : .failed("a limit of \(limit)", "ulimit -n 1024 (LimitNOFILE=)")
        },
    ]
}
