// The processors of one machine, as far as they must know of each other.
//
// They run at the same time where the gate lets them: plain loads and stores are the host's own, locked instructions too
// (Locked.swift). What cannot be done that way a processor does alone, at an instruction's boundary of all the others:
// stores to pages that any of them has decoded, the first decoding of a page, locked operands that are not aligned,
// PVALIDATE and RMPADJUST. The instruction that finds out is given up as for a fault (`prepareAlone`), and the run loop
// repeats it once the others have left.
//
//   codePages   every page that some member has decoded; changed by a processor that is alone, read by all: no TLB has
//               write access to a page in here

import CX86State
import Synchronization

/// Who of a machine's processors runs. The one that runs has entered; the engine asks for the rest.
public protocol ProcessorGate: AnyObject, Sendable {
    /// Several are inside at a time.
    var isParallel: Bool { get }
    /// Somebody waits to come in.
    var isContended: Bool { get }
    /// Waits until nobody is inside and keeps all others out.
    ///
    /// - Parameters:
    ///   - isInside: The caller has entered; it counts as outside while it waits.
    ///   - kick: Asks all processors to come out; called again as long as somebody is inside.
    func enterAlone(isInside: Bool, kick: () -> Void)
    /// Ends that; `staysInside`: the caller goes on as one of many.
    func leaveAlone(staysInside: Bool)
}

/// In a loop that waits for another thread: the host's processor takes it easy.
public func pauseHost() { x86_pause() }

/// Processors that share their memory. Without a gate whoever runs them sees to it that only one of them runs, changes
/// state, is made or goes away at a time.
public final class ProcessorGroup: Sendable {
    public let gate: (any ProcessorGate)?
    /// Changed by who is alone; the lock is for those who kick meanwhile.
    private let members = Mutex<[Member]>([])

    /// Not kept alive: a member removes itself before it goes.
    private struct Member: @unchecked Sendable {
        let reference: Unmanaged<Processor>
        init(_ processor: Processor) { reference = .passUnretained(processor) }
        var processor: Processor { reference.takeUnretainedValue() }
        var state: CPU { reference._withUnsafeGuaranteedRef { $0.s } }
    }
    let codePages = SharedCodePages()
    /// Plain guests: how often memory may have changed other than by processors.
    let codeEpoch = Atomic<UInt64>(0)

    public init(gate: (any ProcessorGate)? = nil) { self.gate = gate }

    func add(_ processor: Processor) {
        let member = Member(processor)
        alone {
            members.withLock { $0.append(member) }
            shareAmongMembers()
        }
    }

    func remove(_ processor: Processor) {
        let member = Member(processor)
        alone { members.withLock { $0.removeAll { $0.reference.toOpaque() == member.reference.toOpaque() } } }
    }

    /// Code decoded for a lonely processor has no locked instructions.
    private func shareAmongMembers() {
        guard gate?.isParallel == true else { return }
        let all = members.withLock { $0 }
        guard all.count > 1 else { return }
        for processor in all.map(\.processor) {
            if processor.s.pointee.shared != 0 { continue }
            processor.s.pointee.shared = 1
            processor.forgetAllCode()
        }
    }

    /// Runs `body` while no member is inside. Not from inside.
    public func alone(_ body: () -> Void) {
        gate?.enterAlone(isInside: false) { kick() }
        defer { gate?.leaveAlone(staysInside: false) }
        body()
    }

    /// Asks all members to come out.
    func kick() {
        // SAFETY: a member is there until it is removed, under this lock.
        members.withLock { for member in $0 { x86_kick(member.state) } }
    }

    /// Calls `body` with every member. Alone, or without a gate.
    @inline(__always)
    func forAll(_ body: (Processor) -> Void) {
        // SAFETY: a member removes itself before it goes, and nobody does that now.
        for member in members.withLock({ $0 }) { body(member.processor) }
    }
}

/// Pages with code of any member. Reads by processors inside, changes by who is alone: that is why it may say so.
final class SharedCodePages: @unchecked Sendable {
    private var table = PageTable()

    func contains(_ page: UInt) -> Bool { table.contains(page) }
    func insert(_ page: UInt) { table[page] = 1 }
    func remove(_ page: UInt) { table[page] = -1 }
}

/// Why a processor must be alone.
enum AloneReason {
    /// To repeat the instruction at RIP, or the delivery of the event that is kept.
    case instruction
    /// To decode the block at RIP.
    case decode
}

extension Processor {
    /// Somebody else may be running now.
    @inline(__always)
    var othersRun: Bool { s.pointee.shared != 0 && s.pointee.alone == 0 }

    /// Gives the instruction up as a fault does, to be repeated alone. Returns nil or false for its caller to return.
    func prepareAlone<T>(at rip: UInt64, toDecode: Bool = false) -> T? {
        _ = prepareAlone(at: rip, toDecode ? .decode : .instruction)
        return nil
    }
    func prepareAlone(at rip: UInt64) -> Bool { prepareAlone(at: rip, .instruction) }

    private func prepareAlone(at rip: UInt64, _ reason: AloneReason) -> Bool {
        s.pointee.rip = rip
        s.pointee.leave = UInt32(X86_LEAVE_ALONE)
        wantsAlone = reason
        return false
    }

    /// At an instruction's boundary: waits until nobody else is inside.
    func becomeAlone() {
        guard let group, let gate = group.gate else { return }
        gate.enterAlone(isInside: true) { group.kick() }
        s.pointee.alone = 1
        // Kicks that came meanwhile, from others who wanted to be alone.
        _ = x86_settle_kick(s)
    }

    func stopBeingAlone() {
        s.pointee.alone = 0
        group?.gate?.leaveAlone(staysInside: true)
    }

    /// Some processor of the machine has decoded code of this page.
    func isCodePage(_ page: UInt) -> Bool { group?.codePages.contains(page) ?? codePages.contains(page) }

    /// The page's bytes are about to change by this processor's store.
    func forgetCodePageEverywhere(_ page: UInt) {
        guard let group else { return forgetCodePage(page) }
        group.forAll { if $0.codePages.contains(page) { $0.forgetCodePage(page) } }
        group.codePages.remove(page)
    }

    /// Stores to the page take the slow path from now on, whoever makes them.
    func takeWriteTags(_ page: UInt) {
        guard let group else { return dropWriteTags(page) }
        if group.codePages.contains(page) { return }
        group.forAll { $0.dropWriteTags(page) }
        group.codePages.insert(page)
    }

    /// PAUSE: another processor is what this one waits for.
    func pause() {
        guard let gate = group?.gate else {
            if configuration.yieldsAtPause { endSlice() }
            return
        }
        pauses &+= 1
        if gate.isContended || pauses >= Self.patience {
            hasSpun = true
            endSlice()
        } else {
            x86_pause()
        }
    }

    /// How often a slice may PAUSE: who holds a lock for longer than that is perhaps not being run by the host.
    private static let patience = 256
}
