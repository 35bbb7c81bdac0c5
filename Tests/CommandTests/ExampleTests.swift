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
}
