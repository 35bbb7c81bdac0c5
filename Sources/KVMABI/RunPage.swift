// kvm_run: the page that a vCPU shares with its VMM. Both sides use this view: the VMM reads exits and answers them, a
// software kernel writes exits and reads the answers. Offsets are from the start of the page [KVM KVM_RUN].
//
//     0x000  request_interrupt_window   0x008 exit_reason          0x010 cr8
//     0x001  immediate_exit             0x00c ready_for_injection  0x018 apic_base
//     0x020  the exit union, 256 bytes  0x120 kvm_valid_regs       0x128 kvm_dirty_regs
//     0x930  end; the data of port I/O is in the next page, at `data_offset`

/// A typed view of a vCPU's mapped `kvm_run`.
public struct RunPage: Sendable {
    /// The length of `struct kvm_run`, in bytes. The mapping is longer: port data and the coalesced ring follow.
    public static let byteCount = 2352
    /// Where the exit union starts.
    public static let exitOffset = 32

    /// The whole mapping, for port data and the like.
    public let mapping: KernelMapping

    /// A view of a vCPU's mapping; programmer error if that is shorter than `struct kvm_run`.
    public init(_ mapping: KernelMapping) {
        precondition(mapping.byteCount >= Self.byteCount, "a vCPU's mapping holds at least struct kvm_run")
        self.mapping = mapping
    }

    /// `request_interrupt_window` (in).
    public var requestInterruptWindow: UInt8 {
        get { mapping.load(at: 0) }
        nonmutating set { mapping.store(newValue, at: 0) }
    }

    /// `immediate_exit` (in): the next `KVM_RUN` finishes pending work and returns `EINTR`. Any thread may set it.
    public var immediateExit: Bool {
        get { mapping.loadAtomically(byteAt: 1) != 0 }
        nonmutating set { mapping.storeAtomically(byte: newValue ? 1 : 0, at: 1) }
    }

    /// `exit_reason` (out). Stale when `KVM_RUN` failed with anything but `EFAULT` or `EHWPOISON`.
    public var exitReason: ExitReason {
        get { ExitReason(rawValue: mapping.load(at: 8)) }
        nonmutating set { mapping.store(newValue.rawValue, at: 8) }
    }

    /// `ready_for_interrupt_injection` (out).
    public var readyForInterruptInjection: Bool {
        get { mapping.load(at: 12, as: UInt8.self) != 0 }
        nonmutating set { mapping.store(newValue ? 1 as UInt8 : 0, at: 12) }
    }

    /// `if_flag` (out): RFLAGS.IF, or what KVM says of it for a protected guest.
    public var interruptFlag: Bool {
        get { mapping.load(at: 13, as: UInt8.self) != 0 }
        nonmutating set { mapping.store(newValue ? 1 as UInt8 : 0, at: 13) }
    }

    /// `flags` (out): bit 0 in SMM, bit 1 bus lock, bit 2 guest mode.
    public var flags: UInt16 {
        get { mapping.load(at: 14) }
        nonmutating set { mapping.store(newValue, at: 14) }
    }

    /// `cr8`: in and out without an in-kernel local APIC.
    public var cr8: UInt64 {
        get { mapping.load(at: 16) }
        nonmutating set { mapping.store(newValue, at: 16) }
    }

    /// `apic_base` (out).
    public var apicBase: UInt64 {
        get { mapping.load(at: 24) }
        nonmutating set { mapping.store(newValue, at: 24) }
    }

    /// `kvm_valid_regs` (in): must be 0 on SEV-ES and SNP VMs.
    public var validRegisters: UInt64 {
        get { mapping.load(at: 288) }
        nonmutating set { mapping.store(newValue, at: 288) }
    }

    /// `kvm_dirty_regs` (in): must be 0 on SEV-ES and SNP VMs.
    public var dirtyRegisters: UInt64 {
        get { mapping.load(at: 296) }
        nonmutating set { mapping.store(newValue, at: 296) }
    }
}

// MARK: The members of the exit union

extension RunPage {
    /// `io`: the guest executed IN, OUT or their string forms.
    public struct PortIO: Equatable, Sendable {
        /// True for OUT (`direction` 1).
        public var isWrite: Bool
        /// Bytes per element: 1, 2 or 4.
        public var size: UInt8
        /// The first (and for string forms the only) port.
        public var port: UInt16
        /// Elements; more than one for string forms.
        public var count: UInt32
        /// Where the data is, in bytes from the start of the run page.
        public var dataOffset: UInt64

        public init(isWrite: Bool, size: UInt8, port: UInt16, count: UInt32 = 1, dataOffset: UInt64 = 0x1000) {
            self.isWrite = isWrite
            self.size = size
            self.port = port
            self.count = count
            self.dataOffset = dataOffset
        }
    }

    /// The `io` member.
    public var portIO: PortIO {
        get {
            PortIO(
                isWrite: mapping.load(at: 32, as: UInt8.self) != 0, size: mapping.load(at: 33),
                port: mapping.load(at: 34), count: mapping.load(at: 36), dataOffset: mapping.load(at: 40))
        }
        nonmutating set {
            mapping.store(newValue.isWrite ? 1 as UInt8 : 0, at: 32)
            mapping.store(newValue.size, at: 33)
            mapping.store(newValue.port, at: 34)
            mapping.store(newValue.count, at: 36)
            mapping.store(newValue.dataOffset, at: 40)
        }
    }

    /// The data of a port access, `size * count` bytes; nil if the numbers do not lie in the mapping.
    public func portData(_ io: PortIO) -> [UInt8]? {
        guard let (offset, count) = portRange(io) else { return nil }
        return mapping.copyBytesIfInside(at: offset, count: count)
    }

    /// Answers a port read, or fills in a port write's data. Bytes beyond `size * count` are dropped, missing ones are
    /// left alone.
    /// - Returns: False if the numbers of `io` do not lie in the mapping; nothing was written.
    @discardableResult
    public func setPortData(_ bytes: [UInt8], _ io: PortIO) -> Bool {
        guard let (offset, count) = portRange(io), mapping.contains(offset, count) else { return false }
        mapping.write(bytes.prefix(count), at: offset)
        return true
    }

    private func portRange(_ io: PortIO) -> (offset: Int, count: Int)? {
        guard let offset = Int(exactly: io.dataOffset) else { return nil }
        // Safe: at most 255 * (2^32 - 1).
        return (offset, Int(io.size) * Int(io.count))
    }

    /// `mmio`: the guest touched a guest physical address without memory.
    public struct MMIO: Equatable, Sendable {
        /// Guest physical, any alignment.
        public var physicalAddress: UInt64
        /// Little-endian; only the low `byteCount` bytes mean anything.
        public var data: UInt64
        /// 1 to 8.
        public var byteCount: UInt32
        /// False: the VMM answers in ``RunPage/mmioData``.
        public var isWrite: Bool

        public init(physicalAddress: UInt64, data: UInt64 = 0, byteCount: UInt32, isWrite: Bool) {
            self.physicalAddress = physicalAddress
            self.data = data
            self.byteCount = byteCount
            self.isWrite = isWrite
        }
    }

    /// The `mmio` member.
    public var mmio: MMIO {
        get {
            MMIO(
                physicalAddress: mapping.load(at: 32), data: mapping.load(at: 40), byteCount: mapping.load(at: 48),
                isWrite: mapping.load(at: 52, as: UInt8.self) != 0)
        }
        nonmutating set {
            mapping.store(newValue.physicalAddress, at: 32)
            mapping.store(newValue.data, at: 40)
            mapping.store(newValue.byteCount, at: 48)
            mapping.store(newValue.isWrite ? 1 as UInt8 : 0, at: 52)
        }
    }

    /// `mmio.data` alone: the answer to a read.
    public var mmioData: UInt64 {
        get { mapping.load(at: 40) }
        nonmutating set { mapping.store(newValue, at: 40) }
    }

    /// `hypercall`.
    public struct Hypercall: Sendable {
        /// ``KVM/hypercallMapGPARange`` is the only one that comes.
        public var number: UInt64
        /// What they mean depends on the number.
        public var arguments: [6 of UInt64]
        /// Zero before the exit; what the VMM leaves here is the answer.
        public var result: UInt64
        /// Bit 0: the caller was in 64-bit mode.
        public var flags: UInt64

        public init(number: UInt64, arguments: [6 of UInt64], result: UInt64 = 0, flags: UInt64 = 1) {
            self.number = number
            self.arguments = arguments
            self.result = result
            self.flags = flags
        }
    }

    /// The `hypercall` member.
    public var hypercall: Hypercall {
        get {
            Hypercall(
                number: mapping.load(at: 32), arguments: .init { mapping.load(at: 40 + 8 * $0) },
                result: mapping.load(at: 88), flags: mapping.load(at: 96))
        }
        nonmutating set {
            mapping.store(newValue.number, at: 32)
            for i in 0..<6 { mapping.store(newValue.arguments[i], at: 40 + 8 * i) }
            mapping.store(newValue.result, at: 88)
            mapping.store(newValue.flags, at: 96)
        }
    }

    /// `hypercall.ret` alone: the VMM's answer.
    public var hypercallResult: UInt64 {
        get { mapping.load(at: 88) }
        nonmutating set { mapping.store(newValue, at: 88) }
    }

    /// `memory_fault`: the access disagrees with the range's private attribute, or has no memory behind it.
    public struct MemoryFault: Equatable, Sendable {
        /// Bit 3: the access was to private memory.
        public var flags: UInt64
        /// Page aligned.
        public var gpa: UInt64
        /// In bytes.
        public var byteCount: UInt64
        /// `KVM_MEMORY_EXIT_FLAG_PRIVATE`.
        public static let privateFlag: UInt64 = 8
        /// True if the guest wanted private memory.
        public var isPrivate: Bool { flags & Self.privateFlag != 0 }

        public init(flags: UInt64, gpa: UInt64, byteCount: UInt64) {
            self.flags = flags
            self.gpa = gpa
            self.byteCount = byteCount
        }
    }

    /// The `memory_fault` member.
    public var memoryFault: MemoryFault {
        get { MemoryFault(flags: mapping.load(at: 32), gpa: mapping.load(at: 40), byteCount: mapping.load(at: 48)) }
        nonmutating set {
            mapping.store(newValue.flags, at: 32)
            mapping.store(newValue.gpa, at: 40)
            mapping.store(newValue.byteCount, at: 48)
        }
    }

    /// `system_event`.
    public struct SystemEvent: Equatable, Sendable {
        /// Which event.
        public var type: SystemEventType
        /// At most 16 values.
        public var data: [UInt64]

        public init(type: SystemEventType, data: [UInt64] = []) {
            self.type = type
            self.data = data
        }
    }

    /// The `system_event` member.
    public var systemEvent: SystemEvent {
        get { SystemEvent(type: .init(rawValue: mapping.load(at: 32)), data: counted()) }
        nonmutating set {
            mapping.store(newValue.type.rawValue, at: 32)
            setCounted(newValue.data)
        }
    }

    /// `internal`: the kernel cannot go on with this guest.
    public struct InternalError: Equatable, Sendable {
        /// `suberror`.
        public var kind: InternalErrorKind
        /// At most 16 values.
        public var data: [UInt64]

        public init(kind: InternalErrorKind, data: [UInt64] = []) {
            self.kind = kind
            self.data = data
        }
    }

    /// The `internal` member.
    public var internalError: InternalError {
        get { InternalError(kind: .init(rawValue: mapping.load(at: 32)), data: counted()) }
        nonmutating set {
            mapping.store(newValue.kind.rawValue, at: 32)
            setCounted(newValue.data)
        }
    }

    // `ndata` at 36 and `data[16]` at 40, shared by system_event and internal.
    private func counted() -> [UInt64] {
        let count = Int(min(16, mapping.load(at: 36, as: UInt32.self)))
        return (0..<count).map { mapping.load(at: 40 + 8 * $0) }
    }

    private func setCounted(_ data: [UInt64]) {
        precondition(data.count <= 16, "at most 16 values")
        mapping.store(UInt32(data.count), at: 36)
        for (i, value) in data.enumerated() { mapping.store(value, at: 40 + 8 * i) }
    }

    /// `fail_entry.hardware_entry_failure_reason`.
    public var failEntryReason: UInt64 {
        get { mapping.load(at: 32) }
        nonmutating set { mapping.store(newValue, at: 32) }
    }

    /// `hw.hardware_exit_reason` of `KVM_EXIT_UNKNOWN`.
    public var hardwareExitReason: UInt64 {
        get { mapping.load(at: 32) }
        nonmutating set { mapping.store(newValue, at: 32) }
    }

    /// `msr`: an access that the VMM asked to see (`KVM_CAP_X86_USER_SPACE_MSR`).
    public struct MSRAccess: Equatable, Sendable {
        /// Non-zero on return: inject #GP.
        public var error: UInt8
        /// 1 invalid, 2 unknown, 4 filtered.
        public var reason: UInt32
        /// The MSR's number.
        public var index: UInt32
        /// The value written, or the VMM's answer to a read.
        public var data: UInt64

        public init(error: UInt8 = 0, reason: UInt32, index: UInt32, data: UInt64 = 0) {
            self.error = error
            self.reason = reason
            self.index = index
            self.data = data
        }
    }

    /// The `msr` member.
    public var msr: MSRAccess {
        get {
            MSRAccess(
                error: mapping.load(at: 32), reason: mapping.load(at: 40), index: mapping.load(at: 44),
                data: mapping.load(at: 48))
        }
        nonmutating set {
            mapping.store(newValue.error, at: 32)
            mapping.store(newValue.reason, at: 40)
            mapping.store(newValue.index, at: 44)
            mapping.store(newValue.data, at: 48)
        }
    }

    /// `snp_req_certs`: the guest wants a report with certificates, which the VMM puts into the guest's memory.
    public struct CertificateRequest: Equatable, Sendable {
        /// Where the table goes; page aligned, shared memory.
        public var gpa: UInt64
        /// Room there, in pages of 4 KiB; with `ENOSPC` how many it takes.
        public var pageCount: UInt64
        /// The VMM's answer as a positive errno: 0 go on, `ENOSPC` too small, `EAGAIN` busy, `EIO` failed.
        public var result: UInt64

        public init(gpa: UInt64, pageCount: UInt64, result: UInt64 = 0) {
            self.gpa = gpa
            self.pageCount = pageCount
            self.result = result
        }
    }

    /// The `snp_req_certs` member.
    public var certificateRequest: CertificateRequest {
        get {
            CertificateRequest(
                gpa: mapping.load(at: 32), pageCount: mapping.load(at: 40), result: mapping.load(at: 48))
        }
        nonmutating set {
            mapping.store(newValue.gpa, at: 32)
            mapping.store(newValue.pageCount, at: 40)
            mapping.store(newValue.result, at: 48)
        }
    }

    /// `debug`: a breakpoint or single step that the VMM asked for.
    public struct DebugExit: Equatable, Sendable {
        /// The vector: 1 #DB, 3 #BP.
        public var exception: UInt32
        /// The guest's RIP, as a linear address.
        public var pc: UInt64
        /// What happened [APM2 13.1.1.3].
        public var dr6: UInt64
        /// What was armed.
        public var dr7: UInt64

        public init(exception: UInt32, pc: UInt64, dr6: UInt64, dr7: UInt64) {
            self.exception = exception
            self.pc = pc
            self.dr6 = dr6
            self.dr7 = dr7
        }
    }

    /// The `debug` member.
    public var debug: DebugExit {
        get {
            DebugExit(
                exception: mapping.load(at: 32), pc: mapping.load(at: 40), dr6: mapping.load(at: 48),
                dr7: mapping.load(at: 56))
        }
        nonmutating set {
            mapping.store(newValue.exception, at: 32)
            mapping.store(0 as UInt32, at: 36)
            mapping.store(newValue.pc, at: 40)
            mapping.store(newValue.dr6, at: 48)
            mapping.store(newValue.dr7, at: 56)
        }
    }
}

// MARK: Synchronised registers (`kvm_sync_regs`, at 0x130)

extension RunPage {
    /// `KVM_SYNC_X86_REGS`.
    public static let generalRegisterSet: UInt64 = 1
    /// `KVM_SYNC_X86_SREGS`.
    public static let specialRegisterSet: UInt64 = 2
    /// `KVM_SYNC_X86_EVENTS`.
    public static let eventSet: UInt64 = 4

    /// `s.regs.regs`.
    public var synchronizedRegisters: KVMRegisters {
        get { mapping.load(structureAt: 0x130, as: KVMRegisters.self) }
        nonmutating set { mapping.store(structure: newValue, at: 0x130) }
    }

    /// `s.regs.sregs`.
    public var synchronizedSpecialRegisters: KVMSpecialRegisters {
        get { mapping.load(structureAt: 0x1c0, as: KVMSpecialRegisters.self) }
        nonmutating set { mapping.store(structure: newValue, at: 0x1c0) }
    }

    /// `s.regs.events`.
    public var synchronizedEvents: KVMVCPUEvents {
        get { mapping.load(structureAt: 0x2f8, as: KVMVCPUEvents.self) }
        nonmutating set { mapping.store(structure: newValue, at: 0x2f8) }
    }
}
