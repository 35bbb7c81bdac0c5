// The processors of one machine, as far as they must know of each other: a store by one of them may change what another
// has decoded.
//
// A store that goes to code of its own processor takes the slow path, because such pages never get a write tag in the
// TLB. In a group that holds for the code of all members: a member that decodes a page takes the others' write tags to
// it away, and a store that then takes the slow path ends the code of all.

import CX86State

/// Processors that share their memory. Whoever runs them sees to it that only one of them runs, changes state, is made or
/// goes away at a time.
public final class ProcessorGroup {
    private var members: [Unmanaged<Processor>] = []

    public init() {}

    func add(_ processor: Processor) { members.append(.passUnretained(processor)) }

    func remove(_ processor: Processor) {
        members.removeAll { $0.toOpaque() == Unmanaged.passUnretained(processor).toOpaque() }
    }

    /// Calls `body` with every member but one.
    @inline(__always)
    func forOthers(than processor: Processor, _ body: (Processor) -> Void) {
        guard members.count > 1 else { return }
        for member in members {
            // SAFETY: a member removes itself before it goes, and nobody does that while another one runs.
            let other = member.takeUnretainedValue()
            if other !== processor { body(other) }
        }
    }
}

extension Processor {
    /// Some processor of the machine has decoded code of this page.
    func isCodePage(_ page: UInt) -> Bool {
        if codePages.contains(page) { return true }
        var found = false
        group?.forOthers(than: self) { if $0.codePages.contains(page) { found = true } }
        return found
    }

    /// The page's bytes are about to change by this processor's store.
    func forgetCodePageEverywhere(_ page: UInt) {
        if codePages.contains(page) { forgetCodePage(page) }
        group?.forOthers(than: self) { if $0.codePages.contains(page) { $0.forgetCodePage(page) } }
    }
}
