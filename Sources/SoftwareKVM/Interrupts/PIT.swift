// The 8254 timer as `KVM_CREATE_PIT2` makes it: three counters, port 0x61, IRQ 0 [8254 datasheet].
//
// Counters are functions of time: nothing ticks, each question computes the count from the moment it was loaded.

struct PIT {
    static let frequency: UInt64 = 1_193_182
    static let nanosecondsPerSecond: UInt64 = 1_000_000_000

    struct Counter {
        /// 0 to 5; 255 until the first control word [KVM kvm_pit_reset].
        var mode: UInt8 = 0xff
        var isBCD = false
        /// 1 low byte, 2 high byte, 3 low then high; 0 until the first control word.
        var access: UInt8 = 0
        var reload: UInt32 = 0x10000
        var loadedAt: UInt64 = 0
        var gate = true
        var latch: UInt16?
        var status: UInt8?
        var writesHigh = false
        var readsHigh = false
        var lowByte: UInt8 = 0

        func elapsedTicks(_ now: UInt64) -> UInt64 {
            let (high, low) = (now &- loadedAt).multipliedFullWidth(by: PIT.frequency)
            // Safe: `high` is below the divisor for any time below 5·10¹¹ seconds.
            return high < PIT.nanosecondsPerSecond
                ? PIT.nanosecondsPerSecond.dividingFullWidth((high, low)).quotient : 0
        }

        func count(_ now: UInt64) -> UInt16 {
            let ticks = elapsedTicks(now)
            let period = UInt64(reload)
            switch mode {
            case 2: return UInt16(truncatingIfNeeded: period &- ticks % period)
            case 3: return UInt16(truncatingIfNeeded: period &- (ticks &* 2) % period)
            default: return UInt16(truncatingIfNeeded: period &- ticks)
            }
        }

        func output(_ now: UInt64) -> Bool {
            let ticks = elapsedTicks(now)
            let period = UInt64(reload)
            switch mode {
            case 0, 1: return ticks >= period
            case 2: return ticks % period != 0 || ticks == 0
            case 3: return ticks % period < (period &+ 1) >> 1
            default: return ticks == period
            }
        }
    }

    var counters: [3 of Counter] = .init(repeating: Counter())
    /// Port 0x61 bit 1.
    var speaker = false
    /// When counter 0 raises IRQ 0 next.
    private(set) var deadline: UInt64?

    init() { counters[2].gate = false }

    static func owns(port: UInt16) -> Bool { (0x40...0x43).contains(port) || port == 0x61 }

    private static func nanoseconds(_ ticks: UInt64) -> UInt64 {
        // Safe: at most 2¹⁷ ticks.
        ticks * nanosecondsPerSecond / frequency
    }

    private mutating func load(_ index: Int, _ value: UInt32, now: UInt64) {
        counters[index].reload = value == 0 ? 0x10000 : value
        counters[index].loadedAt = now
        if index == 0 { deadline = now &+ Self.nanoseconds(UInt64(counters[0].reload)) }
    }

    /// Loads a counter whose state came from outside; a timer that was never programmed stays quiet.
    mutating func start(_ index: Int, _ reload: UInt32, now: UInt64) {
        load(index, reload & 0x1_ffff, now: now)
        if index == 0, reload == 0 { deadline = nil }
    }

    /// Returns true when IRQ 0 is to be pulsed.
    mutating func advance(now: UInt64) -> Bool {
        guard let due = deadline, due <= now else { return false }
        if counters[0].mode == 2 || counters[0].mode == 3 {
            let period = max(Self.nanoseconds(UInt64(counters[0].reload)), 100_000)
            deadline = due &+ ((now - due) / period &+ 1) &* period
        } else {
            deadline = nil
        }
        return true
    }

    mutating func write(port: UInt16, _ value: UInt8, now: UInt64) {
        switch port {
        case 0x43: control(value, now: now)
        case 0x61:
            let gate = value & 1 != 0
            // A rising gate restarts the counter.
            if gate && !counters[2].gate { counters[2].loadedAt = now }
            counters[2].gate = gate
            speaker = value & 2 != 0
        default:
            let index = Int(port & 3)
            guard index < 3 else { return }
            switch counters[index].access {
            case 1: load(index, UInt32(value), now: now)
            case 2: load(index, UInt32(value) << 8, now: now)
            default:
                if counters[index].writesHigh {
                    counters[index].writesHigh = false
                    load(index, UInt32(value) << 8 | UInt32(counters[index].lowByte), now: now)
                } else {
                    counters[index].lowByte = value
                    counters[index].writesHigh = true
                }
            }
        }
    }

    private mutating func control(_ value: UInt8, now: UInt64) {
        if value >> 6 == 3 {
            for index in 0..<3 where value & (2 << UInt8(index)) != 0 {
                if value & 0x20 == 0 { counters[index].latch = counters[index].count(now) }
                if value & 0x10 == 0 {
                    let c = counters[index]
                    counters[index].status =
                        (c.output(now) ? 0x80 : 0) | c.access << 4 | (c.mode & 7) << 1 | (c.isBCD ? 1 : 0)
                }
            }
            return
        }
        let index = Int(value >> 6)
        let access = value >> 4 & 3
        if access == 0 {
            counters[index].latch = counters[index].count(now)
            return
        }
        counters[index].access = access
        counters[index].mode = value >> 1 & 7 > 5 ? (value >> 1 & 3) : value >> 1 & 7
        counters[index].isBCD = value & 1 != 0
        counters[index].writesHigh = false
        counters[index].readsHigh = false
        counters[index].latch = nil
        if index == 0 { deadline = nil }
    }

    mutating func read(port: UInt16, now: UInt64) -> UInt8 {
        if port == 0x61 {
            // Bit 4 toggles with memory refresh, every 15 µs.
            return (speaker ? 2 : 0) | (counters[2].gate ? 1 : 0) | (counters[2].output(now) ? 0x20 : 0)
                | (now / 15_000 & 1 != 0 ? 0x10 : 0)
        }
        let index = Int(port & 3)
        guard index < 3 else { return 0 }
        if let status = counters[index].status {
            counters[index].status = nil
            return status
        }
        let count = counters[index].latch ?? counters[index].count(now)
        switch counters[index].access {
        case 1:
            counters[index].latch = nil
            return UInt8(truncatingIfNeeded: count)
        case 2:
            counters[index].latch = nil
            return UInt8(truncatingIfNeeded: count >> 8)
        default:
            if counters[index].readsHigh {
                counters[index].readsHigh = false
                counters[index].latch = nil
                return UInt8(truncatingIfNeeded: count >> 8)
            }
            counters[index].readsHigh = true
            return UInt8(truncatingIfNeeded: count)
        }
    }
}
