// Why a guest ended itself, decoded from what the kernel hands over.

import HostDiagnosis
import SEVABI

/// A guest's request to be terminated, by the GHCB MSR protocol or by the termination event of a GHCB page.
///
/// Reason set 0 is the protocol's own, set 1 is Linux's [GHCB 2.3.1, 4.1.13].
public struct GuestTermination: Equatable, Sendable {
    /// nil when the host kernel does not pass the reason on.
    public var reasonSet: UInt8?
    /// nil together with ``reasonSet``.
    public var reason: UInt8?
    /// SW_EXITINFO2 of the GHCB form: for reason 0/2 the SEV_STATUS bits that the guest cannot handle.
    public var detail: UInt64?

    public init(reasonSet: UInt8?, reason: UInt8?, detail: UInt64? = nil) {
        self.reasonSet = reasonSet
        self.reason = reason
        self.detail = detail
    }

    /// From `system_event.data[0]`, which holds the GHCB MSR.
    ///
    /// For the event form the kernel gives the GHCB's address only, and Linux writes "success" over SW_EXITINFO1 and 2
    /// before it looks at the event: zero in both may be reason 0/0 and may be any other, so it counts as not known.
    /// - Parameter readGHCB: Gives the page at a guest physical address, if it is shared memory.
    /// - Returns: nil when the value is no request and no page can be read.
    public init?(ghcbMSR: UInt64, readGHCB: (UInt64) -> [UInt8]?) {
        let msr = GHCBMSR(rawValue: ghcbMSR)
        if msr.code == .terminationRequest {
            self.init(reasonSet: msr.terminationReasonSet, reason: msr.terminationReason)
            return
        }
        guard msr.code == .ghcbAddress, let bytes = readGHCB(ghcbMSR) else { return nil }
        // The kernel clears the valid bitmap when it takes the event; the fields are read without it.
        func quadword(_ field: GHCB.Field) -> UInt64? {
            guard field.offset + 8 <= bytes.count else { return nil }
            return bytes[field.offset..<field.offset + 8].reversed().reduce(0) { $0 << 8 | UInt64($1) }
        }
        guard let code = quadword(.exitCode), code == GHCBEvent.termination.rawValue, let info = quadword(.exitInfo1),
            let detail = quadword(.exitInfo2)
        else { return nil }
        if info == 0, detail == 0 {
            self.init(reasonSet: nil, reason: nil)
        } else {
            self.init(reasonSet: UInt8(info & 0xf), reason: UInt8(info >> 4 & 0xff), detail: detail)
        }
    }

    /// What the reason means; nil for one that nobody has defined.
    public var meaning: String? { row?.meaning }

    /// What usually leads here.
    public var likelyCause: String {
        // Linux sends the event only when SEV_STATUS has bits that it cannot handle.
        guard reasonSet != nil else { return "--guest-features with a bit that this guest does not know" }
        return row?.likelyCause ?? "see the reason"
    }

    private var row: TerminationReason? {
        guard let reasonSet, let reason else { return nil }
        return TerminationReason.of(set: reasonSet, reason: reason)
    }
}

extension GuestTermination: CustomStringConvertible {
    /// "reason 1/2 (Linux: PVALIDATE failed or changed nothing)".
    public var description: String {
        guard let reasonSet, let reason else {
            return "termination event; the host kernel does not pass its reason on"
        }
        let set = reasonSet == 0 ? "GHCB" : reasonSet == 1 ? "Linux" : "set \(reasonSet)"
        let extra = detail.map { $0 == 0 ? "" : ", detail \(hex($0))" } ?? ""
        return "reason \(reasonSet)/\(reason) (\(set): \(meaning ?? "not a defined reason"))\(extra)"
    }
}
