// Another process's memory as a core file of it would have it, and as it would not.

import Glibc

/// A view of a process by `/proc`.
public struct ProcessMemory {
    private let folder: String

    public init(_ identifier: pid_t) { folder = "/proc/\(identifier)" }

    /// Where bytes were found.
    public struct Occurrences {
        /// Mappings that a core file has, by name or address.
        public var dumped: [String] = []
        /// How often in mappings that it has not (`MADV_DONTDUMP`).
        public var excluded = 0
    }

    private struct Mapping {
        var range: Range<UInt64>
        var name: String
        var isExcluded = false
        var residentKiB = 0
    }

    /// Searches every resident byte; nil where this host does not let us look.
    public func search(for bytes: [UInt8]) -> Occurrences? {
        var result = Occurrences()
        let (memory, pages) = (open(folder + "/mem", O_RDONLY), open(folder + "/pagemap", O_RDONLY))
        defer {
            if memory >= 0 { close(memory) }
            if pages >= 0 { close(pages) }
        }
        guard memory >= 0, pages >= 0 else { return nil }
        for mapping in mappings() where mapping.residentKiB > 0 {
            let count = residentRuns(mapping.range, pages).reduce(0) { $0 + occurrences(of: bytes, in: $1, of: memory) }
            if count == 0 { continue }
            if mapping.isExcluded { result.excluded += count } else { result.dumped.append(mapping.name) }
        }
        return result
    }

    private func mappings() -> [Mapping] {
        let text = String(decoding: readFile(folder + "/smaps") ?? [], as: UTF8.self)
        var result: [Mapping] = []
        for line in text.split(separator: "\n") {
            let words = line.split(separator: " ")
            guard let first = words.first else { continue }
            if first == "Rss:", words.count > 1 {
                result[result.count - 1].residentKiB = Int(words[1]) ?? 0
            } else if first == "VmFlags:" {
                result[result.count - 1].isExcluded = words.contains("dd")
            } else if let dash = first.firstIndex(of: "-"), let start = UInt64(first[..<dash], radix: 16),
                let end = UInt64(first[first.index(after: dash)...], radix: 16), start < end
            {
                let name = words.count > 5 ? String(words[5]) : "0x" + String(start, radix: 16)
                result.append(Mapping(range: start..<end, name: name))
            }
        }
        return result
    }

    /// The parts of a mapping that have pages: most of a large one is a promise.
    private func residentRuns(_ range: Range<UInt64>, _ pages: Int32) -> [Range<UInt64>] {
        var runs: [Range<UInt64>] = []
        var entries = [UInt64](repeating: 0, count: 1 << 16)
        var start = range.lowerBound
        while start < range.upperBound {
            let count = min(entries.count, Int((range.upperBound - start) / 4096))
            let got = pread(pages, &entries, count * 8, off_t(start / 4096 * 8)) / 8
            guard got > 0 else { break }
            // Bit 63: present, bit 62: swapped out.
            for page in 0..<got where entries[page] >> 62 != 0 {
                let address = start + UInt64(page) * 4096
                if let last = runs.last, last.upperBound == address {
                    runs[runs.count - 1] = last.lowerBound..<address + 4096
                } else {
                    runs.append(address..<address + 4096)
                }
            }
            start += UInt64(got) * 4096
        }
        return runs
    }

    private func occurrences(of bytes: [UInt8], in range: Range<UInt64>, of memory: Int32) -> Int {
        let step = 4 << 20
        var buffer = [UInt8](repeating: 0, count: step)
        var count = 0
        var start = range.lowerBound
        while start < range.upperBound {
            let wanted = min(step, Int(range.upperBound - start))
            let got = pread(memory, &buffer, wanted, off_t(start))
            if got <= 0 {
                // A hole that cannot be read, such as a guard page.
                start += 4096
                continue
            }
            count += buffer.withUnsafeBytes { whole in Self.count(bytes, in: whole, byteCount: got) }
            if got < wanted || got <= bytes.count {
                start += UInt64(max(got, 4096))
            } else {
                // A hit across the border is found in the next piece; one wholly in the overlap is counted twice.
                start += start + UInt64(got) < range.upperBound ? UInt64(got - bytes.count) : UInt64(got)
            }
        }
        return count
    }

    private static func count(_ wanted: [UInt8], in whole: UnsafeRawBufferPointer, byteCount: Int) -> Int {
        guard let base = whole.baseAddress, byteCount >= wanted.count else { return 0 }
        var found = 0
        var at = 0
        let last = byteCount - wanted.count
        while at <= last, let hit = memchr(base + at, Int32(wanted[0]), last - at + 1) {
            at = UnsafeRawPointer(hit) - base
            if wanted.withUnsafeBytes({ memcmp(hit, $0.baseAddress!, $0.count) }) == 0 { found += 1 }
            at += 1
        }
        return found
    }
}
