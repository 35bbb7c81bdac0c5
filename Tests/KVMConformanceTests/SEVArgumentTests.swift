// The arguments of the SEV commands at their extremes: bad pointers, lengths from nothing to everything, misalignment
// [KVM-SEV, SEV 6]. Each refusal is followed by the same command done right.

import KVMABI
import Testing

/// Addresses that no caller has.
private let badAddresses: [UInt64] = [8, 1 << 60, 0xffff_8000_0000_0000, .max & ~15, .max]

@Suite struct SEVArgumentTests {
    // MARK: LAUNCH_START

    @Test(arguments: KernelUnderTest.withSEV, SEVKind.allCases)
    func `START`(_ candidate: KernelUnderTest, _ kind: SEVKind) throws {
        let machine = try SEVMachine.at(.initialized, candidate.start(), kind)
        let room = machine.room.address
        for address in badAddresses + [0] {
            #expect(machine.command(.launchStart, address: address) == .refused(.EFAULT))
        }
        // Blobs for the firmware have 1 to 16384 bytes.
        for length: UInt32 in [0, 16385, .max] {
            #expect(
                machine.start { ($0.certificateAddress, $0.certificateByteCount) = (room, length) }.outcome
                    == .refused(.EINVAL))
            #expect(
                machine.start { ($0.sessionAddress, $0.sessionByteCount) = (room, length) }.outcome
                    == .refused(.EINVAL))
        }
        for address in badAddresses {
            #expect(
                machine.start { ($0.certificateAddress, $0.certificateByteCount) = (address, 2084) }.outcome
                    == .refused(.EFAULT))
            #expect(
                machine.start { ($0.sessionAddress, $0.sessionByteCount) = (address, 128) }.outcome
                    == .refused(.EFAULT))
        }
        // The firmware's own rules.
        #expect(machine.start { $0.handle = 0xdead }.outcome == .firmware(.invalidGuest), "a guest to share with")
        for policy: UInt32 in [0xff << 16, 0xffff << 16] {
            #expect(
                machine.start(policy: kind.policy | policy).outcome == .firmware(.policyFailure), "a later firmware")
        }
        #expect(
            machine.start(policy: kind.policy ^ 4).outcome == .firmware(.invalidASID), "another technology's policy")
        #expect(try machine.platform().guestCount == 0)
        #expect(machine.start { ($0.pad0, $0.pad1) = (.max, .max) }.outcome == .success, "padding is not looked at")
    }

    @Test(arguments: KernelUnderTest.withSEV, SEVKind.allCases)
    func `certificates and sessions that are none`(_ candidate: KernelUnderTest, _ kind: SEVKind) throws {
        let machine = try SEVMachine.at(.initialized, candidate.start(), kind)
        let room = machine.room.address
        func start(_ certificate: UInt32, _ session: UInt32) -> SEVOutcome {
            machine.start {
                ($0.certificateAddress, $0.certificateByteCount) = (room, certificate)
                ($0.sessionAddress, $0.sessionByteCount) = (room + 0x4000, session)
            }.outcome
        }
        for length: UInt32 in [1, 16, 2083, 2085, 16384] { #expect(start(length, 128) == .firmware(.invalidLength)) }
        for length: UInt32 in [1, 127, 129, 16384] { #expect(start(2084, length) == .firmware(.invalidLength)) }
        #expect(start(2084, 128) == .firmware(.invalidCertificate), "zeroes")
        machine.room.fill(0xff, at: 0, count: 0x8000)
        #expect(start(2084, 128) == .firmware(.invalidCertificate), "ones")
        #expect(try machine.platform().guestCount == 0)
    }

    // MARK: LAUNCH_UPDATE_DATA

    @Test(arguments: KernelUnderTest.withSEV, SEVKind.allCases)
    func `UPDATE_DATA`(_ candidate: KernelUnderTest, _ kind: SEVKind) throws {
        let machine = try SEVMachine.at(.launching, candidate.start(), kind)
        let before = machine.ram.copyBytes(at: 0, count: SEVMachine.ramByteCount)
        for address in badAddresses + [0] {
            #expect(machine.command(.launchUpdateData, address: address) == .refused(.EFAULT))
        }
        func update(_ address: UInt64, _ byteCount: UInt32) -> SEVOutcome {
            var data = KVMSEVLaunchUpdateData(userAddress: address, byteCount: byteCount)
            return machine.command(.launchUpdateData, &data)
        }
        let ram = machine.ram.address
        #expect(update(ram, 0) == .refused(.EINVAL))
        #expect(update(.max - 15, 16) == .refused(.EINVAL), "wraps")
        #expect(update(.max - 4095, .max) == .refused(.EINVAL), "wraps")
        for address in [0, 8, 1 << 60] as [UInt64] { #expect(update(address, 16) == .refused(.ENOMEM), "not there") }
        for length: UInt32 in [1, 8, 15, 17, 4095] {
            #expect(update(ram + 0x4000, length) == .firmware(.invalidLength), "length \(length)")
        }
        for offset: UInt64 in [1, 8, 15, 4088] {
            #expect(update(ram + 0x4000 + offset, 16).errno == .EIO, "offset \(offset)")
        }
        #expect(machine.ram.copyBytes(at: 0, count: SEVMachine.ramByteCount) == before)
        #expect(update(ram + 0x4ff0, 32) == .success, "16 bytes on each side of a page's end")
        #expect(machine.ram.copyBytes(at: 0x4ff0, count: 32) != Array(before[0x4ff0..<0x5010]))
        #expect(machine.ram.copyBytes(at: 0x4fe0, count: 16) == Array(before[0x4fe0..<0x4ff0]))
        #expect(machine.ram.copyBytes(at: 0x5010, count: 16) == Array(before[0x5010..<0x5020]))
    }

    // MARK: LAUNCH_MEASURE and GET_ATTESTATION_REPORT

    @Test(arguments: KernelUnderTest.withSEV, SEVKind.allCases)
    func `MEASURE`(_ candidate: KernelUnderTest, _ kind: SEVKind) throws {
        let machine = try SEVMachine.at(.launching, candidate.start(), kind)
        for address in badAddresses + [0] {
            #expect(machine.command(.launchMeasure, address: address) == .refused(.EFAULT))
        }
        #expect(machine.measure(byteCount: 0) == (.firmware(.invalidLength), 48), "a query")
        for length: UInt32 in [1, 47] {
            #expect(machine.measure(byteCount: length) == (.firmware(.invalidLength), length), "no query")
        }
        for length: UInt32 in [16385, .max] {
            #expect(machine.measure(byteCount: length) == (.refused(.EINVAL), length))
        }
        var nowhere = KVMSEVLaunchMeasure(userAddress: 0, byteCount: 48)
        #expect(machine.command(.launchMeasure, &nowhere) == .firmware(.invalidLength))
        #expect(machine.status().value.state == 1)
        machine.room.fill(0xaa, at: 0, count: 0x5000)
        #expect(machine.measure(byteCount: 0x4000) == (.success, 48), "more room than needed")
        #expect(machine.room.copyBytes(at: 48, count: 0x3fd0).allSatisfy { $0 == 0 })
        #expect(machine.room.load(at: 0x4000, as: UInt8.self) == 0xaa)
    }

    @Test(arguments: KernelUnderTest.withSEV, SEVKind.allCases)
    func `a measurement that cannot be delivered is made all the same`(
        _ candidate: KernelUnderTest, _ kind: SEVKind
    ) throws {
        let machine = try SEVMachine.at(.launching, candidate.start(), kind)
        var data = KVMSEVLaunchMeasure(userAddress: 1 << 60, byteCount: 48)
        #expect(machine.command(.launchMeasure, &data) == .refused(.EFAULT))
        #expect(machine.status().value.state == 2)
    }

    @Test(arguments: KernelUnderTest.withSEV, SEVKind.allCases)
    func `the report`(_ candidate: KernelUnderTest, _ kind: SEVKind) throws {
        let machine = try SEVMachine.at(.measured, candidate.start(), kind)
        for address in badAddresses + [0] {
            #expect(machine.command(.getAttestationReport, address: address) == .refused(.EFAULT))
        }
        #expect(machine.report(byteCount: 0) == (.firmware(.invalidLength), 208), "a query")
        #expect(machine.report(byteCount: 207) == (.firmware(.invalidLength), 207))
        #expect(machine.report(byteCount: 16385) == (.refused(.EINVAL), 16385))
        #expect(machine.report() == (.success, 208))
        #expect(machine.room.copyBytes(at: 0, count: 16) == [UInt8](repeating: 0x5a, count: 16))
        #expect(machine.room.load(at: 0x30, as: UInt32.self) == kind.policy)
    }

    // MARK: LAUNCH_SECRET

    @Test(arguments: KernelUnderTest.withSEV, SEVKind.allCases)
    func `SECRET`(_ candidate: KernelUnderTest, _ kind: SEVKind) throws {
        let machine = try SEVMachine.at(.measured, candidate.start(), kind)
        let ram = machine.ram.address
        let before = machine.ram.copyBytes(at: 0, count: SEVMachine.ramByteCount)
        for address in badAddresses + [0] {
            #expect(machine.command(.launchSecret, address: address) == .refused(.EFAULT))
        }
        // The target.
        #expect(machine.secret { $0.guestByteCount = 0 } == .refused(.EINVAL))
        #expect(machine.secret { $0.guestAddress = .max - 15 } == .refused(.EINVAL), "wraps")
        #expect(machine.secret { $0.guestAddress = 1 << 60 } == .refused(.ENOMEM))
        #expect(machine.secret { $0.guestAddress = ram + 0x3ff0 } == .refused(.EINVAL), "two pages")
        #expect(machine.secret { $0.guestAddress = ram + 0x3008 } == .firmware(.invalidAddress))
        #expect(machine.secret { $0.guestByteCount = 48 } == .firmware(.invalidLength), "not the payload's length")
        // Header and payload.
        for length: UInt32 in [0, 16385, .max] {
            #expect(machine.secret { $0.headerByteCount = length } == .refused(.EINVAL))
            #expect(machine.secret { $0.transportByteCount = length } == .refused(.EINVAL))
        }
        #expect(machine.secret { $0.headerAddress = 0 } == .refused(.EINVAL))
        #expect(machine.secret { $0.transportAddress = 0 } == .refused(.EINVAL))
        for address in badAddresses {
            #expect(machine.secret { $0.headerAddress = address } == .refused(.EFAULT))
            #expect(machine.secret { $0.transportAddress = address } == .refused(.EFAULT))
        }
        for length: UInt32 in [1, 51, 53, 16384] {
            #expect(machine.secret { $0.headerByteCount = length } == .firmware(.invalidLength))
        }
        for length: UInt32 in [1, 31, 33] {
            #expect(
                machine.secret { ($0.transportByteCount, $0.guestByteCount) = (length, length) }
                    == .firmware(.invalidLength))
        }
        #expect(machine.secret() == .firmware(.badMeasurement), "zeroes are no packet")
        #expect(machine.ram.copyBytes(at: 0, count: SEVMachine.ramByteCount) == before)
        #expect(machine.command(.launchFinish) == .success)
    }

    // MARK: GUEST_STATUS

    @Test(arguments: KernelUnderTest.withSEV, SEVKind.allCases)
    func `STATUS`(_ candidate: KernelUnderTest, _ kind: SEVKind) throws {
        let machine = try SEVMachine.at(.launching, candidate.start(), kind)
        for address in badAddresses + [0] {
            #expect(machine.command(.guestStatus, address: address) == .refused(.EFAULT))
        }
    }

    // MARK: Migration: KVM's own checks

    @Test(arguments: KernelUnderTest.withSEV, SEVKind.allCases)
    func `migration`(_ candidate: KernelUnderTest, _ kind: SEVKind) throws {
        let machine = try SEVMachine.at(.running, candidate.start(), kind)
        let room = machine.room.address
        for id: SEVCommandID in [.sendStart, .sendUpdateData, .receiveStart, .receiveUpdateData] {
            for address in badAddresses + [0] {
                #expect(machine.command(id, address: address) == .refused(.EFAULT), "\(id)")
            }
        }
        func sendStart(_ change: (inout KVMSEVSendStart) -> Void) -> SEVOutcome {
            var data = KVMSEVSendStart()
            (data.certificateAddress, data.certificateByteCount) = (room, 2084)
            (data.platformCertificatesAddress, data.platformCertificatesByteCount) = (room, 6252)
            (data.amdCertificatesAddress, data.amdCertificatesByteCount) = (room, 3200)
            (data.sessionAddress, data.sessionByteCount) = (room, 128)
            change(&data)
            return machine.command(.sendStart, &data)
        }
        #expect(sendStart { $0.certificateAddress = 0 } == .refused(.EINVAL))
        #expect(sendStart { $0.certificateByteCount = 0 } == .refused(.EINVAL))
        #expect(sendStart { $0.sessionAddress = 0 } == .refused(.EINVAL))
        #expect(sendStart { $0.sessionByteCount = 16385 } == .refused(.EINVAL))
        #expect(sendStart { $0.platformCertificatesByteCount = 0 } == .refused(.EINVAL))
        #expect(sendStart { $0.amdCertificatesAddress = 0 } == .refused(.EINVAL))
        #expect(sendStart { $0.amdCertificatesAddress = 1 << 60 } == .refused(.EFAULT))

        func packet(_ id: SEVCommandID, _ change: (inout KVMSEVMigrationPacket) -> Void) -> SEVOutcome {
            var data = KVMSEVMigrationPacket()
            (data.headerAddress, data.headerByteCount) = (room, 52)
            (data.transportAddress, data.transportByteCount) = (room + 0x1000, 4096)
            (data.guestAddress, data.guestByteCount) = (machine.ram.address, 4096)
            change(&data)
            return machine.command(id, &data)
        }
        for id: SEVCommandID in [.sendUpdateData, .receiveUpdateData] {
            #expect(packet(id) { $0.guestByteCount = 0 } == .refused(.EINVAL))
            #expect(packet(id) { $0.guestAddress = 0 } == .refused(.EINVAL))
            #expect(packet(id) { $0.headerAddress = 0 } == .refused(.EINVAL))
            #expect(packet(id) { $0.transportAddress = 0 } == .refused(.EINVAL))
            #expect(packet(id) { $0.guestByteCount = 4097 } == .refused(.EINVAL), "more than a page")
            #expect(packet(id) { $0.guestAddress += 16 } == .refused(.EINVAL), "two pages")
            #expect(packet(id) { $0.guestAddress = 1 << 60 } == .refused(.ENOMEM))
        }
        #expect(packet(.receiveUpdateData) { $0.headerByteCount = 16385 } == .refused(.EINVAL))
        var receive = KVMSEVReceiveStart()
        #expect(machine.command(.receiveStart, &receive) == .refused(.EINVAL), "no certificate, no session")
    }
}
