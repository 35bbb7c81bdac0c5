// The leaves a guest gets and the page they are written to.

import GuestImage
import SEVABI
import TestSupport
import Testing
import X86Defs

struct GuestCPUIDTests {
    private let supported = [
        CPUIDLeaf(function: 0, eax: 13, ebx: 1, ecx: 2, edx: 3),
        CPUIDLeaf(function: 1, eax: 0xa00f11, ebx: 0x7714_0800, ecx: 1 << 24 | 1 << 30, edx: 0x1783_fbff),
        CPUIDLeaf(function: 5),
        CPUIDLeaf(function: 7, isIndexed: true, ebx: .max, ecx: .max, edx: .max),
        CPUIDLeaf(function: 0xd, isIndexed: true, eax: 7, ebx: 0x340, ecx: 0x340),
        CPUIDLeaf(function: 0xd, index: 1, isIndexed: true, eax: 3, ebx: 0x340),
        CPUIDLeaf(function: 0xd, index: 2, isIndexed: true, eax: 0x100, ebx: 0x240),
        CPUIDLeaf(function: 0x4000_0000, eax: 0x4000_0001, ebx: 0x4b4d_564b),
        CPUIDLeaf(function: 0x4000_0001, eax: .max, edx: 1),
        CPUIDLeaf(function: 0x8000_0000, eax: 0x8000_0021),
        CPUIDLeaf(function: 0x8000_0008, eax: 0x3030, ebx: .max, ecx: 0x707f),
        CPUIDLeaf(function: 0x8000_0021, eax: 1, ecx: 5),
        CPUIDLeaf(function: 0xc000_0000, eax: 1),
    ]

    @Test func confidentialGuest() {
        let leaves = GuestCPUID.leaves(supported: supported, technology: .snp)
        func leaf(_ function: UInt32) -> CPUIDLeaf {
            leaves.first { $0.function == function } ?? CPUIDLeaf(function: 0)
        }
        #expect(leaf(1).ecx == 1 << 30 | 1 << 31)
        #expect(leaf(1).ebx == 0x0001_0800 && leaf(1).edx & 1 << 28 == 0)
        #expect(leaf(7).ebx == ~2 && leaf(7).ecx == ~(1 << 16) && leaf(7).edx == 0)
        #expect(leaf(0x4000_0001).eax == 0x0100_000b && leaf(0x4000_0001).edx == 0)
        #expect(leaf(0x8000_0008).ebx == ~(1 << 25) && leaf(0x8000_0008).ecx == 0)
        #expect(leaf(0x8000_0021).ecx == 0)
    }

    /// Cores with one thread each, in every leaf that tells of them; what the host lists of its own is not seen.
    @Test(arguments: [(1, 0), (2, 1), (3, 2), (8, 3), (200, 8)])
    func topology(_ count: UInt32, _ bitCount: UInt32) {
        let host = [
            CPUIDLeaf(function: 1, ebx: 0x7714_0800),
            CPUIDLeaf(function: 0xb, isIndexed: true, ebx: 2, ecx: 0x100, edx: 7),
            CPUIDLeaf(function: 0xb, index: 1, isIndexed: true, eax: 7, ebx: 128, ecx: 0x201, edx: 7),
            CPUIDLeaf(function: 0x1f, isIndexed: true, edx: 7), CPUIDLeaf(function: 0x8000_0008, ecx: 0x707f),
        ]
        let leaves = GuestCPUID.leaves(supported: host, processorCount: Int(count), technology: .snp)
        #expect(leaves.map(\.function) == [1, 0xb, 0xb, 0x8000_0008])
        #expect(leaves.first?.ebx == count << 16 | 0x800)
        #expect(leaves[1] == CPUIDLeaf(function: 0xb, isIndexed: true, ebx: 1, ecx: 0x100))
        #expect(
            leaves[2]
                == CPUIDLeaf(function: 0xb, index: 1, isIndexed: true, eax: bitCount, ebx: count, ecx: 0x201))
        #expect(leaves.last?.ecx == bitCount << 12 | (count - 1))
    }

    @Test func plainGuestKeepsMore() {
        let leaves = GuestCPUID.leaves(supported: supported, processorCount: 2, technology: nil)
        #expect(leaves[1].ecx == 1 << 24 | 1 << 30 | 1 << 31)
        #expect(leaves[1].ebx == 0x0002_0800 && leaves[1].edx & 1 << 28 != 0)
        #expect(leaves[3].edx == .max && leaves[3].ecx == ~(1 << 16))
    }

    /// The guest sees what it has; the host's counts stay with the host.
    @Test(arguments: [
        (GuestTechnology.snp, 0x0100_1c5f as UInt32, 0x0000_4173 as UInt32, 509 as UInt32), (.sevES, 0x40a, 0x173, 0),
        (.sev, 0x402, 0x173, 0),
    ])
    func sevLeaf(_ technology: GuestTechnology, _ eax: UInt32, _ ebx: UInt32, _ ecx: UInt32) {
        let leaf = CPUIDLeaf(function: 0x8000_001f, eax: 0x0100_1c5f, ebx: 0x4173, ecx: 509, edx: 100)
        let leaves = GuestCPUID.leaves(supported: [leaf], technology: technology)
        #expect(leaves.map(\.eax) == [eax] && leaves.map(\.ebx) == [ebx] && leaves.map(\.ecx) == [ecx])
        #expect(leaves.map(\.edx) == [technology == .snp ? 100 : 0])
        #expect(GuestCPUID.leaves(supported: [leaf], technology: nil).isEmpty)
    }

    @Test func page() throws {
        let bytes = try GuestCPUID.page(of: supported).bytes
        // Leaf 5 is all zero, 0xC0000000 in no range.
        #expect(bytes.number(0, width: 4) == 11)
        let functions = (0..<11).map { UInt32(bytes.number(16 + 48 * $0, width: 4)) }
        #expect(
            functions == [0, 1, 7, 0xd, 0xd, 0xd] + [0x4000_0000, 0x4000_0001, 0x8000_0000, 0x8000_0008, 0x8000_0021])
        // The save area as it is with XCR0 = 1.
        #expect(
            Array(bytes[(16 + 48 * 4)..<(16 + 48 * 5)]).hex
                == "0d000000" + "01000000" + "0100000000000000" + "0000000000000000" + "03000000" + "40020000"
                + "00000000"
                + "00000000" + "0000000000000000")
        #expect(bytes.number(16 + 48 * 5 + 8, width: 8) == 0)
        #expect(bytes.number(16 + 48 * 5 + 28, width: 4) == 0x240)
    }

    @Test func tooManyLeaves() throws {
        let many = (0..<65).map { CPUIDLeaf(function: 0x8000_0000 + $0, eax: 1) }
        let error = #expect(throws: ImageError.self) { try GuestCPUID.page(of: many) }
        #expect(error?.category == .badInput)
        _ = try GuestCPUID.page(of: Array(many.dropLast()))
        #expect(throws: ImageError.self) {
            try DirectBoot.plan(
                BootPayload(kernel: LinuxKernel(SyntheticImages.bzImage())),
                on: MachineDescription(memoryByteCount: 64 << 20, cpuid: many))
        }
    }
}
