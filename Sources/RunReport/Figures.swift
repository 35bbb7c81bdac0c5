// Small pieces of SVG that several parts use.

enum Figures {
    /// A fill that shows a state by colour and by pattern.
    static func fill(_ state: RunReportData.PageState) -> Markup { "url(#fill-\(state.rawValue))" }

    static func swatch(_ state: RunReportData.PageState) -> Markup {
        """
        <svg class="swatch" aria-hidden="true"><rect width="100%" height="100%" fill="\(fill(state))"/></svg>
        """
    }

    static func swatch(_ group: RunReportData.Step.Group) -> Markup {
        """
        <svg class="swatch" aria-hidden="true"><rect width="100%" height="100%" fill="var(--\(group.rawValue))"/></svg>
        """
    }

    /// The patterns of all states, once per page.
    static var definitions: Markup {
        var patterns = Markup()
        for state in RunReportData.PageState.allCases {
            patterns += """
                <pattern id="fill-\(state.rawValue)" width="8" height="8" patternUnits="userSpaceOnUse">\
                <rect width="8" height="8" fill="var(--\(state == .untouched ? "grid" : Palette.color(of: state).name))"/>\
                \(marks(state))</pattern>
                """
        }
        return """
            <svg width="0" height="0" style="position:absolute" aria-hidden="true"><defs>\(patterns)</defs></svg>
            """
    }

    private static func marks(_ state: RunReportData.PageState) -> Markup {
        switch state {
        case .measured, .plain: return ""
        case .validated: return stroke("M-2,2l4,-4M0,8l8,-8M6,10l4,-4")
        case .private: return stroke("M0,4h8")
        case .untouched: return "<circle cx=\"4\" cy=\"4\" r=\"1.3\" fill=\"var(--state-untouched)\"/>"
        case .shared: return stroke("M-2,6l4,4M0,0l8,8M6,-2l4,4")
        case .secret: return stroke("M4,0v8")
        case .firmware: return stroke("M0,2h8M0,6h8")
        case .vmsa: return stroke("M0,0l8,8M0,8l8,-8")
        }
    }

    private static func stroke(_ path: Markup) -> Markup {
        "<path d=\"\(path)\" fill=\"none\" stroke=\"var(--card)\" stroke-opacity=\".5\" stroke-width=\"1.2\"/>"
    }

    /// A horizontal arrow as wide as its place.
    static func shaft(toRight: Bool) -> Markup {
        let head: Markup =
            toRight
            ? "<svg x=\"100%\" y=\"6\" overflow=\"visible\"><path d=\"M0,0l-11,-5v10z\"/></svg>"
            : "<svg x=\"0\" y=\"6\" overflow=\"visible\"><path d=\"M0,0l11,-5v10z\"/></svg>"
        return """
            <svg class="shaft" aria-hidden="true"><line x1="\(toRight ? "0" : "8")" x2="\(toRight ? "99%" : "100%")" y1="6" \
            y2="6"/>\(head)</svg>
            """
    }

    /// A vertical arrow as high as its place.
    static func drop(bothWays: Bool = false) -> Markup {
        let up: Markup =
            bothWays ? "<path d=\"M7,0l-5,11h10z\"/>" : ""
        return """
            <svg aria-hidden="true"><line x1="7" x2="7" y1="\(bothWays ? "8" : "0")" y2="92%"/>\(up)\
            <svg y="100%" overflow="visible"><path d="M7,0l-5,-11h10z"/></svg></svg>
            """
    }

    static let lock: Markup = """
        <svg viewBox="0 0 16 16" aria-hidden="true"><path fill="currentColor" d="M4.5,7V5a3.5,3.5 0 0 1 7,0v2h.5a1,1 0 0 1 \
        1,1v5.5a1,1 0 0 1 -1,1h-8a1,1 0 0 1 -1,-1V8a1,1 0 0 1 1,-1zM6,7h4V5a2,2 0 0 0 -4,0z"/></svg>
        """
    static let openSlot: Markup = """
        <svg viewBox="0 0 16 16" aria-hidden="true"><rect x="2.5" y="2.5" width="11" height="11" rx="2" fill="none" \
        stroke="currentColor" stroke-width="1.5" stroke-dasharray="3 2"/></svg>
        """
    static let shield: Markup = """
        <svg viewBox="0 0 24 24" aria-hidden="true"><path fill="none" stroke="currentColor" stroke-width="2" \
        stroke-linejoin="round" d="M12,2.5l8,3v6c0,5 -3.4,8.6 -8,10c-4.6,-1.4 -8,-5 -8,-10v-6z"/><path fill="none" \
        stroke="currentColor" stroke-width="2" stroke-linecap="round" stroke-linejoin="round" d="M8.5,12l2.5,2.5l4.5,-5"/></svg>
        """
    static let warning: Markup = """
        <svg viewBox="0 0 24 24" aria-hidden="true"><path fill="none" stroke="currentColor" stroke-width="2" \
        stroke-linejoin="round" d="M12,3l10,18h-20z"/><path stroke="currentColor" stroke-width="2.4" stroke-linecap="round" \
        d="M12,9.5v5M12,17.9v.1"/></svg>
        """
}
