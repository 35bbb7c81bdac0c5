// The guest that the suite carries is the one that Firmware/victim/victim.s makes.

import IsolationSuite
import TestSupport
import Testing

@Suite struct VictimProgramTests {
    static let built = readFile(PackageFolder.path + "/Firmware/build/victim.bin")

    @Test(.enabled(if: built != nil, Comment(rawValue: BuiltGuest.absence)))
    func `the embedded bytes are the built ones`() throws {
        #expect(VictimProgram.bytes == (try #require(Self.built)), "run `make -C Firmware victim`")
    }
}

@Suite struct ScenarioListTests {
    @Test func `names and titles are unlike each other`() {
        #expect(Set(Scenario.all.map(\.name)).count == Scenario.all.count)
        #expect(Set(Scenario.all.map(\.title)).count == Scenario.all.count)
        for scenario in Scenario.all { #expect(Scenario.named(scenario.name)?.title == scenario.title) }
        #expect(Scenario.named("no-such-attack") == nil)
    }

    /// AMD's table has these rows about integrity: SEV and SEV-ES stop none of them, SNP stops all.
    @Test func `the promises are those of AMD's table`() {
        let integrity = ["Replay protection", "Data corruption", "Memory aliasing", "Memory re-mapping"]
        for threat in integrity {
            let rows = Scenario.all.filter { $0.threat == threat }
            #expect(!rows.isEmpty, "\(threat)")
            for row in rows {
                #expect(row.promise(.sev).effect == .notStopped && row.promise(.sevES).effect == .notStopped)
                #expect(row.promise(.snp).effect != .notStopped)
            }
        }
        for row in Scenario.all where row.threat == "VM memory" {
            #expect([Subject.sev, .sevES, .snp].allSatisfy { row.promise($0).effect == .stopped }, "\(row.name)")
        }
        for row in Scenario.all {
            #expect(row.promise(.plain).effect == .notStopped)
            for subject in [Subject.sev, .sevES, .snp] {
                #expect(!row.promise(subject).reason.isEmpty && !row.promise(subject).reference.isEmpty)
            }
        }
    }
}
