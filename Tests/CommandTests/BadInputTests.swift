// Whatever the command is given: one clear error on standard error, the right exit status, no trap.

import Testing
import TestSupport

@Suite struct BadInputTests {
    func command(_ arguments: [String]) throws -> (ending: ChildProcess.Ending, output: String) {
        let command = try #require(BuiltProgram.path("swift-snp-vmm"))
        return try ChildProcess.run(command, arguments, timeoutMilliseconds: 120_000)
    }

    /// A file with these bytes in the system's folder for temporary files.
    func file(_ name: String, _ bytes: [UInt8]) throws -> String {
        let path = (environment("TMPDIR") ?? "/tmp") + "/snp-vmm-test-\(BuiltProgram.processIdentifier)-\(name)"
        try #require(writeFile(path, bytes))
        return path
    }

    @Test(arguments: [
        ["run"], ["run", "--nonsense"], ["run", "--memory", "banana", "x"], ["run", "--memory", "1", "x"],
        ["run", "--cpus", "0", "x"], ["run", "--backend", "none", "x"], ["run", "--vcpu-type", "EPYC-Nowhere", "x"],
        ["run", "--confidential", "maybe", "x"], ["run", "x", "--kernel", "y"], ["measure"], ["no-such-command"],
        ["run", "--guest-features", "0x2", "x"], ["run", "--policy", "12z", "x"], ["measure", "--vcpu-sig", "0x", "x"],
    ])
    func wrongUseIsStatus2(_ arguments: [String]) throws {
        let (ending, output) = try command(arguments)
        #expect(ending == .exited(2), "\(output)")
        #expect(!output.isEmpty)
    }

    @Test func absentAndUnreadableFilesAreStatus3() throws {
        for path in ["/nonexistent/guest.img", "/"] {
            let (ending, output) = try command(["run", path])
            #expect(ending == .exited(3), "\(output)")
            #expect(output.contains(path) && output.lowercased().contains("likely cause"), "\(output)")
        }
    }

    @Test func nothingIsWrittenOverWhatIsRead() throws {
        let bytes = Array("an image that nobody has read".utf8)
        let image = try file("precious", bytes)
        let other = try file("output", [])
        defer { for path in [image, other] { removeFile(path) } }
        for arguments in [
            ["run", image, "--report", image], ["run", "--kernel", image, "--launch-log", image],
            ["run", image, "--confidential", "sev", "--measurement-out", image],
            ["run", image, "--report", other, "--launch-log", other],
        ] {
            let (ending, output) = try command(arguments)
            #expect(ending == .exited(2), "\(output)")
            #expect(output.contains("is the same file as"), "\(output)")
        }
        #expect(readFile(image) == bytes)
    }

    /// Waiting for it would never end.
    @Test(.enabled(if: BuiltGuest.image != nil, "no default guest: run `make guest`"))
    func aFolderIsNoSecretPacket() throws {
        let image = try #require(BuiltGuest.image)
        let session = try file("session", [UInt8](repeating: 0, count: 128))
        let certificate = try file("certificate", [UInt8](repeating: 0, count: 2084))
        defer { for path in [session, certificate] { removeFile(path) } }
        let (ending, output) = try command(
            [
                "run", image, "--confidential", "sev", "--backend", "software", "--session", session, "--owner-cert",
                certificate, "--secret", "/",
            ])
        #expect(ending == .exited(3), "\(output)")
        #expect(output.contains("a directory"), "\(output)")
    }

    @Test func filesThatAreNoImagesAreStatus3() throws {
        var numbers = SeededGenerator(seed: 3)
        let contents: [(String, [UInt8])] = [
            ("empty", []), ("zero", [UInt8](repeating: 0, count: 8192)), ("noise", numbers.bytes(10_000)),
            ("text", Array("#!/bin/sh\necho hello\n".utf8)), ("short-elf", [0x7f, 0x45, 0x4c, 0x46]),
            ("short-pe", [0x4d, 0x5a]),
        ]
        for (name, bytes) in contents {
            let path = try file(name, bytes)
            defer { removeFile(path) }
            for subcommand in ["run", "measure"] {
                let (ending, output) = try command([subcommand, path])
                #expect(ending == .exited(3), "\(name): \(output)")
                #expect(output.contains("Next step"), "\(name): \(output)")
            }
        }
    }

    /// The default guest, cut off at many places: its own headers promise more.
    @Test(.enabled(if: BuiltGuest.image != nil, "no default guest: run `make guest`"))
    func truncatedImagesAreStatus3() throws {
        let whole = try #require(BuiltGuest.image.flatMap(readFile))
        for count in [1, 64, 100, 0x148, 4095, 4096, 0x5000, 100_000, whole.count / 2, whole.count - 5000] {
            let path = try file("truncated", Array(whole.prefix(count)))
            defer { removeFile(path) }
            let (ending, output) = try command(["measure", path])
            #expect(ending == .exited(3), "\(count) bytes: \(output)")
        }
    }

    @Test(.enabled(if: BuiltGuest.image != nil, "no default guest: run `make guest`"))
    func tooLittleMemoryIsStatus3AndNamesEnough() throws {
        let image = try #require(BuiltGuest.image)
        let (ending, output) = try command(["run", "--backend", "software", "--memory", "16M", image])
        #expect(ending == .exited(3), "\(output)")
        #expect(output.contains("16 MiB") && output.contains("--memory"), "\(output)")
    }

    @Test(.enabled(if: BuiltGuest.firmware("hello") != nil, "no flat guests: run `make firmware`"))
    func aPolicyThatIsRefusedIsStatus5() throws {
        let image = try #require(BuiltGuest.firmware("hello"))
        // Bit 17 must be one; ABI version 255.255 is newer than any firmware.
        for policy in ["0x0", "0x3ffff"] {
            let (ending, output) = try command(
                ["run", "--backend", "software", "--memory", "64M", "--policy", policy, image])
            #expect(ending == .exited(5), "\(policy): \(output)")
            #expect(output.contains("likely cause"), "\(policy): \(output)")
        }
    }

    @Test(.enabled(if: BuiltGuest.firmware("hello") != nil, "no flat guests: run `make firmware`"))
    func anIDBlockThatIsNoneIsRefused() throws {
        let image = try #require(BuiltGuest.firmware("hello"))
        let block = try file("id-block", [UInt8](repeating: 0, count: 96))
        let auth = try file("id-auth", [UInt8](repeating: 0, count: 4096))
        defer {
            removeFile(block)
            removeFile(auth)
        }
        let (ending, output) = try command([
            "run", "--backend", "software", "--memory", "64M", "--id-block", block, "--id-auth", auth, image,
        ])
        #expect(ending == .exited(5), "\(output)")
        #expect(try command(["run", "--id-block", block, image]).ending == .exited(2))
    }

    @Test(.enabled(if: !BuiltProgram.hasRealSNP, "this host can do SNP"))
    func aHostWithoutSNPIsStatus4() throws {
        let image = try #require(BuiltGuest.firmware("hello") ?? BuiltGuest.image)
        let (ending, output) = try command(["run", "--backend", "kvm", image])
        #expect(ending == .exited(4), "\(output)")
        #expect(output.contains("next step"), "\(output)")
    }

    /// What `measure` prints, what a launch is expected to hold and what its log sees are the same digest.
    @Test(
        .enabled(if: BuiltGuest.firmware("hello") != nil, "no flat guests: run `make firmware`"),
        arguments: [("snp", 96), ("sev-es", 64), ("sev", 64)])
    func measureAgreesWithTheLaunch(_ technology: String, _ digitCount: Int) throws {
        let image = try #require(BuiltGuest.firmware("hello"))
        let guest = ["--confidential", technology, "--memory", "64M", image]
        let measured = try command(["measure"] + guest)
        #expect(measured.ending == .exited(0), "\(measured.output)")
        let digest = measured.output.trimmed
        #expect(digest.utf8.count == digitCount)
        let log = try file("log-\(technology)", [])
        defer {
            removeFile(log)
            _ = try? ChildProcess.run("rm", ["-r", log + "-platform"])
        }
        let launched = try command(
            [
                "run", "--backend", "software", "--launch-only", "--launch-log", log, "--platform-state",
                log + "-platform",
            ] + guest)
        #expect(launched.ending == .exited(0), "\(launched.output)")
        #expect(launched.output.contains(digest), "\(launched.output)")
        let lines = String(decoding: readFile(log) ?? [], as: UTF8.self).split(separator: "\n")
        let last = lines.last { $0.contains("\"request\":\"KVM_SEV_") && $0.contains("\"launchDigest\":") }
        #expect(last?.contains("\"launchDigest\":\"\(digest)\"") == true, "\(last ?? "no digest in the log")")
    }
}

extension String {
    fileprivate var trimmed: String {
        var text = Substring(self)
        while let last = text.last, last.isWhitespace { text.removeLast() }
        return String(text)
    }
}
