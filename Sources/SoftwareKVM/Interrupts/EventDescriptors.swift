// KVM_IOEVENTFD and KVM_IRQFD: a guest's write that signals an eventfd, and an eventfd that raises a line.

import KVMABI
import Synchronization

/// The eventfds of one VM.
final class EventDescriptors: Sendable {
    struct Doorbell: Sendable {
        var address: UInt64
        /// 0: any.
        var byteCount: Int
        var match: UInt64?
        var isPort: Bool
        var identity: UInt64
        var descriptor: Int32

        func hears(_ address: UInt64, _ byteCount: Int, _ value: UInt64, isPort: Bool) -> Bool {
            self.isPort == isPort && self.address == address
                && (self.byteCount == 0 || self.byteCount == byteCount && (match == nil || match == value))
        }
    }

    struct Line: Sendable {
        var gsi: UInt32
        var identity: UInt64
        var descriptor: Int32
        /// The line stays up until the guest's EOI, which is told here.
        var resample: Int32?
    }

    private struct State: Sendable {
        var doorbells: [Doorbell] = []
        var lines: [Line] = []
        var poller: EventPoller?
    }
    private let state = Mutex(State())
    /// So that a write of a guest without doorbells costs nothing.
    private let hasDoorbells = Atomic(false)

    /// A guest's write. True: somebody was told, and nobody else is to be.
    func ring(_ address: UInt64, byteCount: Int, value: UInt64, isPort: Bool) -> Bool {
        guard hasDoorbells.load(ordering: .relaxed) else { return false }
        let descriptor = state.withLock { state in
            state.doorbells.first { $0.hears(address, byteCount, value, isPort: isPort) }?.descriptor
        }
        guard let descriptor else { return false }
        EventFile.signal(descriptor)
        return true
    }

    func add(_ doorbell: Doorbell) throws(Errno) {
        try state.withLock { (state) throws(Errno) in
            let collides = state.doorbells.contains { other in
                other.isPort == doorbell.isPort && other.address == doorbell.address
                    && (other.byteCount == 0 || doorbell.byteCount == 0
                        || other.byteCount == doorbell.byteCount
                            && (other.match == nil || doorbell.match == nil || other.match == doorbell.match))
            }
            if collides { throw .EEXIST }
            state.doorbells.append(doorbell)
        }
        hasDoorbells.store(true, ordering: .relaxed)
    }

    /// The descriptor that is not needed any more. Nil: no such doorbell.
    func remove(_ doorbell: Doorbell) -> Int32? {
        state.withLock { state in
            let index = state.doorbells.firstIndex {
                $0.identity == doorbell.identity && $0.address == doorbell.address && $0.isPort == doorbell.isPort
                    && $0.byteCount == doorbell.byteCount && $0.match == doorbell.match
            }
            return index.map { state.doorbells.remove(at: $0).descriptor }
        }
    }

    /// EBUSY for an eventfd that has a line already.
    func add(_ line: Line, poller make: () throws(Errno) -> EventPoller) throws(Errno) {
        try state.withLock { (state) throws(Errno) in
            if state.lines.contains(where: { $0.identity == line.identity }) { throw .EBUSY }
            let poller: EventPoller
            if let existing = state.poller { poller = existing } else { poller = try make() }
            state.poller = poller
            state.lines.append(line)
            poller.watch(state.lines.map(\.descriptor))
        }
    }

    /// True: it was the last of the GSI that resamples.
    func removeLine(gsi: UInt32, identity: UInt64) -> Bool {
        state.withLock { state in
            let removed = state.lines.filter { $0.gsi == gsi && $0.identity == identity }
            state.lines.removeAll { $0.gsi == gsi && $0.identity == identity }
            state.poller?.watch(state.lines.map(\.descriptor))
            removed.forEach(Self.close)
            return removed.contains { $0.resample != nil }
                && !state.lines.contains { $0.gsi == gsi && $0.resample != nil }
        }
    }

    /// Takes the signal of a line's eventfd. Under the lock: a descriptor that was closed may be somebody else's file by
    /// now.
    func takeSignal(_ descriptor: Int32) -> Line? {
        state.withLock { state in
            guard let line = state.lines.first(where: { $0.descriptor == descriptor }), EventFile.take(descriptor)
            else { return nil }
            return line
        }
    }

    fileprivate static func close(_ line: Line) {
        EventFile.close(line.descriptor)
        if let resample = line.resample { EventFile.close(resample) }
    }

    /// The guest has ended an interrupt of this line.
    func resample(gsi: UInt32) {
        let descriptors = state.withLock { $0.lines.filter { $0.gsi == gsi }.compactMap(\.resample) }
        for descriptor in descriptors { EventFile.signal(descriptor) }
    }

    /// The VM goes.
    func stop() {
        state.withLock { state in
            state.poller?.stop()
            for doorbell in state.doorbells { EventFile.close(doorbell.descriptor) }
            state.lines.forEach(Self.close)
            state = State()
        }
    }
}

extension VirtualMachine {
    /// KVM_IOEVENTFD: DATAMATCH 1, PIO 2, DEASSIGN 4.
    func setIOEventFD(_ argument: KVMIOEventFD) throws(Errno) -> Int32 {
        guard [0, 1, 2, 4, 8].contains(argument.byteCount), argument.flags & ~7 == 0,
            !argument.address.addingReportingOverflow(UInt64(argument.byteCount)).overflow,
            argument.byteCount != 0 || argument.flags & 1 == 0
        else { throw .EINVAL }
        let identity = try EventFile.identity(argument.fd)
        var doorbell = EventDescriptors.Doorbell(
            address: argument.address, byteCount: Int(argument.byteCount),
            match: argument.flags & 1 != 0 ? argument.dataMatch : nil, isPort: argument.flags & 2 != 0,
            identity: identity, descriptor: -1)
        if argument.flags & 4 != 0 {
            guard let descriptor = events.remove(doorbell) else { throw .ENOENT }
            EventFile.close(descriptor)
            return 0
        }
        doorbell.descriptor = try EventFile.duplicate(argument.fd)
        do {
            try events.add(doorbell)
        } catch {
            EventFile.close(doorbell.descriptor)
            throw error
        }
        return 0
    }

    /// KVM_IRQFD: DEASSIGN 1, RESAMPLE 2.
    func setIRQFD(_ argument: KVMIRQFD) throws(Errno) -> Int32 {
        if argument.flags & ~3 != 0 || argument.gsi >= 4096 { throw .EINVAL }
        let descriptor = Int32(bitPattern: argument.fd)
        if argument.flags & 1 != 0 {
            if events.removeLine(gsi: argument.gsi, identity: try EventFile.identity(descriptor)) {
                interrupts.withLock { $0.endResampling(of: argument.gsi) }
            }
            return 0
        }
        let resamples = argument.flags & 2 != 0
        let isAllowed = interrupts.withLock { resamples ? $0.kind == .full : $0.hasLocalAPIC }
        if !isAllowed { throw .EINVAL }
        var line = EventDescriptors.Line(
            gsi: argument.gsi, identity: try EventFile.identity(descriptor),
            descriptor: try EventFile.duplicate(descriptor))
        do throws(Errno) {
            if resamples {
                let other = Int32(bitPattern: argument.resampleFD)
                _ = try EventFile.identity(other)
                line.resample = try EventFile.duplicate(other)
            }
            try events.add(line) { () throws(Errno) in
                try EventPoller { [weak self] descriptor in self?.raiseLine(of: descriptor) }
            }
        } catch {
            EventDescriptors.close(line)
            throw error
        }
        if resamples { interrupts.withLock { _ = $0.resampled.insert(argument.gsi) } }
        return 0
    }

    /// An irqfd was signalled: an edge, or a level that lasts until the guest's EOI.
    private func raiseLine(of descriptor: Int32) {
        guard let line = events.takeSignal(descriptor) else { return }
        let now = HostClock.monotonic
        withInterrupts { controller in
            let source = line.resample == nil ? 0 : InterruptController.resampleSource
            _ = controller.setLine(gsi: line.gsi, source: source, asserted: true, now: now)
            if line.resample == nil { _ = controller.setLine(gsi: line.gsi, asserted: false, now: now) }
        }
    }
}
