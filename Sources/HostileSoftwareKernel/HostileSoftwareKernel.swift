// The attacker's kernel privileges on the software machine: what a hostile kernel could do on hardware, done to
// SoftwareKVM from outside its ABI.

import IsolationSuite
import KVMABI
import MemoryController
import SEVABI
import SoftwareKVM

/// The kernel of a software machine, turned against its guests.
public struct HostileSoftwareKernel: HostPrivileges {
    private let kernel: SoftwareKVM

    public init(_ kernel: SoftwareKVM) { self.kernel = kernel }

    public func physicalAddress(ofPage page: UInt64, in memfd: KernelHandle) -> UInt64? {
        kernel.systemAddress(ofPage: page, in: memfd)?.rawValue
    }

    public func vmsaAddress(of vcpu: KernelHandle) -> UInt64? { kernel.vmsaAddress(of: vcpu)?.rawValue }

    public func readPhysical(_ address: UInt64, byteCount: Int) -> [UInt8]? {
        kernel.systemMemory.hostSnapshot(spa: SPA(rawValue: address), byteCount: byteCount)
    }

    public func writePhysical(_ address: UInt64, _ bytes: [UInt8]) -> String? {
        do {
            try kernel.systemMemory.hostWrite(SPA(rawValue: address), bytes)
            return nil
        } catch {
            return "\(error)"
        }
    }

    public func map(_ address: UInt64, asPage page: UInt64, of memfd: KernelHandle, in vm: KernelHandle) {
        kernel.divert(page: page, of: memfd, to: SPA(rawValue: address), in: vm)
    }

    public func allocatePage() -> UInt64? { kernel.systemMemory.allocatePages()?.rawValue }

    public func freePage(_ address: UInt64) { _ = kernel.systemMemory.freePages(SPA(rawValue: address)) }

    public func updateRMP(_ address: UInt64, gpa: UInt64, asid: UInt32?) -> UInt64 {
        let update = asid.map { RMPUpdate(gpa: gpa, assigned: true, asid: $0) } ?? RMPUpdate.shared
        return kernel.systemMemory.rmpUpdate(SPA(rawValue: address), update).rawValue
    }

    public func asid(of vm: KernelHandle) -> UInt32? { kernel.asid(of: vm) }

    public func forceNextASID(_ asid: UInt32, flushing: Bool) {
        kernel.forceNextASID(asid, flushing: flushing)
    }
}
