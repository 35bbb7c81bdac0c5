// The examples still do what their lesson says.

import Testing
import TestSupport

@Suite struct ExampleTests {
    @Test(.enabled(if: BuiltGuest.firmware("hello") != nil, "no flat guests: run `make firmware`"))
    func measuredLaunch() throws {
        let example = try #require(BuiltProgram.path("example-measured-launch"))
        let (ending, output) = try ChildProcess.run(example, [try #require(BuiltGuest.firmware("hello"))])
        #expect(ending == .exited(0), "\(output)")
        #expect(output.contains("expected launch digest: "), "\(output)")
        #expect(output.contains("PASS"), "\(output)")
    }

    /// Two SNP guests in one process; each with its ASID, and both consoles whole.
    @Test(.enabled(if: BuiltGuest.firmware("hello") != nil, "no flat guests: run `make firmware`"))
    func twoGuests() throws {
        let example = try #require(BuiltProgram.path("example-two-guests"))
        let (ending, output) = try ChildProcess.run(
            example, [try #require(BuiltGuest.firmware("hello")), "snp", "snp"])
        #expect(ending == .exited(0), "\(output)")
        #expect(output.contains("guest 1: SEV-SNP, ASID 1\nguest 2: SEV-SNP, ASID 2\n"), "\(output)")
        for number in 1...2 { #expect(output.contains("guest \(number)| PASS\n"), "\(output)") }
        #expect(output.contains("PASS: two guests, two keys"), "\(output)")
    }

    /// Debian's kernel twice at once, with different protection and another ciphertext of the same page.
    @Test(.enabled(if: BuiltGuest.image != nil, "no default guest: run `make guest`"))
    func twoLinuxGuests() throws {
        let example = try #require(BuiltProgram.path("example-two-guests"))
        let (ending, output) = try ChildProcess.run(
            example, [try #require(BuiltGuest.image), "sev-es", "sev"], timeoutMilliseconds: 240_000)
        #expect(ending == .exited(0), "\(output)")
        #expect(output.contains("guest 1: SEV-ES, ASID 1\nguest 2: SEV, ASID 100\n"), "\(output)")
        for number in 1...2 { #expect(output.contains("guest \(number)| BOOT-OK"), "\(output)") }
        #expect(
            !output.contains("out of the host's reach") && output.contains("PASS: two guests, two keys"), "\(output)")
    }
}
