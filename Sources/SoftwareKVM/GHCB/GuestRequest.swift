// Guest messages: the kernel carries a page to the firmware and one back, both in shared memory, and has certificates put
// beside a report [GHCB 4.1.7, 4.1.8; KVM snp_handle_guest_req, KVM_EXIT_SNP_REQ_CERTS].
//
//     guest ── request page ──► copy ──► SNP_GUEST_REQUEST ──► copy ── response page ──► guest      SW_EXITINFO2: status
//                 └─ extended, a report: first the VMM fills the guest's certificate buffer
//
// The firmware reads and writes pages of the kernel: what the guest changes meanwhile does not matter.

import KVMABI
import MemoryController
import SEVABI

/// The kernel's half of SW_EXITINFO2, in bits 63:32; the firmware's status is in the low one [GHCB 4.1.7].
enum GuestRequestError: UInt64 {
    /// The certificate buffer is too small; RBX says how many pages it takes.
    case invalidLength = 1
    case busy = 2
    case generic = 0xffff_ffff

    var exitInfo2: UInt64 { rawValue << 32 }
}

extension VirtualCPU {
    /// NAE 0x80000011, and the second half of 0x80000012.
    ///
    /// A refusal of the firmware is the guest's: it stands in SW_EXITINFO2. What goes wrong on the way to the firmware and
    /// back is the VMM's: KVM_RUN fails.
    func handleGuestRequest(_ session: GHCBSession) -> RunStep {
        guard let snp = vm.snp, let context = snp.context else { return .fail(.EINVAL) }
        guard let request = vm.memory.read(gpa: session.exitInfo1, byteCount: 4096) else { return .fail(.EIO) }
        do throws(EncryptFailure) {
            // The descriptor of LAUNCH_START: closed, nobody may talk to the firmware any more.
            try vm.requireSEVHandle(snp.sevHandle)
            let (status, response) = try snp.exchange(request, context)
            guard vm.memory.write(gpa: session.exitInfo2, response) else { return .fail(.EIO) }
            answer(session, info1: 0, info2: UInt64(status.rawValue))
            return finish(session)
        } catch {
            return .fail(error.errno)
        }
    }

    /// NAE 0x80000012.
    func handleExtendedGuestRequest(_ session: GHCBSession) -> RunStep {
        guard let snp = vm.snp else { return .fail(.EINVAL) }
        guard let type = vm.memory.read(gpa: session.exitInfo1 &+ 0x34, byteCount: 1)?.first else {
            return .fail(.EIO)
        }
        guard type == GuestMessageType.reportRequest.rawValue else { return handleGuestRequest(session) }
        guard session.hasCertificateBuffer, session.rax & 4095 == 0 else { return refuse(session, .invalidInput) }
        if snp.requestsCertificates {
            runPage.certificateRequest = RunPage.CertificateRequest(gpa: session.rax, pageCount: session.rbx)
            completion = .certificates(session)
            return .exit(.snpRequestCertificates)
        }
        // The VMM is not asked: an empty table, which is one zero entry.
        if session.rbx > 0, !vm.memory.write(gpa: session.rax, [UInt8](repeating: 0, count: 24)) {
            return .fail(.EIO)
        }
        return handleGuestRequest(session)
    }

    /// After KVM_EXIT_SNP_REQ_CERTS. The certificates are in the guest's memory; only then is the firmware asked, so that
    /// a VMM can keep them from changing in between.
    func completeCertificates(_ session: GHCBSession) -> RunStep {
        var session = session
        let request = runPage.certificateRequest
        let error: GuestRequestError
        switch request.result {
        case 0: return handleGuestRequest(session)
        case UInt64(Errno.ENOSPC.rawValue):
            session.rbx = request.pageCount
            error = .invalidLength
        case UInt64(Errno.EAGAIN.rawValue): error = .busy
        case UInt64(Errno.EIO.rawValue): error = .generic
        default: return .fail(.EINVAL)
        }
        answer(session, info1: 0, info2: error.exitInfo2)
        return finish(session)
    }
}

extension SNPGuest {
    /// SNP_GUEST_REQUEST with a copy of the guest's page; what the guest is to see in the other one, also after a refusal.
    func exchange(_ request: [UInt8], _ context: SPA) throws(EncryptFailure) -> (status: SEVStatus, response: [UInt8]) {
        try messageLock.withLock { (_) throws(EncryptFailure) in
            let input = try FirmwareBuffer.input(request, driver)
            let output = try FirmwareBuffer.output(byteCount: 4096, driver)
            var buffer = SNPGuestRequest(context: context, request: input.address, response: output.address).bytes
            let status = driver.submit(.snpGuestRequest, &buffer)
            return (status, try output.contents())
        }
    }
}
