// What lies behind the processor's caches: the memory as a nested page table and an RMP let this guest see it.
//
// The engine asks only when its TLB has no entry. Whoever changes a translation or a page's contents behind the
// engine's back (page-state change, memory slots, reclaim, launch update) must tell it: `Processor.flushTLB()` and
// `Processor.forgetCode(…)`, or `Processor.forgetTranslations(…)` for single pages.

/// What the processor wants to do with a guest physical page.
public enum PhysicalAccess: UInt8, Sendable {
    case read, write, execute
    /// A fetch at CPL 3 by a processor below VMPL 0: the RMP tells them apart.
    case userExecute
    /// Reading a page-table entry; `pageTableWrite` sets accessed or dirty bits. Both are always encrypted accesses.
    case pageTableRead, pageTableWrite
}

/// The answer to a translation request.
public enum PhysicalTranslation {
    /// The page's first byte in this process, and whether stores may go through it.
    case page(UnsafeMutableRawPointer, writable: Bool)
    /// No memory here: a device. Plain and SEV guests exit with ``VMExit/mmio``; guests with encrypted state get #VC 0x400.
    case device
    /// A private page that the guest has not validated: #VC 0x404 in the guest [APM2 15.36.10].
    case notValidated
    /// The hypervisor must act first: ``VMExit/nestedPageFault`` (attribute and C-bit disagree, RMP violation, no page).
    case fault
}

/// PVALIDATE's outcome [APM3 PVALIDATE]: RAX, and CF = "nothing changed".
public struct PValidateResult: Sendable {
    public var code: UInt64
    public var unchanged: Bool
    public init(code: UInt64, unchanged: Bool = false) {
        self.code = code
        self.unchanged = unchanged
    }
}

/// The memory of one guest, seen from its processor.
public protocol ProcessorMemory: AnyObject {
    /// Finds the page at `gpa` (any byte of it). `encrypted` is the C-bit of the mapping, or true where the
    /// architecture forces it (instruction fetch, page walk).
    func translate(gpa: UInt64, encrypted: Bool, access: PhysicalAccess) -> PhysicalTranslation

    /// PVALIDATE on the page at `gpa`. Size 0 = 4 KiB, 1 = 2 MiB. The engine sees to translation caches, of all processors
    /// of the group.
    /// Returns nil when the hypervisor must act first (a nested page fault).
    func pvalidate(gpa: UInt64, size: UInt32, validate: Bool) -> PValidateResult?

    /// RMPADJUST: `attributes` is RDX (7:0 VMPL, 15:8 permissions, 16 VMSA). Returns RAX, or nil as above.
    func rmpadjust(gpa: UInt64, size: UInt32, attributes: UInt64) -> UInt64?

    /// A load or store on a device page, offered before the processor exits (in-kernel local APIC, I/O APIC).
    /// Returns false to make it a ``VMExit/mmio``. Only asked for guests without encrypted state.
    func deviceRead(gpa: UInt64, byteCount: Int, into value: inout UInt64) -> Bool
    func deviceWrite(gpa: UInt64, byteCount: Int, value: UInt64) -> Bool
}
