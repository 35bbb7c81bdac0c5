// Contrast as WCAG 2 defines it.

import RunReport
import Testing

struct PaletteTests {
    private func channels(_ color: String) -> [Double] {
        let value = UInt32(color.dropFirst(), radix: 16) ?? 0
        return [16, 8, 0].map { Double(value >> $0 & 255) / 255 }
    }

    /// x^2.4 for 0...1, by the binary digits of the exponent.
    private func power24(_ base: Double) -> Double {
        var root = base
        var result = base * base
        // 0.4 = 0.0110 0110 … in binary.
        for bit in [0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0] {
            root = root.squareRoot()
            if bit == 1 { result *= root }
        }
        return result
    }

    private func luminance(_ color: String) -> Double {
        let linear = channels(color).map { $0 <= 0.04045 ? $0 / 12.92 : power24(($0 + 0.055) / 1.055) }
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    }

    private func contrast(_ a: String, _ b: String) -> Double {
        let values = [luminance(a), luminance(b)].sorted()
        return (values[1] + 0.05) / (values[0] + 0.05)
    }

    @Test
    func textIsReadableOnEverySurface() {
        #expect(abs(contrast("#000000", "#ffffff") - 21) < 0.01)
        for surface in Palette.surfaces {
            for text in Palette.texts {
                #expect(contrast(surface.light, text.light) >= 4.5, "\(text.name) on \(surface.name), light")
                #expect(contrast(surface.dark, text.dark) >= 4.5, "\(text.name) on \(surface.name), dark")
            }
        }
        for banner in Palette.banners {
            #expect(contrast(banner.ground.light, banner.text.light) >= 4.5)
            #expect(contrast(banner.ground.dark, banner.text.dark) >= 4.5)
        }
        // The technology's badge and the numbers of the steps: the card's colour on the accent, on good and on bad.
        for name in ["accent", "good", "bad"] {
            let card = Palette.surfaces[1]
            for color in Palette.texts where color.name == name {
                #expect(contrast(card.light, color.light) >= 4.5 && contrast(card.dark, color.dark) >= 4.5, "\(name)")
            }
        }
    }

    @Test
    func shapesStandOut() {
        for surface in Palette.surfaces {
            for shape in Palette.shapes {
                #expect(contrast(surface.light, shape.light) >= 3, "\(shape.name) on \(surface.name), light")
                #expect(contrast(surface.dark, shape.dark) >= 3, "\(shape.name) on \(surface.name), dark")
            }
        }
        let card = Palette.surfaces[1]
        for state in RunReportData.PageState.allCases {
            let color = Palette.color(of: state)
            #expect(contrast(card.light, color.light) >= 3, "\(state), light")
            #expect(contrast(card.dark, color.dark) >= 3, "\(state), dark")
        }
    }
}
