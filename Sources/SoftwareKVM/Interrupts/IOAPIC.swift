// The I/O APIC: 24 pins, two registers on its page, a redirection table [APM2 16; 82093AA datasheet].
//
// The `lines` word is what KVM calls `irr`: for a level pin the state of the line, for an edge pin the latch that is
// cleared when the line falls. Delivery is returned as messages; the controller routes them.

/// An interrupt on its way to local APICs, from an I/O APIC pin or an MSI.
struct InterruptMessage: Equatable {
    var vector: UInt8
    var mode: DeliveryMode
    var destination: UInt32
    var isLogical: Bool
    var isLevelTriggered: Bool
}

struct IOAPIC {
    static let pinCount = 24
    static let baseAddress: UInt64 = 0xfec0_0000
    static let byteCount: UInt64 = 0x1000

    var selector: UInt32 = 0
    var id: UInt32 = 0
    var lines: UInt32 = 0
    /// Bits 7:0 vector, 10:8 mode, 11 logical, 12 pending, 13 polarity, 14 remote IRR, 15 level, 16 mask, 63:56 destination.
    var redirection: [24 of UInt64] = .init(repeating: 0x10000)
    /// Who holds each shared line up: the line is the OR over its sources.
    private var sources: [24 of UInt32] = .init(repeating: 0)

    private static let remoteIRR: UInt64 = 1 << 14
    private static let level: UInt64 = 1 << 15
    private static let mask: UInt64 = 1 << 16

    // MARK: Registers

    func read(_ offset: UInt64) -> UInt32 {
        switch offset & 0xff {
        case 0x00: return selector
        case 0x10:
            switch selector {
            case 0, 2: return (id & 15) << 24
            case 1: return UInt32(Self.pinCount - 1) << 16 | 0x11
            case 0x10..<0x40:
                let entry = redirection[Int(selector - 0x10) >> 1]
                return UInt32(truncatingIfNeeded: selector & 1 == 0 ? entry : entry >> 32)
            default: return selector > 0x3f ? ~0 : 0
            }
        default: return 0
        }
    }

    /// Returns the message that an unmasked, asserted level pin sends at once.
    mutating func write(_ offset: UInt64, _ value: UInt32) -> InterruptMessage? {
        switch offset & 0xff {
        case 0x00: selector = value & 0xff
        case 0x10:
            switch selector {
            case 0: id = (value >> 24) & 15
            case 0x10..<0x40:
                let pin = Int(selector - 0x10) >> 1
                var entry = redirection[pin]
                if selector & 1 == 0 {
                    // Delivery status and remote IRR are read-only.
                    let kept: UInt64 = 0x1000 | Self.remoteIRR
                    entry = (entry & (0xffff_ffff_0000_0000 | kept)) | (UInt64(value) & 0x1ffff & ~kept)
                } else {
                    entry = (entry & 0xffff_ffff) | UInt64(value & 0xff00_0000) << 32
                }
                // Systems clear a stuck remote IRR by passing through edge mode.
                if entry & Self.level == 0 { entry &= ~Self.remoteIRR }
                redirection[pin] = entry
                if entry & Self.level != 0 && lines >> UInt32(pin) & 1 != 0 { return service(pin) }
            default: break
            }
        default: break
        }
        return nil
    }

    // MARK: Lines

    /// Sets a pin from one of its sources (0…31). Returns the message to deliver, if any.
    mutating func setLine(_ pin: Int, source: Int = 0, asserted: Bool) -> InterruptMessage? {
        guard pin >= 0 && pin < Self.pinCount else { return nil }
        let sourceBit = UInt32(1) << UInt32(source & 31)
        if asserted { sources[pin] |= sourceBit } else { sources[pin] &= ~sourceBit }
        let bit = UInt32(1) << UInt32(pin)
        guard sources[pin] != 0 else {
            lines &= ~bit
            return nil
        }
        let wasAsserted = lines & bit != 0
        lines |= bit
        if redirection[pin] & Self.level == 0 && wasAsserted { return nil }
        return service(pin)
    }

    private mutating func service(_ pin: Int) -> InterruptMessage? {
        let entry = redirection[pin]
        if entry & Self.mask != 0 { return nil }
        let isLevel = entry & Self.level != 0
        if isLevel && entry & Self.remoteIRR != 0 { return nil }
        guard let mode = DeliveryMode(rawValue: UInt8(truncatingIfNeeded: entry >> 8) & 7) else { return nil }
        if isLevel { redirection[pin] = entry | Self.remoteIRR }
        return InterruptMessage(
            vector: UInt8(truncatingIfNeeded: entry), mode: mode, destination: UInt32(truncatingIfNeeded: entry >> 56),
            isLogical: entry & 0x800 != 0, isLevelTriggered: isLevel)
    }

    /// A level interrupt of this pin with this vector is in service.
    func awaitsEnd(_ pin: Int, of vector: UInt8) -> Bool {
        guard pin < Self.pinCount else { return false }
        let entry = redirection[pin]
        return UInt8(truncatingIfNeeded: entry) == vector && entry & Self.level != 0 && entry & Self.remoteIRR != 0
    }

    /// EOI broadcast: level entries with this vector may fire again.
    mutating func endOfInterrupt(_ vector: UInt8) -> [InterruptMessage] {
        var again: [InterruptMessage] = []
        for pin in 0..<Self.pinCount {
            let entry = redirection[pin]
            guard UInt8(truncatingIfNeeded: entry) == vector, entry & Self.level != 0, entry & Self.remoteIRR != 0
            else {
                continue
            }
            redirection[pin] = entry & ~Self.remoteIRR
            if lines >> UInt32(pin) & 1 != 0, let message = service(pin) { again.append(message) }
        }
        return again
    }
}
