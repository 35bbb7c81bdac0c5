// Launch digests against vectors that another tool made.

import GuestImage
import LaunchMeasurement
import SEVABI
import TestSupport
import Testing
import X86Defs

@Suite(.enabled(if: LaunchVectors.arePresent, "\(ForeignVectors.absence)"))
struct LaunchDigestVectorTests {
    @Test(arguments: LaunchVectors.withKeptFirmware)
    func keptFirmware(_ vector: LaunchVector) throws { try check(vector) }

    @Test(
        .enabled(
            if: LaunchVectors.debianFirmware != nil, "Debian's package ovmf (the vectors' version) is not installed"),
        arguments: LaunchVectors.withDebianFirmware)
    func debianFirmware(_ vector: LaunchVector) throws { try check(vector) }

    private func check(_ vector: LaunchVector) throws {
        if vector.expect_error == true {
            #expect(throws: ImageError.self) { try vector.plan() }
            return
        }
        let plan = try vector.plan()
        let measured = MeasuredLaunch(of: plan)
        let total = vector.mode == "snp:ovmf-hash" ? measured.steps[0].digestText : measured.digestText
        #expect(total == vector.digest)
        if let firmware = vector.ovmf_hash { #expect(measured.steps[0].digestText == firmware) }

        if let steps = vector.steps {
            #expect(measured.steps.count == steps.count)
            for (got, wanted) in zip(measured.steps, steps) {
                #expect(got.label == wanted.step)
                #expect("0x" + String(got.gpa, radix: 16) == wanted.gpa)
                #expect(got.pageCount == wanted.pages)
                #expect(got.digestText == wanted.ld)
            }
        }
        if let hashes = vector.vmsa_sha384 {
            let states = measured.steps.filter { $0.pageType == .vmsa }
            #expect(states.map { $0.contentsDigest?.description } == hashes)
        }
        if let table = vector.hashes_table,
            let gpa = vector.hashes_table_gpa.flatMap({ UInt64($0.dropFirst(2), radix: 16) })
        {
            let region = try #require(
                plan.regions.first { $0.label == "SNP_KERNEL_HASHES" || $0.label == "kernel hashes" })
            let start = Int(gpa - region.gpa)
            #expect(Array(region.contents[start..<(start + KernelHashesTable.byteCount)]).hex == table)
        }
    }

    @Test(
        .enabled(
            if: LaunchVectors.debianFirmware != nil, "Debian's package ovmf (the vectors' version) is not installed"),
        arguments: LaunchVectors.withDebianFirmware.filter { $0.vmsa_dump != nil })
    func stateDumpsWithDebianFirmware(_ vector: LaunchVector) throws { try checkDumps(vector) }

    @Test(arguments: LaunchVectors.withKeptFirmware.filter { $0.vmsa_dump != nil })
    func stateDumps(_ vector: LaunchVector) throws { try checkDumps(vector) }

    private func checkDumps(_ vector: LaunchVector) throws {
        let plan = try vector.plan()
        let id = try #require(vector.id)
        for (index, name) in ["bsp", "ap"].enumerated() {
            let dump = try #require(ForeignVectors.bytes("launch-digest/vmsa/\(id)-\(name).bin"))
            let state = SealedState(of: plan.processors[index], guestFeatures: plan.guestFeatures)
            #expect(hexDifference(Array(state.page.prefix(dump.count)), dump) == nil)
            #expect(state.page.dropFirst(dump.count).allSatisfy { $0 == 0 })
        }
    }

    @Test func everyCaseIsThere() {
        let all = LaunchVectors.withKeptFirmware + LaunchVectors.withDebianFirmware
        for (technology, own, upstream) in [(GuestTechnology.snp, 12, 8), (.sevES, 2, 1), (.sev, 2, 2)] {
            let cases = all.filter { $0.technology == technology }
            #expect(cases.filter { $0.id != nil }.count == own, "\(technology)")
            #expect(cases.filter { $0.id == nil }.count == upstream, "\(technology)")
        }
        #expect(all.contains { $0.expect_error == true })
    }
}
