// SNP_GUEST_REQUEST: a message of a guest, which the hypervisor carries and cannot read.
//
//     command   what the hypervisor gave       wrong: a status of the command, nothing is written, the counter stays
//     header    fields, sequence number, tag   the same: whoever wrote it, it was not this guest in this order
//     payload   what the guest wants           wrong: a sealed response with STATUS, and the counter moves on
//
// The page is copied once: the hypervisor may change it meanwhile.

import Crypto
import MemoryController
import SEVABI

/// A STATUS for a guest.
struct GuestMessageError: Error {
    let status: GuestMessageStatus
    init(_ status: GuestMessageStatus) { self.status = status }
}

extension Firmware {
    /// SNP_GUEST_REQUEST [SNP 8.27].
    ///
    /// - Returns: INVALID_PLATFORM_STATE, INVALID_ADDRESS, INVALID_GUEST; INVALID_GUEST_STATE before LAUNCH_FINISH;
    ///   INVALID_ADDRESS for pages that are not aligned or no memory; INVALID_PAGE_STATE for a request in somebody's
    ///   private memory or a response page that is not the firmware's; INVALID_PAGE_SIZE; then of the message:
    ///   INVALID_PARAM for a wrong header or sequence number, AEAD_OFLOW when the key has no numbers left,
    ///   BAD_MEASUREMENT for a wrong tag, UNSUPPORTED for messages of migration and CPUID_REQ, INVALID_PARAM for types,
    ///   versions and lengths that do not exist.
    mutating func guestRequest(_ buffer: SNPGuestRequest) -> SEVStatus {
        withContext(at: buffer.context) { firmware, context in
            guard context.state == .running else { return .invalidGuestState }
            let status = firmware.messagePageStatus(buffer)
            guard status == .success else { return status }
            guard
                let page = firmware.memory.firmwareRead(
                    buffer.request, byteCount: GuestMessageHeader.pageByteCount)
            else { return .invalidAddress }
            switch firmware.answer(page, context) {
            case .success(let response):
                return firmware.memory.firmwareWrite(buffer.response, response) ? .success : .invalidAddress
            case .failure(let error): return error.status
            }
        }
    }

    private func messagePageStatus(_ buffer: SNPGuestRequest) -> SEVStatus {
        guard buffer.request.isPageAligned, buffer.response.isPageAligned,
            let request = memory.rmpEntry(buffer.request), let response = memory.rmpEntry(buffer.response)
        else { return .invalidAddress }
        guard request.pageState == .hypervisor || request.pageState == .firmware, response.pageState == .firmware
        else { return .invalidPageState }
        return response.is2MiB ? .invalidPageSize : .success
    }

    /// The response page to a request page.
    private mutating func answer(_ page: [UInt8], _ context: GuestContext) -> Result<[UInt8], StatusError> {
        func refuse(_ status: SEVStatus) -> Result<[UInt8], StatusError> { .failure(.init(status)) }
        guard let header = GuestMessageHeader(bytes: page), header.hasValidReservedBytes,
            header.algorithm == GuestMessageHeader.aes256GCM,
            header.headerVersion == GuestMessageHeader.currentVersion,
            header.headerByteCount == UInt16(GuestMessageHeader.byteCount),
            Int(header.payloadByteCount) <= GuestMessageHeader.maximumPayloadByteCount,
            Int(header.keyIndex) < context.messageKeys.count
        else { return refuse(.invalidParameter) }
        let index = Int(header.keyIndex)
        let (responseNumber, overflow) = context.messageCounts[index].addingReportingOverflow(2)
        // A number used twice would give the key away: the last ones are not given out.
        guard !overflow else { return refuse(.aeadOverflow) }
        guard header.sequenceNumber == responseNumber - 1 else { return refuse(.invalidParameter) }
        let key = context.messageKeys[index]
        guard var payload = GuestMessageCipher.open(page, header, key: key) else { return refuse(.badMeasurement) }
        defer { wipe(&payload) }

        // From here on the guest is known: it holds the key of this VMPL.
        let message = Message(payload: payload, version: header.messageVersion, vmpl: UInt32(header.keyIndex))
        var response: [UInt8]?
        switch header.type {
        case .reportRequest: response = report(message, context)
        case .keyRequest: response = deriveKey(message, context)
        case .tscInfoRequest: response = tscInfo(message, context)
        case .cpuidRequest, .exportRequest, .importRequest, .absorbRequest, .vmrkRequest, .absorbWithoutAgentRequest:
            return refuse(.unsupported)
        default: break
        }
        guard var response else { return refuse(.invalidParameter) }
        defer { wipe(&response) }
        context.messageCounts[index] = responseNumber
        return .success(
            GuestMessageCipher.seal(
                response,
                GuestMessageHeader(
                    type: header.type.response, messageVersion: header.messageVersion,
                    payloadByteCount: response.count, keyIndex: header.keyIndex, sequenceNumber: responseNumber),
                key: key))
    }

    /// A message that came from the guest.
    struct Message {
        let payload: [UInt8]
        let version: UInt8
        /// Of the key that sealed it: a guest's VMPL n has VMPCKn.
        let vmpl: UInt32

        /// A VMPL that this sender may speak for: its own and the less privileged ones.
        func maySpeak(for vmpl: UInt32) -> Bool { (self.vmpl...3).contains(vmpl) }
    }
}
