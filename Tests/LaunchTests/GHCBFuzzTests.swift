// Garbage in every field of the GHCB and its MSR: whatever the guest writes, the kernel answers with a step, never a
// trap, and the VMM can always go on.

import KVMABI
import SEVABI
import SoftwareKVM
import Testing
import TestSupport

@Suite struct GHCBFuzzTests {
    private static let fields: [GHCB.Field] = [
        .cpl, .xss, .rax, .rcx, .rdx, .rbx, .rsi, .exitCode, .exitInfo1, .exitInfo2, .scratch, .xcr0,
    ]
    private static let codes: [UInt64] = [
        0x27, 0x37, 0x6e, 0x6f, 0x72, 0x76, 0x7b, 0x7c, 0x81, 0x87, 0x89, 0x8a, 0x8b, 0x8000_0001, 0x8000_0002,
        0x8000_0003, 0x8000_0004, 0x8000_0005, 0x8000_0010, 0x8000_0011, 0x8000_0012, 0x8000_0013, 0x8000_0018,
        0x8000_fffd, 0x8000_fffe, 0x8000_ffff, 0, .max,
    ]

    /// Values that lean to the edges.
    private func value(_ random: inout SeededGenerator) -> UInt64 {
        let anything = random.next()
        switch anything & 7 {
        case 0: return 0
        case 1: return .max
        case 2: return 1 << (anything >> 8 & 63)
        case 3: return (1 << (anything >> 8 & 63)) &- 1
        case 4: return 0x1800 &+ (anything >> 8 & 0x7ff)
        case 5: return anything >> 8 & 0xffff
        case 6: return anything >> 8 & 0xff
        default: return random.next()
        }
    }

    @Test(arguments: [1, 2, 3, 4] as [UInt64])
    func anyFields(seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        let guest = try GHCBGuest()
        for _ in 0..<3000 {
            var ghcb = GHCB()
            for field in Self.fields where random.next() & 7 != 0 { ghcb[field] = value(&random) }
            if random.next() & 15 != 0 { ghcb[.exitCode] = Self.codes[Int(random.next() % UInt64(Self.codes.count))] }
            if random.next() & 1 == 0 { ghcb[.scratch] = 0x1800 &+ (random.next() & 0x7f8) }
            if random.next() & 63 == 0 { ghcb.usage = UInt32(truncatingIfNeeded: value(&random)) }
            if random.next() & 1 == 0 {
                ghcb[0x800..<0x880] = (0..<16).flatMap { _ in value(&random).kernelBytes }
            }
            var step = guest.vmgexit(ghcb)
            // The VMM answers, with garbage too.
            var answers = 0
            while case .exit = step, answers < 40 {
                guest.runPage.hypercallResult = random.next() & 3 == 0 ? value(&random) : 0
                guest.runPage.mmioData = value(&random)
                step = guest.vcpu.complete()
                answers += 1
            }
            guest.vcpu.completion = .none
        }
    }

    @Test(arguments: [11, 12] as [UInt64])
    func anyPage(seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        let guest = try GHCBGuest()
        for _ in 0..<500 {
            var bytes = (0..<512).flatMap { _ in random.next().kernelBytes }
            // Usage 0, so that the rest is looked at.
            bytes.replaceSubrange(0xffc..<0x1000, with: [0, 0, 0, 0])
            _ = guest.vmgexit(try #require(GHCB(bytes: bytes)))
            _ = guest.vcpu.complete()
            guest.vcpu.completion = .none
        }
    }

    @Test func anyMSRValue() throws {
        var random = SeededGenerator(seed: 21)
        let guest = try GHCBGuest()
        for _ in 0..<5000 {
            let code =
                random.next() & 1 == 0
                ? random.next() & 0xfff : [2, 4, 6, 0x10, 0x12, 0x14, 0x16, 0x80, 0x100][Int(random.next() % 9)]
            _ = guest.vcpu.performVMGEXIT(ghcbMSR: value(&random) & ~0xfff | code)
            _ = guest.vcpu.complete()
        }
    }

    @Test func anyIoctlBytes() throws {
        var random = SeededGenerator(seed: 31)
        let vm = try TestVM(readyForLaunch: true)
        let requests = IoctlRequest.named.filter { $0 != .run && $0 != .createVM && $0 != .createVCPU }
            .sorted { $0.rawValue < $1.rawValue }
        for round in 0..<4000 {
            let request = requests[Int(random.next() % UInt64(requests.count))]
            let handle = [vm.kvm, vm.vm, vm.vcpu, vm.sev, vm.memfd][Int(random.next() % 5)]
            let count = Int(random.next() % 5000)
            var bytes = (0..<count).map { _ in UInt8(truncatingIfNeeded: random.next() & random.next()) }
            if round & 1 == 0 {
                // Mostly zero: passes more checks.
                for index in bytes.indices where random.next() & 7 != 0 { bytes[index] = 0 }
            }
            _ = errno { try vm.kernel.call(handle, request, bytes: &bytes) }
            _ = errno { try vm.kernel.call(handle, request, value: value(&random)) }
        }
    }
}
