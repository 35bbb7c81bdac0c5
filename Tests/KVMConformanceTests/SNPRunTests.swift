// A launched SNP guest of a few instructions: what reaches the VMM, and what does not [GHCB 2.3.1, 4.1; APM2 15.36].

import KVMABI
import Testing

@Suite struct SNPRunTests {
    @Test(arguments: KernelUnderTest.withSNP)
    func `a termination request is a system event with the GHCB MSR`(_ candidate: KernelUnderTest) throws {
        let machine = try SNPMachine.launched(candidate.start(), code: GHCBCode.terminate(code: 0x42))
        #expect(try machine.run() == (.systemEvent, nil))
        let event = try #require(machine.page).systemEvent
        #expect(event.type == .sevTermination)
        #expect(event.data == [GHCBCode.terminationRequest(code: 0x42)])
    }

    @Test(arguments: KernelUnderTest.withSNP)
    func `a triple fault is SHUTDOWN`(_ candidate: KernelUnderTest) throws {
        let machine = try SNPMachine.launched(candidate.start(), code: [0x0f, 0x0b])  // ud2, and no gate is present
        #expect(try machine.run() == (.shutdown, nil))
    }

    @Test(arguments: KernelUnderTest.withSNP)
    func `immediate_exit is EINTR`(_ candidate: KernelUnderTest) throws {
        let machine = try SNPMachine.launched(candidate.start(), code: GHCBCode.terminate(code: 0))
        let page = try #require(machine.page)
        page.immediateExit = true
        #expect(try machine.run().errno == .EINTR)
        page.immediateExit = false
        #expect(try machine.run().reason == .systemEvent)
    }

    /// The handler of #VC ends the guest with the error code it got: the intercept's exit code.
    @Test(arguments: KernelUnderTest.withSNP)
    func `intercepted instructions raise VC in the guest`(_ candidate: KernelUnderTest) throws {
        let cases: [(code: [UInt8], errorCode: UInt64)] = [
            ([0x0f, 0xa2], 0x72),  // cpuid
            ([0xe6, 0x80], 0x7b),  // out 0x80, al
            ([0x0f, 0x01, 0xd9], 0x81),  // vmmcall
        ]
        for (code, errorCode) in cases {
            let machine = try SNPMachine.launched(
                candidate.start(), code: code, handlers: [29: GHCBCode.reportErrorCode])
            #expect(try machine.run().reason == .systemEvent)
            #expect(try #require(machine.page).systemEvent.data == [errorCode << 16 | 0x100], "exit code \(errorCode)")
        }
    }

    @Test(arguments: KernelUnderTest.withSNP)
    func `a private page that was not validated raises VC 0x404`(_ candidate: KernelUnderTest) throws {
        let machine = try SNPMachine.launched(
            candidate.start(), code: [0x8b, 0x04, 0x25, 0x00, 0x00, 0x01, 0x00],  // mov eax, [0x10000]
            handlers: [29: GHCBCode.reportErrorCode])
        #expect(try machine.run().reason == .systemEvent)
        #expect(try #require(machine.page).systemEvent.data == [0x404 << 16 | 0x100])
    }

    @Test(arguments: KernelUnderTest.withSNP)
    func `PVALIDATE makes a private page usable, once`(_ candidate: KernelUnderTest) throws {
        let validate: [UInt8] = [
            0xb8, 0x00, 0x00, 0x01, 0x00,  // mov eax, 0x10000
            0x31, 0xc9,  // xor ecx, ecx: 4 KiB
            0xba, 0x01, 0x00, 0x00, 0x00,  // mov edx, 1
            0xf2, 0x0f, 0x01, 0xff,  // pvalidate
        ]
        let fail: [UInt8] = [0x0f, 0x0b]  // ud2
        let machine = try SNPMachine.launched(
            candidate.start(),
            code: validate
                + [0x73, 0x02] + fail  // jnc +2: the first time changes something
                + [0x85, 0xc0, 0x74, 0x02] + fail  // test eax, eax; jz +2
                + validate
                + [0x72, 0x02] + fail  // jc +2: the second time does not
                + [0xc7, 0x04, 0x25, 0x00, 0x00, 0x01, 0x00, 0x78, 0x56, 0x34, 0x12]  // mov dword [0x10000], 0x12345678
                + [0x81, 0x3c, 0x25, 0x00, 0x00, 0x01, 0x00, 0x78, 0x56, 0x34, 0x12]  // cmp dword [0x10000], 0x12345678
                + [0x74, 0x02] + fail  // je +2
                + GHCBCode.terminate(code: 1))
        #expect(try machine.run().reason == .systemEvent)
        #expect(try #require(machine.page).systemEvent.data == [GHCBCode.terminationRequest(code: 1)])
        #expect(machine.shared.load(at: 0x1_0000, as: UInt32.self) == 0, "the shared half stays what it was")
    }

    @Test(arguments: KernelUnderTest.withSNP)
    func `a shared access to a private range is a memory fault, until the VMM converts it`(
        _ candidate: KernelUnderTest
    ) throws {
        let machine = try SNPMachine.launched(
            candidate.start(),
            code: [0xc7, 0x04, 0x25, 0x08, 0x00, 0x01, 0x40, 0x78, 0x56, 0x34, 0x12]  // mov dword [0x40010008], …
                + GHCBCode.terminate(code: 2))
        #expect(try machine.run() == (.memoryFault, .EFAULT))
        let fault = try #require(machine.page).memoryFault
        #expect(!fault.isPrivate && fault.gpa & ~0xfff == 0x1_0000 && fault.byteCount == 0x1000)
        try machine.setPrivate(false, at: 0x1_0000, byteCount: 0x1000)
        #expect(try machine.run().reason == .systemEvent)
        #expect(machine.shared.load(at: 0x1_0008, as: UInt32.self) == 0x1234_5678)
    }

    @Test(arguments: KernelUnderTest.withSNP)
    func `a private access to a shared range is a memory fault`(_ candidate: KernelUnderTest) throws {
        let machine = try SNPMachine.launched(
            candidate.start(), code: [0x8b, 0x04, 0x25, 0x00, 0x00, 0x01, 0x00], sharedPages: [0x1_0000])
        #expect(try machine.run() == (.memoryFault, .EFAULT))
        let fault = try #require(machine.page).memoryFault
        #expect(fault.isPrivate && fault.gpa & ~0xfff == 0x1_0000)
    }

    @Test(arguments: KernelUnderTest.withSNP)
    func `a page state change is a hypercall exit whose answer reaches the guest`(_ candidate: KernelUnderTest) throws {
        // Operation 2 (shared) for guest frame 0x10.
        let request = GHCBCode.exit(2 << 52 | 0x1_0000 | 0x014) + GHCBCode.readMSR
        let checkResponse: [UInt8] = [
            0x3d, 0x15, 0x00, 0x00, 0x00,  // cmp eax, 0x15
            0x74, 0x02, 0x0f, 0x0b,  // je +2; ud2
        ]
        for answer: UInt64 in [0, 1] {
            let machine = try SNPMachine.launched(
                candidate.start(),
                // The response's code is 0x15; its high half is the answer, reported as reason code 3 (done) or 4.
                code: request + checkResponse
                    + [0x85, 0xd2, 0x75, UInt8(GHCBCode.terminate(code: 3).count)]  // test edx, edx; jnz
                    + GHCBCode.terminate(code: 3) + GHCBCode.terminate(code: 4))
            #expect(try machine.run() == (.hypercall, nil))
            let page = try #require(machine.page)
            let call = page.hypercall
            #expect(call.number == KVM.hypercallMapGPARange && call.result == 0)
            #expect(call.arguments[0] == 0x1_0000 && call.arguments[1] == 1 && call.arguments[2] & 0x10 == 0)
            if answer == 0 { try machine.setPrivate(false, at: 0x1_0000, byteCount: 0x1000) }
            page.hypercallResult = answer
            #expect(try machine.run().reason == .systemEvent)
            #expect(page.systemEvent.data == [GHCBCode.terminationRequest(code: answer == 0 ? 3 : 4)])
        }
    }

    /// The VMM fills in the shared GHCB itself, so the guest only has to register it and exit.
    @Test(arguments: KernelUnderTest.withSNP)
    func `port output through the GHCB`(_ candidate: KernelUnderTest) throws {
        let machine = try SNPMachine.launched(
            candidate.start(),
            code: GHCBCode.exit(0x1_0000 | 0x012)  // register GHCB GPA
                + GHCBCode.exit(0x1_0000)  // an event in the GHCB
                + GHCBCode.terminate(code: 5), sharedPages: [0x1_0000])
        let ghcb = 0x1_0000
        machine.shared.store(0x5a as UInt64, at: ghcb + 0x1f8)  // RAX
        machine.shared.store(0x7b as UInt64, at: ghcb + 0x390)  // SW_EXITCODE: IOIO
        machine.shared.store(0x0402_0010 as UInt64, at: ghcb + 0x398)  // SW_EXITINFO1: port 0x402, 8 bits, OUT
        machine.shared.store(1 << 63 as UInt64, at: ghcb + 0x3f0)  // valid: RAX
        machine.shared.store(7 << (114 - 64) as UInt64, at: ghcb + 0x3f8)  // valid: exit code and both infos
        machine.shared.store(2 as UInt16, at: ghcb + 0xffa)  // protocol version
        #expect(try machine.run() == (.io, nil))
        let page = try #require(machine.page)
        #expect(page.portIO.isWrite && page.portIO.port == 0x402 && page.portIO.size == 1)
        #expect(page.portData(page.portIO) == [0x5a])
        #expect(try machine.run().reason == .systemEvent)
        #expect(page.systemEvent.data == [GHCBCode.terminationRequest(code: 5)])
        #expect(machine.shared.load(at: ghcb + 0x398, as: UInt64.self) & 0xffff_ffff == 0, "done")
    }

    /// Written into the shared half and read back through a private mapping: never the VMM's bytes.
    @Test(arguments: KernelUnderTest.withSNP)
    func `the VMM's writes to the shared half do not reach private pages`(_ candidate: KernelUnderTest) throws {
        let machine = try SNPMachine.launched(
            candidate.start(),
            code: [0x81, 0x3c, 0x25, 0x00, 0x90, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00]  // cmp dword [0x9000], 0
                + [0x74, 0x02, 0x0f, 0x0b]  // je +2; ud2
                + GHCBCode.terminate(code: 6))
        machine.shared.fill(0xcc, at: 0, count: 0x1_0000)
        #expect(try machine.run().reason == .systemEvent)
        #expect(try #require(machine.page).systemEvent.data == [GHCBCode.terminationRequest(code: 6)])
    }
}
