// Every SEV command in every state of a VM: the documented errno and status, and nothing changed when it is refused
// [KVM-SEV, SEV 6].

import KVMABI
import Testing

@Suite struct SEVStateTests {
    /// What a command gives at a stage, with arguments that are good where it may come.
    static func expected(_ id: SEVCommandID, _ kind: SEVKind, _ stage: SEVStage) -> SEVOutcome {
        let wrongState = SEVOutcome.firmware(.invalidGuestState)
        let isCreated = stage == .created
        // A handle of the secure processor is remembered from START on.
        let noHandle: SEVOutcome? =
            isCreated ? .refused(.ENOTTY) : stage == .initialized ? .refused(.EBADF) : nil
        switch id {
        case .initialize, .initializeES: return isCreated && kind.isOld ? .success : .refused(.EINVAL)
        case .initialize2: return isCreated && !kind.isOld ? .success : .refused(.EINVAL)
        case .launchStart:
            if isCreated { return .refused(.ENOTTY) }
            // A second guest does not get the ASID.
            return stage == .initialized ? .success : .firmware(.asidOwned)
        case .launchUpdateData: return noHandle ?? (stage == .launching ? .success : wrongState)
        case .launchUpdateVMSA:
            if !kind.isES { return .refused(.ENOTTY) }
            // From `measured` on the vCPU is sealed.
            return noHandle ?? (stage == .launching ? .success : .refused(.EINVAL))
        case .launchSecret: return noHandle ?? (stage == .measured ? .firmware(.badMeasurement) : wrongState)
        case .launchMeasure: return noHandle ?? (stage == .launching ? .success : wrongState)
        case .launchFinish: return noHandle ?? (stage == .measured ? .success : wrongState)
        case .guestStatus: return noHandle ?? .success
        case .debugDecrypt, .debugEncrypt: return noHandle ?? (stage == .running ? .success : wrongState)
        case .getAttestationReport: return noHandle ?? (stage == .launching ? wrongState : .success)
        case .sendStart, .sendUpdateData, .sendFinish, .sendCancel, .receiveFinish:
            return noHandle ?? .firmware(.unsupported)
        case .receiveStart: return isCreated ? .refused(.ENOTTY) : .firmware(.unsupported)
        case .receiveUpdateData: return isCreated ? .refused(.EINVAL) : noHandle ?? .firmware(.unsupported)
        case .snpLaunchStart, .snpLaunchFinish: return .refused(.ENOTTY)
        default: return .refused(.EINVAL)
        }
    }

    /// Issues a command with arguments that are good where it may come.
    static func issue(_ id: SEVCommandID, _ machine: SEVMachine) -> SEVOutcome {
        let room = machine.room.address
        switch id {
        case .initialize2:
            var data = KVMSEVInit()
            return machine.command(id, &data)
        case .launchStart: return machine.start().outcome
        case .launchUpdateData: return machine.update(at: 0x4000, byteCount: 0x1000)
        case .launchSecret: return machine.secret()
        case .launchMeasure: return machine.measure().outcome
        case .sendStart:
            var data = KVMSEVSendStart()
            (data.certificateAddress, data.certificateByteCount) = (room, 2084)
            (data.platformCertificatesAddress, data.platformCertificatesByteCount) = (room, 6252)
            (data.amdCertificatesAddress, data.amdCertificatesByteCount) = (room, 3200)
            (data.sessionAddress, data.sessionByteCount) = (room, 128)
            return machine.command(id, &data)
        case .receiveStart:
            var data = KVMSEVReceiveStart()
            data.policy = machine.kind.policy
            (data.certificateAddress, data.certificateByteCount) = (room, 2084)
            (data.sessionAddress, data.sessionByteCount) = (room, 128)
            return machine.command(id, &data)
        case .sendUpdateData, .receiveUpdateData:
            var data = KVMSEVMigrationPacket()
            (data.headerAddress, data.headerByteCount) = (room, 52)
            (data.transportAddress, data.transportByteCount) = (room + 0x1000, 4096)
            (data.guestAddress, data.guestByteCount) = (machine.ram.address, 4096)
            return machine.command(id, &data)
        case .guestStatus: return machine.status().outcome
        case .debugDecrypt: return machine.debug(decrypts: true, at: 0, byteCount: 4096)
        case .debugEncrypt: return machine.debug(decrypts: false, at: 0x5000, byteCount: 4096)
        case .getAttestationReport: return machine.report().outcome
        default: return machine.command(id, address: room)
        }
    }

    static let commands =
        (0...25).map { SEVCommandID(rawValue: $0) }
        + [99, 100, 101, 102, 103, 104, 0x7fff_ffff, .max].map { SEVCommandID(rawValue: $0) }

    /// What must stay when a command is refused.
    private struct Snapshot: Equatable {
        var outcome: SEVOutcome
        var status: [UInt8]
        var guestCount: UInt32
        var platformState: UInt8
        var ram: [UInt8]
        var room: [UInt8]

        init(_ machine: SEVMachine) throws {
            let status = machine.status()
            outcome = status.outcome
            self.status = status.value.kernelBytes
            let platform = try machine.platform()
            guestCount = platform.guestCount
            platformState = platform.state
            ram = machine.ram.copyBytes(at: 0, count: SEVMachine.ramByteCount)
            room = machine.room.copyBytes(at: 0, count: SEVMachine.roomByteCount)
        }
    }

    @Test(arguments: KernelUnderTest.withSEV, SEVKind.allCases)
    func `every command at every stage`(_ candidate: KernelUnderTest, _ kind: SEVKind) throws {
        let kernel = try candidate.start()
        for stage in SEVStage.allCases {
            for id in Self.commands {
                let machine = try SEVMachine.at(stage, kernel, kind)
                let before = try Snapshot(machine)
                let expected = Self.expected(id, kind, stage)
                let outcome = Self.issue(id, machine)
                #expect(outcome == expected, "\(id) while \(stage)")
                if expected != .success {
                    #expect(try Snapshot(machine) == before, "\(id), refused while \(stage), changed something")
                    // And the launch can go on.
                    if stage == .launching { #expect(machine.measure().outcome == .success, "after \(id)") }
                    if stage == .measured { #expect(machine.command(.launchFinish) == .success, "after \(id)") }
                }
            }
        }
    }

    @Test(arguments: KernelUnderTest.withSEV)
    func `the envelope's status is the firmware's`(_ candidate: KernelUnderTest) throws {
        let machine = try SEVMachine.at(.launching, candidate.start(), .sev)
        func error(_ id: SEVCommandID) -> UInt32 {
            var data = KVMSEVLaunchMeasure(userAddress: machine.room.address, byteCount: 48)
            return withKernelAddress(of: &data) { (address: UInt64) in
                var envelope = KVMSEVCommand(id: id, data: address, sevHandle: machine.sev)
                envelope.error = 0x5a5a
                _ = try? machine.kernel.call(machine.vm, .memoryEncryptOp, &envelope)
                return envelope.error
            }
        }
        #expect(error(.sendUpdateVMSA) == 0x5a5a, "no such command")
        #expect(error(.initialize2) == 0x5a5a, "KVM's own refusal")
        #expect(error(.launchFinish) == FirmwareStatus.invalidGuestState.rawValue)
        #expect(error(.launchMeasure) == 0)
    }

    @Test(arguments: KernelUnderTest.withSEV, SEVKind.allCases)
    func `the state numbers are KVM's`(_ candidate: KernelUnderTest, _ kind: SEVKind) throws {
        let kernel = try candidate.start()
        for (stage, state): (SEVStage, UInt32) in [(.launching, 1), (.measured, 2), (.running, 3)] {
            let machine = try SEVMachine.at(stage, kernel, kind)
            let status = machine.status().value
            #expect(status.state == state)
            #expect(status.policy == kind.policy)
            #expect(status.handle != 0)
            #expect(try machine.platform().state == 2, "WORKING")
        }
    }

    @Test(arguments: KernelUnderTest.withSEV, SEVKind.allCases)
    func `without debugging nobody looks inside`(_ candidate: KernelUnderTest, _ kind: SEVKind) throws {
        let machine = try SEVMachine.at(.running, candidate.start(), kind, policy: kind.policy | 1)
        for decrypts in [true, false] {
            #expect(machine.debug(decrypts: decrypts, at: 0, byteCount: 4096) == .firmware(.policyFailure))
        }
    }

    @Test(arguments: KernelUnderTest.withSEV, SEVKind.allCases)
    func `a guest that is gone leaves its ASID and its handle`(_ candidate: KernelUnderTest, _ kind: SEVKind) throws {
        let kernel = try candidate.start()
        var handles: Set<UInt32> = []
        for _ in 0..<4 {
            let machine = try SEVMachine.at(.running, kernel, kind)
            handles.insert(machine.status().value.handle)
            #expect(try machine.platform().guestCount == 1)
        }
        let machine = try SEVMachine(kernel, kind)
        let platform = try machine.platform()
        #expect(platform.guestCount == 0 && platform.state == 1, "INIT")
        #expect(handles.count >= 1 && !handles.contains(0))
    }

    @Test(arguments: KernelUnderTest.withSEV, SEVKind.allCases)
    func `START is one guest's, and its descriptor must stay open`(
        _ candidate: KernelUnderTest, _ kind: SEVKind
    ) throws {
        let machine = try SEVMachine.at(.initialized, candidate.start(), kind)
        for handle in [KernelHandle(rawValue: 1 << 20), machine.kvm, machine.vm] {
            #expect(machine.start(sevHandle: handle).outcome == .refused(.EBADF))
        }
        let own = try machine.kernel.open(.sev)
        #expect(machine.start(sevHandle: own).outcome == .success)
        #expect(machine.update(at: 0, byteCount: 0x1000) == .success)
        machine.kernel.close(own)
        #expect(machine.update(at: 0x1000, byteCount: 0x1000) == .refused(.EBADF))
        #expect(machine.measure().outcome == .refused(.EBADF))
    }
}
