// The memory of two launches side by side, by address.

import GuestImage
import LaunchMeasurement
import SEVABI

/// Finds pages that only one launch has, that have another type, or other contents.
struct MemoryComparison {
    private(set) var differences: [LaunchDifference] = []
    /// There are pages whose contents one side does not tell.
    private(set) var hasUnknownContents = false

    private let a: [LaunchRecord.Run]
    private let b: [LaunchRecord.Run]
    /// What the last difference is about, when it is pages that one side has not launched.
    private var lastMissing: (isA: Bool, label: String, start: UInt64, end: UInt64)?

    /// A part of a run.
    private struct Part {
        var run: Int
        var start: UInt64
        var end: UInt64
    }

    init(_ a: [LaunchRecord.Run], _ b: [LaunchRecord.Run]) {
        self.a = a
        self.b = b
        func parts(_ runs: [LaunchRecord.Run]) -> [Part] {
            runs.indices.map { Part(run: $0, start: runs[$0].gpa, end: runs[$0].end) }
                .filter { $0.start < $0.end }
                .sorted { ($0.start, $0.run) < ($1.start, $1.run) }
        }
        let (mine, others) = (parts(a), parts(b))
        var (i, j) = (0, 0)
        var (x, y) = (mine.first, others.first)
        // Each step uses up a part of one side at least: this ends whatever the runs are.
        while x != nil || y != nil {
            if let left = x, y == nil || left.end <= y!.start {
                addMissing(left, isA: true)
                i += 1
                x = i < mine.count ? mine[i] : nil
            } else if let right = y, x == nil || right.end <= x!.start {
                addMissing(right, isA: false)
                j += 1
                y = j < others.count ? others[j] : nil
            } else if var left = x, var right = y {
                if left.start < right.start {
                    addMissing(Part(run: left.run, start: left.start, end: right.start), isA: true)
                    left.start = right.start
                } else if right.start < left.start {
                    addMissing(Part(run: right.run, start: right.start, end: left.start), isA: false)
                    right.start = left.start
                }
                let end = min(left.end, right.end)
                compare(left, right, until: end)
                (left.start, right.start) = (end, end)
                x = left.start < left.end ? left : nil
                y = right.start < right.end ? right : nil
                if x == nil {
                    i += 1
                    x = i < mine.count ? mine[i] : nil
                }
                if y == nil {
                    j += 1
                    y = j < others.count ? others[j] : nil
                }
            }
        }
    }

    private func place(_ start: UInt64, _ end: UInt64, _ label: String) -> String {
        let count = (end &- start) >> 12
        return (count > 1 ? "\(hexText(start)) and \(count - 1) more" : hexText(start)) + " (\(label))"
    }

    private mutating func addMissing(_ part: Part, isA: Bool) {
        let run = isA ? a[part.run] : b[part.run]
        // A run that one side has in several pieces is one difference.
        if let last = lastMissing, last.isA == isA, last.label == run.label, last.end == part.start {
            lastMissing = (isA, run.label, last.start, part.end)
            differences[differences.count - 1].place = place(last.start, part.end, run.label)
            return
        }
        let text = "\(run.pageType), \(run.label)"
        differences.append(
            LaunchDifference(
                "page", place(part.start, part.end, run.label), isA ? text : "not launched",
                isA ? "not launched" : text))
        lastMissing = (isA, run.label, part.start, part.end)
    }

    private mutating func compare(_ left: Part, _ right: Part, until end: UInt64) {
        lastMissing = nil
        let (mine, others) = (a[left.run], b[right.run])
        let label =
            mine.label == others.label || others.label == "\(others.pageType)" || others.label == "data"
            ? mine.label
            : mine.label == "\(mine.pageType)" || mine.label == "data" ? others.label : "\(mine.label), \(others.label)"
        guard mine.pageType == others.pageType else {
            differences.append(
                LaunchDifference(
                    "page", place(left.start, end, label) + ", type", "\(mine.pageType)", "\(others.pageType)"))
            return
        }
        guard mine.pageType.measuresContents else { return }
        if let first = mine.contents, let second = others.contents {
            compare(first[...], from: mine.gpa, second[...], from: others.gpa, left.start, end, label)
        } else {
            compareDigests(mine, others, left.start, end, label)
        }
    }

    /// Both plaintexts are known.
    private mutating func compare(
        _ first: ArraySlice<UInt8>, from gpa: UInt64, _ second: ArraySlice<UInt8>, from otherGPA: UInt64,
        _ start: UInt64, _ end: UInt64, _ label: String
    ) {
        // Safe: a part lies in its run, whose contents are as long as it is.
        guard let count = Int(exactly: end &- start), let mineStart = Int(exactly: start &- gpa),
            let otherStart = Int(exactly: start &- otherGPA), mineStart + count <= first.count,
            otherStart + count <= second.count
        else { return }
        let mine = first[mineStart..<(mineStart + count)]
        let others = second[otherStart..<(otherStart + count)]
        guard mine != others else { return }
        var pages: [Int] = []
        for offset in stride(from: 0, to: count, by: 4096) {
            let length = min(4096, count - offset)
            if mine.dropFirst(offset).prefix(length) != others.dropFirst(offset).prefix(length) { pages.append(offset) }
        }
        guard let page = pages.first else { return }
        let length = min(4096, count - page)
        let minePage = Array(mine.dropFirst(page).prefix(length))
        let otherPage = Array(others.dropFirst(page).prefix(length))
        let byte = zip(minePage, otherPage).enumerated().first { $0.element.0 != $0.element.1 }?.offset ?? 0
        let more = pages.count > 1 ? " and \(pages.count - 1) more pages" : ""
        func sample(_ bytes: [UInt8]) -> String { hexText(bytes.dropFirst(byte).prefix(16)) }
        differences.append(
            LaunchDifference(
                "page", "\(hexText(start &+ UInt64(page)))\(more) (\(label)), contents from byte \(hexText(byte))",
                sample(minePage), sample(otherPage), note: Self.meaning(label, minePage, otherPage)))
    }

    /// Only digests of the pages are known on one side at least.
    private mutating func compareDigests(
        _ mine: LaunchRecord.Run, _ others: LaunchRecord.Run, _ start: UInt64, _ end: UInt64, _ label: String
    ) {
        func digests(_ run: LaunchRecord.Run) -> [UInt64]? { run.pageDigests ?? run.contents.map(PageDigests.of) }
        guard let first = digests(mine), let second = digests(others) else {
            hasUnknownContents = true
            return
        }
        func digest(_ all: [UInt64], _ run: LaunchRecord.Run, _ address: UInt64) -> UInt64? {
            Int(exactly: (address &- run.gpa) >> 12).flatMap { all.indices.contains($0) ? all[$0] : nil }
        }
        var pages: [UInt64] = []
        for address in stride(from: start, to: end, by: 4096) {
            guard let a = digest(first, mine, address), let b = digest(second, others, address) else { break }
            if a != b { pages.append(address) }
        }
        guard let page = pages.first, let a = digest(first, mine, page), let b = digest(second, others, page) else {
            return
        }
        let more = pages.count > 1 ? " and \(pages.count - 1) more pages" : ""
        differences.append(
            LaunchDifference(
                "page", "\(hexText(page))\(more) (\(label)), SHA-384 of the contents", PageDigests.text([a]) + "…",
                PageDigests.text([b]) + "…"))
    }

    /// Pages whose contents people know by name.
    private static func meaning(_ label: String, _ a: [UInt8], _ b: [UInt8]) -> String? {
        if let mine = KernelHashesTable.find(in: a), let others = KernelHashesTable.find(in: b) {
            let parts = [
                (mine.kernel != others.kernel, "kernel"), (mine.initrd != others.initrd, "initrd"),
                (mine.commandLine != others.commandLine, "command line"),
            ].filter(\.0).map(\.1)
            return parts.isEmpty ? nil : "the hashes of " + parts.joined(separator: ", ")
        }
        if KernelHashesTable.find(in: a) != nil || KernelHashesTable.find(in: b) != nil {
            return "kernel hashes on one side only"
        }
        if label == "command line" {
            func text(_ page: [UInt8]) -> String {
                String(decoding: page.prefix { $0 != 0 }.prefix(512), as: UTF8.self).debugDescription
            }
            return "\(text(a)) and \(text(b))"
        }
        return nil
    }
}
