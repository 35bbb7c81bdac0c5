// The default guest's `launch-secret`, run here as the guest runs it: over a folder made as the kernel shows setup_data.

import Crypto
import TestSupport
import Testing

/// A shell that takes parts of strings, as the guest's does.
private let shell: [String]? = {
    if readFile("/bin/busybox") != nil { return ["/bin/busybox", "sh"] }
    return readFile("/bin/bash") != nil ? ["/bin/bash"] : nil
}()

@Suite(.enabled(if: shell != nil, "neither bash nor busybox is installed"))
struct LaunchSecretTests {
    /// GUID and length of a table or an entry, then what it holds.
    private func block(_ guid: String, _ contents: [UInt8], length: UInt32? = nil) -> [UInt8] {
        let length = length ?? UInt32(20 + contents.count)
        return ([UInt8](hex: guid) ?? []) + (0..<4).map { UInt8(truncatingIfNeeded: length >> (8 * $0)) } + contents
    }

    /// As they are stored: the first three fields little-endian.
    private let table = "42f5741edd71664d963eef4287ff173b"
    private let passphrase = "e5696873f084734992ec06879ce3da0b"
    private let other = "443322116655887799aabbccddeeff00"
    private let erased = String(repeating: "00", count: 16)

    /// Runs the script over nodes with these types and data.
    private func run(
        _ nodes: [(type: String, data: [UInt8])], _ arguments: [String] = []
    ) throws -> (ending: ChildProcess.Ending, output: String) {
        let folder =
            (environment("TMPDIR") ?? "/tmp")
            + "/snp-vmm-test-\(BuiltProgram.processIdentifier)-\(UInt32.random(in: .min ... .max))"
        let paths = nodes.indices.map { "\(folder)/\($0)" }
        #expect(try ChildProcess.run("/bin/mkdir", ["-p", folder] + paths).ending == .exited(0))
        defer { _ = try? ChildProcess.run("/bin/rm", ["-r", folder]) }
        for (path, node) in zip(paths, nodes) {
            try #require(
                writeFile(path + "/type", Array((node.type + "\n").utf8)) && writeFile(path + "/data", node.data))
        }
        let script = PackageFolder.path + "/Firmware/guest/launch-secret"
        return try ChildProcess.run(
            "/usr/bin/env", ["SETUP_DATA=" + folder] + (shell ?? []) + [script] + arguments,
            timeoutMilliseconds: 60_000)
    }

    private func padded(_ bytes: [UInt8]) -> [UInt8] {
        bytes + [UInt8](repeating: 0, count: max(0, 4080 - bytes.count))
    }

    @Test func secretsAreNamedNotShown() throws {
        let secret = Array("correct horse battery staple".utf8)
        let area = padded(
            block(table, block(passphrase, secret) + block(erased, [1, 2]) + block(other, (0...255).map { $0 })))
        let (ending, output) = try run([("0x7", [0, 0xc0, 0, 0]), ("0x53564553", area)])
        #expect(ending == .exited(0), "\(output)")
        let lines = output.split(separator: "\n").map(String.init)
        func sum(_ bytes: [UInt8]) -> String {
            let digest = SHA256.hash(bytes)
            return (0..<32).map { digest[$0] }.hex
        }
        try #require(lines.count == 3, "\(output)")
        #expect(lines[0] == "launch secret: a table of \(20 + 48 + 22 + 276) bytes")
        #expect(lines[1] == "launch secret: 736869e5-84f0-4973-92ec-06879ce3da0b, 28 bytes, sha256 \(sum(secret))")
        #expect(
            lines[2]
                == "launch secret: 11223344-5566-7788-99aa-bbccddeeff00, 256 bytes, sha256 \(sum((0...255).map { $0 }))"
        )
        #expect(!output.contains("horse"))
    }

    @Test func oneSecretIsShownWhenAskedFor() throws {
        let area = padded(block(table, block(other, Array("open sesame".utf8))))
        for name in ["11223344-5566-7788-99aa-bbccddeeff00", "11223344-5566-7788-99AA-BBCCDDEEFF00"] {
            let (ending, output) = try run([("0x53564553", area)], ["--show", name])
            #expect(ending == .exited(0) && output == "open sesame", "\(output)")
        }
        let (ending, output) = try run([("0x53564553", area)], ["--show", "11223344-5566-7788-99aa-bbccddeeff01"])
        #expect(ending == .exited(1) && output.contains("no secret"), "\(output)")
    }

    @Test func noneIsSaid() throws {
        let empty = try run([("0x53564553", padded([]))])
        #expect(
            empty.ending == .exited(1) && empty.output.contains("none (the place for it is empty)"), "\(empty.output)")
        for nodes in [[("0x7", [0, 0xc0, 0, 0] as [UInt8])], []] {
            let (ending, output) = try run(nodes)
            #expect(ending == .exited(1) && output.contains("none (this guest has no place"), "\(output)")
        }
    }

    /// Lengths that lie end in a message, at whichever place they lie.
    @Test func damagedTablesAreRefused() throws {
        let entry = block(other, [1, 2, 3, 4])
        for area in [
            block(table, [], length: 19), block(table, entry, length: 4081), block(table, entry, length: .max),
            block(table, entry, length: 21), block(table, entry, length: 43), block(table, block(other, [], length: 0)),
            block(table, block(other, [], length: 19)), block(table, block(other, [1], length: 22)),
            block(table, block(other, [1], length: .max)),
        ] {
            let (ending, output) = try run([("0x53564553", padded(area))])
            #expect(ending == .exited(2) && output.contains("damaged"), "\(area.prefix(48).map { $0 }.hex): \(output)")
        }
    }

    @Test(arguments: [["x"], ["--show"], ["--show", ""], ["--show", "a", "b"]])
    func wrongUse(_ arguments: [String]) throws {
        let (ending, output) = try run([], arguments)
        #expect(ending == .exited(2) && output.contains("usage"), "\(output)")
    }
}
