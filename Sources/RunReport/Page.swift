// The page: one file that needs nothing else.

/// The page about one run.
public enum RunReportPage {
    /// The whole HTML document: no script, no external resource, light and dark.
    public static func html(_ data: RunReportData) -> String { document(data).text }

    private static func document(_ data: RunReportData) -> Markup {
        let style = Markup(stringLiteral: Style.css)
        return """
            <!DOCTYPE html>
            <html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
            <meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
            <meta name="referrer" content="no-referrer"><meta name="color-scheme" content="light dark">
            <title>\(data.title): \(data.technology.displayName) run</title><style>\(style)</style></head>
            <body>\(Figures.definitions)<a class="skip" href="#diagram">To the diagram</a><div class="wrap">
            \(header(data))
            <main>
            <section id="diagram"><h2>The machine</h2><p class="lead">\(lead(data))</p>\(Diagram(data: data).markup)</section>
            \(identity(data))
            <section id="launch"><h2>The launch, step by step</h2><p class="lead">What was done, in order, and how long it \
            took.</p>\(Timeline(steps: data.steps).markup)</section>
            <section id="memory"><h2>Guest memory by state</h2><p class="lead">The guest's physical addresses from left to \
            right.</p>\(MemoryMapFigure(map: data.memory, technology: data.technology).markup)</section>
            <section id="exits"><h2>Exits over time</h2><p class="lead">Each time the processor left the guest and the VMM had \
            to do something.</p>\(ExitChart(exits: data.exits).markup)</section>
            </main>
            <footer><p>Made by \(Readable.short(data.program)). The same data for programs is in the launch log (<code>--launch-log</code>), in the line that begins with <code>report</code>.</p>\
            </footer></div></body></html>

            """
    }

    private static func header(_ data: RunReportData) -> Markup {
        let highlights = data.highlights.map { fact -> Markup in
            "<div><dt>\(Readable.short(fact.name, 40))</dt><dd>\(Readable.short(fact.value ?? Diagram.untold, 60))</dd></div>"
        }
        let when = data.startedAt.isEmpty ? "" : " · \(Readable.short(data.startedAt))"
        let policy = data.policy == nil && data.measurements.isEmpty
        let links: Markup = policy ? "" : "<a href=\"#identity\">Measurement and policy</a>"
        let list: Markup? = highlights.isEmpty ? nil : "<dl class=\"highlights\">\(highlights)</dl>"
        return """
            <header><p class="eyebrow">\(Readable.short(data.program))\(when)</p>
            <h1>\(Readable.short(data.title, 100))<span class="tech">\(data.technology.displayName)</span></h1>
            <p class="ending"><b class="\(data.outcome.isSuccess ? "good" : "bad")">\
            \(data.outcome.isSuccess ? "✓" : "✗")</b> \(data.outcome.text)</p>
            \(Banner(data: data).markup)\(list)
            <nav aria-label="Parts of this page"><a href="#diagram">Machine</a>\(links)<a href="#launch">Launch</a>\
            <a href="#memory">Memory</a><a href="#exits">Exits</a></nav></header>
            """
    }

    private static func lead(_ data: RunReportData) -> String {
        switch data.technology {
        case .plain:
            "A plain VM has no launch commands, no key and no measurement: the hypervisor copies the image into memory and "
                + "starts it."
        case .sev, .sevES:
            "The hypervisor asks the firmware for each step of the launch; the firmware makes the key, enciphers the pages, "
                + "measures them, and takes the owner's secret only afterwards. The numbers are AMD's order."
        case .snp:
            "The hypervisor hands pages to the firmware, which makes the key, enciphers and measures them, and seals the "
                + "measurement. The owner checks it later, in an attestation report that the guest asks for."
        }
    }

    private static func identity(_ data: RunReportData) -> Markup? {
        guard data.policy != nil || !data.measurements.isEmpty else { return nil }
        let digests = data.measurements.map { measurement -> Markup in
            let verdict: Markup? = measurement.isAsExpected.map {
                $0 ? "<b class=\"good\">✓ as expected</b>" : "<b class=\"bad\">✗ not what was expected</b>"
            }
            return """
                <div class="digest"><h3>\(measurement.title)</h3><code>\(measurement.value)</code>\
                <p class="note">\(measurement.note) \(verdict)</p></div>
                """
        }
        let policy: Markup? = data.policy.map { policy in
            let items = policy.items.map { item -> Markup in
                "<li><code>\(item.name)</code><span\(item.isWarning ? " class=\"warn\"" as Markup : "")>\(item.meaning)</span></li>"
            }
            return """
                <div><h3>Guest policy <code>\(Readable.hex(policy.rawValue))</code></h3><ul class="policy">\(items)</ul></div>
                """
        }
        return """
            <section id="identity"><h2>Measurement and policy</h2><p class="lead">What the owner compares, and what the owner \
            demands.</p><div class="identity"><div>\(digests)</div>\(policy)</div></section>
            """
    }
}
