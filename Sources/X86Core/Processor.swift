// One x86-64 processor: `run` is VMRUN, its result is #VMEXIT.
//
// The hot state is `x86_cpu`, a flat C structure reached through one pointer; this object owns it, the TLBs and the
// decoded blocks, and does whatever is not hot. One thread uses a processor at a time.

import CX86State
import X86Defs

/// A software x86-64 processor.
public final class Processor {
    /// What kind of guest runs here.
    public struct Configuration: Sendable {
        /// SEV-ES or SNP: intercepts reach the guest as #VC instead of leaving the processor [APM2 15.35].
        public var encryptedState = false
        /// SNP: PVALIDATE and RMPADJUST exist.
        public var snp = false
        /// SNP: the virtual machine privilege level, 0…3. What the RMP grants it is ``ProcessorMemory``'s to know.
        public var vmpl = 0
        /// C-bit position in page-table entries, nil for plain guests.
        public var cBit: Int? = nil
        /// Value of MSR C0010131 (SEV_STATUS).
        public var sevStatus: UInt64 = 0
        /// PAUSE ends the slice: another processor of the machine may be what this one waits for.
        public var yieldsAtPause = false
        /// Guest physical address bits; entries with bits above them set are reserved-bit faults.
        public var physicalAddressBits = 48
        /// CR4 bits that CPUID announces beyond the ones every such processor has: UMIP, LA57, PCIDE, SMEP, SMAP, PKE.
        public var announcedCR4: UInt64 = 0
        /// On an x86 host, floating point, AES and SHA are the host's own instructions. Without, and elsewhere, they are
        /// computed here, to the same bits.
        public var usesHostArithmetic = true
        /// The instruction groups that exist.
        public var features = ProcessorFeatures.milan
        public init() {}
    }

    let s: CPU
    let group: ProcessorGroup?
    let memory: any ProcessorMemory
    let configuration: Configuration
    /// The instruction groups that exist; decoded code is forgotten when they change.
    public var features: ProcessorFeatures {
        didSet { if features != oldValue { forgetAllCode() } }
    }
    let cBitMask: UInt64
    let physicalMask: UInt64

    let supervisorTLB: UnsafeMutablePointer<x86_tlb_entry>
    let userTLB: UnsafeMutablePointer<x86_tlb_entry>
    /// Supervisor accesses with CR4.SMAP and RFLAGS.AC: user pages are open.
    let openTLB: UnsafeMutablePointer<x86_tlb_entry>
    /// Never filled: used while every access has to be looked at (alignment checking).
    let emptyTLB: UnsafeMutablePointer<x86_tlb_entry>
    /// Those that are filled.
    let tables: [UnsafeMutablePointer<x86_tlb_entry>]
    let walkCache: UnsafeMutablePointer<WalkCacheEntry>
    let fetchCache: UnsafeMutablePointer<x86_fetch_entry>
    /// Nested translations, beside the TLB: they outlive its flushes by the guest, and end with ``flushTLB()``
    /// and ``dropTranslations(to:)``.
    let nestedCache: UnsafeMutablePointer<NestedCacheEntry>

    let handlers: UnsafeMutablePointer<x86_handler>
    let arena: UnsafeMutablePointer<x86_uop>
    var arenaUsed = 0
    /// One-instruction blocks: interrupt shadows and single-stepping.
    let singleArena: UnsafeMutablePointer<x86_uop>
    var blocks: [Block] = []
    let blockHash: UnsafeMutablePointer<Int32>
    var codePages = PageTable()
    /// Plain guests: what each page with code contained, and when that was last checked.
    var codePageChecks: [UInt: (hash: UInt64, epoch: UInt64)] = [:]
    var codeEpoch: UInt64 = 0
    var staleBlocks: [BlockKey: UnsafeMutablePointer<x86_uop>] = [:]

    /// The decoder's scratch: conditional branches of the block, and the bytes of a page-crossing instruction.
    let conditionalUops: UnsafeMutablePointer<(Int32, Int32)>
    let crossingBytes: UnsafeMutablePointer<UInt8>

    /// What ``prepareAlone(at:toDecode:)`` asked for.
    var wantsAlone: AloneReason?
    var pauses = 0
    /// The last run ended because the guest did nothing but wait: others should have the host's processor.
    public internal(set) var hasSpun = false
    var exit: VMExit = .interrupt
    /// An exit that finishing an instruction led to, for the next run.
    var pendingExit: VMExit?
    /// 16 or, with five levels of paging, 7: how many top bits repeat the highest address bit (less one).
    var canonicalShift: UInt64 = 16
    /// Where an intercepted RDMSR or WRMSR goes on.
    var instructionBehindExit: UInt64 = 0
    /// Modes that code was decoded for, and the current one.
    var contexts: [DecodeContext: UInt32] = [:]
    var decodeContext = DecodeContext()
    var bouncePieces: [BouncePiece] = []
    var leavingAfterBounce = false
    var pendingMMIOWrite: VMExit?
    /// The same instruction's other stores to devices, for the next runs.
    var laterMMIOWrites: [VMExit] = []
    /// The engine's access met a device.
    var deviceHit: (gpa: UInt64, rip: UInt64)?
    /// What the hypervisor has answered to the running instruction's loads from devices: all of it, and what the
    /// instruction, which starts again after each answer, has not asked for yet.
    var answeredReads: [DeviceRead] = []
    var completedMMIO: [DeviceRead] = []
    var completedIO: UInt32?
    var injected: Event?
    /// Decoded code died since a rare instruction last looked: its block may be the running one.
    var codeForgotten = false
    /// A software interrupt was delivered: no single-step trap behind it.
    var stepSuppressed = false
    /// The instruction set TF and is already followed by the trap (SYSRET).
    var stepAfterAll = false
    /// Breakpoints are enabled; pages with data breakpoints; DR6 bits of the running instruction's data and I/O
    /// breakpoints; the prepared #DB comes from general detect.
    var debugArmed = false
    var watchedPages: [UInt64] = []
    var pendingDebug: UInt64 = 0
    var debugFault = false
    /// The instruction that led to the last exit is done, and #DB follows it.
    var trapBehindExit = false
    var retired: UInt64 = 0

    /// Exceptions by vector whose raising ends ``run()`` instead: the control block's intercepts [APM2 15.12]. What is
    /// injected is never intercepted.
    public var exceptionIntercepts: UInt32 = 0
    /// RDMSR and WRMSR of the processor's own MSRs leave too; for guests without encrypted state.
    public var interceptsOwnMSRs = false
    /// #DB behind every instruction, whatever TF says.
    public var singleSteps = false
    /// Armed instead of the guest's DR0 to DR3 and DR7.
    public var hostBreakpoints: HostBreakpoints? { didSet { if hostBreakpoints != oldValue { updateBreakpoints() } } }
    /// DR6 of the last #DB that was intercepted.
    public internal(set) var interceptedDebugStatus: UInt64 = 0xffff_0ff0

    /// - Parameter group: The processors that share this one's memory; nil: there are none.
    public init(memory: any ProcessorMemory, configuration: Configuration, group: ProcessorGroup? = nil) {
        self.memory = memory
        self.group = group
        self.configuration = configuration
        features = configuration.features
        cBitMask = configuration.cBit.map { 1 << UInt64($0 & 63) } ?? 0
        physicalMask = ((1 << UInt64(min(max(configuration.physicalAddressBits, 32), 52))) - 1) & ~cBitMask
        s = .allocate(capacity: 1)
        UnsafeMutableRawPointer(s).initializeMemory(as: UInt8.self, repeating: 0, count: MemoryLayout<x86_cpu>.size)
        func tlb() -> UnsafeMutablePointer<x86_tlb_entry> {
            let t = UnsafeMutablePointer<x86_tlb_entry>.allocate(capacity: Int(X86_TLB_SIZE))
            t.initialize(repeating: x86_tlb_entry(read: 1, write: 1, global: 0, addend: 0), count: Int(X86_TLB_SIZE))
            return t
        }
        supervisorTLB = tlb()
        userTLB = tlb()
        openTLB = tlb()
        emptyTLB = tlb()
        tables =
            configuration.announcedCR4 & CR4.smap != 0
            ? [supervisorTLB, userTLB, openTLB] : [supervisorTLB, userTLB]
        walkCache = .allocate(capacity: 512)
        fetchCache = .allocate(capacity: Int(X86_FETCH_SIZE))
        nestedCache = .allocate(capacity: NestedCacheEntry.count)
        handlers = makeHandlerTable()
        arena = .allocate(capacity: Self.arenaCapacity)
        singleArena = .allocate(capacity: 64)
        blockHash = .allocate(capacity: Self.blockHashSize)
        blockHash.initialize(repeating: -1, count: Self.blockHashSize)
        conditionalUops = .allocate(capacity: 64)
        crossingBytes = .allocate(capacity: 64)
        let jumps = UnsafeMutablePointer<x86_jump_entry>.allocate(capacity: Int(X86_JUMP_SIZE))
        s.pointee.jumps = jumps
        s.pointee.tlb = supervisorTLB
        s.pointee.generation = 1
        s.pointee.sev_status = configuration.sevStatus
        if configuration.usesHostArithmetic { s.pointee.host = x86_host_features() }
        walkCache.initialize(
            repeating: WalkCacheEntry(page: 1, host: UnsafeMutableRawPointer(s), isStorable: false), count: 512)
        fetchCache.initialize(repeating: x86_fetch_entry(tag: 0, page: 0), count: Int(X86_FETCH_SIZE))
        s.pointee.fetches = fetchCache
        nestedCache.initialize(repeating: NestedCacheEntry(key: 0, host: 0), count: NestedCacheEntry.count)
        s.pointee.owner = Unmanaged.passUnretained(self).toOpaque()
        flushJumps()
        state = ProcessorState()
        // Last: from now on others may reach in.
        group?.add(self)
    }

    deinit {
        group?.remove(self)
        s.pointee.jumps.deallocate()
        for t in [supervisorTLB, userTLB, openTLB, emptyTLB] { t.deallocate() }
        walkCache.deallocate()
        fetchCache.deallocate()
        nestedCache.deallocate()
        handlers.deallocate()
        arena.deallocate()
        singleArena.deallocate()
        blockHash.deallocate()
        conditionalUops.deallocate()
        crossingBytes.deallocate()
        s.deallocate()
    }

    // MARK: Registers

    /// General register by encoding number (rax rcx rdx rbx rsp rbp rsi rdi r8…r15).
    public subscript(register: Int) -> UInt64 {
        get { get0(register) }
        set { put(s, Slot.gpr(register & 15), newValue) }
    }
    private func get0(_ register: Int) -> UInt64 { get(s, Slot.gpr(register & 15)) }

    public var rip: UInt64 {
        get { instructionPointer(s.pointee.rip) }
        set {
            s.pointee.rip = linearInstruction(newValue)
            s.pointee.link = nil
        }
    }
    public var rflags: UInt64 { composeFlags(s) }
    public var cr8: UInt64 {
        get { s.pointee.cr8 }
        set { s.pointee.cr8 = newValue & 15 }
    }
    public var cpl: Int { Int(s.pointee.cpl) }
    /// True in 64-bit code (CS.L with EFER.LMA).
    public var isLongMode: Bool { s.pointee.efer & EFER.lma != 0 && s.pointee.cs.attributes & 0x200 != 0 }
    /// MSR C0010130.
    public var ghcbMSR: UInt64 {
        get { s.pointee.ghcb_msr }
        set { s.pointee.ghcb_msr = newValue }
    }

    // MARK: Events

    /// IF set and no interrupt shadow: an injected interrupt would be taken at once.
    public var canTakeInterrupt: Bool {
        s.pointee.system_flags & RFLAGS.if != 0 && s.pointee.shadow == 0 && !hasPendingEvent
    }
    /// Between STI, or a load of SS, and the instruction behind it: neither an interrupt nor, under KVM, an NMI is taken
    /// [APM2 15.21.5].
    public var isInInterruptShadow: Bool {
        get { s.pointee.shadow != 0 }
        set {
            guard newValue != isInInterruptShadow else { return }
            // As behind STI: the VMCB's bit is about interrupts alone.
            s.pointee.shadow = newValue ? 1 : 0
        }
    }
    var canTakeNMI: Bool { !nmiBlocked && !isInInterruptShadow && !hasPendingEvent }
    /// Makes `run` return `.interruptWindow` as soon as ``canTakeInterrupt`` becomes true; with ``nmiWindowRequested`` as
    /// soon as an NMI could be taken.
    public var interruptWindowRequested: Bool {
        get { s.pointee.window != 0 }
        set { s.pointee.window = newValue ? 1 : 0 }
    }
    /// Delivered at the start of the next `run` [APM2 15.20].
    public func injectInterrupt(vector: UInt8) { injected = Event(vector: vector, errorCode: nil, kind: .interrupt) }
    public func injectNMI() {
        injected = Event(vector: 2, errorCode: nil, kind: .interrupt)
        nmiBlocked = true
    }
    public func injectException(vector: UInt8, errorCode: UInt32?) {
        injected = Event(vector: vector, errorCode: errorCode, kind: .exception)
    }
    /// An injected event, or the trap behind the last instruction, has not been delivered yet.
    public var hasPendingEvent: Bool { injected != nil || trapBehindExit }
    /// An NMI's handler has not returned yet: from ``injectNMI()`` to the next IRET [APM2 8.2.3].
    public var nmiBlocked = false
    /// Makes `run` return `.interrupt` behind the IRET that ends ``nmiBlocked``; see ``interruptWindowRequested``, too.
    public var nmiWindowRequested = false

    // MARK: Completing exits

    /// Completes `.io` with the value read (any value for writes): the instruction, or the element of a string
    /// instruction, is finished when this returns.
    /// - Returns: True if the same string instruction waits for its next element.
    @discardableResult
    public func completeIO(value: UInt32) -> Bool {
        let place = s.pointee.rip
        completedIO = value
        finishInstruction()
        completedIO = nil
        return s.pointee.rip == place && pendingExit == nil && injected == nil
    }
    /// Completes `.readMSR` with its value, `.writeMSR` with anything: moves past the instruction.
    public func completeMSR(value: UInt64) {
        if case .readMSR = exit {
            put(s, 0, value & 0xffff_ffff)
            put(s, Slot.gpr(2), value >> 32)
        }
        s.pointee.rip = instructionBehindExit
        trapBehindExit = isStepping
    }
    /// Completes a `.mmio` read: the instruction is finished with this value when this returns.
    public func completeMMIO(value: UInt64) {
        guard case .mmio(let gpa, let count, false, _) = exit else { return }
        answeredReads.append(DeviceRead(gpa: gpa, byteCount: count, value: value))
        completedMMIO = answeredReads
        finishInstruction()
        completedMMIO = []
        // It may want another one; then it starts again with all of them.
        if case .mmio(_, _, false, _)? = pendingExit { return }
        answeredReads = []
    }

    // MARK: Time

    /// Guest TSC = host monotonic nanoseconds × kHz / 10⁶ + offset.
    public var tscKHz: UInt32 = 1_000_000
    /// The offset, exactly: processors with the same one and the same frequency count alike.
    public var tscOffset: UInt64 = 0
    public var tsc: UInt64 {
        get { scaledTime &+ tscOffset }
        set { tscOffset = newValue &- scaledTime }
    }

    // MARK: Memory

    /// Every translation may have changed.
    public func flushTLB() {
        flushLinearTranslations()
        for i in 0..<512 { walkCache[i].page = 1 }
        nestedCache.update(repeating: NestedCacheEntry(key: 0, host: 0), count: NestedCacheEntry.count)
    }

    /// What a write to CR3 does: translations stay that page tables marked as global, if CR4.PGE is set [APM2 5.5.1].
    func flushNonglobalTranslations() {
        guard s.pointee.cr4 & CR4.pge != 0, !debugArmed else { return flushLinearTranslations() }
        let empty = x86_tlb_entry(read: 1, write: 1, global: 0, addend: 0)
        for i in 0..<Int(X86_TLB_SIZE) where supervisorTLB[i].global == 0 { supervisorTLB[i] = empty }
        for i in 0..<Int(X86_TLB_SIZE) where userTLB[i].global == 0 { userTLB[i] = empty }
        if tables.count > 2 {
            for i in 0..<Int(X86_TLB_SIZE) where openTLB[i].global == 0 { openTLB[i] = empty }
        }
        for i in 0..<256 { fetchCache[i].tag = 0 }
        bumpGeneration()
    }

    /// What INVLPG does (all entries: large pages are cut into small ones here).
    func flushLinearTranslations() {
        let empty = x86_tlb_entry(read: 1, write: 1, global: 0, addend: 0)
        for i in 0..<Int(X86_TLB_SIZE) {
            supervisorTLB[i] = empty
            userTLB[i] = empty
        }
        if tables.count > 2 { openTLB.update(repeating: empty, count: Int(X86_TLB_SIZE)) }
        for i in 0..<256 { fetchCache[i].tag = 0 }
        bumpGeneration()
    }

    /// Translations to these host pages end, and code decoded from them is forgotten: what the guest sees at their guest
    /// addresses is elsewhere from now on. May be called from inside ``ProcessorMemory/translate(gpa:encrypted:access:)``.
    public func forgetTranslations(toHostPages pages: [UInt]) {
        if pages.isEmpty { return }
        if pages.count > 8 { flushTLB() } else { dropTranslations(to: pages) }
        for page in pages where codePages.contains(page) { forgetCodePage(page) }
    }

    /// Drops what leads to these host pages, whichever linear addresses do.
    func dropTranslations(to pages: [UInt]) {
        for page in pages { dropTranslations(to: page) }
    }

    func dropTranslations(to page: UInt) {
        for table in tables {
            for i in 0..<Int(X86_TLB_SIZE) {
                // An empty entry's sum is odd.
                let e = table + i
                let tag = e.pointee.read != 1 ? e.pointee.read : e.pointee.write
                if UInt(truncatingIfNeeded: tag &+ e.pointee.addend) == page {
                    e.pointee = x86_tlb_entry(read: 1, write: 1, global: 0, addend: 0)
                }
            }
        }
        for i in 0..<512 where UInt(bitPattern: walkCache[i].host) == page { walkCache[i].page = 1 }
        for i in 0..<256 where fetchCache[i].page == UInt64(page) { fetchCache[i].tag = 0 }
        for i in 0..<NestedCacheEntry.count where nestedCache[i].host & ~0xfff == page { nestedCache[i].key = 0 }
    }

    /// The bytes of these host pages changed other than by this processor's stores, or the pages were freed.
    public func forgetCode(at host: UnsafeRawPointer, byteCount: Int) {
        var page = UInt(bitPattern: host) & ~0xfff
        let end = UInt(bitPattern: host) &+ UInt(max(byteCount, 0))
        while page < end {
            if codePages.contains(page) { forgetCodePage(page) }
            page &+= 0x1000
        }
    }

    /// The hypervisor's user space had control: in a plain guest it may have written memory that holds decoded code.
    /// Costs nothing for encrypted guests, whose code nobody else can change.
    public func hostMemoryMayHaveChanged() {
        guard cBitMask == 0 else { return }
        guard let group else { return lookAtCodeAgain(codeEpoch &+ 1) }
        group.codeEpoch.add(1, ordering: .acquiringAndReleasing)
    }

    /// Every page of code is compared with what was decoded, when it is next entered.
    func lookAtCodeAgain(_ epoch: UInt64) {
        codeEpoch = epoch
        for i in 0..<256 { fetchCache[i].tag = 0 }
        bumpGeneration()
    }

    /// Instructions per slice: ``run()`` returns `.interrupt` after so many; the default takes a fraction of a millisecond.
    public var sliceInstructionCount: Int64 = 100_000

    // MARK: Being asked

    /// Called by any thread: ``run()`` returns ``VMExit/interrupt`` soon, or when it is next called.
    public func request() { x86_request(s) }

    /// What was requested so far is seen to.
    public func takeRequest() { _ = x86_take_request(s) }

    /// Guest instructions retired since creation (a repeated string instruction counts once per visit).
    public var instructionCount: UInt64 { retired }
}
