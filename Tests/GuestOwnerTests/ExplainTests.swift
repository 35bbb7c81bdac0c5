// Two launches that should have had one digest: where they differ is said by name.

import Attestation
import GuestImage
import GuestOwner
import LaunchMeasurement
import SEVABI
import TestSupport
import Testing
import X86Defs

@Suite struct ExplainTests {
    static func plan(_ change: (inout LaunchPlan) -> Void = { _ in }) -> LaunchPlan {
        var boot = ProcessorState()
        boot.rip = 0xfff0
        boot.generalRegisters[2] = UInt64(ProcessorSignature.epycV4.rawValue)
        var text = Array("console=ttyS0".utf8)
        text += [UInt8](repeating: 0, count: 4096 - text.count)
        var plan = LaunchPlan(
            regions: [
                .init(
                    label: "firmware", pageType: .normal, gpa: 0xffff_0000, byteCount: 0x4000,
                    contents: (0..<0x4000).map { UInt8(truncatingIfNeeded: $0 >> 4) }),
                .init(label: "command line", pageType: .normal, gpa: 0xa000, byteCount: 4096, contents: text),
                .init(label: "RAM", pageType: .zero, gpa: 0x10000, byteCount: 0x8000),
                .init(label: "secrets page", pageType: .secrets, gpa: 0xd000, byteCount: 4096),
            ], processors: [boot, boot, boot])
        change(&plan)
        return plan
    }

    static func record(_ change: (inout LaunchPlan) -> Void = { _ in }) -> LaunchRecord {
        LaunchRecord(plan(change), name: "a plan")
    }

    private func differences(_ change: (inout LaunchPlan) -> Void) -> [LaunchDifference] {
        Self.record().differences(from: Self.record(change))
    }

    @Test func theSameLaunch() {
        #expect(differences { _ in }.isEmpty)
        #expect(Self.record().launchDigest == MeasuredLaunch(of: Self.plan()).digestText)
    }

    @Test func everyDifferenceIsNamed() throws {
        func one(_ change: (inout LaunchPlan) -> Void) throws -> LaunchDifference {
            let found = differences(change)
            #expect(found.count == 1, "\(found)")
            return try #require(found.first)
        }
        let contents = try one {
            $0.regions[0].contents[0x2123] ^= 0xff
            $0.regions[0].contents[0x3000] ^= 0xff
        }
        #expect(contents.place == "0xffff2000 and 1 more pages (firmware), contents from byte 0x123")
        #expect(contents.a.hasPrefix("12") && contents.b.hasPrefix("ed") && contents.isMeasured)
        let text = try one { $0.regions[1].contents[0] = 0x43 }
        #expect(text.note == #""console=ttyS0" and "Console=ttyS0""#)
        let type = try one { $0.regions[2].pageType = .unmeasured }
        #expect(type.place == "0x10000 and 7 more (RAM), type" && type.a == "ZERO" && type.b == "UNMEASURED")
        let fewer = try one { $0.regions[2].byteCount = 0x6000 }
        #expect(fewer.place == "0x16000 and 1 more (RAM)" && fewer.b == "not launched")
        let more = try one {
            $0.regions.append(.init(label: "extra", pageType: .zero, gpa: 0x40000, byteCount: 4096))
        }
        #expect(more.place == "0x40000 (extra)" && more.a == "not launched" && more.b == "ZERO, extra")
        let order = try one { $0.regions.swapAt(2, 3) }
        #expect(order.subject == "launch order" && order.a == "RAM at 0x10000" && order.b == "secrets page at 0xd000")
        let count = try one { $0.processors.removeLast() }
        #expect(count.subject == "vCPU count" && count.a == "3" && count.b == "2")
        let register = try one { $0.processors[1].rip = 0x1000 }
        #expect(register.place == "vCPU 1, RIP" && register.a == "0xfff0" && register.b == "0x1000")
        let signature = try one { plan in
            for index in 0..<3 { plan.processors[index].generalRegisters[2] = 0xa0_0f11 }
        }
        #expect(signature.note == "the CPU signature: EPYC and EPYC-Milan; the same in the next 2 vCPUs")
        let features = try one { $0.guestFeatures = 0x21 }
        #expect(features.place == "vCPU 0, SEV_FEATURES")
        #expect(features.note == "debug swap (bit 5) on one side only; the same in the next 2 vCPUs")
        let policy = try one { $0.policy = 0xb0000 }
        #expect(!policy.isMeasured && policy.note?.hasPrefix("DEBUG (bit 19)") == true)
    }

    /// A region in two pieces is the same memory in the same order.
    @Test func bordersDoNotMatter() {
        let found = differences { plan in
            var second = plan.regions[2]
            second.gpa += 0x3000
            second.byteCount -= 0x3000
            plan.regions[2].byteCount = 0x3000
            plan.regions.insert(second, at: 3)
        }
        #expect(found.isEmpty, "\(found)")
    }

    @Test func kernelHashesAreNamed() {
        func record(_ files: HashedKernel) -> LaunchRecord {
            Self.record { plan in
                var page = [UInt8](repeating: 0, count: 4096)
                page.replaceSubrange(0x400..<(0x400 + 176), with: KernelHashesTable(of: files).bytes)
                plan.regions[0] = .init(
                    label: "hashes", pageType: .normal, gpa: 0x80_0000, byteCount: 4096, contents: page)
            }
        }
        let a = record(HashedKernel(kernel: [1], initrd: [2], commandLine: [3]))
        let b = record(HashedKernel(kernel: [1], initrd: [3], commandLine: [4]))
        #expect(a.differences(from: b).map(\.note) == ["the hashes of initrd, command line"])
    }

    // MARK: Logs and saved plans

    static func log(_ plan: LaunchPlan, pages: Bool = true) -> [UInt8] {
        var lines = [
            #"{"sequence":1,"request":"open","arguments":{"node":"/dev/kvm"},"result":3,"nanoseconds":1}"#,
            #"{"sequence":2,"request":"KVM_SEV_SNP_LAUNCH_START","handle":5,"arguments":{"policy":"0x30000"},"result":0}"#,
        ]
        for (region, step) in zip(plan.regions, MeasuredLaunch(of: plan).steps) {
            let digests =
                pages && region.pageType == .normal
                ? #","pageDigests":"\#(PageDigests.text(PageDigests.of(region.contents)))""# : ""
            lines.append(
                #"{"sequence":3,"request":"KVM_SEV_SNP_LAUNCH_UPDATE","arguments":{"gfn":"0x\#(String(region.gpa >> 12, radix: 16))","#
                    + #""byteCount":\#(region.byteCount),"pageType":"\#(region.pageType)"},"bytesLeft":0,"#
                    + #""launchDigest":"\#(step.digestText)"\#(digests)}"#)
        }
        let states = plan.processors.map { "\"\(SealedState(of: $0, guestFeatures: plan.guestFeatures).digits)\"" }
        lines.append(
            #"{"sequence":9,"request":"KVM_SEV_SNP_LAUNCH_FINISH","arguments":{"hostData":"00"},"result":0,"#
                + #""launchDigest":"\#(MeasuredLaunch(of: plan).digestText)","vmsas":[\#(states.joined(separator: ","))]}"#
        )
        return Array(lines.joined(separator: "\n").utf8)
    }

    @Test func logsAreCompared() throws {
        let plan = Self.record()
        let text = Self.log(Self.plan())
        #expect(LaunchRecord.textForm(text) == .launchLog)
        let log = try LaunchRecord(log: text, name: "log")
        #expect(log.launchDigest == plan.launchDigest && log.technology == .snp && log.hostData == "00")
        #expect(plan.differences(from: log).isEmpty && log.differences(from: plan).isEmpty)
        let changed = try LaunchRecord(
            log: Self.log(
                Self.plan {
                    $0.regions[0].contents[0x1001] ^= 1
                    $0.processors[2].rip = 1
                }), name: "log")
        #expect(
            plan.differences(from: changed).map(\.place) == [
                "0xffff1000 (firmware), SHA-384 of the contents", "vCPU 2, RIP",
            ])
        // A log without page digests still tells the region.
        let old = try LaunchRecord(
            log: Self.log(Self.plan { $0.regions[0].contents[0x1001] ^= 1 }, pages: false), name: "log")
        let found = plan.differences(from: old)
        #expect(found.map(\.place) == ["0xffff0000 to 0xffff4000 (firmware), digest behind them"], "\(found)")
    }

    @Test func textsThatAreNone() throws {
        for text in [
            "", "{}", #"{"sequence":1,"request":"open"}"#, "\u{0}",
            #"{"sequence":1,"request":"KVM_SEV_SNP_LAUNCH_UPDATE"}"#,
            #"{"sequence":1,"request":"KVM_SEV_X","#,
        ] {
            #expect(refusalOf { try LaunchRecord(log: Array(text.utf8), name: "x") }?.category == .malformed, "\(text)")
        }
        for text in ["", "{}", #"{"launchDigest":"00","technology":"snp","steps":[{}]}"#, #"{"launchDigest":"00"}"#] {
            #expect(refusalOf { try LaunchRecord(savedPlan: Array(text.utf8), name: "x") }?.category == .malformed)
        }
        #expect(LaunchRecord.textForm(Array("MZ".utf8)) == nil)
    }

    private func refusalOf(_ body: () throws -> LaunchRecord) -> AttestationError? {
        do {
            _ = try body()
            return nil
        } catch { return error as? AttestationError }
    }

    // MARK: Search

    private func search(_ target: LaunchRecord, free: Bool = true) throws -> (changes: [String]?, tried: Int) {
        var search = try #require(DigestSearch(target: target))
        let variant = DigestSearch.Variant(change: "", hasFreeProcessorCount: free, record: Self.record())
        return (search.changes(in: variant), search.triedCount)
    }

    @Test func changesAreFound() throws {
        #expect(try search(Self.record()).changes == [])
        #expect(try search(Self.record { $0.processors += [$0.processors[1]] }).changes == ["4 vCPUs instead of 3"])
        #expect(try search(Self.record { $0.processors.removeLast(2) }).changes == ["1 vCPUs instead of 3"])
        #expect(
            try search(
                Self.record { plan in
                    plan.guestFeatures = 0x21
                    for index in 0..<3 { plan.processors[index].generalRegisters[2] = 0xa1_0f10 }
                }
            ).changes == [
                "CPU signature 0xa10f10 (EPYC-Genoa) instead of 0x800f12", "with SEV_FEATURES bit 5, debug swap",
            ])
        #expect(try search(Self.record { $0.processors.removeLast() }, free: false).changes == nil)
        let none = try search(Self.record { $0.regions[0].contents[0] ^= 1 })
        #expect(none.changes == nil && none.tried > 10_000)
    }

    @Test func onlyDigestsAreSearchedFor() {
        var text = Self.log(Self.plan())
        text.removeLast(2)
        #expect(throws: AttestationError.self) { try LaunchRecord(log: text, name: "cut off") }
        var record = Self.record()
        record.launchDigest = "00"
        #expect(DigestSearch(target: record) == nil)
    }
}
