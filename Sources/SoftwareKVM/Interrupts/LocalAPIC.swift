// One local APIC: the register file in the layout of `kvm_lapic_state`, its timer, and the choice of what to deliver
// next [APM2 16]. xAPIC and x2APIC accesses meet in `read` and `write`.
//
// Time is the host's monotonic clock in nanoseconds; one bus cycle is one nanosecond, KVM's default
// (`KVM_CAP_X86_APIC_BUS_CYCLES_NS`). Who else must hear of an EOI or an IPI is for `InterruptController` to decide.

struct LocalAPIC {
    /// What a register write asks of the rest of the machine.
    enum Effect: Equatable {
        case none
        /// A level-triggered vector was finished: the I/O APIC must hear it.
        case endOfInterrupt(vector: UInt8)
        /// ICR was written.
        case interprocessorInterrupt(command: UInt32, destination: UInt32)
    }

    let id: UInt32
    private let isBootProcessor: Bool
    /// IA32_APIC_BASE: bit 11 enabled, bit 10 x2APIC, bit 8 boot processor.
    private(set) var base: UInt64
    /// Index = offset / 16.
    private var registers: [64 of UInt32] = .init(repeating: 0)

    /// When the timer fires next, nil = not running.
    private(set) var timerDeadline: UInt64?
    private var timerPeriod: UInt64 = 0
    /// IA32_TSC_DEADLINE, 0 = disarmed.
    private(set) var tscDeadline: UInt64 = 0

    /// NMIs that wait: two at most, as KVM keeps them, and one while the handler runs.
    var nmiCount = 0
    var nmiPending: Bool {
        get { nmiCount > 0 }
        set { nmiCount = newValue ? max(nmiCount, 1) : 0 }
    }
    /// INIT has come, and after it a SIPI with this vector.
    var initPending = false
    var startupVector: UInt8? {
        didSet { if let startupVector { lastStartupVector = startupVector } }
    }
    /// The last SIPI's, which an INIT leaves.
    var lastStartupVector: UInt8 = 0

    /// Addresses of the xAPIC page.
    static let defaultBase: UInt64 = 0xfee0_0000

    init(id: UInt32, isBootProcessor: Bool) {
        self.id = id
        self.isBootProcessor = isBootProcessor
        base = Self.defaultBase | 0x800 | (isBootProcessor ? 0x100 : 0)
        initialize()
    }

    private subscript(offset: Int) -> UInt32 {
        get { registers[(offset >> 4) & 63] }
        set { registers[(offset >> 4) & 63] = newValue }
    }

    private mutating func resetRegisters() {
        registers = .init(repeating: 0)
        for lvt in [
            APICRegister.lvtTimer, APICRegister.lvtThermal, APICRegister.lvtPerformance, APICRegister.lvtLINT0,
            APICRegister.lvtLINT1, APICRegister.lvtError,
        ] {
            self[lvt] = 0x10000
        }
        self[APICRegister.destinationFormat] = ~0
        self[APICRegister.spurious] = 0xff
        self[APICRegister.version] = 0x0005_0014
        refreshID()
        timerDeadline = nil
        timerPeriod = 0
        tscDeadline = 0
    }

    /// What INIT leaves: the registers of a reset, in the mode that the APIC is in [APM2 16.3.1].
    mutating func initialize() {
        resetRegisters()
        // KVM_X86_QUIRK_LINT0_REENABLED: the boot processor starts in virtual-wire mode.
        if isBootProcessor { self[APICRegister.lvtLINT0] = 0x700 }
    }

    var isEnabled: Bool { base & 0x800 != 0 }
    var isX2APIC: Bool { base & 0xc00 == 0xc00 }
    /// SVR bit 8: fixed interrupts are accepted.
    var isSoftwareEnabled: Bool { isEnabled && self[APICRegister.spurious] & 0x100 != 0 }
    /// LVT LINT0 unmasked in ExtINT mode: the 8259 pair is heard.
    var acceptsPIC: Bool {
        !isEnabled || (self[APICRegister.lvtLINT0] & 0x10700 == 0x700)
    }

    private mutating func refreshID() {
        if isX2APIC {
            self[APICRegister.id] = id
            // [APM2 16.7.2] The logical x2APIC id is made from the physical one.
            self[APICRegister.logicalDestination] = ((id >> 4) << 16) | (1 << (id & 15))
        } else {
            self[APICRegister.id] = id << 24
        }
    }

    // MARK: APIC_BASE

    /// A value without reserved bits (physical addresses have 48), and not x2APIC without the APIC.
    static func isBase(_ value: UInt64) -> Bool {
        let reserved: UInt64 = 0xffff_0000_0000_02ff
        return value & reserved == 0 && value & 0xc00 != 0x400
    }

    /// Writes IA32_APIC_BASE. Returns false for what raises #GP: reserved bits, or a forbidden mode change.
    mutating func setBase(_ value: UInt64, hostInitiated: Bool) -> Bool {
        guard Self.isBase(value) else { return false }
        let oldMode = base & 0xc00
        let newMode = value & 0xc00
        if !hostInitiated {
            // x2APIC is left only by way of "disabled", and entered only from xAPIC.
            if oldMode == 0xc00 && newMode == 0x800 { return false }
            if oldMode == 0 && newMode == 0xc00 { return false }
        }
        base = value
        if newMode == 0 && oldMode != 0 {
            resetRegisters()
        } else if newMode != oldMode {
            refreshID()
        }
        return true
    }

    // MARK: Register access

    /// Reads a register; nil = there is none at this offset.
    func read(_ offset: Int, now: UInt64) -> UInt32? {
        switch offset {
        case APICRegister.id, APICRegister.version, APICRegister.taskPriority, APICRegister.logicalDestination,
            APICRegister.spurious, APICRegister.errorStatus, APICRegister.commandLow, APICRegister.lvtTimer,
            APICRegister.lvtThermal, APICRegister.lvtPerformance, APICRegister.lvtLINT0, APICRegister.lvtLINT1,
            APICRegister.lvtError, APICRegister.timerInitial, APICRegister.timerDivide:
            return self[offset]
        case APICRegister.destinationFormat, APICRegister.commandHigh, APICRegister.arbitrationPriority,
            APICRegister.remoteRead:
            return isX2APIC ? nil : (offset == APICRegister.arbitrationPriority ? 0 : self[offset])
        case APICRegister.processorPriority:
            return processorPriority
        case APICRegister.timerCurrent:
            return currentCount(now: now)
        case APICRegister.inService..<APICRegister.errorStatus where offset & 15 == 0:
            return self[offset]
        default:
            return nil
        }
    }

    /// Writes a register. Returns nil where x2APIC mode raises #GP.
    mutating func write(_ offset: Int, _ value: UInt32, now: UInt64) -> Effect? {
        switch offset {
        case APICRegister.taskPriority:
            self[offset] = value & 0xff
        case APICRegister.eoi:
            return endOfInterrupt()
        case APICRegister.logicalDestination:
            if isX2APIC { return nil }
            self[offset] = value & 0xff00_0000
        case APICRegister.destinationFormat:
            if isX2APIC { return nil }
            self[offset] = value | 0x0fff_ffff
        case APICRegister.spurious:
            self[offset] = value & 0x1ff
            if value & 0x100 == 0 {
                // [APM2 16.4.7] Software disable masks every LVT entry.
                for lvt in stride(from: APICRegister.lvtTimer, through: APICRegister.lvtError, by: 16) {
                    self[lvt] |= 0x10000
                }
            }
        case APICRegister.errorStatus:
            if isX2APIC && value != 0 { return nil }
            self[offset] = 0
        case APICRegister.commandLow:
            let command = value & ~0x1000
            self[offset] = command
            return .interprocessorInterrupt(
                command: command,
                destination: isX2APIC ? self[APICRegister.commandHigh] : self[APICRegister.commandHigh] >> 24)
        case APICRegister.commandHigh:
            if isX2APIC { return nil }
            self[offset] = value & 0xff00_0000
        case APICRegister.lvtTimer:
            let oldMode = timerMode
            self[offset] = (value & 0x710ff) | maskIfDisabled
            // One-shot and periodic share a countdown: what has begun goes on.
            if (timerMode == 2) != (oldMode == 2) {
                timerDeadline = nil
                tscDeadline = 0
                self[APICRegister.timerInitial] = 0
            }
        case APICRegister.lvtThermal, APICRegister.lvtPerformance:
            self[offset] = (value & 0x117ff) | maskIfDisabled
        case APICRegister.lvtLINT0, APICRegister.lvtLINT1:
            self[offset] = (value & 0x1f7ff) | maskIfDisabled
        case APICRegister.lvtError:
            self[offset] = (value & 0x110ff) | maskIfDisabled
        case APICRegister.timerInitial:
            if timerMode == 2 { return Effect.none }
            self[offset] = value
            startTimer(now: now)
        case APICRegister.timerDivide:
            let remaining = currentCount(now: now), before = divisor
            self[offset] = value & 0xb
            if timerDeadline != nil, timerMode != 2, divisor != before { restartTimer(count: remaining, now: now) }
        case APICRegister.selfIPI:
            if !isX2APIC { return Effect.none }
            return .interprocessorInterrupt(command: 0x40000 | (value & 0xff), destination: 0)
        default:
            return isX2APIC ? nil : Effect.none
        }
        return Effect.none
    }

    private var maskIfDisabled: UInt32 { self[APICRegister.spurious] & 0x100 == 0 ? 0x10000 : 0 }

    // MARK: x2APIC MSRs 0x800…0x8FF

    /// RDMSR of 0x800 + n; nil raises #GP.
    func readMSR(_ index: UInt32, now: UInt64) -> UInt64? {
        guard isX2APIC else { return nil }
        let offset = Int(index & 0xff) << 4
        if offset == APICRegister.commandLow {
            return UInt64(self[APICRegister.commandHigh]) << 32 | UInt64(self[APICRegister.commandLow])
        }
        if offset > APICRegister.selfIPI { return nil }
        return read(offset, now: now).map(UInt64.init)
    }

    /// WRMSR of 0x800 + n; nil raises #GP.
    mutating func writeMSR(_ index: UInt32, _ value: UInt64, now: UInt64) -> Effect? {
        guard isX2APIC else { return nil }
        let offset = Int(index & 0xff) << 4
        if offset == APICRegister.commandLow {
            self[APICRegister.commandHigh] = UInt32(truncatingIfNeeded: value >> 32)
            return write(offset, UInt32(truncatingIfNeeded: value), now: now)
        }
        if value >> 32 != 0 { return nil }
        // [APM2 16.11.1] Only zero may be written to EOI.
        if offset == APICRegister.eoi && value != 0 { return nil }
        if offset == APICRegister.selfIPI && value > 0xff { return nil }
        if offset > APICRegister.selfIPI { return nil }
        return write(offset, UInt32(truncatingIfNeeded: value), now: now)
    }

    // MARK: Priorities and delivery

    private func highestBit(_ start: Int) -> Int {
        var word = 7
        while word >= 0 {
            let bits = self[start + word * 16]
            if bits != 0 { return word * 32 + 31 - bits.leadingZeroBitCount }
            word -= 1
        }
        return -1
    }

    private mutating func set(_ start: Int, _ vector: UInt8, _ on: Bool) {
        let offset = start + Int(vector >> 5) * 16
        let bit = UInt32(1) << UInt32(vector & 31)
        if on { self[offset] |= bit } else { self[offset] &= ~bit }
    }

    private func test(_ start: Int, _ vector: UInt8) -> Bool {
        self[start + Int(vector >> 5) * 16] >> UInt32(vector & 31) & 1 != 0
    }

    var processorPriority: UInt32 {
        let tpr = self[APICRegister.taskPriority]
        let isr = UInt32(max(0, highestBit(APICRegister.inService)))
        return tpr & 0xf0 >= isr & 0xf0 ? tpr & 0xff : isr & 0xf0
    }

    /// TPR bits 7:4, as CR8 shows them.
    var taskPriorityClass: UInt64 {
        get { UInt64(self[APICRegister.taskPriority] >> 4 & 15) }
        set { self[APICRegister.taskPriority] = UInt32(truncatingIfNeeded: newValue & 15) << 4 }
    }

    /// The vector that would be delivered now, by priority alone.
    var deliverableVector: UInt8? {
        guard isSoftwareEnabled else { return nil }
        let request = highestBit(APICRegister.interruptRequest)
        guard request >= 0, UInt32(request) & 0xf0 > processorPriority & 0xf0 else { return nil }
        return UInt8(truncatingIfNeeded: request)
    }

    /// Moves a vector from IRR to ISR: the processor takes it.
    mutating func acknowledge(_ vector: UInt8) {
        set(APICRegister.interruptRequest, vector, false)
        set(APICRegister.inService, vector, true)
    }

    /// Puts a fixed interrupt into IRR. Returns false when the APIC is disabled.
    mutating func accept(vector: UInt8, levelTriggered: Bool) -> Bool {
        guard isSoftwareEnabled, vector >= 16 else { return false }
        set(APICRegister.triggerMode, vector, levelTriggered)
        set(APICRegister.interruptRequest, vector, true)
        return true
    }

    private mutating func endOfInterrupt() -> Effect {
        let vector = highestBit(APICRegister.inService)
        guard vector >= 0 else { return .none }
        let finished = UInt8(truncatingIfNeeded: vector)
        set(APICRegister.inService, finished, false)
        return test(APICRegister.triggerMode, finished) ? .endOfInterrupt(vector: finished) : .none
    }

    // MARK: Destinations

    /// Does a message with this destination reach us? [APM2 16.6.1]
    func matches(destination: UInt32, logical: Bool) -> Bool {
        if !logical {
            // 0xFF is broadcast for I/O APIC and xAPIC messages even to an x2APIC (KVM does the same).
            return destination == id || destination == 0xff || destination == ~0
        }
        let ldr = self[APICRegister.logicalDestination]
        if isX2APIC {
            if destination == ~0 { return true }
            return ldr >> 16 == destination >> 16 && ldr & destination & 0xffff != 0
        }
        if destination == 0xff { return true }
        let mine = ldr >> 24
        if self[APICRegister.destinationFormat] >> 28 == 0xf { return mine & destination != 0 }
        return mine >> 4 == destination >> 4 && mine & destination & 15 != 0
    }

    // MARK: Timer

    /// 0 one-shot, 1 periodic, 2 TSC deadline.
    var timerMode: UInt32 { (self[APICRegister.lvtTimer] >> 17) & 3 }

    private var divisor: UInt64 {
        let code = self[APICRegister.timerDivide]
        let shift = ((code & 3) | ((code & 8) >> 1)) &+ 1
        return 1 << UInt64(shift & 7)
    }

    private mutating func startTimer(now: UInt64) {
        restartTimer(count: self[APICRegister.timerInitial], now: now)
    }

    private mutating func restartTimer(count: UInt32, now: UInt64) {
        guard count != 0 else {
            timerDeadline = nil
            return
        }
        // Safe: 2³² × 128 fits. KVM bounds periodic timers to 200 µs, lest a guest drown its host.
        timerPeriod = UInt64(self[APICRegister.timerInitial]) * divisor
        if timerMode == 1 { timerPeriod = max(timerPeriod, 200_000) }
        timerDeadline = now &+ max(1, UInt64(count) * divisor)
    }

    private func currentCount(now: UInt64) -> UInt32 {
        guard timerMode != 2, let deadline = timerDeadline, deadline > now else { return 0 }
        return UInt32(truncatingIfNeeded: (deadline - now) / divisor)
    }

    /// IA32_TSC_DEADLINE was written; `deadline` is the same moment on the monotonic clock.
    mutating func setTSCDeadline(_ value: UInt64, deadline: UInt64) {
        guard timerMode == 2 else { return }
        tscDeadline = value
        timerDeadline = value == 0 ? nil : deadline
    }

    /// Lets the timer fire if its time has come. Returns true when an interrupt was raised.
    mutating func advanceTimer(now: UInt64) -> Bool {
        guard let deadline = timerDeadline, deadline <= now else { return false }
        if timerMode == 1 && timerPeriod != 0 {
            timerPeriod = max(timerPeriod, 200_000)
            // Missed periods are dropped, the phase is kept.
            let late = now - deadline
            timerDeadline = deadline &+ (late / timerPeriod &+ 1) &* timerPeriod
        } else {
            timerDeadline = nil
            tscDeadline = 0
        }
        let lvt = self[APICRegister.lvtTimer]
        guard lvt & 0x10000 == 0 else { return false }
        return accept(vector: UInt8(truncatingIfNeeded: lvt), levelTriggered: false)
    }

    // MARK: KVM_GET_LAPIC, KVM_SET_LAPIC

    /// The register page as `kvm_lapic_state`.
    func registerPage(now: UInt64) -> [UInt8] {
        var page = [UInt8](repeating: 0, count: 1024)
        for index in 0..<64 {
            var value = registers[index]
            if index == APICRegister.timerCurrent >> 4 { value = currentCount(now: now) }
            if index == APICRegister.processorPriority >> 4 { value = processorPriority }
            for byte in 0..<4 { page[index * 16 + byte] = UInt8(truncatingIfNeeded: value >> UInt32(8 * byte)) }
        }
        return page
    }

    /// Takes the registers over and restarts the timer, as KVM does. `page` has 1024 bytes.
    mutating func setRegisterPage(_ page: [UInt8], now: UInt64) {
        precondition(page.count == 1024)
        for index in 0..<64 {
            var value: UInt32 = 0
            for byte in 0..<4 { value |= UInt32(page[index * 16 + byte]) << UInt32(8 * byte) }
            registers[index] = value
        }
        self[APICRegister.version] = 0x0005_0014
        refreshID()
        let count = self[APICRegister.timerCurrent]
        timerDeadline = nil
        if timerMode != 2 && self[APICRegister.timerInitial] != 0 {
            restartTimer(count: count == 0 ? self[APICRegister.timerInitial] : count, now: now)
        }
    }
}
