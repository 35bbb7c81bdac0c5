// Ports for test images: one that ends the machine with a status, and one that takes text.

import Synchronization

/// Ends the machine: a write of v makes the process exit status (v << 1) | 1.
public final class DebugExit: BusDevice {
    private let written = Mutex<UInt32?>(nil)
    /// Ports that it answers at.
    public static let portCount: UInt64 = 4

    public init() {}

    /// The first value written.
    public var value: UInt32? { written.withLock { $0 } }

    public func read(offset: UInt64, byteCount: Int) -> UInt64 { 0 }
    public func write(offset: UInt64, byteCount: Int, value: UInt64) {
        written.withLock { if $0 == nil { $0 = UInt32(truncatingIfNeeded: value) } }
    }
}

/// Takes text byte by byte; reads tell that it is there.
public final class DebugConsole: BusDevice {
    private let transmit: @Sendable (UInt8) -> Void

    public init(transmit: @escaping @Sendable (UInt8) -> Void) { self.transmit = transmit }

    public func read(offset: UInt64, byteCount: Int) -> UInt64 { 0xe9 }
    public func write(offset: UInt64, byteCount: Int, value: UInt64) { transmit(UInt8(truncatingIfNeeded: value)) }
}

/// The word "Shutdown", byte by byte: power off.
public final class ShutdownPort: BusDevice {
    private let progress = Mutex(0)
    private static let word = Array("Shutdown".utf8)

    public init() {}

    public var isRequested: Bool { progress.withLock { $0 == Self.word.count } }

    public func read(offset: UInt64, byteCount: Int) -> UInt64 { 0 }
    public func write(offset: UInt64, byteCount: Int, value: UInt64) {
        progress.withLock { n in
            guard n < Self.word.count else { return }
            let byte = UInt8(truncatingIfNeeded: value)
            n = byte == Self.word[n] ? n + 1 : byte == Self.word[0] ? 1 : 0
        }
    }
}

/// The ways in which a PC's software asks for a reset, beside the keyboard controller: port 0x92, port 0xCF9.
public final class ResetPorts: BusDevice {
    public enum Kind: Sendable { case systemControl, resetControl }
    private let kind: Kind
    private let requested = Mutex(false)

    public init(_ kind: Kind) { self.kind = kind }

    public var isRequested: Bool { requested.withLock { $0 } }

    /// A20 is on; no PCI answers.
    public func read(offset: UInt64, byteCount: Int) -> UInt64 {
        switch kind {
        case .systemControl: 2
        case .resetControl: isOwn(offset, byteCount) ? 0 : .max
        }
    }

    /// Port 0xCF9 lies in the middle of PCI's address register, and hears bytes only.
    private func isOwn(_ offset: UInt64, _ byteCount: Int) -> Bool {
        kind != .resetControl || offset == 1 && byteCount == 1
    }

    public func write(offset: UInt64, byteCount: Int, value: UInt64) {
        guard isOwn(offset, byteCount) else { return }
        let resets: Bool =
            switch kind {
            case .systemControl: value & 1 != 0
            case .resetControl: value & 4 != 0
            }
        if resets { requested.withLock { $0 = true } }
    }
}
