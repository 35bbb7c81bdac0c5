// What the host's processor is.

import TestSupport

enum HostProcessor {
    private static let lines: [Substring] = {
        guard let bytes = readFile("/proc/cpuinfo") else { return [] }
        return String(decoding: bytes, as: UTF8.self).split(separator: "\n").map { $0[...] }
    }()
    static let flags: Set<Substring> = Set(
        lines.first { $0.hasPrefix("flags") }?.split(separator: " ").dropFirst(2) ?? [])
    static let isAMD = lines.contains { $0.hasPrefix("vendor_id") && $0.hasSuffix("AuthenticAMD") }
}
