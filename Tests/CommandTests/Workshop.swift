// Where the parties of a test keep their files: the platform its keys, the owner secrets and certificates.

import Glibc
import TestSupport
import Testing

/// A software platform with its certificates, and room for files; removed at the end.
final class Workshop: Sendable {
    let folder: String
    var state: String { folder + "/state" }
    var certificates: String { folder + "/certs" }
    var socket: String { folder + "/owner.socket" }
    var secretFile: String { folder + "/key" }

    /// Longer than any register of a guest, and found nowhere by chance.
    static let secret = Array("the owner's very own passphrase: correct horse battery staple 7f3a".utf8)

    init(_ name: String, exportsCertificates: Bool = true) throws {
        folder = (environment("TMPDIR") ?? "/tmp") + "/snp-vmm-\(BuiltProgram.processIdentifier)-\(name)"
        if exportsCertificates {
            let made = try command(["platform", "export-certs", folder + "/certs"] + platform)
            try #require(made.ending == .exited(0), "\(made.output)")
            try #require(writeFile(secretFile, Self.secret))
        }
    }

    deinit { _ = try? ChildProcess.run("rm", ["-rf", folder]) }

    var platform: [String] { ["--backend", "software", "--platform-state", state] }

    /// For the owner's commands: the root that this owner accepts.
    var roots: [String] {
        ["--ark", certificates + "/ark.cert", "--ask", certificates + "/ask.cert"]
    }

    func command(_ arguments: [String]) throws -> (ending: ChildProcess.Ending, output: String) {
        try ChildProcess.run(try program(), arguments, timeoutMilliseconds: 240_000)
    }

    func program() throws -> String { try #require(BuiltProgram.path("swift-snp-vmm")) }

    /// An owner who waits for one launch of this guest.
    func serve(_ guest: [String], _ more: [String] = []) throws -> ChildProcess {
        let owner = try ChildProcess(
            try program(),
            ["owner", "serve"] + guest + roots
                + ["--certs", certificates, "--socket", socket, "--launches", "1"] + more, mergesError: true)
        let start = owner.read(until: "waiting at", timeoutMilliseconds: 240_000)
        try #require(start.found, "\(start.output)")
        return owner
    }

    func flip(_ path: String, at offset: Int) throws {
        var bytes = try #require(readFile(path))
        bytes[offset] ^= 1
        try #require(writeFile(path, bytes))
    }
}
