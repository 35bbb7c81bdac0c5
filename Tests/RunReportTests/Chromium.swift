// A browser without a window, for looking at the page as readers will see it.

import TestSupport
import Testing

/// Debian's `chromium` or `chromium-headless-shell`.
struct Chromium {
    static let path: String? = [
        "/usr/bin/chromium-headless-shell", "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome",
    ].first { readFile($0) != nil }

    static let absence = "no Chromium: make deps-report installs it"

    enum Scheme: String, CaseIterable {
        case light, dark
        /// Blink's own numbers.
        var setting: String { self == .dark ? "0" : "1" }
    }

    struct Failure: Error { let description: String }

    let width: Int
    let height: Int
    let scheme: Scheme

    /// What the browser has to say goes into `log`: a page without errors leaves nothing of kind CONSOLE there.
    private func run(_ page: String, _ arguments: [String], folder: String) throws -> String {
        guard let path = Self.path else { throw Failure(description: Self.absence) }
        #expect(writeFile(folder + "/page.html", Array(page.utf8)))
        let result = try ChildProcess.run(
            path,
            [
                "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
                "--window-size=\(width),\(height)", "--blink-settings=preferredColorScheme=\(scheme.setting)",
                "--user-data-dir=\(folder)/profile", "--enable-logging=stderr",
            ] + arguments + ["file://\(folder)/page.html"])
        guard result.ending == .exited(0) else { throw Failure(description: "\(result.ending): \(result.output)") }
        return result.output
    }

    /// A picture of the upper part of the page, as it is; and errors that the page made.
    func screenshot(_ page: String) throws -> (image: PNGImage, complaints: [Substring]) {
        try Self.withFolder { folder in
            let log = try run(page, ["--screenshot=\(folder)/page.png"], folder: folder)
            guard let image = readFile(folder + "/page.png").flatMap(PNGImage.init) else {
                throw Failure(description: "no picture: \(log)")
            }
            return (image, log.split(separator: "\n").filter { $0.contains("CONSOLE") })
        }
    }

    /// The lines that a script of the test, put at the end of the page, has left in an element of the id `probe`.
    func probe(_ page: String, script: String) throws -> [String] {
        // The page's own policy forbids all scripts, this one too.
        let open = page.replacing("default-src 'none'; ", with: "")
        let probed = open.replacing("</body>", with: "<pre id=\"probe\"></pre><script>\(script)</script></body>")
        let dump = try Self.withFolder { folder in try run(probed, ["--dump-dom"], folder: folder) }
        guard let start = dump.firstRange(of: "<pre id=\"probe\">"),
            let end = dump[start.upperBound...].firstRange(of: "</pre>")
        else {
            throw Failure(description: "no answer: \(dump.suffix(500))")
        }
        return dump[start.upperBound..<end.lowerBound].split(separator: "\n").map(String.init)
    }

    private static func withFolder<Result>(_ body: (String) throws -> Result) throws -> Result {
        let folder = "/tmp/snpvmm-report-\(BuiltProgram.processIdentifier)-\(UInt32.random(in: 0 ... .max))"
        _ = try ChildProcess.run("mkdir", ["-p", folder])
        defer { _ = try? ChildProcess.run("rm", ["-rf", folder]) }
        return try body(folder)
    }
}
