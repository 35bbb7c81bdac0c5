// How a guest can end that is no refusal of a request: exits of KVM_RUN, internal errors, system events, and the reasons
// that a guest gives when it asks for its own termination.

import KVMABI

/// An exit, an error's kind or an event by its name in the kernel's header.
public struct GuestEnd: Sendable {
    /// "KVM_EXIT_SHUTDOWN".
    public var name: String
    /// In the field that it comes in: exit_reason, suberror, type.
    public var number: UInt32
    public var meaning: String
    /// The likeliest first.
    public var causes: [ErrorCatalogue.Cause]

    init(_ name: String, _ number: UInt32, _ meaning: String, _ causes: ErrorCatalogue.Cause...) {
        (self.name, self.number, self.meaning, self.causes) = (name, number, meaning, causes)
    }

    /// What is likely behind an end that came unasked.
    public var likely: ErrorCatalogue.Cause {
        causes.first ?? .init("an exit that this machine does not ask for", next: "report it with --launch-log")
    }

    /// The row of an exit; one without causes for an exit that has none here.
    public static func of(_ reason: ExitReason) -> GuestEnd {
        exits.first { $0.number == reason.rawValue } ?? .init("\(reason)", reason.rawValue, "not known")
    }

    /// The row of an internal error.
    public static func of(_ kind: InternalErrorKind) -> GuestEnd {
        internalErrors.first { $0.number == kind.rawValue } ?? of(ExitReason.internalError)
    }

    /// The row of a system event.
    public static func of(_ type: SystemEventType) -> GuestEnd {
        systemEvents.first { $0.number == type.rawValue } ?? of(ExitReason.systemEvent)
    }

    /// `exit_reason` [KVM KVM_RUN].
    public static let exits: [GuestEnd] = [
        .init(
            "KVM_EXIT_UNKNOWN", 0, "an exit of the hardware that the kernel does not know",
            .init("a processor newer than the kernel", check: "uname -r", next: "update the host kernel")),
        .init("KVM_EXIT_IO", 2, "the guest read or wrote an I/O port: the VMM answers"),
        .init(
            "KVM_EXIT_HYPERCALL", 3, "the guest asked for something, on SNP for a page-state change: the VMM answers"),
        .init("KVM_EXIT_DEBUG", 4, "a breakpoint or a single step that a debugger asked for"),
        .init("KVM_EXIT_HLT", 5, "the vCPU halted, where the kernel has no interrupt controller to wake it"),
        .init("KVM_EXIT_MMIO", 6, "the guest read or wrote a device's registers: the VMM answers"),
        .init("KVM_EXIT_IRQ_WINDOW_OPEN", 7, "the guest takes interrupts again"),
        .init(
            "KVM_EXIT_SHUTDOWN", 8, "a triple fault: an exception while an exception was being delivered, twice",
            .init(
                "an exception that the guest could not deliver: no handler, a bad stack, or page tables that do not map it",
                check: "the guest's last console lines",
                next: "boot the guest with earlyprintk=serial to see what it did last"),
            .init(
                "an SNP guest touched memory that it had not validated, or whose owner changed",
                check: "--launch-log; the exits before it", next: "look at what was converted last")),
        .init(
            "KVM_EXIT_FAIL_ENTRY", 9, "VMRUN failed: the processor did not take the state",
            .init(
                "a VMSA page that is none any more, or registers that cannot be together", check: "dmesg | grep -i kvm",
                next: "look at dmesg on the host, and report the reason together with --launch-log")),
        .init("KVM_EXIT_INTR", 10, "a signal came for the vCPU's thread"),
        .init(
            "KVM_EXIT_INTERNAL_ERROR", 17, "the host kernel cannot go on with this vCPU: suberror says why",
            .init(
                "an instruction that the kernel does not emulate, or a page table it cannot follow",
                check: "the suberror and the instruction bytes in the message",
                next: "report the bytes together with the guest's kernel version")),
        .init(
            "KVM_EXIT_SYSTEM_EVENT", 24, "the guest asked for a power-off, a reset or its termination: type says which"),
        .init("KVM_EXIT_IOAPIC_EOI", 26, "an interrupt of an I/O APIC in user space was acknowledged"),
        .init("KVM_EXIT_X86_RDMSR", 29, "the guest read an MSR that is the VMM's to answer"),
        .init("KVM_EXIT_X86_WRMSR", 30, "the guest wrote an MSR that is the VMM's to take"),
        .init("KVM_EXIT_AP_RESET_HOLD", 32, "a vCPU of a SEV-ES guest waits for its start"),
        .init(
            "KVM_EXIT_MEMORY_FAULT", 39,
            "private or shared: the access does not agree with the page's attribute. It comes with EFAULT, and the VMM "
                + "converts the page and goes on",
            .init(
                "an address that is no RAM, touched as private", check: "the address in the message",
                next: "boot the guest with earlyprintk=serial to see what it did last"),
            .init(
                "with EHWPOISON: a hardware error in the host's memory", check: "dmesg | grep -i mce",
                next: "replace the memory module"),
            .init(
                "with ENOMEM: no memory for the private page", check: "free -m",
                next: "free memory on the host, or use a smaller --memory")),
        .init(
            "KVM_EXIT_SNP_REQ_CERTS", 43, "an SNP guest wants the certificates of its report: the VMM puts them there"),
    ]

    /// `internal.suberror` [KVM KVM_EXIT_INTERNAL_ERROR].
    public static let internalErrors: [GuestEnd] = [
        .init(
            "KVM_INTERNAL_ERROR_EMULATION", 1, "an instruction that the kernel would have to emulate, and cannot",
            .init(
                "an instruction that this host kernel does not implement", check: "uname -r",
                next: "report the bytes together with the guest's kernel version; try --backend software"),
            .init(
                "a guest that ran into data: the bytes are no code", check: "the instruction bytes in the message",
                next: "boot it with earlyprintk=serial"),
            .init(
                "an encrypted guest touched what is no RAM without the GHCB: the kernel cannot read its instruction",
                next: "use a guest kernel with SEV-ES and SNP support")),
        .init(
            "KVM_INTERNAL_ERROR_SIMUL_EX", 2,
            "an exception came while another was delivered, and the kernel cannot go on",
            .init("a broken interrupt table in the guest", next: "boot it with earlyprintk=serial")),
        .init(
            "KVM_INTERNAL_ERROR_DELIVERY_EV", 3, "delivering an event to the guest needed an exit",
            .init(
                "the guest's stack or interrupt table lies in no memory, or in a page of the wrong state",
                next: "look at what was converted last")),
        .init(
            "KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON", 4, "an exit of the hardware that the kernel did not expect",
            .init("a kernel that does not know this processor", check: "uname -r", next: "update the host kernel")),
    ]

    /// `system_event.type` [KVM KVM_EXIT_SYSTEM_EVENT].
    public static let systemEvents: [GuestEnd] = [
        .init("KVM_SYSTEM_EVENT_SHUTDOWN", 1, "the guest powered off"),
        .init("KVM_SYSTEM_EVENT_RESET", 2, "the guest asked for a reset, which a measured launch does not have"),
        .init(
            "KVM_SYSTEM_EVENT_CRASH", 3, "the guest reported that it crashed",
            .init("a panic", next: "look at the guest's last console lines")),
        .init("KVM_SYSTEM_EVENT_WAKEUP", 4, "a suspended guest wakes up"),
        .init("KVM_SYSTEM_EVENT_SUSPEND", 5, "the guest suspended itself"),
        .init("KVM_SYSTEM_EVENT_SEV_TERM", 6, "the guest asked for its termination: the reason is in the GHCB MSR"),
        .init("KVM_SYSTEM_EVENT_TDX_FATAL", 7, "a TDX guest ended itself"),
    ]
}

/// The reason that a guest gives when it asks for its termination [GHCB 2.3.1, 4.1.13]: set 0 is the protocol's own, set 1
/// Linux's.
public struct TerminationReason: Sendable {
    public var set: UInt8
    public var reason: UInt8
    public var meaning: String
    /// What usually leads here; nil where the meaning says it.
    public var likelyCause: String?

    /// The row of a reason; nil for one that nobody has defined.
    public static func of(set: UInt8, reason: UInt8) -> TerminationReason? {
        all.first { $0.set == set && $0.reason == reason }
    }

    public static let all: [TerminationReason] = [
        .init(
            0, 0, "general: a #VC the guest cannot handle, a reply it does not believe, or CPUID trouble",
            "memory the guest touched before it validated it, or an intercept that its kernel does not handle"),
        .init(
            0, 1, "the GHCB protocol versions of guest and host do not meet",
            "a guest that speaks only newer or older protocol versions"),
        .init(
            0, 2, "SEV-SNP features that the guest needs are missing, or features are on that it does not know",
            "--guest-features with a bit that this kernel does not know, or a damaged CC blob"),
        .init(1, 0, "the GHCB could not be registered", "a host that moves the GHCB, or a GHCB outside RAM"),
        .init(1, 1, "a page state change failed", "KVM_CAP_EXIT_HYPERCALL off, or an address outside RAM"),
        .init(
            1, 2, "PVALIDATE failed or changed nothing",
            "the RMP is not in the state the guest expects: memory was remapped behind its back"),
        .init(1, 3, "the guest does not run at VMPL0"),
        .init(1, 4, "the CPUID table is not usable", "a CPUID page without entries or with too many"),
        .init(1, 5, "CPUID from the hypervisor is not usable", "a CPUID page that says other than the hypervisor"),
        .init(1, 6, "the secrets page is not usable"),
        .init(1, 7, "no SVSM where the guest needs one"),
        .init(1, 8, "an SVSM runs at VMPL0, but so does the guest"),
        .init(1, 9, "the SVSM calling area is not aligned"),
    ]

    private init(_ set: UInt8, _ reason: UInt8, _ meaning: String, _ likelyCause: String? = nil) {
        (self.set, self.reason, self.meaning, self.likelyCause) = (set, reason, meaning, likelyCause)
    }
}
