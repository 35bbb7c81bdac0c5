// Memory as one vCPU's processor sees it: the answer to each TLB miss, and the SNP page instructions.

import KVMABI
import MemoryController
import SEVABI
import X86Core

final class GuestView: ProcessorMemory {
    private unowned let vcpu: VirtualCPU
    private let memory: GuestMemory
    private let systemMemory: SystemMemory
    /// 0 for plain guests.
    private let asid: UInt32
    /// The virtual machine privilege level, from the VMSA.
    private let vmpl: Int
    /// For SEV and SEV-ES guests, whose private memory is the VMM's own.
    private let client: EncryptedUserMemory.Client?

    init(vcpu: VirtualCPU, asid: UInt32, vmpl: Int = 0, encryptsUserMemory: Bool = false) {
        self.vcpu = vcpu
        memory = vcpu.vm.memory
        systemMemory = vcpu.vm.kernel.systemMemory
        self.asid = asid
        self.vmpl = vmpl
        client = encryptsUserMemory ? vcpu.vm.kernel.encryptedMemory.register(vcpu, asid: asid) : nil
    }

    func translate(gpa: UInt64, encrypted: Bool, access: PhysicalAccess) -> PhysicalTranslation {
        let writing = access == .write || access == .pageTableWrite
        if let client { return translate(gpa: gpa, encrypted: encrypted, writing: writing, client) }
        switch memory.place(gpa: gpa, encrypted: encrypted, writing: writing) {
        case .shared(let page, let writable): return .page(page, writable: writable)
        case .privatePage(let memfd, let index):
            guard let spa = page(memfd, index, gpa: gpa) else { return .fault }
            let wanted = Self.guestAccess(access)
            let found = systemMemory.guestPage(spa, gpa: gpa & ~4095, asid: asid, vmpl: vmpl, access: wanted)
            // Populated by the host but not given away yet: RMPUPDATE now.
            if case .fault(.notAssigned) = found, assign(spa, gpa: gpa) != nil {
                return PhysicalTranslation(
                    systemMemory.guestPage(spa, gpa: gpa & ~4095, asid: asid, vmpl: vmpl, access: wanted))
            }
            return PhysicalTranslation(found)
        case .device: return .device
        case .badUserAddress, .attributeMismatch: return .fault
        }
    }

    // MARK: SEV and SEV-ES

    private func translate(gpa: UInt64, encrypted: Bool, writing: Bool, _ client: EncryptedUserMemory.Client)
        -> PhysicalTranslation
    {
        if encrypted {
            guard case .page(let address, let writable) = memory.encryptedPlace(gpa: gpa, writing: writing) else {
                return .device
            }
            let found = access(address, encrypted: true, client)
            guard case .guest(let page) = found else { return .fault }
            return PhysicalTranslation(page, writable: writable)
        }
        switch memory.place(gpa: gpa, encrypted: false, writing: writing) {
        case .shared(let page, let writable):
            guard case .user = access(page.address, encrypted: false, client) else { return .fault }
            return .page(page, writable: writable)
        case .device: return .device
        case .privatePage, .badUserAddress, .attributeMismatch: return .fault
        }
    }

    private func access(_ address: UInt64, encrypted: Bool, _ client: EncryptedUserMemory.Client)
        -> EncryptedUserMemory.Access
    {
        vcpu.vm.kernel.encryptedMemory.access(address, encrypted: encrypted, by: client) {
            vcpu.forgetTranslations(to: [$0])
        }
    }

    /// The hypervisor's part of a SEV guest's access that ``translate(gpa:encrypted:access:)`` could not serve; the
    /// processor is outside the guest. False: nothing can be done.
    func settle(gpa: UInt64, encrypted: Bool, writing: Bool) -> Bool {
        guard let client else { return false }
        let address: UInt64
        if encrypted {
            guard case .page(let found, _) = memory.encryptedPlace(gpa: gpa, writing: writing) else { return false }
            address = found
        } else {
            guard case .shared(let page, _) = memory.place(gpa: gpa, encrypted: false, writing: writing) else {
                return false
            }
            address = page.address
        }
        vcpu.vm.kernel.encryptedMemory.settle(address)
        if case .failed = access(address, encrypted: encrypted, client) { return false }
        return true
    }

    // MARK: SNP

    private static func guestAccess(_ access: PhysicalAccess) -> GuestAccess {
        switch access {
        case .read, .pageTableRead: .read
        case .write, .pageTableWrite: .write
        case .execute: .supervisorExecute
        case .userExecute: .userExecute
        }
    }

    /// The page behind a private frame. One that was never there is taken and assigned to the guest, not validated.
    private func page(_ memfd: GuestMemfd, _ index: UInt64, gpa: UInt64) -> SPA? {
        if let spa = memfd.page(at: index) { return spa }
        guard let (spa, _) = memfd.populate(index) else { return nil }
        return assign(spa, gpa: gpa)
    }

    /// As `page`, and assigned also where the host populated it without giving it away.
    private func populated(_ memfd: GuestMemfd, _ index: UInt64, gpa: UInt64) -> SPA? {
        guard let spa = page(memfd, index, gpa: gpa), let entry = systemMemory.rmpEntry(spa) else { return nil }
        return entry.assigned ? spa : assign(spa, gpa: gpa)
    }

    private func assign(_ spa: SPA, gpa: UInt64) -> SPA? {
        vcpu.vm.firstTouch.withLock { _ in
            // Another vCPU may have been first, and its guest may have validated the page by now.
            if let entry = systemMemory.rmpEntry(spa), entry.assigned, entry.asid == asid, entry.gpa == gpa & ~4095 {
                return spa
            }
            return systemMemory.rmpUpdate(spa, .guestInvalid(gpa: gpa & ~4095, asid: asid)) == .success ? spa : nil
        }
    }

    /// KVM_PRE_FAULT_MEMORY: makes the page present, private or shared as its attribute says.
    func populate(gpa: UInt64) -> Bool {
        switch memory.place(gpa: gpa, encrypted: memory.isPrivate(frame: gpa >> 12), writing: false) {
        case .shared: true
        case .privatePage(let memfd, let index): populated(memfd, index, gpa: gpa) != nil
        default: false
        }
    }

    /// The private page at a GPA, for the page instructions.
    private func privatePage(_ gpa: UInt64) -> SPA? {
        guard case .privatePage(let memfd, let index) = memory.place(gpa: gpa, encrypted: true, writing: false) else {
            return nil
        }
        return populated(memfd, index, gpa: gpa)
    }

    func pvalidate(gpa: UInt64, size: UInt32, validate: Bool) -> PValidateResult? {
        guard let spa = privatePage(gpa) else { return nil }
        let outcome = systemMemory.pvalidate(
            spa, gpa: gpa & ~4095, asid: asid, vmpl: vmpl, is2MiB: size == 1, validate: validate)
        guard case .result(let result, let unchanged) = outcome else { return nil }
        return PValidateResult(code: result.rawValue, unchanged: unchanged)
    }

    func rmpadjust(gpa: UInt64, size: UInt32, attributes: UInt64) -> UInt64? {
        guard let spa = privatePage(gpa) else { return nil }
        let outcome = systemMemory.rmpadjust(
            spa, gpa: gpa & ~4095, asid: asid, vmpl: vmpl, is2MiB: size == 1, attributes: attributes)
        guard case .result(let result, _) = outcome else { return nil }
        return result.rawValue
    }

    func deviceRead(gpa: UInt64, byteCount: Int, into value: inout UInt64) -> Bool {
        guard let found = vcpu.readKernelDevice(gpa: gpa, byteCount: byteCount) else { return false }
        value = found
        return true
    }

    func deviceWrite(gpa: UInt64, byteCount: Int, value: UInt64) -> Bool {
        vcpu.writeKernelDevice(gpa: gpa, byteCount: byteCount, value: value)
    }
}

extension VirtualCPU {
    func readKernelDevice(gpa: UInt64, byteCount: Int) -> UInt64? {
        let now = HostClock.monotonic
        return vm.withInterrupts { $0.readMMIO(gpa, byteCount: byteCount, vcpu: index, now: now) }
    }

    func writeKernelDevice(gpa: UInt64, byteCount: Int, value: UInt64) -> Bool {
        let now = HostClock.monotonic
        return vm.withInterrupts { $0.writeMMIO(gpa, byteCount: byteCount, value: value, vcpu: index, now: now) }
    }
}
