// Why the processor stopped: the #VMEXIT codes of AMD's architecture [APM2 C], as far as a hypervisor meets them.

/// A #VMEXIT. Codes are those of the VMCB; `invalidInstruction` is ours.
public enum VMExit: Equatable, Sendable {
    /// The time slice ran out or somebody asked to stop; nothing happened. (VMEXIT_INTR 0x60)
    case interrupt
    /// The guest can take an interrupt now and ``Processor/interruptWindowRequested`` was set. (VMEXIT_VINTR 0x64)
    case interruptWindow
    /// CPUID; plain guests only. RIP is already past the instruction, RAX to RDX await their values. (0x72)
    case cpuid
    /// HLT; RIP is past it. (0x78)
    case halt
    /// Port I/O by a plain guest; RIP at the instruction until ``Processor/completeIO``. (0x7B)
    case io(IOAccess)
    /// RDMSR or WRMSR of an MSR that is not the processor's own; plain guests only. Answer with
    /// ``Processor/completeMSR(read:)`` or ``Processor/injectException``. (0x7C)
    case readMSR(UInt32)
    case writeMSR(UInt32, UInt64)
    /// CR8 was written: interrupts may have become deliverable. RIP is past the instruction. (0x18)
    case cr8Write
    /// VMMCALL by a plain guest; RIP is past it. (0x81)
    case vmmcall
    /// VMGEXIT; RIP is past it. The GHCB MSR is ``Processor/ghcbMSR``. (0x403)
    case vmgexit
    /// WBINVD, INVD by a plain guest (0x89, 0x76): nothing to do.
    /// An exception of ``Processor/exceptionIntercepts``, not delivered; RIP is where it was raised, for INT3 at it. (0x40 +
    /// vector)
    case exception(vector: UInt8, errorCode: UInt32?)
    /// Triple fault. (0x7F)
    case shutdown
    /// A load or store on a device by a plain guest. For a read give the value to ``Processor/completeMMIO(value:)``
    /// and run again; a write is complete on the next run.
    case mmio(gpa: UInt64, byteCount: Int, write: Bool, value: UInt64)
    /// The hypervisor must resolve the access, then run again: the instruction is repeated. (0x400)
    case nestedPageFault(gpa: UInt64, encrypted: Bool, access: PhysicalAccess)
    /// Something this processor does not implement: never executed wrongly, always named. The bytes start at RIP.
    case unimplemented(reason: String, bytes: [UInt8])
}

/// One port access. String forms come one element at a time, with RIP, RSI/RDI and RCX at the element; INS says how many
/// elements follow without an end of page in between.
public struct IOAccess: Equatable, Sendable {
    public var port: UInt16
    /// 1, 2 or 4.
    public var byteCount: Int
    public var write: Bool
    /// For writes.
    public var value: UInt32
    /// INS: elements from here on that the instruction will take in a row, 1…1024 bytes of them.
    public var elementCount: Int
    public init(port: UInt16, byteCount: Int, write: Bool, value: UInt32 = 0, elementCount: Int = 1) {
        self.elementCount = elementCount
        self.port = port
        self.byteCount = byteCount
        self.write = write
        self.value = value
    }
}
