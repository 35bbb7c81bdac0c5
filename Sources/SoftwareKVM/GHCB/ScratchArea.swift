// The scratch area of a non-automatic exit: in the GHCB's shared buffer, or elsewhere in shared memory with at most
// 64 KiB [GHCB 2.6; KVM setup_vmgexit_scratch].

import SEVABI

package struct ScratchArea: Equatable, Sendable {
    package let gpa: UInt64
    package let byteCount: Int

    static let externalLimit: UInt64 = 64 << 10

    /// Nil when the guest's numbers do not describe an area: "invalid scratch area".
    package init?(scratch: UInt64, byteCount: UInt64, ghcbGPA: UInt64) {
        guard scratch != 0, !scratch.addingReportingOverflow(byteCount).overflow, byteCount <= 1 << 32 else {
            return nil
        }
        if scratch & ~4095 == ghcbGPA {
            guard
                GHCB.pageOffset(ofScratch: scratch, byteCount: Int(byteCount), ghcbGPA: ghcbGPA) != nil
            else { return nil }
        } else if byteCount > Self.externalLimit {
            return nil
        }
        gpa = scratch
        self.byteCount = Int(byteCount)
    }

    /// Bytes of the GHCB's shared buffer from here on, whatever length the guest gave; for structures that carry their own
    /// length. Outside a GHCB it is the length given.
    func reach(ghcbGPA: UInt64) -> Int {
        gpa & ~4095 == ghcbGPA ? max(0, GHCB.sharedBuffer.upperBound - Int(gpa & 4095)) : byteCount
    }
}
