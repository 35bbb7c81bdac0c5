// The engine against a real processor: `x86-hw-singlestep` holds single instructions with their results.

import TestSupport
import Testing
import X86Core

enum HardwareFile {
    static func bytes(_ name: String) -> [UInt8]? { ForeignVectors.bytes("x86-hw-singlestep/\(name).txt") }
    static let states = bytes("states").map(readStates) ?? []
    static var arePresent: Bool { bytes("states") != nil }

    /// The lines whose comment starts with one of the mnemonics, or with none of them.
    static func select(_ file: [UInt8], _ mnemonics: Set<String>, excluding: Bool = false) -> [UInt8] {
        var out: [UInt8] = []
        for line in lines(file) {
            guard let semicolon = line.firstIndex(of: 0x3b) else { continue }
            let words = line[line.index(after: semicolon)...].split(separator: 0x20)
            let found = words.prefix(2).contains { mnemonics.contains(String(decoding: $0, as: UTF8.self)) }
            if found != excluding { out += line + [0x0a] }
        }
        return out
    }
}

@Suite(.enabled(if: HardwareFile.arePresent, "\(ForeignVectors.absence)"))
struct HardwareVectorTests {
    private func check(_ report: VectorReport) {
        let failures = report.failures.joined(separator: "\n")
        #expect(
            report.passed == report.total, "\(report.total - report.passed) of \(report.total) differ:\n\(failures)")
        #expect(report.total > 0)
    }

    @Test("every instruction of the set", arguments: ["base", "sse2", "v2", "v3", "mmx", "x87", "ud"])
    func file(_ name: String) throws {
        let file = try #require(HardwareFile.bytes(name))
        check(VectorMachine(states: HardwareFile.states).run(file: file, keep: 10))
    }

    /// Where the host's own instructions do floating point, AES and SHA, the engine's own ways are run here.
    @Test("every instruction of the set, computed", arguments: ["sse2", "v2", "v3", "crypto"])
    func computed(_ name: String) throws {
        let file = try #require(HardwareFile.bytes(name))
        let gfni: Set = [
            "gf2p8affineqb", "gf2p8affineinvqb", "gf2p8mulb", "vgf2p8affineqb", "vgf2p8affineinvqb", "vgf2p8mulb",
        ]
        let machine = VectorMachine(states: HardwareFile.states, usesHostArithmetic: false)
        check(machine.run(file: HardwareFile.select(file, gfni, excluding: true), keep: 10))
    }

    /// GFNI is not announced.
    @Test func cryptography() throws {
        let file = try #require(HardwareFile.bytes("crypto"))
        let hidden: Set = [
            "gf2p8affineqb", "gf2p8affineinvqb", "gf2p8mulb", "vgf2p8affineqb", "vgf2p8affineinvqb", "vgf2p8mulb",
        ]
        let chosen = HardwareFile.select(file, hidden, excluding: true)
        check(VectorMachine(states: HardwareFile.states).run(file: chosen, keep: 10))
        let machine = VectorMachine(states: HardwareFile.states)
        machine.everythingIsUndefined = true
        check(machine.run(file: HardwareFile.select(file, hidden), keep: 10))
    }

    /// What CPUID hides is undefined, whatever the bytes mean elsewhere.
    @Test("hidden extensions are #UD", arguments: ["v2", "v3", "crypto"])
    func hidden(_ name: String) throws {
        let file = try #require(HardwareFile.bytes(name))
        let chosen = HardwareFile.select(file, ["popcnt", "cmpxchg16b", "lzcnt", "tzcnt"], excluding: true)
        let machine = VectorMachine(states: HardwareFile.states, features: .baseline)
        machine.everythingIsUndefined = true
        check(machine.run(file: chosen, keep: 10))
    }
}
