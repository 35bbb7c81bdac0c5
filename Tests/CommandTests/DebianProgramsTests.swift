// Debian's programs in a guest: what they print is, byte for byte, what the same files print on the host's processor.

import TestSupport
import Testing

/// The tree of programs that `make guest-debian` built, on this host.
private enum DebianTree {
    /// How a program runs with the tree as its root; nil where that is not allowed here.
    static let command: [String]? = {
        guard let root = BuiltGuest.debianTree else { return nil }
        return [["chroot", root], ["unshare", "--user", "--map-root-user", "chroot", root]].first {
            ended(try? ChildProcess.run($0[0], Array($0[1...]) + ["/bin/true"])) == .exited(0)
        }
    }()

    /// The programs' C library takes the same variants of its functions here as in a guest.
    static let hasLevel3: Bool = {
        guard let command else { return false }
        let loader = try? ChildProcess.run(
            command[0], Array(command[1...]) + ["/lib64/ld-linux-x86-64.so.2", "--help"])
        return loader?.output.contains("x86-64-v3 (supported") ?? false
    }()

    private static func ended(_ run: (ending: ChildProcess.Ending, output: String)?) -> ChildProcess.Ending? {
        run?.ending
    }
}

@Suite(
    "Debian's programs", .serialized,
    .enabled(
        if: BuiltGuest.debianInitrd != nil && BuiltGuest.kernel != nil, "no programs: run `make guest guest-debian`"),
    .enabled(if: DebianTree.command != nil, "programs cannot have another root here: no chroot, no user namespaces"),
    .enabled(if: DebianTree.hasLevel3, "the host's processor is below x86-64-v3: it rounds some functions differently"))
struct DebianProgramsTests {
    /// The suite's file: for each program its status and what it printed.
    private func programs(_ file: [UInt8]) throws -> [(name: String, printed: String)] {
        var programs: [(String, String)] = []
        var rest = file[...]
        while let end = rest.firstIndex(of: UInt8(ascii: "\n")) {
            let head = String(decoding: rest[..<end], as: UTF8.self)
            if head == "== end" { return programs }
            let words = head.split(separator: " ")
            try #require(words.count > 4 && words[0] == "==" && words.last == "bytes", "\(head)")
            let count = try #require(Int(words[words.count - 2]))
            rest = rest[(end + 1)...]
            programs.append((head, String(decoding: rest.prefix(count), as: UTF8.self)))
            rest = rest.dropFirst(count)
        }
        Issue.record("the file has no end: \(file.count) bytes")
        return programs
    }

    /// The first lines in which two programs differ.
    private func difference(_ guest: String, _ host: String) -> String {
        let guest = guest.split(separator: "\n"), host = host.split(separator: "\n")
        let pairs = zip(guest, host).filter { $0 != $1 }.prefix(6)
        let lines = pairs.map { "guest: \($0)\nhost:  \($1)" }.joined(separator: "\n")
        return "\(guest.count) and \(host.count) lines\n\(lines)"
    }

    /// As an SNP guest all programs, with every choice of code that a library has for this processor; as a plain one some,
    /// with the debug registers' breakpoints and 32-bit programs.
    @Test(arguments: ["snp", "none"]) func programsPrintWhatTheyPrintHere(_ technology: String) throws {
        let words = technology == "none" ? ["plain"] : []
        let name = "/results-\(BuiltProgram.processIdentifier)-\(technology)"
        let here = try #require(BuiltGuest.debianTree) + name
        let disk = (environment("TMPDIR") ?? "/tmp") + name
        defer { for file in [here, disk] { removeFile(file) } }

        let native = try #require(DebianTree.command) + ["/suite/suite", name] + words
        let run = try ChildProcess.run(native[0], Array(native[1...]))
        try #require(run.ending == .exited(0), "\(run.output)")
        let expected = try #require(readFile(here))

        try #require(writeFile(disk, [UInt8](repeating: 0, count: 2 << 20)))
        let (ending, console) = try ChildProcess.run(
            try #require(BuiltProgram.path("swift-snp-vmm")),
            [
                "run", "--backend", "software", "--quiet", "--confidential", technology, "--kernel",
                try #require(BuiltGuest.kernel), "--initrd", try #require(BuiltGuest.debianInitrd), "--cmdline",
                "console=ttyS0 quiet panic=-1 reboot=a 8250.nr_uarts=1 pci=off cryptomgr.notests "
                    + "snp.run=debian-programs debian.suite=" + words.joined(separator: ","),
                "--disk", disk,
            ], timeoutMilliseconds: BootTests.patience)
        #expect(ending == .exited(0), "\(console)")
        #expect(console.contains("debian-programs: exit status 0"), "\(console)")
        #expect(console.contains("x86-64-v3 (supported, searched)"), "\(console)")
        #expect(!console.contains("x86-64-v4 (supported"), "\(console)")

        let written = try #require(readFile(disk))
        let (guest, host) = (try programs(written), try programs(expected))
        #expect(guest.map(\.name) == host.map(\.name))
        for (ours, theirs) in zip(guest, host) where ours != theirs {
            Issue.record("\(theirs.name) differs: \(difference(ours.printed, theirs.printed))")
        }
        #expect(written.starts(with: expected) && written[expected.count...].allSatisfy { $0 == 0 })
        // Every program did its work, and the suite is whole.
        #expect(host.count == (technology == "none" ? 7 : 71), "\(host.map(\.name))")
        #expect(host.allSatisfy { $0.name.contains(": status 0 ") }, "\(host.map(\.name))")
    }
}
