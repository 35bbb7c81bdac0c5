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

    init(vcpu: VirtualCPU, asid: UInt32) {
        self.vcpu = vcpu
        memory = vcpu.vm.memory
        systemMemory = vcpu.vm.kernel.systemMemory
        self.asid = asid
    }

    func translate(gpa: UInt64, encrypted: Bool, access: PhysicalAccess) -> PhysicalTranslation {
        let writing = access == .write || access == .pageTableWrite
        switch memory.place(gpa: gpa, encrypted: encrypted, writing: writing) {
        case .shared(let page, let writable): return .page(page, writable: writable)
        case .privatePage(let memfd, let index):
            guard let spa = page(memfd, index, gpa: gpa) else { return .fault }
            let wanted = Self.guestAccess(access)
            let found = systemMemory.guestPage(spa, gpa: gpa & ~4095, asid: asid, access: wanted)
            // Populated by the host but not given away yet: RMPUPDATE now.
            if case .fault(.notAssigned) = found, assign(spa, gpa: gpa) != nil {
                return PhysicalTranslation(
                    systemMemory.guestPage(spa, gpa: gpa & ~4095, asid: asid, access: wanted))
            }
            return PhysicalTranslation(found)
        case .device: return .device
        case .badUserAddress, .attributeMismatch: return .fault
        }
    }

    private static func guestAccess(_ access: PhysicalAccess) -> GuestAccess {
        switch access {
        case .read, .pageTableRead: .read
        case .write, .pageTableWrite: .write
        case .execute: .supervisorExecute
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
        systemMemory.rmpUpdate(spa, .guestInvalid(gpa: gpa & ~4095, asid: asid)) == .success ? spa : nil
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
        let outcome = systemMemory.pvalidate(spa, gpa: gpa & ~4095, asid: asid, is2MiB: size == 1, validate: validate)
        guard case .result(let result, let unchanged) = outcome else { return nil }
        return PValidateResult(code: result.rawValue, unchanged: unchanged)
    }

    func rmpadjust(gpa: UInt64, size: UInt32, attributes: UInt64) -> UInt64? {
        guard let spa = privatePage(gpa) else { return nil }
        let outcome = systemMemory.rmpadjust(
            spa, gpa: gpa & ~4095, asid: asid, is2MiB: size == 1, attributes: attributes)
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
