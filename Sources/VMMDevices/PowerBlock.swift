// The power and reset registers of a hardware-reduced ACPI machine [ACPI 4.8.3.7]: three byte registers.
//
//   sleep control   write: SLP_TYP in bits 4:2, SLP_EN in bit 5      read: 0
//   sleep status    write 1 to bit 7 (WAK_STS) clears it             read: WAK_STS, never set here
//   reset           write of the FADT's RESET_VALUE resets           read: 0

import Synchronization

/// What the guest asked the platform to do.
public enum PowerEvent: Equatable, Sendable {
    /// S5, soft off.
    case powerOff
    /// A platform reset.
    case reset
}

/// The sleep control, sleep status and reset registers.
public final class PowerBlock: Sendable {
    /// SLP_TYP of S5, as the DSDT's `_S5` package has it.
    public let softOffSleepType: UInt8
    /// The FADT's RESET_VALUE.
    public let resetValue: UInt8

    private let event = Mutex<PowerEvent?>(nil)

    public init(softOffSleepType: UInt8, resetValue: UInt8) {
        self.softOffSleepType = softOffSleepType
        self.resetValue = resetValue
    }

    /// What the guest asked for, if it did. The first request stays.
    public var requestedEvent: PowerEvent? { event.withLock { $0 } }

    /// Attaches the three registers, one byte each.
    public func attach(to bus: inout Bus, sleepControl: UInt64, sleepStatus: UInt64, reset: UInt64) {
        bus.attach(Register(self, .sleepControl), base: sleepControl, byteCount: 1)
        bus.attach(Register(self, .sleepStatus), base: sleepStatus, byteCount: 1)
        bus.attach(Register(self, .reset), base: reset, byteCount: 1)
    }

    enum Kind: Sendable { case sleepControl, sleepStatus, reset }

    final class Register: BusDevice {
        private let block: PowerBlock
        private let kind: Kind

        init(_ block: PowerBlock, _ kind: Kind) {
            self.block = block
            self.kind = kind
        }

        func read(offset: UInt64, byteCount: Int) -> UInt64 { 0 }

        func write(offset: UInt64, byteCount: Int, value: UInt64) {
            block.write(kind, UInt8(truncatingIfNeeded: value))
        }
    }

    private func write(_ kind: Kind, _ value: UInt8) {
        switch kind {
        case .sleepControl:
            let enable = value & 0x20 != 0
            // The DSDT names S5 only: any other sleep type has no meaning here.
            if enable, value >> 2 & 7 == softOffSleepType { request(.powerOff) }
        case .sleepStatus: break
        case .reset:
            if value == resetValue { request(.reset) }
        }
    }

    private func request(_ wanted: PowerEvent) {
        event.withLock { if $0 == nil { $0 = wanted } }
    }
}
