// A host kernel in this process: /dev/kvm, /dev/sev and /dev/mem of a machine that can do SEV-SNP.
//
// It takes the bytes that the real kernel takes and gives the answers that it gives: results, errno, exits, firmware
// status. It promises no confidentiality: whoever controls this process controls the guest.

import KVMABI
import MemoryController
import SEVABI
import SoftwarePSP
import Synchronization

/// A kernel with KVM and the secure processor's driver, in software.
///
/// ```swift
/// let kernel: any HostKernel = try SoftwareKVM(configuration: .init())
/// let kvm = try kernel.open(.kvm)
/// ```
public final class SoftwareKVM: HostKernel {
    public let configuration: Configuration
    let handles: HandleTable
    let user = UserMemory()
    /// The machine's memory: what /dev/mem shows.
    package let systemMemory: SystemMemory
    let secureProcessor: SecureProcessorDriver
    /// The pages of SEV and SEV-ES guests: the callers' own memory.
    let encryptedMemory: EncryptedUserMemory
    /// What the processor did not know how to execute, last: for messages, beside the bytes of the exit.
    package let lastUnimplemented = Mutex<String?>(nil)
    /// Refusals by script.
    let script: ScriptedAnswers
    /// Requests on a VM that this kernel is too old for.
    let unknownRequests: Set<IoctlRequest>
    private let counter = Atomic<UInt64>(0)
    private let random: Mutex<SplitMix64>

    /// Starts the machine: memory, secure processor, platform initialisation.
    ///
    /// - Throws: ``StartError`` when this process cannot reserve the address space or the firmware does not come up.
    public init(configuration: Configuration = .init()) throws(StartError) {
        var configuration = configuration
        configuration.settle()
        self.configuration = configuration
        script = ScriptedAnswers(configuration.scenario.answers)
        unknownRequests = configuration.scenario.unknownRequests
        handles = HandleTable(usesDescriptors: configuration.handlesAreDescriptors)
        do {
            systemMemory = try SystemMemory(
                byteCount: configuration.systemMemoryByteCount,
                asidCount: Int(
                    max(configuration.platform.snpASIDs.upperBound, configuration.platform.sevASIDs.upperBound)) + 1)
        } catch {
            throw StartError(
                message:
                    "cannot reserve \(configuration.systemMemoryByteCount >> 20) MiB of address space for the software "
                    + "machine's memory (\(error)); likely a limit on address space: try `ulimit -v unlimited`")
        }
        let seed = configuration.seed.map { seed in (0..<8).map { UInt8(truncatingIfNeeded: seed >> (8 * $0)) } }
        let processor = SecureProcessor(
            memory: systemMemory, profile: configuration.platform, entropy: seed.map { .seed($0) } ?? .system,
            storage: configuration.platformStorage)
        encryptedMemory = EncryptedUserMemory(memory: systemMemory, user: user)
        secureProcessor = SecureProcessorDriver(
            memory: systemMemory, processor: processor,
            stateASIDs: configuration.asids(configuration.platform.snpASIDs, configuration.scenario.stateASIDCount),
            memoryASIDs: configuration.asids(configuration.platform.sevASIDs, configuration.scenario.memoryASIDCount),
            initializesSNP: configuration.scenario.initializesSNP, hasFreeASIDs: !configuration.scenario.hasASIDsInUse)
        random = Mutex(SplitMix64(state: configuration.seed ?? 0))
        let status = secureProcessor.initializePlatform()
        if status != .success {
            throw StartError(message: "the software secure processor refused SNP_INIT_EX with \(status)")
        }
    }

    /// Why the machine did not start.
    public struct StartError: Error, CustomStringConvertible {
        public let message: String
        public var description: String { message }
    }

    // MARK: HostKernel

    public func open(_ node: DeviceNode) throws(Errno) -> KernelHandle {
        if let errno = configuration.scenario.closedNodes[node] { throw errno }
        switch node {
        case .kvm: return try handles.insert(.system)
        case .sev: return try handles.insert(.sev)
        case .memory: return try handles.insert(.memory)
        }
    }

    public func ioctl(_ handle: KernelHandle, _ request: IoctlRequest, _ argument: IoctlArgument) throws(Errno) -> Int32
    {
        // That of /dev/sev takes back the firmware's status, too.
        if request != .sevIssueCommand, let refusal = script.refusal(of: [request.description]) { throw refusal.errno }
        switch handles[handle] {
        case .system: return try systemRequest(request, argument)
        case .sev: return try sevRequest(request, argument)
        case .vm(let vm): return try vm.request(request, argument)
        case .vcpu(let vcpu, let vm):
            return try withExtendedLifetime(vm) { () throws(Errno) in try vcpu.request(request, argument) }
        case .memory, .guestMemfd: throw .ENOTTY
        case nil: throw .EBADF
        }
    }

    public func map(_ handle: KernelHandle, offset: Int64, byteCount: Int) throws(Errno) -> KernelMapping {
        if byteCount <= 0 || offset < 0 || offset & 4095 != 0 { throw .EINVAL }
        if let refusal = script.refusal(of: ["mmap"]) { throw refusal.errno }
        if handle == .anonymous { return try KernelMapping.anonymous(byteCount: byteCount) }
        switch handles[handle] {
        case .vcpu(let vcpu, let vm):
            // kvm_run, the page of port data, the coalesced ring.
            guard offset == 0, byteCount <= VirtualCPU.mappingByteCount else { throw .EINVAL }
            return vcpu.runPage.mapping.shared(byteCount: byteCount, keeping: vm)
        case .memory: return try mapPhysical(UInt64(offset), byteCount)
        // Not created with the MMAP flag, which no VM here accepts.
        case .guestMemfd: throw .ENODEV
        case nil: throw .EBADF
        default: throw .ENODEV
        }
    }

    public func punchHole(_ handle: KernelHandle, offset: Int64, byteCount: Int64) throws(Errno) {
        guard let object = handles[handle] else { throw .EBADF }
        guard offset >= 0, byteCount > 0 else { throw .EINVAL }
        // The descriptors of devices, VMs and vCPUs are no regular files.
        guard case .guestMemfd(let file) = object else { throw .ENODEV }
        let pageByteCount = Int64(KVM.pageByteCount)
        let (end, overflow) = offset.addingReportingOverflow(byteCount)
        if overflow { throw .EFBIG }
        guard offset % pageByteCount == 0, byteCount % pageByteCount == 0,
            UInt64(end / pageByteCount) <= file.pageCount
        else { throw .EINVAL }
        for page in UInt64(offset / pageByteCount)..<UInt64(end / pageByteCount) { file.punchHole(at: page) }
    }

    public func close(_ handle: KernelHandle) { handles.remove(handle) }

    // MARK: For the rest of the kernel

    /// The file behind a descriptor number inside a structure.
    func handleFile(_ number: UInt32) -> OpenFile? { handles[KernelHandle(rawValue: Int32(bitPattern: number))] }

    func nextVMIdentifier() -> UInt64 { counter.add(1, ordering: .relaxed).newValue }

    /// With varied answers: a count below `count` at which to stop, sometimes.
    func shortProgress(below count: UInt64) -> UInt64? {
        if let pages = configuration.scenario.pagesPerUpdate { return min(max(pages, 1), count) }
        guard configuration.variesLegalAnswers, count > 1 else { return nil }
        return random.withLock { random in
            let draw = random.next()
            return draw & 1 == 0 ? 1 + (draw >> 1) % (count - 1) : nil
        }
    }

    /// /dev/mem: a copy of what the memory bus shows at this moment. Stores to it reach nobody; guests' pages are
    /// ciphertext.
    private func mapPhysical(_ address: UInt64, _ byteCount: Int) throws(Errno) -> KernelMapping {
        guard let bytes = systemMemory.hostSnapshot(spa: SPA(rawValue: address), byteCount: byteCount) else {
            throw .EINVAL
        }
        let mapping = try KernelMapping.anonymous(byteCount: byteCount)
        mapping.write(bytes, at: 0)
        return mapping
    }
}

/// A small deterministic generator, for choices that are not secret.
struct SplitMix64 {
    var state: UInt64

    mutating func next() -> UInt64 {
        state = state &+ 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
}
