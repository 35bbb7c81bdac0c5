// Tests of the page as text.

import RunReport
import Testing

@Test(arguments: SampleRuns.all.map(\.name))
func pageNeedsNothingElse(_ name: String) throws {
    let data = try #require(SampleRuns.all.first { $0.name == name }?.data)
    let html = RunReportPage.html(data)
    for forbidden in ["<script", "http://", "https://", "src=", "@import", "javascript:"] {
        #expect(!html.contains(forbidden), "\(forbidden) in \(name)")
    }
}
