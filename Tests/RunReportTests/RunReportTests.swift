// The page and the data as text.

import RunReport
import Testing

@Suite
struct RunReportTests {
    @Test(arguments: SampleRuns.all.map(\.name))
    func pageNeedsNothingElse(_ name: String) throws {
        let data = try #require(SampleRuns.all.first { $0.name == name }?.data)
        let html = RunReportPage.html(data)
        for forbidden in ["<script", "<img", "<link", "<iframe", "@import", "href=\"http", "url(http"] {
            #expect(!html.contains(forbidden), "\(forbidden) in \(name)")
        }
        #expect(html.utf8.count < 700_000)
    }

    @Test(arguments: SampleRuns.all.map(\.name))
    func dataIsJSON(_ name: String) throws {
        let data = try #require(SampleRuns.all.first { $0.name == name }?.data)
        #expect(JSONReader.accepts(data.json))
        #expect(!data.json.contains("\n"))
    }

    @Test
    func theReaderOfTheseTestsKnowsJSON() {
        for good in ["{}", "[1,2]", "{\"a\":[null,true,\"\\u0001\\\"\"]}"] {
            #expect(JSONReader.accepts(good), "\(good)")
        }
        for bad in ["", "{", "[1,]", "{\"a\"}", "\"\u{1}\"", "{}x", "\"\\x\""] {
            #expect(!JSONReader.accepts(bad), "\(bad)")
        }
    }

    /// Each datum of the page is in the data.
    @Test
    func dataHasEverything() {
        let json = SampleRuns.sevES.json
        for text in [
            "\"asid\":1", "\"vmsa\":\"0x10fa05000\"", "\"ghcb\":\"0x3bab000\"", "\"vmcb\":null",
            "\"name\":\"LAUNCH_SECRET\"",
            "\"state\":\"secret\"", "\"after\":null", "\"technology\":\"sev-es\"", "\"name\":\"KVM_EXIT_IO\"",
            "\"loaded\":true",
            "\"name\":\"wait for the owner\"", "\"asExpected\":true", "\"softwareMachine\":true",
        ] {
            #expect(json.contains(text), "\(text)")
        }
    }

    @Test
    func onlyTheStepsThatHappenedHaveArrows() {
        let sev = RunReportPage.html(SampleRuns.sev)
        #expect(!sev.contains("<code>LAUNCH_UPDATE_VMSA</code>"))
        #expect(!sev.contains("<code>LAUNCH_SECRET</code>"))
        #expect(sev.contains("<code>LAUNCH_MEASURE</code>"))
        #expect(
            sev.contains("3 LAUNCH_UPDATE_VMSA (SEV does not encrypt registers), 5 LAUNCH_SECRET (no secret was given)")
        )
        #expect(!RunReportPage.html(SampleRuns.plain).contains("LAUNCH_"))
        #expect(!RunReportPage.html(SampleRuns.snp).contains("LAUNCH_MEASURE"))
    }

    @Test
    func bannerSaysWhatTheRunIsWorth() {
        func page(_ technology: RunReportData.Technology, software: Bool, debug: Bool = false) -> String {
            var data = SampleRuns.empty
            data.technology = technology
            data.isSoftwareMachine = software
            data.policy = .init(rawValue: 0, items: [], allowsDebug: debug)
            return RunReportPage.html(data)
        }
        for technology in RunReportData.Technology.allCases {
            #expect(page(technology, software: true).contains("This run protected nothing."))
            #expect(!page(technology, software: false).contains("This run protected nothing."))
        }
        #expect(page(.plain, software: false).contains("Nothing is hidden from the host."))
        #expect(page(.snp, software: false, debug: true).contains("The policy allows debugging"))
        #expect(page(.snp, software: false).contains("cannot change them unseen"))
        #expect(page(.sev, software: false).contains("encrypted, and no more than that"))
        #expect(page(.sevES, software: false).contains("memory and registers are encrypted."))
    }

    @Test
    func numbersAreReadable() {
        #expect(Readable.count(0) == "0")
        #expect(Readable.count(1234567) == "1\u{202f}234\u{202f}567")
        #expect(Readable.bytes(0) == "0\u{a0}B")
        #expect(Readable.bytes(1023) == "1023\u{a0}B")
        #expect(Readable.bytes(1 << 20) == "1\u{a0}MiB")
        #expect(Readable.bytes(.max) == "15.9\u{a0}EiB")
        #expect(Readable.duration(0) == "0\u{a0}ns")
        #expect(Readable.duration(999) == "999\u{a0}ns")
        #expect(Readable.duration(1_050) == "1.05\u{a0}µs")
        #expect(Readable.duration(12_345_678) == "12.3\u{a0}ms")
        #expect(Readable.duration(200_000_000_000) == "3\u{a0}min 20\u{a0}s")
        #expect(Readable.duration(7_200_000_000_000) == "2\u{a0}h 0\u{a0}min")
        #expect(Readable.duration(.max) == "213\u{202f}503\u{a0}days")
        #expect(Readable.share(1, of: 10_000) == "<\u{a0}0.1\u{a0}%")
        #expect(Readable.share(.max, of: 1) == "100\u{a0}%")
        #expect(Readable.coordinate(0.1 + 0.2) == "0.3")
        #expect(Readable.coordinate(.nan) == "0")
        #expect(Readable.coordinate(-1.5) == "-1.5")
        #expect(abs(Readable.log2(1000) - 9.9658) < 0.001)
        #expect(Readable.log2(0) == 0)
        #expect(Readable.timestamp(secondsSince1970: 0) == "1970-01-01 00:00 UTC")
        #expect(Readable.timestamp(secondsSince1970: 951_782_400) == "2000-02-29 00:00 UTC")
        #expect(Readable.timestamp(secondsSince1970: 1_735_689_599) == "2024-12-31 23:59 UTC")
        #expect(Readable.timestamp(secondsSince1970: -1) == "")
        #expect(Readable.timestamp(secondsSince1970: .max) == "")
    }

    // MARK: Memory

    @Test
    func laterRegionsCount() {
        let space = AddressSpace(
            .init(
                before: [
                    .init(start: 0, byteCount: 0x10000, state: .validated),
                    .init(start: 0x4000, byteCount: 0x2000, state: .measured, label: "kernel"),
                ], after: [.init(start: 0, byteCount: 0x8000, state: .shared)]))
        #expect(
            space.cells.map { [$0.start, $0.byteCount] } == [
                [0, 0x4000], [0x4000, 0x2000], [0x6000, 0x2000], [0x8000, 0x8000],
            ])
        #expect(space.cells.map(\.before) == [.validated, .measured, .validated, .validated])
        #expect(space.cells.map(\.after) == [.shared, .shared, .shared, nil])
        #expect(space.cells.map(\.label) == ["", "kernel", "", ""])
    }

    @Test
    func regionsAtTheEndOfTheAddressSpace() {
        let space = AddressSpace(
            .init(before: [
                .init(start: .max - 0xfff, byteCount: .max, state: .shared),
                .init(start: .max, byteCount: 1, state: .vmsa),
                .init(start: 7, byteCount: 0, state: .vmsa),
            ]))
        #expect(space.cells.map(\.start) == [.max - 0xfff])
        #expect(space.cells.map(\.byteCount) == [0xfff])
    }

    @Test
    func manyPiecesAreCut() {
        let many = (0..<UInt64(AddressSpace.maximumRegionCount + 5)).map {
            RunReportData.Region(start: $0 * 0x2000, byteCount: 0x1000, state: .shared)
        }
        let space = AddressSpace(.init(before: many))
        #expect(space.wasCut)
        #expect(space.cells.count == AddressSpace.maximumRegionCount)
        var data = SampleRuns.snp
        data.memory.before = many
        #expect(RunReportPage.html(data).utf8.count < 300_000)
    }

    @Test(arguments: [1, 10_000_000, UInt64.max])
    func exitsOfAnyNumber(_ count: UInt64) {
        var data = SampleRuns.snp
        data.exits = .init(
            binNanoseconds: 1_000_000, runNanoseconds: 5_000_000_000,
            kinds: [.init(name: "KVM_EXIT_IO", total: count, bins: (0..<5000).map { $0 == 17 ? count : 0 })])
        let html = RunReportPage.html(data)
        #expect(html.contains("highest column \(Readable.count(count))"))
        // 5000 columns of 1 ms become 157 of 32 ms.
        #expect(html.contains("A column is 32.0\u{a0}ms."))
        #expect(html.contains("viewBox=\"0 0 157 100\""))
    }
}

/// Says whether a text is one JSON value [RFC 8259].
private struct JSONReader {
    private let bytes: [UInt8]
    private var at = 0

    private init(_ text: String) { bytes = Array(text.utf8) }

    static func accepts(_ text: String) -> Bool {
        var reader = JSONReader(text)
        return reader.value() && reader.at == reader.bytes.count
    }

    private mutating func take(_ text: String) -> Bool {
        guard bytes[at...].starts(with: text.utf8) else { return false }
        at += text.utf8.count
        return true
    }

    private mutating func value() -> Bool {
        if take("null") || take("true") || take("false") { return true }
        if take("\"") { return string() }
        if take("[") { return list(end: "]") { $0.value() } }
        if take("{") { return list(end: "}") { $0.take("\"") && $0.string() && $0.take(":") && $0.value() } }
        let start = at
        while at < bytes.count, (0x30...0x39).contains(bytes[at]) { at += 1 }
        return at > start
    }

    private mutating func list(end: String, _ element: (inout JSONReader) -> Bool) -> Bool {
        if take(end) { return true }
        while element(&self) {
            if take(end) { return true }
            guard take(",") else { return false }
        }
        return false
    }

    private mutating func string() -> Bool {
        while at < bytes.count {
            let byte = bytes[at]
            at += 1
            switch byte {
            case 0x22: return true
            case 0x5c:
                guard at < bytes.count, "\"\\/bfnrtu".utf8.contains(bytes[at]) else { return false }
                at += 1
            case ..<0x20: return false
            default: break
            }
        }
        return false
    }
}
