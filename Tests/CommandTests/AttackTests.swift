// `attack` as a program: its table, its JSON, its exit status.

import TestSupport
import Testing

@Suite struct AttackTests {
    func attack(_ arguments: [String]) throws -> (ending: ChildProcess.Ending, output: String) {
        let command = try #require(BuiltProgram.path("swift-snp-vmm"))
        return try ChildProcess.run(command, ["attack"] + arguments, timeoutMilliseconds: 120_000)
    }

    @Test func `everything is as promised on the software machine`() throws {
        let (ending, output) = try attack(["--backend", "software"])
        #expect(ending == .exited(0), "\(output)")
        #expect(output.contains("0 did not, 0 broken, 0 not run."), "\(output)")
        #expect(output.contains("This was the software machine"), "\(output)")
        #expect(!output.contains("\u{1b}["), "no colours where there is no terminal")
        let table = output.split(separator: "\n").map { $0.split(separator: " ").joined(separator: " ") }
        #expect(table.contains("attack plain SEV SEV-ES SEV-SNP"))
        #expect(table.contains("host replays an old page succeeds not stopped not stopped stopped"))
        #expect(table.contains("host changes registers (VMSA) succeeds not stopped detected stopped"))
    }

    @Test func `one attack on one technology`() throws {
        let (ending, output) = try attack([
            "--backend", "software", "--confidential", "sev", "--scenario", "remaps-page", "--json",
        ])
        #expect(ending == .exited(0), "\(output)")
        for part in [
            #""backend":"software""#, #""isModel":true"#, #""isSound":true"#, #""name":"remaps-page""#,
            #""guest":"sev","promised":"not stopped""#, #""observed":"not stopped","verdict":"as promised""#,
        ] { #expect(output.contains(part), "\(part) in \(output)") }
        #expect(!output.contains(#""guest":"snp""#))
    }

    @Test func `an attack that does not exist is status 2`() throws {
        let (ending, output) = try attack(["--scenario", "no-such-attack"])
        #expect(ending == .exited(2), "\(output)")
        #expect(output.contains("no-such-attack") && output.contains("--list"), "\(output)")
    }

    @Test func `the list has a line per attack`() throws {
        let (ending, output) = try attack(["--list"])
        #expect(ending == .exited(0))
        let lines = output.split(separator: "\n")
        #expect(lines.count >= 24 && lines.contains { $0.hasPrefix("host-reads-memory\t") }, "\(output)")
    }
}
