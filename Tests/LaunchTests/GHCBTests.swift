// The GHCB protocol as KVM speaks it [GHCB 2.3, 4]: MSR protocol, events, malformed input.

import KVMABI
import SEVABI
import SoftwareKVM
import Testing

@Suite struct GHCBTests {
    private static let pageStateError: UInt64 = 1 << 63 | 0x015

    // MARK: MSR protocol

    @Test func informationRequest() throws {
        let guest = try GHCBGuest(registersGHCB: false)
        #expect(guest.vcpu.performVMGEXIT(ghcbMSR: 0x002) == .resume)
        #expect(guest.vcpu.currentGHCBMSR == 0x0002_0001_3300_0001)
    }

    @Test func cpuidRequest() throws {
        let guest = try GHCBGuest(registersGHCB: false)
        #expect(guest.vcpu.performVMGEXIT(ghcbMSR: 0x8000_001f << 32 | 1 << 30 | 0x004) == .resume)
        #expect(guest.vcpu.currentGHCBMSR == 0x73 << 32 | 1 << 30 | 0x005)
        // A leaf that nobody has set.
        #expect(guest.vcpu.performVMGEXIT(ghcbMSR: 0x1234 << 32 | 0x004) == .resume)
        #expect(guest.vcpu.currentGHCBMSR == 0x005)
    }

    @Test func registration() throws {
        let guest = try GHCBGuest(registersGHCB: false)
        #expect(guest.vcpu.performVMGEXIT(ghcbMSR: 0x010) == .resume)
        #expect(guest.vcpu.currentGHCBMSR == 0xffff_ffff_ffff_f011)
        #expect(guest.event(.wbinvd) == .fail(.EINVAL))
        #expect(guest.vcpu.performVMGEXIT(ghcbMSR: 0x1012) == .resume)
        #expect(guest.vcpu.currentGHCBMSR == 0x1013)
        #expect(guest.event(.wbinvd) == .resume)
        // None at all, and one where no memory is.
        #expect(guest.vcpu.performVMGEXIT(ghcbMSR: 0) == .resume)
        #expect(guest.vcpu.performVMGEXIT(ghcbMSR: 0x7000_0000_0000) == .resume)
    }

    @Test func featuresAndTermination() throws {
        let guest = try GHCBGuest()
        #expect(guest.vcpu.performVMGEXIT(ghcbMSR: 0x080) == .resume)
        #expect(guest.vcpu.currentGHCBMSR == 0x3081)
        #expect(guest.event(.hypervisorFeatures) == .resume)
        #expect(guest.ghcb[.exitInfo2] == 3)
        let request: UInt64 = 0x02_1100
        #expect(guest.vcpu.performVMGEXIT(ghcbMSR: request) == .exit(.systemEvent))
        #expect(guest.runPage.systemEvent == RunPage.SystemEvent(type: .sevTermination, data: [request]))
        #expect(guest.event(.termination, info1: 0x20) == .exit(.systemEvent))
        #expect(guest.runPage.systemEvent.data == [GHCBGuest.ghcbGPA])
    }

    @Test func unknownCodesLeaveTheMSR() throws {
        let guest = try GHCBGuest()
        for code: UInt64 in [0x003, 0x016, 0x7ff, 0xfff] {
            #expect(guest.vcpu.performVMGEXIT(ghcbMSR: 0xabcd_0000 | code) == .resume)
            #expect(guest.vcpu.currentGHCBMSR == 0xabcd_0000 | code)
        }
    }

    @Test func pageStateChangeByMSR() throws {
        let guest = try GHCBGuest()
        #expect(guest.vcpu.performVMGEXIT(ghcbMSR: 2 << 52 | 0x5000 | 0x014) == .exit(.hypercall))
        let call = guest.runPage.hypercall
        #expect(call.number == 12)
        #expect(call.arguments[0] == 0x5000)
        #expect(call.arguments[1] == 1)
        #expect(call.arguments[2] == 0)
        #expect(guest.vcpu.complete() == .resume)
        #expect(guest.vcpu.currentGHCBMSR == 0x015)
        #expect(guest.vcpu.performVMGEXIT(ghcbMSR: 1 << 52 | 0x5000 | 0x014) == .exit(.hypercall))
        #expect(guest.runPage.hypercall.arguments[2] == 0x10)
        guest.runPage.hypercallResult = 1
        #expect(guest.vcpu.complete() == .resume)
        #expect(guest.vcpu.currentGHCBMSR == Self.pageStateError)
        // An operation that does not exist.
        #expect(guest.vcpu.performVMGEXIT(ghcbMSR: 3 << 52 | 0x5000 | 0x014) == .resume)
        #expect(guest.vcpu.currentGHCBMSR == Self.pageStateError)
    }

    @Test func pageStateChangeNeedsTheHypercallExit() throws {
        let guest = try GHCBGuest(hypercallExits: false)
        #expect(guest.vcpu.performVMGEXIT(ghcbMSR: 2 << 52 | 0x5000 | 0x014) == .resume)
        #expect(guest.vcpu.currentGHCBMSR == Self.pageStateError)
        let step = guest.event(.pageStateChange) { $0[.scratch] = GHCBGuest.ghcbGPA + 0x800 }
        #expect(step == .resume)
        #expect(guest.ghcb[.exitInfo2] == 0x100_0000_0000)
    }

    // MARK: Malformed input

    private func expectRefusal(_ guest: GHCBGuest, _ ghcb: GHCB, _ reason: GHCBMalformedInput) {
        #expect(guest.vmgexit(ghcb) == .resume)
        #expect(guest.ghcb[.exitInfo1] == 2)
        #expect(guest.ghcb[.exitInfo2] == reason.rawValue)
    }

    @Test func malformedInput() throws {
        let guest = try GHCBGuest()
        var ghcb = GHCB()
        expectRefusal(guest, ghcb, .missingInput)
        ghcb[.exitCode] = 0x72
        ghcb[.exitInfo1] = 0
        expectRefusal(guest, ghcb, .missingInput)
        ghcb[.exitInfo2] = 0
        expectRefusal(guest, ghcb, .missingInput)
        ghcb[.rax] = 0xd
        ghcb[.rcx] = 0
        expectRefusal(guest, ghcb, .missingInput)
        ghcb[.xcr0] = 1
        #expect(guest.vmgexit(ghcb) == .resume)
        #expect(guest.ghcb[.exitInfo1] == 0)
        ghcb.usage = 1
        expectRefusal(guest, ghcb, .invalidUsage)
        for code: UInt64 in [0, 0x400, 0x8000_0018, 0x8000_001a, .max] {
            var unknown = GHCB()
            unknown[.exitCode] = code
            unknown[.exitInfo1] = 0
            unknown[.exitInfo2] = 0
            expectRefusal(guest, unknown, .invalidEvent)
        }
        #expect(guest.event(.unsupported) == .fail(.EINVAL))
        // The scratch area: missing, before and behind the shared buffer, too long elsewhere.
        for (scratch, length): (UInt64, UInt64) in [
            (0, 4), (0x1400, 4), (0x1ff0, 1), (0x1fec, 8), (.max, 4), (0x9000, 0x1_0001), (0x9000, .max),
        ] {
            #expect(guest.event(.mmioRead, info1: 0xd000_0000, info2: length) { $0[.scratch] = scratch } == .resume)
            #expect(guest.ghcb[.exitInfo1] == 2)
            #expect(guest.ghcb[.exitInfo2] == 3, "scratch 0x\(String(scratch, radix: 16))")
        }
    }

    @Test func bitmapIsClearedAndRegistersComeBack() throws {
        let guest = try GHCBGuest()
        let step = guest.event(.cpuid) {
            $0[.rax] = 0x8000_0008
            $0[.rcx] = 0xdead
            $0[.rsi] = 1
            $0[.r15] = 2
        }
        #expect(step == .resume)
        let ghcb = guest.ghcb
        #expect(ghcb[.rax].map { $0 & 0xff } == 48)
        for field in [GHCB.Field.rax, .rbx, .rcx, .rdx, .exitInfo1, .exitInfo2] { #expect(ghcb.isValid(field)) }
        for field in [GHCB.Field.rsi, .r15, .exitCode, .scratch] { #expect(!ghcb.isValid(field)) }
    }

    // MARK: Ports and MMIO

    @Test func portAccesses() throws {
        let guest = try GHCBGuest()
        // OUT 0x3F8, AL.
        #expect(guest.event(.ioio, info1: 0x3f8 << 16 | 1 << 4) { $0[.rax] = 0x1234_5678 } == .exit(.io))
        #expect(guest.runPage.portIO == RunPage.PortIO(isWrite: true, size: 1, port: 0x3f8))
        #expect(guest.runPage.portData(guest.runPage.portIO) == [0x78])
        #expect(guest.vcpu.complete() == .resume)
        #expect(guest.ghcb[.exitInfo1] == 0)
        // IN AX, 0x60: the rest of RAX stays.
        #expect(guest.event(.ioio, info1: 0x60 << 16 | 2 << 4 | 1) { $0[.rax] = 0x1111_1111_1111_1111 } == .exit(.io))
        guest.runPage.setPortData([0xcd, 0xab], guest.runPage.portIO)
        #expect(guest.vcpu.complete() == .resume)
        #expect(guest.ghcb[.rax] == 0x1111_1111_1111_abcd)
        // IN EAX clears the upper half.
        #expect(guest.event(.ioio, info1: 0x60 << 16 | 4 << 4 | 1) { $0[.rax] = .max } == .exit(.io))
        guest.runPage.setPortData([1, 0, 0, 0], guest.runPage.portIO)
        #expect(guest.vcpu.complete() == .resume)
        #expect(guest.ghcb[.rax] == 1)
        // No such size.
        #expect(guest.event(.ioio, info1: 0x60 << 16 | 3 << 4 | 1) == .resume)
        #expect(guest.ghcb[.exitInfo2] == 5)
        // The 8259 is in the kernel.
        #expect(guest.event(.ioio, info1: 0x21 << 16 | 1 << 4) { $0[.rax] = 0xfb } == .resume)
        #expect(guest.event(.ioio, info1: 0x21 << 16 | 1 << 4 | 1) == .resume)
        #expect(guest.ghcb[.rax] == 0xfb)
    }

    /// The page turns private, or goes with its slot, while the VMM answers for it: the answer is written as KVM writes it,
    /// to the VMM's page, or nowhere. What the guest does to the page itself is a memory fault by name.
    @Test func pageIsTakenDuringAnExit() throws {
        let guest = try GHCBGuest()
        #expect(guest.event(.ioio, info1: 0x60 << 16 | 1 << 4 | 1) { $0[.rax] = 0 } == .exit(.io))
        try guest.vm.setPrivate(GHCBGuest.ghcbGPA, 4096)
        guest.runPage.setPortData([0x5a], guest.runPage.portIO)
        #expect(guest.vcpu.complete() == .resume)
        #expect(guest.ghcb[.rax] == 0x5a)
        // Still the registered one.
        #expect(guest.event(.wbinvd) == .resume)

        let string = guest.event(.ioio, info1: 0x3f8 << 16 | 1 << 4 | 0xc, info2: 5) {
            $0[.scratch] = GHCBGuest.ghcbGPA + 0x800
        }
        #expect(string == .exit(.io))
        var slot = guest.vm.region()
        slot.memoryByteCount = 0
        try guest.vm.kernel.call(guest.vm.vm, .setUserMemoryRegion2, reading: slot)
        #expect(guest.vcpu.complete() == .resume)
        #expect(guest.event(.wbinvd) == .resume)
    }

    @Test func stringPorts() throws {
        let guest = try GHCBGuest()
        // REP OUTSB of 5 bytes from the shared buffer.
        let out = guest.event(.ioio, info1: 0x3f8 << 16 | 1 << 4 | 0xc, info2: 5) {
            $0[.scratch] = GHCBGuest.ghcbGPA + 0x800
            $0[0x800..<0x805] = Array("Hello".utf8)
        }
        #expect(out == .exit(.io))
        #expect(guest.runPage.portIO.count == 5)
        #expect(guest.runPage.portData(guest.runPage.portIO) == Array("Hello".utf8))
        #expect(guest.vcpu.complete() == .resume)
        // REP INSW of 3000 words into 6000 bytes elsewhere: two exits.
        let input = guest.event(.ioio, info1: 0x60 << 16 | 2 << 4 | 0xd, info2: 3000) { $0[.scratch] = 0x4000 }
        #expect(input == .exit(.io))
        #expect(guest.runPage.portIO.count == 2048)
        guest.runPage.setPortData([UInt8](repeating: 7, count: 4096), guest.runPage.portIO)
        #expect(guest.vcpu.complete() == .exit(.io))
        #expect(guest.runPage.portIO.count == 952)
        guest.runPage.setPortData([UInt8](repeating: 8, count: 4096), guest.runPage.portIO)
        #expect(guest.vcpu.complete() == .resume)
        #expect(guest.page.load(at: 0x4000 + 4095, as: UInt8.self) == 7)
        #expect(guest.page.load(at: 0x4000 + 4096, as: UInt8.self) == 8)
        #expect(guest.page.load(at: 0x4000 + 6000, as: UInt8.self) == 0)
        // A count that no multiplication survives.
        #expect(guest.event(.ioio, info1: 4 << 4 | 0xd, info2: .max) { $0[.scratch] = 0x4000 } == .fail(.EINVAL))
        #expect(guest.event(.ioio, info1: 4 << 4 | 0xd, info2: 0) { $0[.scratch] = 0x4000 } == .resume)
    }

    @Test func mmio() throws {
        let guest = try GHCBGuest()
        #expect(guest.readMMIO(0xd000_0000) == nil)
        #expect(guest.runPage.mmio == RunPage.MMIO(physicalAddress: 0xd000_0000, byteCount: 4, isWrite: false))
        guest.runPage.mmioData = 0x8877_6655_4433_2211
        #expect(guest.vcpu.complete() == .resume)
        #expect(guest.page.load(at: 0x1800, as: UInt64.self) == 0x4433_2211)
        // 12 bytes: 8, then 4.
        let write = guest.event(.mmioWrite, info1: 0xd000_0000, info2: 12) {
            $0[.scratch] = GHCBGuest.ghcbGPA + 0x900
            $0[0x900..<0x90c] = Array(1...12)
        }
        #expect(write == .exit(.mmio))
        #expect(guest.runPage.mmio.data == 0x0807_0605_0403_0201)
        #expect(guest.vcpu.complete() == .exit(.mmio))
        #expect(
            guest.runPage.mmio
                == RunPage.MMIO(physicalAddress: 0xd000_0008, data: 0x0c0b_0a09, byteCount: 4, isWrite: true))
        #expect(guest.vcpu.complete() == .resume)
        #expect(guest.event(.mmioRead, info1: 0, info2: 0) { $0[.scratch] = 0x1800 } == .resume)
    }

    // MARK: The rest

    @Test func msrs() throws {
        let guest = try GHCBGuest()
        #expect(guest.readMSR(0xfe) == 0x508)
        #expect(guest.readMSR(0x2ff) == 0)
        #expect(guest.writeMSR(0x2ff, 0x806))
        #expect(guest.readMSR(0x2ff) == 0x806)
        #expect(!guest.writeMSR(0x2ff, 2))
        #expect(guest.readMSR(0xc001_0010) == 0)
        #expect(guest.readMSR(0x1234_5678) == nil)
        #expect(guest.ghcb[.exitInfo1] == 1)
        #expect(guest.ghcb[.exitInfo2] == 0x8000_030d)
        for number: UInt32 in [0x1b, 0x8b, 0x200, 0x20f, 0x250, 0x258, 0x26f, 0xc001_0015, 0xc001_001f, 0xc001_1029] {
            #expect(guest.readMSR(number) != nil, "MSR 0x\(String(number, radix: 16))")
        }
    }

    @Test func hypercalls() throws {
        let guest = try GHCBGuest()
        let call = { (number: UInt64, cpl: UInt64, a0: UInt64, a1: UInt64) in
            guest.event(.vmmcall) {
                $0[.rax] = number
                $0[.cpl] = cpl
                $0[.rbx] = a0
                $0[.rcx] = a1
                $0[.rdx] = 0x10
            }
        }
        #expect(call(99, 0, 0, 0) == .resume)
        #expect(guest.ghcb[.rax] == UInt64(bitPattern: -1000))
        #expect(call(12, 3, 0x5000, 1) == .resume)
        #expect(guest.ghcb[.rax] == UInt64(bitPattern: -1))
        for (a0, a1): (UInt64, UInt64) in [(0x5001, 1), (0x5000, 0), (0x5000, 1 << 52), (~0xfff, 2)] {
            #expect(call(12, 0, a0, a1) == .resume)
            #expect(guest.ghcb[.rax] == UInt64(bitPattern: -22))
        }
        #expect(call(12, 0, 0x5000, 2) == .exit(.hypercall))
        #expect(guest.runPage.hypercall.arguments[1] == 2)
        guest.runPage.hypercallResult = 0
        #expect(guest.vcpu.complete() == .resume)
        #expect(guest.ghcb[.rax] == 0)
    }

    @Test func otherEvents() throws {
        let guest = try GHCBGuest()
        #expect(guest.event(.apJumpTable, info1: 0, info2: 0x7000) == .resume)
        #expect(guest.event(.apJumpTable, info1: 1) == .resume)
        #expect(guest.ghcb[.exitInfo2] == 0x7000)
        #expect(guest.event(.apJumpTable, info1: 2) == .resume)
        #expect(guest.ghcb[.exitInfo2] == 5)
        #expect(guest.event(.apCreation, info1: 7 << 32 | 1, info2: 0x5000) { $0[.rax] = 1 } == .resume)
        #expect(guest.ghcb[.exitInfo1] == 2)
        #expect(guest.ghcb[.exitInfo2] == 5)
        // Before the launch there is no guest for the firmware to answer.
        #expect(guest.event(.guestRequest, info1: 0x5000, info2: 0x6000) == .fail(.EINVAL))
        #expect(guest.event(.guestRequest, info1: 0x5000, info2: 0x5000) == .resume)
        #expect(guest.ghcb[.exitInfo1] == 2)
        #expect(guest.ghcb[.exitInfo2] == 4)
        #expect(guest.event(.rdtsc) == .resume)
        #expect(guest.event(.rdpmc) { $0[.rcx] = 9 } == .resume)
        #expect(guest.ghcb[.exitInfo1] == 1)
    }
}
