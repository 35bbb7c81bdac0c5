// A host kernel made of a script: it writes down every request and answers as a test wants it.

import Glibc
import KVMABI
import SEVABI
import Synchronization

/// Answers like a kernel with SNP, unless a test says otherwise.
final class ScriptedKernel: HostKernel {
    /// How one SNP_LAUNCH_UPDATE goes.
    enum Update: Sendable {
        case complete
        case pages(UInt64)
        case refused(Errno, FirmwareStatus, pagesDone: UInt64)
        /// INVALID_PARAM, and this page in place of the one that was offered.
        case corrected([UInt8])
        /// Success that claims more progress than was asked for.
        case absurd
    }
    /// What one KVM_RUN does.
    struct Exit: Sendable {
        let body: @Sendable (RunPage) throws(Errno) -> Void
        init(_ body: @escaping @Sendable (RunPage) throws(Errno) -> Void) { self.body = body }
    }

    struct Secret: Sendable {
        var gpa: UInt64?
        var header: [UInt8]
        var payload: [UInt8]
    }

    struct Launched: Sendable {
        var type: UInt8
        var gpa: UInt64
        var contents: [UInt8]
    }

    struct State: Sendable {
        var log: [String] = []
        var nextHandle: Int32 = 3
        var closed: [Int32] = []
        var updates: [Update] = []
        var launched: [Launched] = []
        var refusals: [String: (Errno, FirmwareStatus)] = [:]
        var capabilities: [UInt32: Int32] = [
            Capability.vmTypes.rawValue: 0x1d, Capability.guestMemfd.rawValue: 1, Capability.userMemory2.rawValue: 1,
            Capability.memoryAttributes.rawValue: 8, Capability.exitHypercall.rawValue: 0x1000,
            Capability.userMemory.rawValue: 1, Capability.irqChip.rawValue: 1, Capability.immediateExit.rawValue: 1,
        ]
        var apiVersion: Int32 = 12
        var cpuid: [KVMCPUIDEntry] = ScriptedKernel.cpuid
        var exits: [Exit] = []
        var runPage: KernelMapping?
        var privateRanges: [(Range<UInt64>, Bool)] = []
        var finish: KVMSNPLaunchFinish?
        var finishBlocks: (block: [UInt8], authentication: [UInt8])?
        var registers = KVMRegisters()
        var special = KVMSpecialRegisters()
        var msrs: [KVMMSREntry] = []
        var msrsTaken: Int32?
        var cpuidSet: [KVMCPUIDEntry] = []
        var interruptLevels: [UInt32] = []
        /// "16 1": pin and level, of the pins that devices have.
        var deviceInterrupts: [String] = []
        var sharedAddresses: [UInt64] = []
        /// User address and GPA of each slot.
        var slots: [KVMUserspaceMemoryRegion] = []
        /// What LAUNCH_UPDATE_DATA found in memory, before it was encrypted.
        var encrypted: [Launched] = []
        /// Certificate and session of LAUNCH_START.
        var session: (certificate: [UInt8], session: [UInt8])?
        /// What LAUNCH_SECRET got.
        var secrets: [Secret] = []
        var measurement: [UInt8] = (0..<48).map { 0xc0 ^ $0 }
    }
    let state = Mutex(State())

    static let cpuid: [KVMCPUIDEntry] = [
        KVMCPUIDEntry(function: 0, eax: 7, ebx: 0x6874_7541, ecx: 0x444d_4163, edx: 0x6974_6e65),
        KVMCPUIDEntry(function: 1, eax: 0x00a0_0f11, ebx: 0x800, ecx: 0x4120_2001, edx: 0x0789_abff),
        KVMCPUIDEntry(function: 7, index: 0, eax: 0, ebx: 0x0000_0002, ecx: 0x0001_0000, edx: 0xfc00_0000),
        KVMCPUIDEntry(function: 0x8000_0000, eax: 0x8000_001f, ebx: 0, ecx: 0, edx: 0),
        KVMCPUIDEntry(function: 0x8000_0001, eax: 0x00a0_0f11, ebx: 0, ecx: 0, edx: 0x2010_0800),
        KVMCPUIDEntry(function: 0x8000_0008, eax: 0x3030, ebx: 0, ecx: 0, edx: 0),
        KVMCPUIDEntry(function: 0x8000_001f, eax: 0x1a, ebx: 0x73, ecx: 16, edx: 1),
    ]

    func with<Result>(_ body: (inout sending State) -> sending Result) -> Result { state.withLock { body(&$0) } }
    var log: [String] { state.withLock { $0.log } }
    func refuse(_ request: String, _ errno: Errno, _ status: FirmwareStatus = .success) {
        state.withLock { $0.refusals[request] = (errno, status) }
    }

    func open(_ node: DeviceNode) throws(Errno) -> KernelHandle {
        try note("open \(node.rawValue)", refusal: "open \(node.rawValue)")
        return KernelHandle(rawValue: newHandle())
    }

    func close(_ handle: KernelHandle) { state.withLock { $0.closed.append(handle.rawValue) } }

    func punchHole(_ handle: KernelHandle, offset: Int64, byteCount: Int64) throws(Errno) {
        try note("fallocate \(handle.rawValue) \(hex(UInt64(offset))) \(byteCount)", refusal: "fallocate")
    }

    func map(_ handle: KernelHandle, offset: Int64, byteCount: Int) throws(Errno) -> KernelMapping {
        if handle == .anonymous {
            try note("mmap anonymous \(byteCount)", refusal: "mmap")
        } else {
            try note("mmap vcpu")
        }
        let pointer = mmap(nil, byteCount, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        guard let pointer, pointer != MAP_FAILED else { throw .ENOMEM }
        let address = UInt64(UInt(bitPattern: pointer))
        let mapping = unsafe KernelMapping(address: address, byteCount: byteCount) {
            munmap(UnsafeMutableRawPointer(bitPattern: UInt(address)), byteCount)
        }
        state.withLock { if handle == .anonymous { $0.sharedAddresses.append(address) } else { $0.runPage = mapping } }
        return mapping
    }

    func ioctl(
        _ handle: KernelHandle, _ request: IoctlRequest, _ argument: IoctlArgument
    ) throws(Errno) -> Int32 {
        switch request {
        case .getAPIVersion:
            try note("KVM_GET_API_VERSION")
            return state.withLock { $0.apiVersion }
        case .checkExtension:
            let number = UInt32(argument.number)
            try note("KVM_CHECK_EXTENSION \(Capability(rawValue: number))")
            return state.withLock { $0.capabilities[number] ?? 0 }
        case .createVM:
            try note("KVM_CREATE_VM \(argument.number)", refusal: "KVM_CREATE_VM")
            return newHandle()
        case .createVCPU:
            try note("KVM_CREATE_VCPU \(argument.number)", refusal: "KVM_CREATE_VCPU")
            return newHandle()
        case .createGuestMemfd:
            let value = try argument.load(KVMCreateGuestMemfd.self)
            try note("KVM_CREATE_GUEST_MEMFD \(value.byteCount)", refusal: "KVM_CREATE_GUEST_MEMFD")
            return newHandle()
        case .setUserMemoryRegion:
            let value = try argument.load(KVMUserspaceMemoryRegion.self)
            try note(
                "KVM_SET_USER_MEMORY_REGION \(value.slot) \(hex(value.guestPhysicalAddress)) \(value.memoryByteCount)")
            state.withLock { $0.slots.append(value) }
            return 0
        case .setUserMemoryRegion2:
            let value = try argument.load(KVMUserspaceMemoryRegion2.self)
            try note(
                "KVM_SET_USER_MEMORY_REGION2 \(value.slot) \(hex(value.guestPhysicalAddress)) \(value.memoryByteCount) "
                    + "flags \(value.flags)", refusal: "KVM_SET_USER_MEMORY_REGION2")
            return 0
        case .setMemoryAttributes:
            let value = try argument.load(KVMMemoryAttributes.self)
            let isPrivate = value.attributes == KVMMemoryAttributes.privateAttribute
            try note(
                "KVM_SET_MEMORY_ATTRIBUTES \(hex(value.address)) \(value.byteCount) \(isPrivate ? "private" : "shared")",
                refusal: "KVM_SET_MEMORY_ATTRIBUTES")
            state.withLock { $0.privateRanges.append((value.address..<(value.address + value.byteCount), isPrivate)) }
            return 0
        case .getVCPUMmapSize:
            try note("KVM_GET_VCPU_MMAP_SIZE")
            return 12288
        case .getSupportedCPUID:
            return try supportedCPUID(argument)
        case .setCPUID2:
            try note("KVM_SET_CPUID2", refusal: "KVM_SET_CPUID2")
            let entries = KVMCPUIDList.decode(bytes(of: argument))
            state.withLock { $0.cpuidSet = entries }
            return 0
        case .setMSRs:
            try note("KVM_SET_MSRS", refusal: "KVM_SET_MSRS")
            let entries = KVMMSRList.decode(bytes(of: argument))
            return state.withLock { state in
                state.msrs = entries
                return state.msrsTaken ?? Int32(entries.count)
            }
        case .setRegisters:
            try note("KVM_SET_REGS")
            let value = try argument.load(KVMRegisters.self)
            state.withLock { $0.registers = value }
            return 0
        case .getRegisters:
            throw .EINVAL
        case .getSpecialRegisters:
            try note("KVM_GET_SREGS")
            var value = KVMSpecialRegisters()
            value.apicBase = 0xfee0_0900
            try argument.store(value)
            return 0
        case .setSpecialRegisters:
            try note("KVM_SET_SREGS", refusal: "KVM_SET_SREGS")
            let value = try argument.load(KVMSpecialRegisters.self)
            state.withLock { $0.special = value }
            return 0
        case .irqLine:
            let value = try argument.load(KVMIRQLevel.self)
            state.withLock { state in
                if value.irq == 4 { state.interruptLevels.append(value.level) }
                if value.irq >= 16 { state.deviceInterrupts.append("\(value.irq) \(value.level)") }
            }
            return 0
        case .getDeviceAttribute:
            try note("KVM_GET_DEVICE_ATTR", refusal: "KVM_GET_DEVICE_ATTR")
            return 0
        case .memoryEncryptOp: return try sev(argument)
        case .memoryEncryptRegisterRegion:
            let value = try argument.load(KVMEncryptedRegion.self)
            try note(
                "KVM_MEMORY_ENCRYPT_REG_REGION \(gpa(value.address).map(hex) ?? "nowhere") \(value.byteCount)",
                refusal: "KVM_MEMORY_ENCRYPT_REG_REGION")
            return 0
        case .sevIssueCommand: return try platform(argument)
        case .run: return try run()
        default:
            try note("\(request)", refusal: "\(request)")
            return 0
        }
    }

    private func run() throws(Errno) -> Int32 {
        let (exit, page) = state.withLock { state in
            (state.exits.isEmpty ? nil : state.exits.removeFirst(), RunPage(state.runPage!))
        }
        if page.immediateExit { throw .EINTR }
        // A guest that has nothing left to do switches off, so that no test hangs.
        guard let exit else {
            page.exitReason = .systemEvent
            page.systemEvent = .init(type: .shutdown)
            return 0
        }
        try exit.body(page)
        return 0
    }

    private func supportedCPUID(_ argument: IoctlArgument) throws(Errno) -> Int32 {
        let room = try argument.load(UInt32.self)
        try note("KVM_GET_SUPPORTED_CPUID room \(room)")
        let entries = state.withLock { $0.cpuid }
        guard entries.count <= Int(room) else { throw .E2BIG }
        try argument.store(UInt32(entries.count))
        for (index, entry) in entries.enumerated() { try argument.store(entry, at: 8 + 40 * index) }
        return 0
    }

    private func sev(_ argument: IoctlArgument) throws(Errno) -> Int32 {
        var envelope = try argument.load(KVMSEVCommand.self)
        let id = SEVCommandID(rawValue: envelope.id)
        func answer(_ errno: Errno, _ status: FirmwareStatus) throws(Errno) -> Never {
            envelope.error = status.rawValue
            try argument.store(envelope)
            throw errno
        }
        func refusal(_ name: String) -> (Errno, FirmwareStatus)? { state.withLock { $0.refusals[name] } }
        switch id {
        case .initialize2:
            let value: KVMSEVInit = peek(envelope.data)
            record("KVM_SEV_INIT2 features \(hex(value.vmsaFeatures)) ghcb \(value.ghcbVersion)")
        case .snpLaunchStart:
            let value: KVMSNPLaunchStart = peek(envelope.data)
            record("KVM_SEV_SNP_LAUNCH_START policy \(hex(value.policy))")
        case .snpLaunchUpdate:
            let (errno, status) = update(envelope.data)
            if let errno { try answer(errno, status) }
            return 0
        case .snpLaunchFinish:
            let value: KVMSNPLaunchFinish = peek(envelope.data)
            record("KVM_SEV_SNP_LAUNCH_FINISH")
            let blocks =
                value.idBlockEnabled == 0
                ? nil : (peekBytes(value.idBlockAddress, 96), peekBytes(value.idAuthAddress, 4096))
            state.withLock { state in
                state.finish = value
                state.finishBlocks = blocks
            }
        case .launchStart:
            var value: KVMSEVLaunchStart = peek(envelope.data)
            record(
                "KVM_SEV_LAUNCH_START policy \(hex(UInt64(value.policy))) certificate \(value.certificateByteCount) "
                    + "session \(value.sessionByteCount)")
            if value.certificateByteCount > 0 {
                let blobs = (
                    peekBytes(value.certificateAddress, Int(value.certificateByteCount)),
                    peekBytes(value.sessionAddress, Int(value.sessionByteCount))
                )
                state.withLock { $0.session = blobs }
            }
            value.handle = 7
            poke(envelope.data, value)
        case .launchUpdateData:
            let value: KVMSEVLaunchUpdateData = peek(envelope.data)
            let gpa = gpa(value.userAddress)
            record("KVM_SEV_LAUNCH_UPDATE_DATA \(gpa.map(hex) ?? "nowhere") \(value.byteCount)")
            let contents = peekBytes(value.userAddress, Int(value.byteCount))
            // Encrypted in place, in its way.
            for (index, byte) in contents.enumerated() { poke(value.userAddress + UInt64(index), byte ^ 0xff) }
            state.withLock { $0.encrypted.append(Launched(type: 1, gpa: gpa ?? 0, contents: contents)) }
        case .launchMeasure:
            var value: KVMSEVLaunchMeasure = peek(envelope.data)
            record("KVM_SEV_LAUNCH_MEASURE \(value.byteCount)")
            let measurement = state.withLock { $0.measurement }
            for (index, byte) in measurement.enumerated() { poke(value.userAddress + UInt64(index), byte) }
            value.byteCount = UInt32(measurement.count)
            poke(envelope.data, value)
        case .launchSecret:
            let value: KVMSEVLaunchSecret = peek(envelope.data)
            let secret = Secret(
                gpa: gpa(value.guestAddress), header: peekBytes(value.headerAddress, Int(value.headerByteCount)),
                payload: peekBytes(value.transportAddress, Int(value.transportByteCount)))
            record(
                "KVM_SEV_LAUNCH_SECRET \(secret.gpa.map(hex) ?? "nowhere") \(value.guestByteCount) header "
                    + "\(value.headerByteCount) payload \(value.transportByteCount)")
            state.withLock { $0.secrets.append(secret) }
        default: record("\(id)")
        }
        if let (errno, status) = refusal("\(id)") { try answer(errno, status) }
        return 0
    }

    /// Where memory of this process lies in the guest.
    private func gpa(_ address: UInt64) -> UInt64? {
        state.withLock { state in
            state.slots.first { ($0.userspaceAddress..<$0.userspaceAddress + $0.memoryByteCount).contains(address) }
                .map { $0.guestPhysicalAddress + (address - $0.userspaceAddress) }
        }
    }

    /// `/dev/sev`: a platform of API 1.55, build 21, whose certificates are recognisable bytes.
    private func platform(_ argument: IoctlArgument) throws(Errno) -> Int32 {
        var issue = try argument.load(SEVIssueCommand.self)
        let command = SEVDeviceCommand(rawValue: issue.command)
        record("\(command)")
        if let (errno, status) = state.withLock({ $0.refusals["\(command)"] }) {
            issue.error = status.rawValue
            try argument.store(issue)
            throw errno
        }
        switch command {
        case .platformStatus:
            var status = SEVUserStatus()
            status.apiMajor = 1
            status.apiMinor = 55
            status.build = 21
            poke(issue.data, status)
        case .pdhCertificateExport:
            let export: SEVUserPDHExport = peek(issue.data)
            for index in 0..<UInt64(export.certificateByteCount) {
                poke(export.certificateAddress + index, UInt8(0xd1))
            }
            for index in 0..<UInt64(export.chainByteCount) { poke(export.chainAddress + index, UInt8(0xc4)) }
        default: throw .EINVAL
        }
        return 0
    }

    private func update(_ address: UInt64) -> (Errno?, FirmwareStatus) {
        var value: KVMSNPLaunchUpdate = peek(address)
        record(
            "KVM_SEV_SNP_LAUNCH_UPDATE \(PageType(rawValue: value.type)) \(hex(value.gfnStart)) \(value.byteCount / 4096)"
                + (value.type == 3 || value.userAddress % 4096 == 0 ? "" : " UNALIGNED"))
        let behaviour = state.withLock { $0.updates.isEmpty ? .complete : $0.updates.removeFirst() }
        func advance(_ pages: UInt64) {
            let contents = value.type == 3 ? [] : peekBytes(value.userAddress, Int(pages * 4096))
            let (type, gpa) = (value.type, value.gfnStart * 4096)
            state.withLock { $0.launched.append(Launched(type: type, gpa: gpa, contents: contents)) }
            value.gfnStart += pages
            if value.type != 3 { value.userAddress += pages * 4096 }
            value.byteCount -= pages * 4096
            poke(address, value)
        }
        switch behaviour {
        case .complete: advance(value.byteCount / 4096)
        case .pages(let pages): advance(min(pages, value.byteCount / 4096))
        case .refused(let errno, let status, let pagesDone):
            if pagesDone > 0 { advance(pagesDone) }
            return (errno, status)
        case .corrected(let page):
            for (index, byte) in page.enumerated() { poke(value.userAddress + UInt64(index), byte) }
            return (.EIO, .invalidParameter)
        case .absurd:
            value.byteCount += 4096
            poke(address, value)
        }
        return (nil, .success)
    }

    private func newHandle() -> Int32 {
        state.withLock { state in
            state.nextHandle += 1
            return state.nextHandle - 1
        }
    }

    private func record(_ line: String) { state.withLock { $0.log.append(line) } }

    private func note(_ line: String, refusal name: String? = nil) throws(Errno) {
        let refusal = state.withLock { state in
            state.log.append(line)
            return name.flatMap { state.refusals[$0] }
        }
        if let refusal { throw refusal.0 }
    }

    private func bytes(of argument: IoctlArgument) -> [UInt8] {
        (0..<argument.byteCount).map { (try? argument.load(UInt8.self, at: $0)) ?? 0 }
    }

    private func hex(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }
}

/// This process's memory, as a kernel follows a user's pointers.
func peek<Structure: KernelStructure>(_ address: UInt64) -> Structure {
    UnsafeRawPointer(bitPattern: UInt(address))!.loadUnaligned(as: Structure.self)
}
func peekBytes(_ address: UInt64, _ byteCount: Int) -> [UInt8] {
    [UInt8](UnsafeRawBufferPointer(start: UnsafeRawPointer(bitPattern: UInt(address)), count: byteCount))
}
func poke<Structure: KernelStructure>(_ address: UInt64, _ value: Structure) {
    UnsafeMutableRawPointer(bitPattern: UInt(address))!.storeBytes(of: value, as: Structure.self)
}
