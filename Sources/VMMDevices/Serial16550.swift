// A 16550A UART: the console that every kernel has built in.
//
// The transmitter is always idle: a byte written to THR is on the line at once, so THRE and TEMT never drop. The
// receiver has the 16-byte FIFO of the chip; behind it stands the far end's queue, which refills the FIFO as it drains,
// so nothing is overrun.
//
// The far end is patient, so that typed-ahead input survives a driver that starts: it sends only while RTS is asserted
// (once MCR has been written), and to a guest that has ever used an interrupt only while the receiver's is enabled; what
// the guest clears out of the FIFO is sent again. A byte is gone when the guest has read it, and not before.
//
//   offset  DLAB=0 read  DLAB=0 write  DLAB=1
//   0       RBR          THR           DLL
//   1       IER          IER           DLM
//   2       IIR          FCR
//   3       LCR          LCR
//   4       MCR          MCR
//   5       LSR          -
//   6       MSR          -
//   7       SCR          SCR

import Synchronization

/// A 16550A with its FIFO, at eight consecutive byte addresses.
public final class Serial16550: BusDevice {
    /// The first of eight ports of COM1.
    public static let com1PortBase: UInt64 = 0x3f8
    /// COM1's interrupt line.
    public static let com1Interrupt: UInt32 = 4
    /// Bytes of a port's register block.
    public static let registerByteCount: UInt64 = 8
    /// Typed-ahead bytes kept for a guest that does not read; more are dropped, as on a real line.
    public static let inputCapacity = 1 << 16

    private let state = Mutex(State())
    private let interrupt: @Sendable (Bool) -> Void
    private let transmit: @Sendable (UInt8) -> Void

    /// - Parameters:
    ///   - interrupt: Called with the new level of the interrupt line when it changes. Called with the device locked, so
    ///     that levels arrive in order: it must not call back into the device.
    ///   - transmit: Called with every byte the guest sends, on the vCPU's thread.
    public init(interrupt: @escaping @Sendable (Bool) -> Void, transmit: @escaping @Sendable (UInt8) -> Void) {
        self.interrupt = interrupt
        self.transmit = transmit
    }

    /// Bytes that arrive from the far end. May be called on any thread.
    ///
    /// - Returns: How many were taken; the rest did not fit into the queue.
    @discardableResult
    public func receive(_ bytes: some Collection<UInt8>) -> Int {
        state.withLock { state in
            let room = max(0, Self.inputCapacity - state.backlogCount)
            state.backlog.append(contentsOf: bytes.prefix(room))
            update(&state)
            return min(room, bytes.count)
        }
    }

    /// Bytes that the guest has not read yet.
    public var pendingInputByteCount: Int {
        state.withLock { $0.receiveFIFO.count + $0.backlogCount }
    }

    public func read(offset: UInt64, byteCount: Int) -> UInt64 {
        var value: UInt64 = 0
        for i in 0..<byteCount {
            let register = Int(truncatingIfNeeded: offset) &+ i
            let byte = state.withLock { state in
                let byte = readRegister(register, &state)
                update(&state)
                return byte
            }
            value |= UInt64(byte) << UInt64(8 * i)
        }
        return value
    }

    public func write(offset: UInt64, byteCount: Int, value: UInt64) {
        for i in 0..<byteCount {
            let register = Int(truncatingIfNeeded: offset) &+ i
            let byte = UInt8(truncatingIfNeeded: value >> UInt64(8 * i))
            let sent = state.withLock { state in
                let sent = writeRegister(register, byte, &state)
                update(&state)
                return sent
            }
            if let sent { transmit(sent) }
        }
    }
}

extension Serial16550 {
    /// Interrupt enable register bits.
    enum IER {
        static let receivedData: UInt8 = 1
        static let transmitterEmpty: UInt8 = 2
        static let lineStatus: UInt8 = 4
        static let modemStatus: UInt8 = 8
    }
    /// Interrupt identification values, in falling priority.
    enum IIR {
        static let lineStatus: UInt8 = 0x06
        static let receivedData: UInt8 = 0x04
        static let characterTimeout: UInt8 = 0x0c
        static let transmitterEmpty: UInt8 = 0x02
        static let modemStatus: UInt8 = 0x00
        static let none: UInt8 = 0x01
        static let fifosEnabled: UInt8 = 0xc0
    }
    enum MCR {
        static let dataTerminalReady: UInt8 = 1
        static let requestToSend: UInt8 = 2
        static let out1: UInt8 = 4
        /// On a PC this bit connects the chip's interrupt output to the interrupt line.
        static let out2: UInt8 = 8
        static let loopback: UInt8 = 0x10
    }
    enum LSR {
        static let dataReady: UInt8 = 1
        static let overrun: UInt8 = 2
        static let errors: UInt8 = 0x1e
        /// THRE and TEMT: the transmitter is always idle.
        static let transmitterIdle: UInt8 = 0x60
    }
    /// Modem status of a connected far end: DCD, DSR and CTS.
    static let connectedModemStatus: UInt8 = 0xb0

    struct State: Sendable {
        var ier: UInt8 = 0
        /// Some interrupt has been enabled once: the guest does not only poll.
        var usesInterrupts = false
        var fifoEnabled = false
        var triggerByteCount = 1
        var lcr: UInt8 = 0
        var mcr: UInt8 = 0
        var mcrWritten = false
        /// Error bits of LSR that are latched until it is read.
        var lineErrors: UInt8 = 0
        var modemStatus = Serial16550.connectedModemStatus
        var scratch: UInt8 = 0
        /// 12: 9600 baud from the usual crystal. Kept, without effect.
        var divisor: UInt16 = 12
        var transmitterEmptyPending = false
        var receiveFIFO: [UInt8] = []
        /// The far end's queue, consumed from `backlogStart`.
        var backlog: [UInt8] = []
        var backlogStart = 0
        var interruptLevel = false

        var backlogCount: Int { backlog.count - backlogStart }
        var fifoCapacity: Int { fifoEnabled ? 16 : 1 }
        var loopback: Bool { mcr & MCR.loopback != 0 }
        var divisorLatch: Bool { lcr & 0x80 != 0 }

        /// True while the far end sends.
        var farEndSends: Bool {
            !loopback && (!mcrWritten || mcr & MCR.requestToSend != 0)
                && (!usesInterrupts || ier & IER.receivedData != 0)
        }

        /// Empties the FIFO. What the far end had sent it will send again; what loopback had sent is lost.
        mutating func clearReceiver() {
            if !loopback { backlog.insert(contentsOf: receiveFIFO, at: backlogStart) }
            receiveFIFO.removeAll(keepingCapacity: true)
        }
    }

    /// The interrupt to report: the pending and enabled one of the highest priority.
    private func identify(_ state: State) -> UInt8 {
        if state.ier & IER.lineStatus != 0, state.lineErrors & LSR.errors != 0 { return IIR.lineStatus }
        if state.ier & IER.receivedData != 0, !state.receiveFIFO.isEmpty {
            // No time passes on this line: bytes below the trigger level have always been waiting long enough.
            return state.fifoEnabled && state.receiveFIFO.count < state.triggerByteCount
                ? IIR.characterTimeout : IIR.receivedData
        }
        if state.ier & IER.transmitterEmpty != 0, state.transmitterEmptyPending { return IIR.transmitterEmpty }
        if state.ier & IER.modemStatus != 0, state.modemStatus & 0x0f != 0 { return IIR.modemStatus }
        return IIR.none
    }

    /// Refills the FIFO from the line and drives the interrupt line.
    private func update(_ state: inout State) {
        if state.farEndSends {
            while state.receiveFIFO.count < state.fifoCapacity, state.backlogStart < state.backlog.count {
                state.receiveFIFO.append(state.backlog[state.backlogStart])
                state.backlogStart += 1
            }
            if state.backlogStart == state.backlog.count {
                state.backlog.removeAll(keepingCapacity: true)
                state.backlogStart = 0
            } else if state.backlogStart >= 4096 {
                state.backlog.removeFirst(state.backlogStart)
                state.backlogStart = 0
            }
        }
        let connected = state.mcr & MCR.out2 != 0 && !state.loopback
        let level = connected && identify(state) != IIR.none
        if level != state.interruptLevel {
            state.interruptLevel = level
            interrupt(level)
        }
    }

    private func readRegister(_ register: Int, _ state: inout State) -> UInt8 {
        switch register {
        case 0:
            if state.divisorLatch { return UInt8(truncatingIfNeeded: state.divisor) }
            return state.receiveFIFO.isEmpty ? 0 : state.receiveFIFO.removeFirst()
        case 1:
            return state.divisorLatch ? UInt8(truncatingIfNeeded: state.divisor >> 8) : state.ier
        case 2:
            let identification = identify(state)
            if identification == IIR.transmitterEmpty { state.transmitterEmptyPending = false }
            return identification | (state.fifoEnabled ? IIR.fifosEnabled : 0)
        case 3: return state.lcr
        case 4: return state.mcr
        case 5:
            let ready = state.receiveFIFO.isEmpty ? 0 : LSR.dataReady
            let status = ready | state.lineErrors | LSR.transmitterIdle
            state.lineErrors = 0
            return status
        case 6:
            let status = state.modemStatus
            state.modemStatus &= 0xf0
            return status
        case 7: return state.scratch
        default: return 0xff
        }
    }

    /// - Returns: A byte for the line.
    private func writeRegister(_ register: Int, _ value: UInt8, _ state: inout State) -> UInt8? {
        switch register {
        case 0 where state.divisorLatch:
            state.divisor = state.divisor & 0xff00 | UInt16(value)
        case 0:
            // Sent at once, so the holding register is empty again: a new event, even if the last one was not read.
            state.transmitterEmptyPending = true
            guard state.loopback else { return value }
            if state.receiveFIFO.count < state.fifoCapacity {
                state.receiveFIFO.append(value)
            } else {
                state.lineErrors |= LSR.overrun
            }
        case 1 where state.divisorLatch:
            state.divisor = state.divisor & 0x00ff | UInt16(value) << 8
        case 1:
            // Enabling the transmitter interrupt while the holding register is empty raises it.
            if value & ~state.ier & IER.transmitterEmpty != 0 { state.transmitterEmptyPending = true }
            state.ier = value & 0x0f
            if state.ier != 0 { state.usesInterrupts = true }
        case 2:
            let enable = value & 1 != 0
            // Changing the mode clears both FIFOs; so does bit 1 for the receiver.
            if enable != state.fifoEnabled || value & 2 != 0 { state.clearReceiver() }
            if value & 4 != 0 || enable != state.fifoEnabled { state.transmitterEmptyPending = true }
            state.fifoEnabled = enable
            state.triggerByteCount = enable ? [1, 4, 8, 14][Int(value >> 6)] : 1
        case 3: state.lcr = value
        case 4:
            // The receiver changes sides with loopback: the bytes of one are not the other's.
            if (value ^ state.mcr) & MCR.loopback != 0 { state.clearReceiver() }
            state.mcr = value & 0x1f
            state.mcrWritten = true
            updateModemStatus(&state)
        case 7: state.scratch = value
        default: break  // LSR and MSR: factory test only.
        }
        return nil
    }

    /// In loopback the modem outputs are wired to the modem inputs.
    private func updateModemStatus(_ state: inout State) {
        var lines = Self.connectedModemStatus
        if state.loopback {
            lines = 0
            if state.mcr & MCR.requestToSend != 0 { lines |= 0x10 }  // CTS
            if state.mcr & MCR.dataTerminalReady != 0 { lines |= 0x20 }  // DSR
            if state.mcr & MCR.out1 != 0 { lines |= 0x40 }  // RI
            if state.mcr & MCR.out2 != 0 { lines |= 0x80 }  // DCD
        }
        let before = state.modemStatus & 0xf0
        var changed = (before ^ lines) >> 4
        // RI counts only when it ends.
        if changed & 4 != 0, lines & 0x40 != 0 { changed &= ~4 }
        state.modemStatus = lines | state.modemStatus & 0x0f | changed
    }
}
