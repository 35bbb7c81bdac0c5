// A VM: memory, vCPUs, interrupt controllers, clock, and the confidential guest once there is one.
//
// Locks, outermost first: `lock` (what the real kernel does under kvm->lock and slots_lock) → a vCPU's `mutex` → the
// machine's `gate` → the leaf locks of memory, guest_memfd, interrupts and the vCPU list, which are held for one operation.

import KVMABI
import MemoryController
import SEVABI
import Synchronization
import X86Core

// @unchecked Sendable: the unprotected `var`s are guarded by `lock`, as each says.
final class VirtualMachine: @unchecked Sendable {
    /// vCPUs of one VM: the wake masks have 64 bits.
    static let maximumVCPUCount = 64
    /// KVM_CAP_MAX_VCPU_ID.
    static let maximumVCPUID: UInt64 = 4096

    let kernel: SoftwareKVM
    let type: VMType
    /// Unlike any other VM's of this kernel.
    let identifier: UInt64
    let memory: GuestMemory
    let interrupts = Mutex(InterruptController())
    /// Processors run inside; whoever changes what they have cached does so while none is.
    let gate = GuestGate()
    /// The processors that have been made.
    let processors: ProcessorGroup
    /// Held while a page that a guest is the first to touch is given to it.
    let firstTouch = Mutex(())
    /// In creation order. A vCPU lives as long as its VM.
    private let vcpuList = Mutex<[VirtualCPU]>([])
    let clock: VMClock

    private let lock = Mutex(())
    /// Guarded by `lock`: the SNP guest, from INIT2 on. Constant once there is a vCPU, as `sev` is.
    var snp: SNPGuest?
    /// Guarded by `lock`: the SEV or SEV-ES guest, from INIT2 (or INIT, ES_INIT) on.
    var sev: SEVGuest?
    /// Guarded by `lock`; KVM_SET_BOOT_CPU_ID.
    var bootVCPUIdentifier: UInt32 = 0
    /// Guarded by `lock`; KVM_SET_TSC_KHZ on the VM.
    var defaultTSCkHz: UInt32
    /// Guarded by `lock`; KVM_CAP_MAX_VCPU_ID: ids below this, once it was set.
    var vcpuIDLimit: UInt64?
    /// KVM_CAP_MSR_PLATFORM_INFO: guests may read that MSR.
    let showsPlatformInfo = Atomic(true)
    /// KVM_CAP_X86_TRIPLE_FAULT_EVENT, KVM_CAP_EXCEPTION_PAYLOAD: fields of KVM_GET/SET_VCPU_EVENTS.
    let reportsTripleFaults = Atomic(false)
    let reportsPayloads = Atomic(false)
    /// KVM_CAP_X86_USER_SPACE_MSR: reasons to ask the VMM about an MSR.
    let userSpaceMSRReasons = Atomic<UInt32>(0)
    /// KVM_X86_SET_MSR_FILTER.
    let msrFilter = Mutex<MSRFilter?>(nil)
    /// KVM_REGISTER_COALESCED_MMIO.
    let coalescedZones = Mutex<[CoalescedZone]>([])
    /// KVM_IOEVENTFD and KVM_IRQFD.
    let events = EventDescriptors()
    /// KVM_CAP_EXIT_HYPERCALL's mask.
    let hypercallExits = Atomic<UInt64>(0)
    /// AP jump table address that the guest has left with the hypervisor [GHCB 4.1].
    let apJumpTable = Atomic<UInt64>(0)

    init(kernel: SoftwareKVM, type: VMType) {
        self.kernel = kernel
        self.type = type
        identifier = kernel.nextVMIdentifier()
        memory = GuestMemory(
            user: kernel.user, hasPrivateMemory: type == .snp,
            allowsReadOnlySlots: Capability.readOnlyMemory.value(vmType: type) != 0,
            physicalAddressBits: kernel.configuration.profile.physicalAddressBits)
        clock = VMClock()
        processors = ProcessorGroup(gate: gate)
        defaultTSCkHz = kernel.configuration.tscKHz
    }

    deinit {
        events.stop()
        if sev != nil { kernel.encryptedMemory.release(self) }
        snp?.decommission()
        sev?.decommission()
    }

    /// Runs `body` under the VM's lock.
    func locked<Result: Sendable>(_ body: () throws(Errno) -> Result) throws(Errno) -> Result {
        try lock.withLock { (_) throws(Errno) -> Result in try body() }
    }

    var isSNP: Bool { type == .snp }

    /// What the VM is now: nil until INIT2, INIT or ES_INIT has made it confidential.
    var technology: GuestTechnology? {
        if snp != nil { return .snp }
        return sev.map { $0.isES ? .sevES : .sev }
    }

    var vcpus: [VirtualCPU] { vcpuList.withLock { $0 } }

    // MARK: vCPUs

    func createVCPU(_ identifier: UInt64) throws(Errno) -> Int32 {
        if identifier >= Self.maximumVCPUID { throw .EINVAL }
        if let limit = try locked({ () throws(Errno) in vcpuIDLimit }), identifier >= limit { throw .EINVAL }
        let id = UInt32(identifier)
        let (vcpu, backing) = try locked { () throws(Errno) -> (VirtualCPU, Backing) in
            let existing = vcpus
            if existing.count >= Self.maximumVCPUCount { throw .EINVAL }
            if existing.contains(where: { $0.id == id }) { throw .EEXIST }
            let backing = try kernel.handles.backing(byteCount: VirtualCPU.mappingByteCount)
            let vcpu = VirtualCPU(
                vm: self, id: id, index: existing.count, isBootProcessor: id == bootVCPUIdentifier,
                tscKHz: defaultTSCkHz, mapping: backing.mapping)
            // One counter for all, as KVM arranges it: guests compare.
            if let first = existing.first { vcpu.shareTSC(of: first) }
            interrupts.withLock { controller in
                guard controller.hasLocalAPIC else { return }
                controller.apics.append(LocalAPIC(id: id, isBootProcessor: id == bootVCPUIdentifier))
            }
            vcpuList.withLock { $0.append(vcpu) }
            return (vcpu, backing)
        }
        return try kernel.handles.insert(.vcpu(vcpu, self), backing: backing).rawValue
    }

    // MARK: Memory

    func setRegion(_ region: KVMUserspaceMemoryRegion2) throws(Errno) -> Int32 {
        try locked { () throws(Errno) in
            let change = try memory.setRegion(region, file: { kernel.handleFile($0) }, vm: identifier)
            // What is logged from now on must not be in a TLB as writable.
            if case .nothing = change { withPausedVCPUs { $0.forgetTranslations() } }
            if case .removed(let slot) = change {
                withPausedVCPUs { vcpu in
                    vcpu.forgetTranslations()
                    vcpu.forgetCode(at: slot.userspaceAddress, byteCount: UInt64(slot.frames.count) << 12)
                }
                forgetLines(slot)
            }
        }
        return 0
    }

    /// A slot of a SEV guest goes: what caches hold of its pinned memory goes back to it. Of memory that is not
    /// registered it is lost, unless another slot shows it.
    private func forgetLines(_ slot: MemorySlot) {
        guard let sev else { return }
        let end = slot.userspaceAddress &+ UInt64(slot.frames.count) << 12
        for region in sev.registeredRegions {
            let first = max(region.address, slot.userspaceAddress)
            let last = min(region.address &+ region.byteCount, end)
            if first < last { kernel.encryptedMemory.flush(first, byteCount: last - first) }
        }
        kernel.encryptedMemory.discard(slot.userspaceAddress, byteCount: end - slot.userspaceAddress, of: self) {
            memory.shows(userAddress: $0)
        }
    }

    func setAttributes(_ argument: KVMMemoryAttributes) throws(Errno) -> Int32 {
        try locked { () throws(Errno) in
            try memory.setAttributes(argument)
            withPausedVCPUs { $0.forgetTranslations() }
        }
        return 0
    }

    /// Stops every vCPU, as a TLB shootdown does, and calls `body` with each.
    func withPausedVCPUs(_ body: (VirtualCPU) -> Void) {
        processors.alone { for vcpu in vcpus { body(vcpu) } }
    }

    func createGuestMemfd(_ argument: KVMCreateGuestMemfd) throws(Errno) -> Int32 {
        if argument.flags != 0 { throw .EINVAL }
        if argument.byteCount == 0 || argument.byteCount >> 63 != 0 || argument.byteCount & 4095 != 0 { throw .EINVAL }
        let file = GuestMemfd(owner: identifier, pageCount: argument.byteCount >> 12, memory: kernel.systemMemory)
        return try kernel.handles.insert(.guestMemfd(file)).rawValue
    }

    // MARK: Interrupts

    /// Runs `body` on the interrupt controllers and wakes the vCPUs it touched.
    @discardableResult
    func withInterrupts<Result: Sendable>(_ body: (inout InterruptController) -> Result) -> Result {
        let (result, wake, ended) = interrupts.withLock { controller in
            let result = body(&controller)
            let wake = controller.wake
            let ended = controller.ended
            controller.wake = 0
            if !ended.isEmpty { controller.ended = [] }
            return (result, wake, ended)
        }
        for gsi in ended { events.resample(gsi: gsi) }
        if wake != 0 {
            for vcpu in vcpus where wake >> UInt64(vcpu.index & 63) & 1 != 0 { vcpu.notify() }
        }
        return result
    }
}
