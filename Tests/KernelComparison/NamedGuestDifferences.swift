// Where a flat guest's transcript on a real kernel is known to differ from the software kernel's, by name, with the reason.
//
// The kernel that was compared emulates every instruction of a guest's supervisor, batch by batch, with KVM's emulator,
// which is not the whole architecture. In each of these the guest's own check, which quotes the manual, passes on the
// software kernel and fails on the real one.

import KVMABI

/// One known difference.
public struct NamedGuestDifference: Sendable {
    public var name: String
    public var reason: String
    public var guest: String
    /// Interrupts may also come in time.
    public var dependsOnTime: Bool { name == "late interrupts" }
    /// Beginnings of the guest's lines, behind "ok" or "BAD".
    var lines: [String]
    /// Everything behind the first of these lines: the guest went another way.
    var endsComparison: Bool

    init(_ name: String, in guest: String, endsComparison: Bool = false, _ reason: String, _ lines: [String]) {
        self.name = name
        self.reason = reason
        self.guest = guest
        self.lines = lines
        self.endsComparison = endsComparison
    }

    func matches(_ line: String) -> Bool {
        let text = GuestLine.text(line)
        return lines.contains { text.hasPrefix($0) }
    }

    public static let all: [NamedGuestDifference] = [
        NamedGuestDifference(
            "split stores", in: "page-faults",
            "the emulator writes the first page before the fault of the second: the manual has a store fault as a whole",
            ["and nothing was written before it"]),
        NamedGuestDifference(
            "protection keys", in: "paging", "CR4.PKE is taken although no CPUID announces it",
            ["CR4.PKE without the feature"]),
        NamedGuestDifference(
            "1 GiB pages", in: "paging", endsComparison: true, "this kernel's shadow page tables have none",
            ["1 GiB page", "a 1 GiB page"]),
        NamedGuestDifference(
            "wide stores", in: "segments", "the emulator does not check an XSAVE area against the limit",
            ["512 bytes over the end"]),
        NamedGuestDifference(
            "32-bit code at CPL 3", in: "segments", "user code runs on the host's processor, whose INT ends elsewhere",
            ["32-bit code at CPL 3", "conforming code of DPL 0 at CPL 3"]),
        NamedGuestDifference(
            "ENTER", in: "segments", "the emulator does not look at the stack's limit", ["ENTER over the end"]),
        NamedGuestDifference(
            "SYSEXIT", in: "exceptions", "KVM's emulator has Intel's SYSEXIT in long mode; AMD's processors have none",
            ["#UD: SYSEXIT"]),
        NamedGuestDifference(
            "INT at CPL 3", in: "exceptions", "user code runs on the host's processor: a gate's DPL is not looked at",
            ["INT through a gate of DPL 0", "INT3 through a gate of DPL 0", "INT from CPL 3", "goes by RSP0"]),
        NamedGuestDifference(
            "gates of exceptions", in: "exceptions", endsComparison: true,
            "this kernel delivers a guest's exceptions by a short way of its own, which does not check the gate",
            ["#UD, gate not present"]),
        NamedGuestDifference(
            "traps behind MOV SS", in: "single-step", "the emulator has no interrupt shadow for TF",
            ["MOV SS", "puts the trap off"]),
        NamedGuestDifference(
            "traps of repeated strings", in: "single-step", "the emulator makes several rounds between two traps",
            ["REP MOVSB", "its second too", "its last one is behind it"]),
        NamedGuestDifference(
            "IRET and TF", in: "single-step", "the trap of the IRET that clears TF is lost",
            ["IRET that clears TF", "the last one is behind it"]),
        NamedGuestDifference(
            "SYSCALL and TF", in: "single-step", "SYSCALL from CPL 3 with TF set is not followed",
            ["SYSCALL that", "traps", "behind SYSRET", "behind the next instruction", "R11 has it"]),
        NamedGuestDifference(
            "data breakpoints", in: "breakpoints", "the emulator looks at instruction breakpoints alone",
            [
                "a store", "RIP is behind the store", "a byte within", "8 bytes", "16 bytes", "a read-modify-write",
                "PUSH",
                "a string instruction", "one that compares", "a load", "RIP is behind the load",
                "an address off its boundary",
                "two at once", "the third", "over a page's end", "MOV SS puts it off", "by one instruction", "OUT:",
                "IN:",
                "KVM_EXIT_IO out 0x80",
            ]),
        NamedGuestDifference(
            "late interrupts", in: "apic-timer",
            "supervisor code is emulated a thousand instructions at a time: interrupts come behind the batch",
            [
                "sent twice", "but behind it", "then the lower", "IRR", "ISR", "the higher vector alone", "periodic",
                "spurious", "deadline", "one shot", "masked", "no interrupt between",
            ]),
        NamedGuestDifference(
            "call gates at CPL 3", in: "transfers",
            "user code runs on the host's processor, whose gates are the host's",
            [
                "call gate of DPL 0 from CPL 3", "call gate of DPL 3 from CPL 3", "the target's CPL", "its stack",
                "frame:",
                "back at CPL 3",
            ]),
        NamedGuestDifference(
            "SYSCALL at CPL 3", in: "transfers",
            "user code runs on the host's processor: SYSCALL is a call of this kernel's own, SYSRET an emulated one",
            [
                "SYSCALL", "SFMASK", "RCX is", "R11 has", "CS", "SS", "SYSRET", "and back there", "its RCX",
                "at that address",
                "faults at CPL 3",
            ]),
        NamedGuestDifference(
            "SWAPGS and RDTSC", in: "transfers",
            "SWAPGS is emulated in every mode, RDTSC at CPL 3 executed whatever CR4.TSD says", ["SWAPGS", "RDTSC at"]),
        NamedGuestDifference(
            "RDTSCP", in: "transfers", endsComparison: true, "this kernel has none, and no TSC_AUX for it", ["RDTSCP"]),
        NamedGuestDifference(
            "PAT types", in: "msrs", "this kernel's vendor module takes every value", ["PAT, type"]),
        NamedGuestDifference(
            "TSC_AUX", in: "msrs", endsComparison: true, "this kernel has no RDTSCP to offer, and so no TSC_AUX",
            ["TSC_AUX"]),
        NamedGuestDifference(
            "late interrupts", in: "interprocessor",
            "supervisor code is emulated a thousand instructions at a time: interrupts come behind the batch",
            ["to itself", "its own APIC id", "IPI", "NMI", "INIT", "to the other", "to all", "lowest"]),
    ]
}

/// A line of a transcript.
enum GuestLine {
    /// Without "| ", "ok" or "BAD".
    static func text(_ line: String) -> String {
        var text = line
        for prefix in ["| ", "ok ", "BAD"] where text.hasPrefix(prefix) { text = String(text.dropFirst(prefix.count)) }
        return String(text.drop { $0 == " " })
    }

    static func isFailure(_ line: String) -> Bool { line.hasPrefix("| BAD") }
    static func isPass(_ line: String) -> Bool { line.hasPrefix("| ok ") }
    /// What the end of a guest says that found faults.
    static func isEnding(_ line: String) -> Bool {
        line.hasPrefix("| FAIL") || line.hasPrefix("| PASS") || line.hasPrefix("end ") || line.hasPrefix("outcome")
            || line.hasPrefix("KVM_EXIT_SHUTDOWN") || line.hasPrefix("KVM_EXIT_MMIO write 0xfed10000")
    }
}
