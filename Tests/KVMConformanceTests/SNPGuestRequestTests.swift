// Guest messages through the seam: what the kernel checks itself, what it leaves to the firmware, and the exit for
// certificates [GHCB 4.1.7, 4.1.8; KVM KVM_EXIT_SNP_REQ_CERTS].
//
// The guest only registers its GHCB and exits; the test writes the GHCB and the messages, which are all in shared
// memory. It has no key of the guest's, so the firmware refuses each message that reaches it: a status in SW_EXITINFO2.

import KVMABI
import SEVABI
import SoftwareKVM
import SoftwarePSP
import TestSupport
import Testing

/// A launched guest that makes three requests with whatever its GHCB holds.
private final class RequestingMachine {
    static let ghcb = 0x1_0000
    static let request = 0x1_1000
    static let response = 0x1_2000
    static let certificates = 0x1_3000

    let machine: SNPMachine
    let page: RunPage
    var memory: KernelMapping { machine.shared }

    init(_ kernel: any HostKernel, asksVMM: Bool) throws {
        let machine = try SNPMachine.withMemory(kernel)
        if asksVMM { try #require(machine.command(.snpEnableCertificateRequests) == .success) }
        try machine.addVCPU()
        try #require(machine.start() == .success)
        LongMode.writePageTables(encryptionBit: machine.encryptionBit) { machine.source.store($1, at: $0) }
        for (index, descriptor) in LongMode.gdt.enumerated() {
            machine.source.store(descriptor, at: PlainMachine.gdtAddress + 8 * index)
        }
        // After each event a page state change of a page that is shared already: an exit to stop at.
        let event = GHCBCode.exit(UInt64(Self.ghcb)) + GHCBCode.exit(2 << 52 | 0x1_7000 | 0x014)
        machine.source.write(
            GHCBCode.exit(UInt64(Self.ghcb) | 0x012) + event + event + event, at: PlainMachine.codeAddress)
        try machine.setPrivate(false, at: Self.ghcb, byteCount: 0x8000)
        try #require(machine.update(type: 1, gpa: 0, byteCount: 0x1_0000).outcome == .success)
        try #require(machine.finish() == .success)
        self.machine = machine
        page = try #require(machine.page)
    }

    /// Writes the GHCB of a request; RAX and RBX are valid when given.
    func prepare(
        _ code: UInt64, info1: Int = request, info2: Int = response, rax: Int? = nil, rbx: Int? = nil
    ) {
        memory.fill(0, at: Self.ghcb, count: 4096)
        var valid: UInt64 = 0
        if let rax {
            memory.store(UInt64(rax), at: Self.ghcb + 0x1f8)
            valid |= 1 << 63
        }
        var high: UInt64 = 7 << (114 - 64)
        if let rbx {
            memory.store(UInt64(rbx), at: Self.ghcb + 0x318)
            high |= 1 << (99 - 64)
        }
        memory.store(code, at: Self.ghcb + 0x390)
        memory.store(UInt64(info1), at: Self.ghcb + 0x398)
        memory.store(UInt64(info2), at: Self.ghcb + 0x3a0)
        memory.store(valid, at: Self.ghcb + 0x3f0)
        memory.store(high, at: Self.ghcb + 0x3f8)
        memory.store(2 as UInt16, at: Self.ghcb + 0xffa)
    }

    /// A message of this type with a header that is right but for the tag.
    func writeMessage(type: UInt8, number: UInt64 = 1) {
        memory.fill(0, at: Self.request, count: 4096)
        memory.store(number, at: Self.request + 0x20)
        memory.write([1, 1, 0x60, 0, type, 1, 0x60, 0], at: Self.request + 0x30)
    }

    var exitInfo1: UInt64 { memory.load(at: Self.ghcb + 0x398) }
    var exitInfo2: UInt64 { memory.load(at: Self.ghcb + 0x3a0) }
    var rbx: UInt64 { memory.load(at: Self.ghcb + 0x318) }

    /// Runs the event in the GHCB, and stops behind it.
    func runOneEvent() throws { #expect(try machine.run() == (.hypercall, nil)) }
}

@Suite struct SNPGuestRequestTests {
    private static let guestRequest: UInt64 = 0x8000_0011
    private static let extendedRequest: UInt64 = 0x8000_0012

    // MARK: Enabling

    @Test(arguments: KernelUnderTest.withSNP)
    func `certificate exits are known by device attribute 2`(_ candidate: KernelUnderTest) throws {
        let kernel = try candidate.start()
        let kvm = try kernel.open(.kvm)
        defer { kernel.close(kvm) }
        var value: UInt64 = 0
        try withKernelAddress(of: &value) { (address: UInt64) throws in
            let attribute = KVMDeviceAttribute(group: 1, attribute: 2, address: address)
            try kernel.call(kvm, .hasDeviceAttribute, reading: attribute)
            try kernel.call(kvm, .getDeviceAttribute, reading: attribute)
        }
        #expect(value == 1)
    }

    @Test(arguments: KernelUnderTest.withSNP)
    func `ENABLE_REQ_CERTS is for SNP VMs without vCPUs, and may be repeated`(_ candidate: KernelUnderTest) throws {
        let kernel = try candidate.start()
        #expect(try SNPMachine(kernel).command(.snpEnableCertificateRequests) == .refused(.EINVAL), "before INIT2")
        #expect(try SNPMachine(kernel, type: .sev).command(.snpEnableCertificateRequests) == .refused(.EINVAL))
        let machine = try SNPMachine.withMemory(kernel)
        #expect(machine.command(.snpEnableCertificateRequests) == .success)
        #expect(machine.command(.snpEnableCertificateRequests) == .success)
        try machine.addVCPU()
        #expect(machine.command(.snpEnableCertificateRequests) == .refused(.EINVAL))
    }

    // MARK: What KVM checks

    @Test(arguments: KernelUnderTest.withSNP)
    func `pages must be two and aligned`(_ candidate: KernelUnderTest) throws {
        for (code, info1, info2) in [
            (Self.guestRequest, 0x1_1008, 0x1_2000), (Self.guestRequest, 0x1_1000, 0x1_2fff),
            (Self.extendedRequest, 0x1_1000, 0x1_1000), (Self.extendedRequest, 0x1_1800, 0x1_2800),
        ] {
            let guest = try RequestingMachine(candidate.start(), asksVMM: false)
            guest.prepare(code, info1: info1, info2: info2, rax: RequestingMachine.certificates, rbx: 1)
            try guest.runOneEvent()
            #expect(guest.exitInfo1 == 2 && guest.exitInfo2 == 4)
        }
    }

    @Test(arguments: KernelUnderTest.withSNP)
    func `pages where no memory is end KVM_RUN with EIO`(_ candidate: KernelUnderTest) throws {
        for code in [Self.guestRequest, Self.extendedRequest] {
            for (info1, info2) in [(0x7000_0000, 0x1_2000), (0x1_1000, 0x7000_0000)] {
                let guest = try RequestingMachine(candidate.start(), asksVMM: false)
                guest.writeMessage(type: 3)
                guest.prepare(code, info1: info1, info2: info2)
                #expect(try guest.machine.run().errno == .EIO)
            }
        }
    }

    @Test(arguments: KernelUnderTest.withSNP)
    func `a closed descriptor of dev sev is EBADF`(_ candidate: KernelUnderTest) throws {
        let guest = try RequestingMachine(candidate.start(), asksVMM: false)
        guest.writeMessage(type: 3)
        guest.prepare(Self.guestRequest)
        guest.machine.kernel.close(guest.machine.sev)
        #expect(try guest.machine.run().errno == .EBADF)
    }

    // MARK: What the firmware says

    @Test(arguments: KernelUnderTest.withSNP)
    func `the firmware's refusal is in the low half of SW_EXITINFO2`(_ candidate: KernelUnderTest) throws {
        for code in [Self.guestRequest, Self.extendedRequest] {
            let guest = try RequestingMachine(candidate.start(), asksVMM: false)
            guest.memory.fill(0xee, at: RequestingMachine.response, count: 4096)
            // A page of zeroes is no message: INVALID_PARAM.
            guest.memory.fill(0, at: RequestingMachine.request, count: 4096)
            guest.prepare(code)
            try guest.runOneEvent()
            #expect(guest.exitInfo1 == 0 && guest.exitInfo2 == 0x16)
            #expect(guest.memory.load(at: RequestingMachine.response, as: UInt64.self) != 0xeeee_eeee_eeee_eeee)
            // A right header and a wrong tag.
            guest.writeMessage(type: 3)
            guest.prepare(code)
            try guest.runOneEvent()
            #expect(guest.exitInfo1 == 0 && guest.exitInfo2 == 0x0b)
        }
    }

    // MARK: Certificates, the older way

    @Test(arguments: KernelUnderTest.withSNP)
    func `without the VMM's part a report gets an empty certificate table`(_ candidate: KernelUnderTest) throws {
        for (pages, cleared) in [(1, 24), (0, 0), (4, 24)] {
            let guest = try RequestingMachine(candidate.start(), asksVMM: false)
            guest.memory.fill(0xcc, at: RequestingMachine.certificates, count: 64)
            guest.writeMessage(type: 5)
            guest.prepare(Self.extendedRequest, rax: RequestingMachine.certificates, rbx: pages)
            try guest.runOneEvent()
            #expect(guest.exitInfo2 == 0x0b, "the firmware was asked")
            let table = guest.memory.copyBytes(at: RequestingMachine.certificates, count: 64)
            #expect(table == [UInt8](repeating: 0, count: cleared) + [UInt8](repeating: 0xcc, count: 64 - cleared))
        }
    }

    @Test(arguments: KernelUnderTest.withSNP)
    func `a report with certificates wants a buffer, other messages do not`(_ candidate: KernelUnderTest) throws {
        for asksVMM in [false, true] {
            for (rax, rbx) in [(nil, 1), (0x1_3000, nil), (nil, nil), (0x1_3008, 1)] as [(Int?, Int?)] {
                let guest = try RequestingMachine(candidate.start(), asksVMM: asksVMM)
                guest.writeMessage(type: 5)
                guest.prepare(Self.extendedRequest, rax: rax, rbx: rbx)
                try guest.runOneEvent()
                #expect(guest.exitInfo1 == 2 && guest.exitInfo2 == 5)
                guest.writeMessage(type: 3)
                guest.prepare(Self.extendedRequest, rax: rax, rbx: rbx)
                try guest.runOneEvent()
                #expect(guest.exitInfo1 == 0 && guest.exitInfo2 == 0x0b)
            }
        }
    }

    // MARK: Certificates by KVM_EXIT_SNP_REQ_CERTS

    @Test(arguments: KernelUnderTest.withSNP)
    func `the VMM's answer to a request for certificates`(_ candidate: KernelUnderTest) throws {
        let answers: [(result: UInt64, pages: UInt64, exitInfo2: UInt64, rbx: UInt64)] = [
            (0, 2, 0x0b, 2), (28, 7, 1 << 32, 7), (11, 2, 2 << 32, 2), (5, 2, 0xffff_ffff << 32, 2),
        ]
        for answer in answers {
            let guest = try RequestingMachine(candidate.start(), asksVMM: true)
            guest.memory.fill(0xcc, at: RequestingMachine.certificates, count: 64)
            guest.writeMessage(type: 5)
            guest.prepare(Self.extendedRequest, rax: RequestingMachine.certificates, rbx: 2)
            #expect(try guest.machine.run() == (.snpRequestCertificates, nil))
            #expect(
                guest.page.certificateRequest
                    == RunPage.CertificateRequest(gpa: UInt64(RequestingMachine.certificates), pageCount: 2, result: 0))
            #expect(guest.memory.load(at: RequestingMachine.certificates, as: UInt8.self) == 0xcc, "the VMM's to fill")
            guest.page.certificateRequest.pageCount = answer.pages
            guest.page.certificateRequest.result = answer.result
            // The firmware has answered when this comes back.
            guest.page.immediateExit = true
            #expect(try guest.machine.run().errno == .EINTR)
            #expect(guest.exitInfo1 == 0 && guest.exitInfo2 == answer.exitInfo2 && guest.rbx == answer.rbx)
            guest.page.immediateExit = false
            try guest.runOneEvent()
            // Not asked for a plain request, and not for other messages.
            guest.prepare(Self.guestRequest)
            try guest.runOneEvent()
            #expect(guest.exitInfo2 == 0x0b)
        }
    }

    @Test(arguments: KernelUnderTest.withSNP)
    func `another answer of the VMM is EINVAL`(_ candidate: KernelUnderTest) throws {
        for result in [1, 12, 22, .max] as [UInt64] {
            let guest = try RequestingMachine(candidate.start(), asksVMM: true)
            guest.writeMessage(type: 5)
            guest.prepare(Self.extendedRequest, rax: RequestingMachine.certificates, rbx: 1)
            #expect(try guest.machine.run().reason == .snpRequestCertificates)
            guest.page.certificateRequest.result = result
            #expect(try guest.machine.run().errno == .EINVAL)
        }
    }
}

/// Messages of a real guest, which need its keys: on the software machine the test asks the firmware for them.
@Suite struct SoftwareGuestMessageTests {
    @Test func `a report goes the whole way, with certificates and without`() throws {
        let kernel = try SoftwareKVM()
        for (code, asksVMM) in [(0x8000_0011, false), (0x8000_0012, false), (0x8000_0012, true)]
            as [(UInt64, Bool)]
        {
            let guest = try RequestingMachine(kernel, asksVMM: asksVMM)
            let keys = try #require(kernel.messageKeys(of: guest.machine.vm))
            let certificates: [UInt8] = [1, 2, 3, 4]
            for number in [1, 3] as [UInt64] {
                let request = GuestMessageCipher.seal(
                    ReportRequest(reportData: [UInt8](repeating: 0x5d, count: 64), vmpl: 1).bytes,
                    GuestMessageHeader(
                        type: .reportRequest, payloadByteCount: ReportRequest.byteCount, keyIndex: 0,
                        sequenceNumber: number), key: keys[0])
                guest.memory.write(request, at: RequestingMachine.request)
                guest.memory.fill(0xcc, at: RequestingMachine.certificates, count: 64)
                guest.prepare(code, rax: RequestingMachine.certificates, rbx: 1)
                if asksVMM {
                    #expect(try guest.machine.run() == (.snpRequestCertificates, nil))
                    guest.memory.write(certificates, at: RequestingMachine.certificates)
                }
                try guest.runOneEvent()
                #expect(guest.exitInfo1 == 0 && guest.exitInfo2 == 0)
                let page = guest.memory.copyBytes(at: RequestingMachine.response, count: 4096)
                let header = try #require(GuestMessageHeader(bytes: page))
                #expect(header.type == .reportResponse && header.sequenceNumber == number + 1)
                let payload = try #require(GuestMessageCipher.open(page, header, key: keys[0]))
                let response = try #require(ReportResponse(bytes: payload))
                #expect(response.status == .success && response.report.count == 0x4a0)
                #expect(Array(response.report[0x50..<0x90]) == [UInt8](repeating: 0x5d, count: 64))
                #expect(response.report[0x30] == 1)
                let digest = try #require(kernel.launchDigest(of: guest.machine.vm))
                #expect(Array(response.report[0x90..<0xc0]) == digest.array)
                let table = guest.memory.copyBytes(at: RequestingMachine.certificates, count: 24)
                let expected: [UInt8] =
                    switch (code, asksVMM) {
                    case (0x8000_0012, true): certificates + [UInt8](repeating: 0xcc, count: 20)
                    case (0x8000_0012, false): [UInt8](repeating: 0, count: 24)
                    default: [UInt8](repeating: 0xcc, count: 24)
                    }
                #expect(table == expected)
            }
            // The same message again: the firmware refuses it, and the guest can tell from the low half.
            guest.prepare(0x8000_0011)
            try guest.runOneEvent()
            #expect(guest.exitInfo1 == 0 && guest.exitInfo2 == 0x16)
        }
    }
}
