// The launch of a SEV or SEV-ES guest: LAUNCH_START, LAUNCH_UPDATE_DATA, LAUNCH_UPDATE_VMSA, LAUNCH_FINISH [SEV 6.2 to 6.7].
//
// KVM checks little of the order: the firmware's state machine does, and its answer is EIO with a status.

import KVMABI
import MemoryController
import SEVABI
import X86Defs

extension VirtualMachine {
    /// The guest, or ENOTTY: SEV or SEV-ES only.
    func requireSEV() throws(EncryptFailure) -> SEVGuest {
        guard let sev else { throw EncryptFailure(.ENOTTY) }
        return sev
    }

    /// `sev_issue_cmd`: a command through the descriptor that START was given; EBADF if that is not open any more, or if
    /// there was no START.
    func issue(_ sev: SEVGuest, _ command: SEVCommand, _ buffer: inout [UInt8]) throws(EncryptFailure) {
        try requireSEVHandle(sev.sevHandle)
        try firmware(command, &buffer)
    }

    // MARK: KVM_SEV_LAUNCH_START

    func sevLaunchStart(_ command: KVMSEVCommand) throws(EncryptFailure) {
        let sev = try requireSEV()
        var argument = try commandData(KVMSEVLaunchStart.self, command)
        var certificate: FirmwareBuffer?
        if argument.certificateAddress != 0 {
            certificate = try kernel.firmwareBlob(
                argument.certificateAddress, byteCount: argument.certificateByteCount)
        }
        var session: FirmwareBuffer?
        if argument.sessionAddress != 0 {
            session = try kernel.firmwareBlob(argument.sessionAddress, byteCount: argument.sessionByteCount)
        }
        try requireSEVHandle(command.sevHandle)
        var start = SEVLaunchStart(
            handle: argument.handle, policy: argument.policy, certificateAddress: certificate?.address ?? .zero,
            certificateByteCount: UInt32(certificate?.byteCount ?? 0), sessionAddress: session?.address ?? .zero,
            sessionByteCount: UInt32(session?.byteCount ?? 0)
        ).bytes
        try withExtendedLifetime((certificate, session)) { () throws(EncryptFailure) in
            try firmware(.launchStart, &start)
        }
        guard let handle = SEVLaunchStart(bytes: start)?.handle else { throw EncryptFailure(.EIO) }
        try bind(sev, handle)
        argument.handle = handle
        do throws(EncryptFailure) {
            try copyBack(argument, command)
        } catch {
            sev.driver.unbind(handle: handle)
            throw error
        }
        sev.handle = handle
        sev.sevHandle = command.sevHandle
    }

    /// `sev_bind_asid`: ACTIVATE. A guest that does not get its ASID is forgotten again.
    func bind(_ sev: SEVGuest, _ handle: UInt32) throws(EncryptFailure) {
        var activate = SEVActivate(handle: handle, asid: sev.asid).bytes
        do throws(EncryptFailure) {
            try firmware(.activate, &activate)
        } catch {
            sev.driver.decommission(handle: handle)
            throw error
        }
    }

    // MARK: KVM_SEV_LAUNCH_UPDATE_DATA

    func sevLaunchUpdateData(_ command: KVMSEVCommand) throws(EncryptFailure) {
        let sev = try requireSEV()
        let argument = try commandData(KVMSEVLaunchUpdateData.self, command)
        try requirePinnable(sev, argument.userAddress, byteCount: UInt64(argument.byteCount))
        try kernel.encryptedMemory.withPinnedPieces(
            argument.userAddress, byteCount: UInt64(argument.byteCount), of: self, writesBack: true
        ) { (page, byteCount) throws(EncryptFailure) in
            var update = SEVLaunchUpdate(
                handle: sev.handle ?? 0, address: page, byteCount: UInt32(truncatingIfNeeded: byteCount)
            ).bytes
            try issue(sev, .launchUpdateData, &update)
        }
    }

    // MARK: KVM_SEV_LAUNCH_UPDATE_VMSA

    /// All vCPUs in creation order, up to the first that cannot be sealed.
    func sevLaunchUpdateVMSA() throws(EncryptFailure) {
        guard let sev, sev.isES else { throw EncryptFailure(.ENOTTY) }
        for vcpu in vcpus {
            var failure: EncryptFailure?
            vcpu.lockedForSealing {
                do throws(EncryptFailure) { try seal(vcpu, sev) } catch { failure = error }
            }
            if let failure { throw failure }
        }
    }

    private func seal(_ vcpu: VirtualCPU, _ sev: SEVGuest) throws(EncryptFailure) {
        var state = try vcpu.stateForSealing()
        // Guests of ES_INIT keep the VMSA that their old measurements were made of.
        if sev.usesLegacyInit { state.clearFPU() }
        let memory = sev.driver.memory
        guard let page = memory.allocatePages(1) else { throw EncryptFailure(.ENOMEM) }
        do throws(EncryptFailure) {
            let vmsa = VMSA(processor: state, sevFeatures: sev.vmsaFeatures)
            do { try memory.hostWrite(page, vmsa.page) } catch { throw EncryptFailure(.EFAULT) }
            var update = SEVLaunchUpdate(handle: sev.handle ?? 0, address: page, byteCount: 4096).bytes
            try issue(sev, .launchUpdateVMSA, &update)
        } catch {
            _ = memory.freePages(page, 1)
            throw error
        }
        sev.vmsaPages.append(page)
        vcpu.seal(vmsaPage: page)
    }

    // MARK: KVM_SEV_LAUNCH_FINISH, and the migration commands that have nothing but the handle

    func sevHandleCommand(_ command: SEVCommand) throws(EncryptFailure) {
        let sev = try requireSEV()
        var buffer = SEVHandleBuffer(handle: sev.handle ?? 0).bytes
        try issue(sev, command, &buffer)
    }

    // MARK: KVM_SEV_GUEST_STATUS

    func sevGuestStatus(_ command: KVMSEVCommand) throws(EncryptFailure) {
        let sev = try requireSEV()
        var buffer = SEVGuestStatus(handle: sev.handle ?? 0).bytes
        try issue(sev, .guestStatus, &buffer)
        guard let status = SEVGuestStatus(bytes: buffer) else { throw EncryptFailure(.EIO) }
        var result = KVMSEVGuestStatus()
        result.handle = status.handle
        result.policy = status.policy
        result.state = UInt32(status.state.rawValue)
        try copyBack(result, command)
    }
}

extension ProcessorState {
    /// No x87 and SSE state at all, not even its defaults.
    fileprivate mutating func clearFPU() {
        fcw = 0
        fsw = 0
        ftw = 0
        fop = 0
        fip = 0
        fdp = 0
        mxcsr = 0
        x87Significand = .init(repeating: 0)
        x87Exponent = .init(repeating: 0)
        xmm = .init(repeating: 0)
        ymmUpper = .init(repeating: 0)
    }
}
