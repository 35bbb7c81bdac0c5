// The 8259A pair of the PC: enough for virtual-wire interrupts, probing and the usual initialisation [8259A datasheet].

/// One 8259A.
struct PICChip {
    var lines: UInt8 = 0
    var request: UInt8 = 0
    var mask: UInt8 = 0
    var inService: UInt8 = 0
    /// The input with the highest priority after rotation.
    var priorityBase: UInt8 = 0
    var vectorBase: UInt8 = 0
    var readsInService = false
    var poll = false
    var specialMask = false
    /// 0 = operational, 1…3 = waiting for ICW2…ICW4.
    var initState: UInt8 = 0
    var automaticEOI = false
    var rotateOnAutomaticEOI = false
    var specialFullyNested = false
    var needsICW4 = false
    /// Edge/level control, one bit per input.
    var elcr: UInt8 = 0

    private func priority(_ bits: UInt8) -> UInt8 {
        if bits == 0 { return 8 }
        var p: UInt8 = 0
        while bits & (1 << ((p &+ priorityBase) & 7)) == 0 { p += 1 }
        return p
    }

    /// The input that would interrupt now. `isMaster`: input 2 carries the slave.
    func pending(isMaster: Bool) -> UInt8? {
        let requested = priority(request & ~mask)
        if requested == 8 { return nil }
        var serving = inService
        if specialMask { serving &= ~mask }
        if specialFullyNested && isMaster { serving &= ~4 }
        return requested < priority(serving) ? (requested &+ priorityBase) & 7 : nil
    }

    mutating func setLine(_ input: Int, _ asserted: Bool) {
        let bit = UInt8(1) << UInt8(input & 7)
        if asserted {
            if elcr & bit != 0 || lines & bit == 0 { request |= bit }
            lines |= bit
        } else {
            // Level inputs are withdrawn; an edge stays until it is acknowledged, as in KVM.
            if elcr & bit != 0 { request &= ~bit }
            lines &= ~bit
        }
    }

    mutating func acknowledge(_ input: UInt8) {
        let bit = UInt8(1) << (input & 7)
        if automaticEOI {
            if rotateOnAutomaticEOI { priorityBase = (input &+ 1) & 7 }
        } else {
            inService |= bit
        }
        if elcr & bit == 0 { request &= ~bit }
    }

    mutating func write(command: Bool, _ value: UInt8) {
        if command {
            if value & 0x10 != 0 {
                let keep = (elcr, lines)
                self = PICChip()
                (elcr, lines) = keep
                needsICW4 = value & 1 != 0
                initState = 1
            } else if value & 0x08 != 0 {
                if value & 4 != 0 { poll = true }
                if value & 2 != 0 { readsInService = value & 1 != 0 }
                if value & 0x40 != 0 { specialMask = value & 0x20 != 0 }
            } else {
                endOfInterrupt(value)
            }
            return
        }
        switch initState {
        case 0: mask = value
        case 1:
            vectorBase = value & 0xf8
            initState = 2
        case 2: initState = needsICW4 ? 3 : 0
        default:
            specialFullyNested = value & 0x10 != 0
            automaticEOI = value & 2 != 0
            initState = 0
        }
    }

    private mutating func endOfInterrupt(_ command: UInt8) {
        switch command >> 5 {
        case 0, 4: rotateOnAutomaticEOI = command >> 5 == 4
        case 1, 5:
            let p = priority(inService)
            guard p != 8 else { return }
            let input = (p &+ priorityBase) & 7
            inService &= ~(1 << input)
            if command >> 5 == 5 { priorityBase = (input &+ 1) & 7 }
        case 3: inService &= ~(1 << (command & 7))
        case 6: priorityBase = (command &+ 1) & 7
        case 7:
            inService &= ~(1 << (command & 7))
            priorityBase = (command &+ 1) & 7
        default: break
        }
    }

    mutating func read(command: Bool, isMaster: Bool) -> UInt8 {
        if poll {
            poll = false
            guard let input = pending(isMaster: isMaster) else { return 0 }
            acknowledge(input)
            return 0x80 | input
        }
        if command { return readsInService ? inService : request }
        return mask
    }
}

/// Master at 0x20, slave at 0xA0 behind input 2, ELCR at 0x4D0.
struct PIC {
    var master = PICChip()
    var slave = PICChip()

    mutating func setLine(_ line: Int, asserted: Bool) {
        if line < 8 { master.setLine(line, asserted) } else { slave.setLine(line - 8, asserted) }
        cascade()
    }

    private mutating func cascade() { master.setLine(2, slave.pending(isMaster: false) != nil) }

    /// INTR is up.
    var hasInterrupt: Bool { master.pending(isMaster: true) != nil }

    /// INTA: the vector, with the spurious one when the request has gone away.
    mutating func acknowledge() -> UInt8 {
        guard let input = master.pending(isMaster: true) else { return master.vectorBase | 7 }
        master.acknowledge(input)
        guard input == 2 else { return master.vectorBase | input }
        let second = slave.pending(isMaster: false)
        if let second { slave.acknowledge(second) }
        cascade()
        return slave.vectorBase | (second ?? 7)
    }

    /// Inputs that can be level-triggered: neither the timer's, the keyboard's, the cascade nor the clock's and the FPU's.
    static let masterELCRMask: UInt8 = 0xf8
    static let slaveELCRMask: UInt8 = 0xde

    static func owns(port: UInt16) -> Bool {
        switch port {
        case 0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1: true
        default: false
        }
    }

    mutating func read(port: UInt16) -> UInt8 {
        switch port {
        case 0x20, 0x21: return master.read(command: port & 1 == 0, isMaster: true)
        case 0xa0, 0xa1:
            let value = slave.read(command: port & 1 == 0, isMaster: false)
            cascade()
            return value
        case 0x4d0: return master.elcr
        default: return slave.elcr
        }
    }

    mutating func write(port: UInt16, _ value: UInt8) {
        switch port {
        case 0x20, 0x21: master.write(command: port & 1 == 0, value)
        case 0xa0, 0xa1: slave.write(command: port & 1 == 0, value)
        case 0x4d0: master.elcr = value & Self.masterELCRMask
        default: slave.elcr = value & Self.slaveELCRMask
        }
        cascade()
    }
}
