// The page in a browser: in both schemes, narrow and wide, and measured for text that does not fit.

import RunReport
import Testing

@Suite(.serialized, .enabled(if: Chromium.path != nil, Comment(rawValue: Chromium.absence)))
struct BrowserTests {
    /// Writes one line per fault, and "measured <n>" at the end.
    ///
    /// Faults are: the page is wider than the window; text reaches out of its box, or of the window; two boxes of the
    /// diagram overlap; two labels of one figure overlap; text is smaller than 10 px.
    private static let measuring = """
        const faults = [], out = document.getElementById('probe'); let measured = 0;
        const say = (what, node) => faults.push(what + ': ' + (node.className.baseVal ?? node.className ?? node.tagName) +
            ' ' + (node.textContent || '').trim().slice(0, 60).replace(/[<>&\\n]/g, ' '));
        if (document.documentElement.scrollWidth > innerWidth)
            faults.push('page ' + document.documentElement.scrollWidth + ' wide');
        const visible = e => e.checkVisibility() && !e.closest('.hidden,.skip,#probe');
        const inside = (a, b) => a.left >= b.left - 1 && a.right <= b.right + 1 && a.top >= b.top - 1 && a.bottom <= b.bottom + 1;
        const overlap = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 &&
            Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1;
        const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
        while (walker.nextNode()) {
            const node = walker.currentNode, parent = node.parentElement;
            if (!node.data.trim() || !visible(parent) || parent.closest('script,style,title')) continue;
            const range = document.createRange(); range.selectNodeContents(node);
            const box = parent.closest('.pages div,.keys li,.box,.banner,.highlights div,td,th,.server,main>section,header,footer');
            if (parseFloat(getComputedStyle(parent).fontSize) < 10) say('small', parent);
            for (const rect of range.getClientRects()) {
                measured++;
                if (rect.left < -1 || rect.right > innerWidth + 1) say('out of the window', parent);
                else if (box && !inside(rect, box.getBoundingClientRect())) say('out of its box', parent);
            }
        }
        const boxes = [...document.querySelectorAll('.diagram .box,.diagram .link')].filter(visible);
        for (const a of boxes) for (const b of boxes)
            if (a !== b && !a.contains(b) && a.compareDocumentPosition(b) & 4 &&
                overlap(a.getBoundingClientRect(), b.getBoundingClientRect())) say('overlap', a);
        const arrows = [...document.querySelectorAll('.arrow')].filter(visible);
        for (const a of arrows) for (const b of boxes) for (const part of a.querySelectorAll('.name,.detail')) {
            const range = document.createRange(); range.selectNodeContents(part);
            for (const rect of range.getClientRects())
                if (overlap(rect, b.getBoundingClientRect())) say('arrow over box', a);
        }
        for (const figure of document.querySelectorAll('svg')) {
            if (!visible(figure)) continue;
            const labels = [...figure.querySelectorAll('text')];
            labels.forEach((a, i) => labels.slice(i + 1).forEach(b => {
                if (overlap(a.getBoundingClientRect(), b.getBoundingClientRect())) say('labels overlap', a); }));
        }
        out.textContent = [...new Set(faults)].slice(0, 20).concat('measured ' + measured).join('\\n');
        """

    private static let windows =
        SampleRuns.all.flatMap { sample in [360, 1600].map { (sample.name, $0) } }
        + ["snp", "sev-es"].flatMap { name in [820, 1200].map { (name, $0) } }

    @Test(arguments: windows)
    func nothingOverflows(_ name: String, width: Int) throws {
        let data = try #require(SampleRuns.all.first { $0.name == name }?.data)
        let lines = try Chromium(width: width, height: 1000, scheme: .light).probe(
            RunReportPage.html(data), script: Self.measuring)
        let count = try #require(lines.last?.split(separator: " ").last.flatMap { Int($0) })
        #expect(count > 40)
        #expect(lines.dropLast() == [], "\(name) at \(width)")
    }

    @Test(arguments: ["snp", "sev-es"], [400, 1400])
    func bothSchemesAreDrawn(_ name: String, width: Int) throws {
        let data = try #require(SampleRuns.all.first { $0.name == name }?.data)
        let page = RunReportPage.html(data)
        var brightness: [Chromium.Scheme: Int] = [:]
        for scheme in Chromium.Scheme.allCases {
            let (image, complaints) = try Chromium(width: width, height: 1500, scheme: scheme).screenshot(page)
            #expect(complaints.isEmpty)
            #expect(image.width == width && image.height == 1500)
            let colors = image.histogram
            #expect(colors.count > 100, "a blank picture")
            // The page's own colours of this scheme are there.
            for color in Palette.surfaces + Palette.texts
            where ["page", "card", "box", "ink", "outside"].contains(color.name) {
                let text = scheme == .light ? color.light : color.dark
                let value = try #require(UInt32(text.dropFirst(), radix: 16))
                #expect(colors[value, default: 0] > 20, "\(color.name) in \(scheme)")
            }
            let sum = colors.reduce(0) { sum, entry in
                sum + entry.value * Int((entry.key >> 16 & 255) + (entry.key >> 8 & 255) + (entry.key & 255))
            }
            brightness[scheme] = sum / (image.width * image.height * 3)
        }
        #expect(try #require(brightness[.light]) > 200)
        #expect(try #require(brightness[.dark]) < 70)
    }

    @Test
    func everyLabelIsReadable() throws {
        let script = "document.getElementById('probe').textContent = document.body.innerText"
        let text = try Chromium(width: 1400, height: 1000, scheme: .light).probe(
            RunReportPage.html(SampleRuns.sevES), script: script
        ).joined(separator: "\n")
        for label in [
            "Guest owner", "Hypervisor", "Firmware", "Memory controller", "Memory", "VM", "VMCB", "VMSA", "GHCB",
            "LAUNCH_START", "LAUNCH_UPDATE_DATA", "LAUNCH_UPDATE_VMSA", "LAUNCH_MEASURE", "LAUNCH_SECRET",
            "LAUNCH_FINISH",
            "key slot 1: guest.img", "loads the key of ASID 1", "0x10fa05000", "0x3bab000",
            "not told to user space by this host", "owner's secret", "KVM_EXIT_IO", "This run protected nothing.",
        ] {
            #expect(text.contains(label), "\(label)")
        }
    }

    @Test
    func anEnemyAddsNoElement() throws {
        let script = """
            const names = [...new Set([...document.querySelectorAll('*')].map(e => e.localName))].filter(n => n != 'script');
            const handlers = [...document.querySelectorAll('*')].filter(e => [...e.attributes].some(a => a.name.startsWith('on')));
            document.getElementById('probe').textContent = names.sort().join('\\n') + '\\nhandlers ' + handlers.length +
                '\\nscripts ' + document.scripts.length + '\\ntitle ' + document.title.startsWith('</style>');
            """
        let browser = Chromium(width: 1000, height: 800, scheme: .light)
        let lines = try browser.probe(RunReportPage.html(SampleRuns.hostile), script: script)
        let ordinary = try browser.probe(RunReportPage.html(SampleRuns.sevES), script: script)
        #expect(lines.contains("handlers 0"))
        // The test's own.
        #expect(lines.contains("scripts 1"))
        #expect(lines.contains("title true"))
        let elements = Set(lines.filter { !$0.contains(" ") })
        #expect(elements.subtracting(ordinary) == [])
    }
}
