// The colours, light and dark. Tests check their contrast; patterns and labels carry the same meaning without them.

/// One colour of the page in both schemes, as `#rrggbb`.
package struct PaletteColor: Sendable {
    /// The CSS custom property without its dashes.
    package let name: String
    package let light: String
    package let dark: String

    init(_ name: String, _ light: String, _ dark: String) {
        self.name = name
        self.light = light
        self.dark = dark
    }
}

package enum Palette {
    /// Backgrounds that text and figures lie on.
    package static let surfaces = [
        PaletteColor("page", "#f4f6f8", "#0d1116"),
        PaletteColor("card", "#ffffff", "#151a21"),
        PaletteColor("box", "#f7f9fb", "#1b222b"),
    ]
    /// Text: at least 4.5 to 1 on every surface.
    package static let texts = [
        PaletteColor("ink", "#17212c", "#e8edf2"),
        PaletteColor("muted", "#53606e", "#a5b0bd"),
        PaletteColor("accent", "#0b5cad", "#7cbaff"),
        PaletteColor("good", "#0a6b52", "#45d3a9"),
        PaletteColor("bad", "#ad2118", "#ff948b"),
        PaletteColor("outside", "#984608", "#f3aa68"),
    ]
    /// Lines and shapes that mean something: at least 3 to 1 on every surface.
    package static let shapes = [
        PaletteColor("shaft", "#74808d", "#7d8996"),
        PaletteColor("prepare", "#6f7b88", "#8a97a5"),
        PaletteColor("machine", "#00806a", "#2fc4a2"),
        PaletteColor("launch", "#0b5cad", "#5aa9f5"),
        PaletteColor("boot", "#b85f00", "#ffb454"),
    ]
    /// Text on the banners: at least 4.5 to 1 on the banner's own ground.
    package static let banners = [
        (
            ground: PaletteColor("caution-ground", "#fff1da", "#35260f"),
            text: PaletteColor("caution", "#6b3600", "#ffd59e")
        ),
        (ground: PaletteColor("calm-ground", "#e3f3ee", "#10302a"), text: PaletteColor("calm", "#07503e", "#9be8d1")),
    ]
    /// Decoration.
    package static let decorations = [
        PaletteColor("line", "#d5dce3", "#323c48"),
        PaletteColor("grid", "#e6eaef", "#272f39"),
    ]

    /// The colour of a page state: at least 3 to 1 on cards.
    package static func color(of state: RunReportData.PageState) -> PaletteColor {
        switch state {
        case .measured: PaletteColor("state-measured", "#00609f", "#4c9fe6")
        case .validated: PaletteColor("state-validated", "#3d92d0", "#a3d5f8")
        case .private: PaletteColor("state-private", "#007a64", "#27b593")
        case .untouched: PaletteColor("state-untouched", "#828d99", "#76828f")
        case .shared: PaletteColor("state-shared", "#c86400", "#ffb04a")
        case .secret: PaletteColor("state-secret", "#c2185b", "#ff7fb1")
        case .firmware: PaletteColor("state-firmware", "#5a3fa6", "#b8a2ff")
        case .vmsa: PaletteColor("state-vmsa", "#2b333c", "#e3e8ee")
        case .plain: PaletteColor("state-plain", "#86691a", "#dcbc50")
        }
    }

    static var all: [PaletteColor] {
        surfaces + texts + shapes + decorations + banners.flatMap { [$0.ground, $0.text] }
            + RunReportData.PageState.allCases.map { color(of: $0) }
    }

    /// Custom properties of both schemes.
    static var css: String {
        func block(_ value: (PaletteColor) -> String) -> String {
            all.map { "--\($0.name):\(value($0))" }.joined(separator: ";")
        }
        // Paper is white: print always takes the light scheme.
        return ":root{color-scheme:light dark;\(block { $0.light })}"
            + "@media screen and (prefers-color-scheme:dark){:root{\(block { $0.dark })}}"
    }
}
