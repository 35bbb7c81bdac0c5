// What a run says on standard error: one line per launch step, progress on a terminal, and the summary at the end.

import CProcess
import SEVABI
import SNPVMM

/// Durations as people read them.
enum ReadableDuration {
    /// "85 µs", "12.3 ms", "4.56 s".
    static func text(_ duration: Duration) -> String {
        let (seconds, attoseconds) = duration.components
        let microseconds = seconds &* 1_000_000 &+ attoseconds / 1_000_000_000_000
        if microseconds < 1000 { return "\(microseconds) µs" }
        if microseconds < 1_000_000 { return tenths(microseconds / 100) + " ms" }
        return "\(microseconds / 1_000_000)." + pad(microseconds / 10_000 % 100) + " s"
    }

    private static func tenths(_ value: Int64) -> String { "\(value / 10).\(value % 10)" }
    private static func pad(_ value: Int64) -> String { (value < 10 ? "0" : "") + "\(value)" }
}

/// The voice of a run.
final class Reporter {
    private let quiet: Bool
    private let showsProgress: Bool
    private var current: (name: String, pageCount: UInt64) = ("", 0)
    private var shownPercent: UInt64 = 101

    init(quiet: Bool) {
        self.quiet = quiet
        showsProgress = !quiet && terminal_is_interactive(StandardError.descriptor) != 0
    }

    /// A line, unless the run is quiet.
    func say(_ line: String) { if !quiet { StandardError.write(line: line) } }

    func hear(_ event: LaunchEvent) {
        switch event {
        case .began(let name, let pageCount):
            current = (name, pageCount)
            shownPercent = 101
        case .progress(let done):
            guard showsProgress, current.pageCount > 0 else { return }
            let percent = done.multipliedReportingOverflow(by: 100).partialValue / current.pageCount
            guard percent != shownPercent else { return }
            shownPercent = percent
            StandardError.write("\r  \(percent) % \(current.name)\u{1b}[K")
        case .ended(let phase):
            if showsProgress { StandardError.write("\r\u{1b}[K") }
            say(Self.line(phase))
        }
    }

    /// Clears a progress line that a failure left behind.
    func clearProgress() { if showsProgress { StandardError.write("\r\u{1b}[K") } }

    static func line(_ phase: Phase) -> String {
        let time = ReadableDuration.text(phase.duration)
        let padding = String(repeating: " ", count: max(0, 9 - time.count))
        return "  \(padding)\(time)  \(phase.name)" + (phase.detail.isEmpty ? "" : " (\(phase.detail))")
    }

    func summarize(_ statistics: RunStatistics, preparation: [Phase], technology: GuestTechnology?) {
        guard !quiet else { return }
        let launch = statistics.phases.reduce(Duration.zero) { $0 + $1.duration }
        let before = preparation.map { "\($0.name) \(ReadableDuration.text($0.duration))" }
        var boot = before + ["launch \(ReadableDuration.text(launch))"]
        if let first = statistics.untilFirstOutput { boot.append("first output after \(ReadableDuration.text(first))") }
        if statistics.running > .zero { boot.append("ran \(ReadableDuration.text(statistics.running))") }
        var lines = ["summary", "  boot    " + boot.joined(separator: ", ")]
        if statistics.exitCount > 0 {
            let exits = statistics.exits.sorted { ($1.value, $0.key) < ($0.value, $1.key) }
            lines.append(
                "  exits   \(statistics.exitCount): " + exits.map { "\($0.key) \($0.value)" }.joined(separator: ", "))
        }
        if technology == .snp {
            let pages = statistics.pages
            lines.append(
                "  pages   \(pages.privatePages) private, \(pages.sharedPages) shared; the guest made "
                    + "\(pages.convertedToShared) shared and \(pages.convertedToPrivate) private")
        }
        for (number, count) in statistics.unknownHypercalls.sorted(by: { $0.key < $1.key }) {
            lines.append(
                "  calls   \(count) of hypercall 0x\(String(number, radix: 16)), which nobody knows: answered -KVM_ENOSYS"
            )
        }
        for device in statistics.devices {
            let counts = device.counts
            var line =
                "  device  \(device.device): \(counts.requests) requests, \(counts.bytesRead >> 10) KiB from the guest, "
                + "\(counts.bytesWritten >> 10) KiB to it"
            if let fault = counts.lastFault { line += "; stopped by its driver: \(fault)" }
            if counts.refusedFeatures > 0 { line += "; the driver left out a required feature" }
            lines.append(line)
        }
        let peak = process_peak_resident_byte_count() >> 20
        lines.append("  memory  \(peak) MiB at most")
        StandardError.write(line: lines.joined(separator: "\n"))
    }
}
