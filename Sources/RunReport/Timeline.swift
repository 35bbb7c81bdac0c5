// The launch as a timeline: a ribbon to scale, and one row per step with the length of its bar on a logarithmic scale,
// because a step of 40 µs and one of 4 s belong to the same launch.

/// The timeline of the launch.
struct Timeline {
    let steps: [RunReportData.Step]

    private static let maximumStepCount = 200

    var markup: Markup {
        guard !steps.isEmpty else { return "<p class=\"note\">No step was recorded.</p>" }
        let total = steps.reduce(UInt64(0)) { $0 &+ $1.nanoseconds }
        let scale = LogarithmicScale(steps.map(\.nanoseconds))
        let rows = steps.prefix(Self.maximumStepCount).map { row($0, scale, total: total) }
        let rest: Markup? =
            steps.count > Self.maximumStepCount
            ? "<p class=\"note\">and \(steps.count - Self.maximumStepCount) more steps</p>" : nil
        return """
            <p class="rowname">To scale: \(Readable.duration(total)) in all</p>\(ribbon(total: total))\(key(total: total))
            <p class="rowname">Step by step, in order; bars are on a logarithmic scale, from \(Readable.duration(scale.low)) to \
            \(Readable.duration(scale.high))</p>
            <ol class="steps">\(rows)</ol>
            <div class="step scale" aria-hidden="true"><span></span>\(scale.axis)<span class="time"></span></div>\(rest)
            """
    }

    private func row(_ step: RunReportData.Step, _ scale: LogarithmicScale, total: UInt64) -> Markup {
        let detail: Markup? = step.detail.isEmpty ? nil : "<small>\(Readable.short(step.detail, 200))</small>"
        return """
            <li class="step"><span class="what">\(Readable.short(step.name))\(detail)</span><svg aria-hidden="true">\(scale.grid)\
            <rect y="20%" width="\(Readable.percent(scale.position(step.nanoseconds)))" height="60%" rx="3" \
            fill="var(--\(step.group.rawValue))"/></svg><span class="time">\(Readable.duration(step.nanoseconds))</span></li>
            """
    }

    private func ribbon(total: UInt64) -> Markup {
        var x = 0.0
        let whole = Double(max(1, total))
        let parts = steps.prefix(Self.maximumStepCount).map { step -> Markup in
            let width = Double(step.nanoseconds) / whole * 100
            defer { x += width }
            return """
                <rect x="\(Readable.percent(x))" width="\(Readable.percent(width))" height="100%" \
                fill="var(--\(step.group.rawValue))" stroke="var(--card)" stroke-width="1"><title>\(Readable.short(step.name)): \
                \(Readable.duration(step.nanoseconds))</title></rect>
                """
        }
        return "<svg class=\"ribbon\" role=\"img\" aria-label=\"Share of each step\">\(parts)</svg>"
    }

    private func key(total: UInt64) -> Markup {
        let items = RunReportData.Step.Group.allCases.compactMap { group -> Markup? in
            let sum = steps.reduce(UInt64(0)) { $1.group == group ? $0 &+ $1.nanoseconds : $0 }
            guard steps.contains(where: { $0.group == group }) else { return nil }
            return """
                <li>\(Figures.swatch(group))\(Self.name(of: group)): <b>\(Readable.duration(sum))</b>, \
                \(Readable.share(sum, of: total))</li>
                """
        }
        return "<ul class=\"key\">\(items)</ul>"
    }

    private static func name(of group: RunReportData.Step.Group) -> String {
        switch group {
        case .prepare: "prepare"
        case .machine: "make the machine"
        case .launch: "launch"
        case .boot: "boot to the first output"
        }
    }
}

/// Durations on a scale of powers of ten.
struct LogarithmicScale {
    /// Whole powers of ten, in nanoseconds.
    let low: UInt64
    let high: UInt64

    init(_ values: [UInt64]) {
        var low: UInt64 = 1000
        let least = values.filter { $0 > 0 }.min() ?? 1000
        // From 1 µs on: shorter steps are at the beginning of the scale.
        while low < 1_000_000_000_000, low &* 10 <= least { low *= 10 }
        var high = low &* 10
        let most = values.max() ?? 0
        while high < most, high < 1_000_000_000_000_000 { high *= 10 }
        self.low = low
        self.high = high
    }

    /// 0.8...100: what has happened has a bar.
    func position(_ value: UInt64) -> Double {
        let base = Readable.log2(low)
        let share = (Readable.log2(value) - base) / max(1, Readable.log2(high) - base)
        return min(100, max(0.8, share * 100))
    }

    private var decades: [UInt64] {
        var result: [UInt64] = []
        var value = low
        while value <= high {
            result.append(value)
            value *= 10
        }
        return result
    }

    var grid: Markup {
        let lines = decades.map { value -> Markup in
            let x = Readable.percent(value == low ? 0 : position(value))
            return "<line class=\"gridline\" x1=\"\(x)\" x2=\"\(x)\" y1=\"0\" y2=\"100%\"/>"
        }
        return "\(lines)"
    }

    var axis: Markup {
        // Every label needs about 60 px; the narrowest place has 300.
        let values = decades
        let stride = max(1, (values.count + 3) / 5)
        let labels = values.enumerated().filter { $0.offset % stride == 0 }.map { index, value -> Markup in
            let anchor = index == 0 ? "start" : value == high ? "end" : "middle"
            return """
                <text x="\(Readable.percent(value == low ? 0 : position(value)))" y="13" text-anchor="\(anchor)">\
                \(Self.label(value))</text>
                """
        }
        return "<svg>\(labels)</svg>"
    }

    /// "1 µs", "10 ms", "100 s".
    private static func label(_ value: UInt64) -> String {
        switch value {
        case ..<1_000_000: "\(value / 1000)\u{a0}µs"
        case ..<1_000_000_000: "\(value / 1_000_000)\u{a0}ms"
        default: "\(value / 1_000_000_000)\u{a0}s"
        }
    }
}
