// Why KVM_RUN came back.

/// `kvm_run.exit_reason` [KVM KVM_RUN].
public struct ExitReason: RawRepresentable, Hashable, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// `KVM_EXIT_UNKNOWN`.
    public static let unknown = Self(rawValue: 0)
    /// `KVM_EXIT_IO`.
    public static let io = Self(rawValue: 2)
    /// `KVM_EXIT_HYPERCALL`.
    public static let hypercall = Self(rawValue: 3)
    /// `KVM_EXIT_DEBUG`.
    public static let debug = Self(rawValue: 4)
    /// `KVM_EXIT_HLT`: only without an in-kernel local APIC.
    public static let halt = Self(rawValue: 5)
    /// `KVM_EXIT_MMIO`.
    public static let mmio = Self(rawValue: 6)
    /// `KVM_EXIT_IRQ_WINDOW_OPEN`.
    public static let irqWindowOpen = Self(rawValue: 7)
    /// `KVM_EXIT_SHUTDOWN`: triple fault.
    public static let shutdown = Self(rawValue: 8)
    /// `KVM_EXIT_FAIL_ENTRY`.
    public static let failEntry = Self(rawValue: 9)
    /// `KVM_EXIT_INTR`.
    public static let interrupted = Self(rawValue: 10)
    /// `KVM_EXIT_INTERNAL_ERROR`.
    public static let internalError = Self(rawValue: 17)
    /// `KVM_EXIT_SYSTEM_EVENT`.
    public static let systemEvent = Self(rawValue: 24)
    /// `KVM_EXIT_IOAPIC_EOI`: split irqchip only.
    public static let ioapicEOI = Self(rawValue: 26)
    /// `KVM_EXIT_X86_RDMSR`.
    public static let readMSR = Self(rawValue: 29)
    /// `KVM_EXIT_X86_WRMSR`.
    public static let writeMSR = Self(rawValue: 30)
    /// `KVM_EXIT_AP_RESET_HOLD`.
    public static let apResetHold = Self(rawValue: 32)
    /// `KVM_EXIT_MEMORY_FAULT`: comes with errno `EFAULT` (or `EHWPOISON`), unlike every other exit.
    public static let memoryFault = Self(rawValue: 39)
    /// `KVM_EXIT_SNP_REQ_CERTS`.
    public static let snpRequestCertificates = Self(rawValue: 43)
}

extension ExitReason: CustomStringConvertible {
    /// The kernel's name, or the number.
    public var description: String { Self.names[rawValue] ?? "exit reason \(rawValue)" }

    private static let names: [UInt32: String] = [
        0: "KVM_EXIT_UNKNOWN", 2: "KVM_EXIT_IO", 3: "KVM_EXIT_HYPERCALL", 4: "KVM_EXIT_DEBUG", 5: "KVM_EXIT_HLT",
        6: "KVM_EXIT_MMIO", 7: "KVM_EXIT_IRQ_WINDOW_OPEN", 8: "KVM_EXIT_SHUTDOWN", 9: "KVM_EXIT_FAIL_ENTRY",
        10: "KVM_EXIT_INTR", 17: "KVM_EXIT_INTERNAL_ERROR", 24: "KVM_EXIT_SYSTEM_EVENT", 26: "KVM_EXIT_IOAPIC_EOI",
        29: "KVM_EXIT_X86_RDMSR", 30: "KVM_EXIT_X86_WRMSR", 32: "KVM_EXIT_AP_RESET_HOLD", 39: "KVM_EXIT_MEMORY_FAULT",
        43: "KVM_EXIT_SNP_REQ_CERTS",
    ]
}

/// `kvm_run.system_event.type` [KVM KVM_EXIT_SYSTEM_EVENT].
public struct SystemEventType: RawRepresentable, Hashable, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// `KVM_SYSTEM_EVENT_SHUTDOWN`.
    public static let shutdown = Self(rawValue: 1)
    /// `KVM_SYSTEM_EVENT_RESET`.
    public static let reset = Self(rawValue: 2)
    /// `KVM_SYSTEM_EVENT_CRASH`.
    public static let crash = Self(rawValue: 3)
    /// `KVM_SYSTEM_EVENT_WAKEUP`.
    public static let wakeup = Self(rawValue: 4)
    /// `KVM_SYSTEM_EVENT_SUSPEND`.
    public static let suspend = Self(rawValue: 5)
    /// `KVM_SYSTEM_EVENT_SEV_TERM`: the guest asked for termination [GHCB 2.3.1]; data[0] is the GHCB MSR.
    public static let sevTermination = Self(rawValue: 6)
    /// `KVM_SYSTEM_EVENT_TDX_FATAL`.
    public static let tdxFatal = Self(rawValue: 7)
}

/// `kvm_run.internal.suberror` [KVM KVM_EXIT_INTERNAL_ERROR].
public struct InternalErrorKind: RawRepresentable, Hashable, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// `KVM_INTERNAL_ERROR_EMULATION`: an instruction that the kernel cannot emulate. data[0] may hold flags (bit 0:
    /// instruction bytes follow), then a byte count and the bytes.
    public static let emulation = Self(rawValue: 1)
    /// `KVM_INTERNAL_ERROR_SIMUL_EX`: an exception while delivering another, which the kernel cannot continue.
    public static let simultaneousException = Self(rawValue: 2)
    /// `KVM_INTERNAL_ERROR_DELIVERY_EV`: an exit while delivering an event.
    public static let deliveringEvent = Self(rawValue: 3)
    /// `KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON`.
    public static let unexpectedExitReason = Self(rawValue: 4)
}
