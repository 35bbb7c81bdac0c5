// The digest's own rules: order, types, addresses, and known answers of our own arithmetic.

import Crypto
import GuestImage
import LaunchMeasurement
import SEVABI
import TestSupport
import Testing
import X86Defs

struct RunningLaunchDigestTests {
    private func digest(_ regions: [LaunchPlan.Region]) -> LaunchDigest {
        MeasuredLaunch(of: LaunchPlan(regions: regions, processors: [])).digest
    }

    private func region(_ type: PageType, _ gpa: UInt64, _ contents: [UInt8] = [], pages: UInt64 = 1)
        -> LaunchPlan.Region
    {
        LaunchPlan.Region(label: "", pageType: type, gpa: gpa, byteCount: pages << 12, contents: contents)
    }

    @Test func startsAsZero() {
        #expect(RunningLaunchDigest().digest == LaunchDigest())
        #expect(digest([]) == LaunchDigest())
    }

    /// PAGE_INFO spelled out byte by byte [SNP 8.17.2].
    @Test func pageInfo() {
        let contents = [UInt8](repeating: 0x5a, count: 4096)
        let hash = SHA384.hash(contents)
        var info: [UInt8] = []
        info += [UInt8](repeating: 0, count: 48)
        info += (0..<48).map { hash[$0] }
        info += [0x70, 0x00, 1, 0, 0, 0, 0, 0]
        info += [0x00, 0x30, 0x12, 0, 0, 0, 0, 0]
        #expect(info.count == 0x70)
        let expected = SHA384.hash(info)
        #expect(digest([region(.normal, 0x123000, contents)]) == LaunchDigest(expected))
    }

    @Test(arguments: [PageType.zero, .unmeasured, .secrets, .cpuid])
    func contentsOfOtherTypesDoNotCount(_ type: PageType) {
        let one = region(type, 0x1000, [UInt8](repeating: 1, count: 4096))
        let two = region(type, 0x1000, [UInt8](repeating: 2, count: 4096))
        #expect(digest([one]) == digest([two]))
        #expect(digest([one]) != digest([region(type, 0x2000)]))
    }

    @Test func aRunIsItsPagesInOrder() {
        var generator = SeededGenerator(seed: 7)
        let contents = generator.bytes(3 * 4096)
        let pages = (0..<3).map {
            region(.normal, 0x10000 + UInt64($0) << 12, Array(contents[($0 * 4096)..<($0 * 4096 + 4096)]))
        }
        #expect(digest([region(.normal, 0x10000, contents, pages: 3)]) == digest(pages))
        #expect(digest(pages) != digest(pages.reversed()))
        #expect(digest([region(.zero, 0, pages: 512)]) == digest((0..<512).map { region(.zero, UInt64($0) << 12) }))
    }

    /// A NORMAL page between two ZERO runs leaves no trace in the CONTENTS field.
    @Test func contentsFieldIsClearedBetweenTypes() {
        let normal = region(.normal, 0x1000, [UInt8](repeating: 9, count: 4096))
        var first = RunningLaunchDigest()
        first.extend(normal)
        let before = first.digest
        first.extend(region(.zero, 0x2000))
        var info = (0..<48).map { before.bytes[$0] } + [UInt8](repeating: 0, count: 48)
        info += [0x70, 0x00, 3, 0, 0, 0, 0, 0, 0x00, 0x20, 0, 0, 0, 0, 0, 0]
        #expect(first.digest == LaunchDigest(SHA384.hash(info)))
    }

    @Test func everyRegisterCounts() {
        let base = SealedState(of: ProcessorState(), guestFeatures: 1).page
        func changed(_ change: (inout ProcessorState) -> Void) -> [UInt8] {
            var state = ProcessorState()
            change(&state)
            return SealedState(of: state, guestFeatures: 1).page
        }
        func offsets(_ page: [UInt8]) -> [Int] { base.indices.filter { base[$0] != page[$0] } }
        // Offsets of [APM2 B.4].
        #expect(offsets(changed { $0.rip = 0x1234_5678_9abc_0ff0 }).first == 0x179)
        #expect(offsets(changed { $0.cr3 = 1 }) == [0x150])
        #expect(offsets(changed { $0.efer = 0x500 }) == [0xd1])
        #expect(offsets(changed { $0.cr4 = 0x20 }) == [0x148])
        #expect(offsets(changed { $0.tscAux = 1 }) == [0x2ec])
        #expect(offsets(changed { $0.pkru = 1 }) == [0x2e8])
        #expect(offsets(changed { $0.xcr0 = 3 }) == [0x3e8])
        #expect(offsets(changed { $0.xss = 1 }) == [0x140])
        #expect(offsets(changed { $0.xmm[31] = 1 }) == [0x470 + 248])
        #expect(offsets(changed { $0.ss.attributes = 0xf2 }) == [0x22, 0xcb])
        let general = [
            0x1f8, 0x308, 0x310, 0x318, 0x1d8, 0x328, 0x330, 0x338, 0x340, 0x348, 0x350, 0x358, 0x360, 0x368, 0x370,
            0x378,
        ]
        for (register, offset) in general.enumerated() {
            #expect(offsets(changed { $0.generalRegisters[register] = 0xff }) == [offset])
        }
        #expect(base[0xd1] == 0x10 && base[0x148] == 0x40)
        #expect(SealedState(of: ProcessorState(), guestFeatures: 0x21).page[0x3b0] == 0x21)
    }

    /// Two writers of the same table, made apart: this module's and SEVABI's.
    @Test func agreesWithTheOtherWriter() {
        var generator = SeededGenerator(seed: 0x5ea1)
        for _ in 0..<50 {
            var state = ProcessorState()
            for register in 0..<16 { state.generalRegisters[register] = generator.next() }
            for half in 0..<32 { state.xmm[half] = generator.next() }
            for register in 0..<8 {
                state.x87Significand[register] = generator.next()
                state.x87Exponent[register] = generator.edge()
            }
            let segments: [WritableKeyPath<ProcessorState, SegmentRegister>] = [
                \.cs, \.ds, \.es, \.fs, \.gs, \.ss, \.ldtr, \.tr,
            ]
            for segment in segments {
                state[keyPath: segment] = SegmentRegister(
                    selector: generator.edge(), attributes: generator.edge() & 0xfff, limit: generator.edge(),
                    base: generator.edge())
            }
            let quadwords: [WritableKeyPath<ProcessorState, UInt64>] = [
                \.rip, \.rflags, \.cr0, \.cr2, \.cr3, \.cr4, \.efer, \.xcr0, \.xss, \.dr0, \.dr1, \.dr2, \.dr3, \.dr6,
                \.dr7,
                \.star, \.lstar, \.cstar, \.sfmask, \.kernelGSBase, \.sysenterCS, \.sysenterESP, \.sysenterEIP, \.pat,
                \.fip, \.fdp,
            ]
            for field in quadwords { state[keyPath: field] = generator.edge() }
            state.tscAux = UInt64(generator.edge(UInt32.self))
            state.pkru = generator.edge()
            state.mxcsr = generator.edge()
            state.fcw = generator.edge()
            state.fsw = generator.edge()
            state.fop = generator.edge()
            state.ftw = generator.edge()
            state.gdtr = DescriptorTableRegister(base: generator.next(), limit: generator.edge())
            state.idtr = DescriptorTableRegister(base: generator.next(), limit: generator.edge())
            state.efer |= SealedState.addedEFER
            state.cr4 |= SealedState.addedCR4
            let features: UInt64 = generator.edge()
            let other = VMSA(processor: state, sevFeatures: features).page
            #expect(hexDifference(SealedState(of: state, guestFeatures: features).page, other) == nil)
        }
    }
}
