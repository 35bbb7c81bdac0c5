// Everything between an interrupt line and a processor: routing table, 8259 pair, I/O APIC, local APICs, PIT.
//
// One value per VM, held under one lock: lines are raised by any thread, vectors are taken by vCPU threads. Whoever
// changes something finds in `wake` the vCPUs that must look again.

/// Where a GSI goes (`kvm_irq_routing_entry`).
enum InterruptRoute: Equatable {
    /// An 8259 input, 0…15.
    case pic(Int)
    case ioapic(pin: Int)
    case msi(addressLow: UInt32, addressHigh: UInt32, data: UInt32)
}

struct InterruptController {
    enum Kind: Equatable {
        /// No local APIC in the kernel: the VMM injects vectors.
        case none
        /// KVM_CREATE_IRQCHIP.
        case full
        /// KVM_CAP_SPLIT_IRQCHIP: local APICs here, the I/O APIC in the VMM.
        case split(pins: Int)
    }

    var kind = Kind.none
    /// In vCPU creation order; empty while `kind` is `.none`.
    var apics: [LocalAPIC] = []
    var ioapic = IOAPIC()
    var pic = PIC()
    var pit: PIT?
    private(set) var routes: [UInt32: [InterruptRoute]] = [:]
    /// Resampling irqfds are a source of their own: nobody else's level falls with the guest's EOI.
    static let resampleSource = 1
    /// GSIs of irqfds that want to hear of the guest's EOI, and those of them that had one since the last look.
    var resampled: Set<UInt32> = []
    var ended: [UInt32] = []
    /// Bit n: vCPU n (creation order) has something new to look at.
    var wake: UInt64 = 0
    /// Split irqchip: finished level vectors that the VMM must hear of, per vCPU order of arrival.
    var finishedVectors: [(vcpu: Int, vector: UInt8)] = []

    var hasLocalAPIC: Bool { kind != .none }

    /// KVM's table after KVM_CREATE_IRQCHIP: GSI n is I/O APIC pin n, the first sixteen also 8259 inputs.
    mutating func installDefaultRoutes() {
        routes = [:]
        for gsi in 0..<UInt32(IOAPIC.pinCount) {
            routes[gsi] = gsi < 16 ? [.pic(Int(gsi)), .ioapic(pin: Int(gsi))] : [.ioapic(pin: Int(gsi))]
        }
    }

    mutating func setRoutes(_ new: [UInt32: [InterruptRoute]]) { routes = new }

    // MARK: Raising

    /// KVM_IRQ_LINE. Returns false when no route exists.
    ///
    /// - Parameter source: Who holds the line up, of those that share it.
    mutating func setLine(gsi: UInt32, source: Int = 0, asserted: Bool, now: UInt64) -> Bool {
        guard let targets = routes[gsi] else { return false }
        for target in targets {
            switch target {
            case .pic(let input):
                pic.setLine(input, asserted: asserted)
                wakeForPIC()
            case .ioapic(let pin):
                if let message = ioapic.setLine(pin, source: source, asserted: asserted) { _ = deliver(message) }
            case .msi(let low, let high, let data):
                if asserted { _ = deliverMSI(addressLow: low, addressHigh: high, data: data) }
            }
        }
        return true
    }

    private mutating func wakeForPIC() {
        guard pic.hasInterrupt else { return }
        for index in apics.indices where apics[index].acceptsPIC { wake |= 1 << UInt64(index) }
    }

    /// Returns how many local APICs took it; -1 for a broadcast that nobody hears [KVM kvm_irq_delivery_to_apic].
    mutating func deliverMSI(addressLow: UInt32, addressHigh: UInt32, data: UInt32) -> Int {
        let mode = DeliveryMode(rawValue: UInt8(truncatingIfNeeded: data >> 8) & 7)
        let destination = (addressLow >> 12 & 0xff) | (addressHigh & 0xffff_ff00)
        // A destination that does not exist is no error. A broadcast is, if there is nobody to hear it: with the
        // redirection hint, as for the lowest priority, only APICs that software has switched on.
        let seeksLowest = mode == .lowestPriority || addressLow & 8 != 0
        let isHeard = apics.contains { $0.isEnabled && (!seeksLowest || $0.isSoftwareEnabled) }
        if destination == 0xff, !isHeard { return -1 }
        guard let mode else { return 0 }
        return deliver(
            InterruptMessage(
                vector: UInt8(truncatingIfNeeded: data), mode: mode,
                destination: destination, isLogical: addressLow & 4 != 0,
                isLevelTriggered: data & 0x8000 != 0))
    }

    /// Delivers to every matching local APIC, or the least busy one for lowest priority.
    mutating func deliver(_ message: InterruptMessage) -> Int {
        var best: Int?
        var count = 0
        for index in apics.indices
        where apics[index].isEnabled
            && apics[index].matches(destination: message.destination, logical: message.isLogical)
        {
            if message.mode == .lowestPriority {
                guard apics[index].isSoftwareEnabled else { continue }
                if let other = best, apics[other].processorPriority <= apics[index].processorPriority { continue }
                best = index
            } else if accept(message, at: index) {
                count += 1
            }
        }
        if let best, accept(message, at: best) { count += 1 }
        return count
    }

    /// KVM_HC_SEND_IPI: to the local APICs whose ids the two words name, counted from `first`.
    mutating func deliver(command: UInt32, _ low: UInt64, _ high: UInt64, from first: UInt64) -> UInt64 {
        guard let mode = DeliveryMode(rawValue: UInt8(truncatingIfNeeded: command >> 8) & 7) else { return 0 }
        let message = InterruptMessage(
            vector: UInt8(truncatingIfNeeded: command), mode: mode, destination: 0, isLogical: false,
            isLevelTriggered: command & 0x8000 != 0)
        var count: UInt64 = 0
        for index in apics.indices where apics[index].isEnabled {
            let bit = UInt64(apics[index].id) &- first
            guard bit < 128, (bit < 64 ? low : high) >> (bit & 63) & 1 != 0 else { continue }
            if accept(message, at: index) { count += 1 }
        }
        return count
    }

    private mutating func accept(_ message: InterruptMessage, at index: Int) -> Bool {
        switch message.mode {
        case .fixed, .lowestPriority:
            guard apics[index].accept(vector: message.vector, levelTriggered: message.isLevelTriggered) else {
                return false
            }
        case .nmi: apics[index].nmiCount = min(2, apics[index].nmiCount + 1)
        case .initialize:
            apics[index].initPending = true
            apics[index].startupVector = nil
        case .startup: apics[index].startupVector = message.vector
        // This machine has no SMM.
        case .smi, .external: return false
        }
        wake |= 1 << UInt64(index & 63)
        return true
    }

    /// What INIT and SIPI ask of vCPU `index`, which it then sees to. An INIT resets its local APIC.
    mutating func takeStartup(vcpu index: Int) -> (isInit: Bool, vector: UInt8?)? {
        guard apics.indices.contains(index), apics[index].initPending || apics[index].startupVector != nil else {
            return nil
        }
        let taken = (apics[index].initPending, apics[index].startupVector)
        if apics[index].initPending { apics[index].initialize() }
        apics[index].initPending = false
        apics[index].startupVector = nil
        return taken
    }

    // MARK: Register accesses of a processor

    mutating func perform(_ effect: LocalAPIC.Effect, by index: Int) {
        switch effect {
        case .none: break
        case .endOfInterrupt(let vector):
            if case .split = kind {
                finishedVectors.append((index, vector))
            } else {
                if !resampled.isEmpty { lower(resampledBy: vector) }
                for message in ioapic.endOfInterrupt(vector) { _ = deliver(message) }
            }
        case .interprocessorInterrupt(let command, let destination):
            interprocessorInterrupt(command, destination, from: index)
        }
        // A lower TPR or an EOI may have opened the way for the next vector.
        wake |= 1 << UInt64(index & 63)
    }

    /// The lines of resampling irqfds fall with the EOI of what they raised; who still wants one raises it again.
    private mutating func lower(resampledBy vector: UInt8) {
        for gsi in resampled {
            for case .ioapic(let pin) in routes[gsi] ?? [] where ioapic.awaitsEnd(pin, of: vector) {
                lowerResampled(gsi)
                ended.append(gsi)
            }
        }
    }

    private mutating func lowerResampled(_ gsi: UInt32) {
        for target in routes[gsi] ?? [] {
            switch target {
            case .pic(let input): pic.setLine(input, asserted: false)
            case .ioapic(let pin): _ = ioapic.setLine(pin, source: Self.resampleSource, asserted: false)
            case .msi: break
            }
        }
    }

    /// The last irqfd of the line that resamples is gone, and what it has raised with it.
    mutating func endResampling(of gsi: UInt32) {
        resampled.remove(gsi)
        lowerResampled(gsi)
    }

    private mutating func interprocessorInterrupt(_ command: UInt32, _ destination: UInt32, from index: Int) {
        guard let mode = DeliveryMode(rawValue: UInt8(truncatingIfNeeded: command >> 8) & 7) else { return }
        // INIT level de-assert does nothing [APM2 16.5].
        if mode == .initialize && command & 0xc000 == 0x8000 { return }
        let message = InterruptMessage(
            vector: UInt8(truncatingIfNeeded: command), mode: mode, destination: destination,
            isLogical: command & 0x800 != 0, isLevelTriggered: command & 0x8000 != 0)
        switch (command >> 18) & 3 {
        case 0: _ = deliver(message)
        case 1: _ = accept(message, at: index)
        case 2: for other in apics.indices { _ = accept(message, at: other) }
        default: for other in apics.indices where other != index { _ = accept(message, at: other) }
        }
    }

    /// An MMIO read by vCPU `index`; nil = not ours.
    mutating func readMMIO(_ gpa: UInt64, byteCount: Int, vcpu index: Int, now: UInt64) -> UInt64? {
        if hasLocalAPIC, apics.indices.contains(index) {
            let base = apics[index].base & 0xffff_ffff_f000
            if apics[index].isEnabled && !apics[index].isX2APIC, gpa >= base, gpa < base + 0x1000 {
                return partialRead(gpa - base, byteCount) { apics[index].read(Int($0), now: now) ?? 0 }
            }
        }
        if kind == .full, gpa >= IOAPIC.baseAddress, gpa < IOAPIC.baseAddress + IOAPIC.byteCount {
            return partialRead(gpa - IOAPIC.baseAddress, byteCount) { ioapic.read($0) }
        }
        return nil
    }

    /// Registers are 32 bits at 16-byte steps; narrow reads see their bytes.
    private func partialRead(_ offset: UInt64, _ byteCount: Int, _ read: (UInt64) -> UInt32) -> UInt64 {
        let value = UInt64(read(offset & ~15)) >> (8 * (offset & 15))
        return byteCount >= 8 ? value : value & ((1 << UInt64(8 * max(1, byteCount))) - 1)
    }

    /// An MMIO write by vCPU `index`; false = not ours.
    mutating func writeMMIO(_ gpa: UInt64, byteCount: Int, value: UInt64, vcpu index: Int, now: UInt64) -> Bool {
        if hasLocalAPIC, apics.indices.contains(index) {
            let base = apics[index].base & 0xffff_ffff_f000
            if apics[index].isEnabled && !apics[index].isX2APIC, gpa >= base, gpa < base + 0x1000 {
                let offset = Int(gpa - base)
                // KVM: only aligned 32-bit writes count, others are swallowed.
                if byteCount >= 4 && offset & 15 == 0 {
                    let effect = apics[index].write(offset, UInt32(truncatingIfNeeded: value), now: now)
                    perform(effect ?? .none, by: index)
                }
                return true
            }
        }
        if kind == .full, gpa >= IOAPIC.baseAddress, gpa < IOAPIC.baseAddress + IOAPIC.byteCount {
            if gpa & 15 == 0, let message = ioapic.write(gpa - IOAPIC.baseAddress, UInt32(truncatingIfNeeded: value)) {
                _ = deliver(message)
            }
            return true
        }
        return false
    }

    /// A port read of the 8259 pair or the PIT; nil = not ours.
    mutating func readPort(_ port: UInt16, now: UInt64) -> UInt8? {
        if kind == .full, PIC.owns(port: port) { return pic.read(port: port) }
        if pit != nil, PIT.owns(port: port) { return pit?.read(port: port, now: now) }
        return nil
    }

    mutating func writePort(_ port: UInt16, _ value: UInt8, now: UInt64) -> Bool {
        if kind == .full, PIC.owns(port: port) {
            pic.write(port: port, value)
            wakeForPIC()
            return true
        }
        if pit != nil, PIT.owns(port: port) {
            pit?.write(port: port, value, now: now)
            return true
        }
        return false
    }

    // MARK: Taking

    /// Lets due timers fire. Returns the next moment at which one will, for vCPU `index`.
    mutating func advanceTimers(vcpu index: Int, now: UInt64) -> UInt64? {
        guard apics.indices.contains(index) else { return nil }
        if apics[index].timerDeadline != nil { _ = apics[index].advanceTimer(now: now) }
        var next = apics[index].timerDeadline
        if index == 0, pit != nil {
            if pit?.advance(now: now) == true {
                _ = setLine(gsi: 0, asserted: true, now: now)
                _ = setLine(gsi: 0, asserted: false, now: now)
            }
            if let due = pit?.deadline { next = min(next ?? due, due) }
        }
        return next
    }

    /// Something that ends a HLT or waits to be injected.
    func hasDeliverable(vcpu index: Int) -> Bool {
        guard apics.indices.contains(index) else { return false }
        if apics[index].nmiPending || apics[index].deliverableVector != nil { return true }
        return index == 0 && kind == .full && apics[index].acceptsPIC && pic.hasInterrupt
    }

    /// Takes the vector to inject: the 8259's first, as KVM does.
    mutating func takeVector(vcpu index: Int) -> UInt8? {
        guard apics.indices.contains(index) else { return nil }
        if index == 0, kind == .full, apics[index].acceptsPIC, pic.hasInterrupt { return pic.acknowledge() }
        guard let vector = apics[index].deliverableVector else { return nil }
        apics[index].acknowledge(vector)
        return vector
    }
}
