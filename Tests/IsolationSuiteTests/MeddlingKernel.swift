// Machines that break their promises, for tests of the suite itself.

import HostileSoftwareKernel
import IsolationSuite
import KVMABI
import MemoryController
import SEVABI
import SoftwareKVM

/// A kernel that answers some requests in place of the one behind it.
final class MeddlingKernel: HostKernel {
    typealias Meddle = @Sendable (any HostKernel, KernelHandle, IoctlRequest, IoctlArgument) throws(Errno) -> Int32?

    private let kernel: any HostKernel
    private let meddle: Meddle

    /// - Parameter meddle: The answer, or nil to let the kernel give it.
    init(_ kernel: any HostKernel, _ meddle: @escaping Meddle) {
        self.kernel = kernel
        self.meddle = meddle
    }

    func open(_ node: DeviceNode) throws(Errno) -> KernelHandle { try kernel.open(node) }
    func close(_ handle: KernelHandle) { kernel.close(handle) }
    func punchHole(_ handle: KernelHandle, offset: Int64, byteCount: Int64) throws(Errno) {
        try kernel.punchHole(handle, offset: offset, byteCount: byteCount)
    }
    func map(_ handle: KernelHandle, offset: Int64, byteCount: Int) throws(Errno) -> KernelMapping {
        try kernel.map(handle, offset: offset, byteCount: byteCount)
    }

    func ioctl(_ handle: KernelHandle, _ request: IoctlRequest, _ argument: IoctlArgument) throws(Errno) -> Int32 {
        if let answer = try meddle(kernel, handle, request, argument) { return answer }
        return try kernel.ioctl(handle, request, argument)
    }
}

/// Kernel privileges on a machine whose RMP lets every store pass.
struct WithoutRMP: HostPrivileges {
    let kernel: SoftwareKVM
    private var hostile: HostileSoftwareKernel { HostileSoftwareKernel(kernel) }

    func writePhysical(_ address: UInt64, _ bytes: [UInt8]) -> String? {
        let page = SPA(rawValue: address & ~4095)
        guard let entry = kernel.systemMemory.rmpEntry(page) else { return "no memory" }
        kernel.systemMemory.firmwareSetEntry(page, RMPEntry())
        defer { kernel.systemMemory.firmwareSetEntry(page, entry) }
        return hostile.writePhysical(address, bytes)
    }

    func physicalAddress(ofPage page: UInt64, in memfd: KernelHandle) -> UInt64? {
        hostile.physicalAddress(ofPage: page, in: memfd)
    }
    func vmsaAddress(of vcpu: KernelHandle) -> UInt64? { hostile.vmsaAddress(of: vcpu) }
    func readPhysical(_ address: UInt64, byteCount: Int) -> [UInt8]? {
        hostile.readPhysical(address, byteCount: byteCount)
    }
    func map(_ address: UInt64, asPage page: UInt64, of memfd: KernelHandle, in vm: KernelHandle) {
        hostile.map(address, asPage: page, of: memfd, in: vm)
    }
    func allocatePage() -> UInt64? { hostile.allocatePage() }
    func freePage(_ address: UInt64) { hostile.freePage(address) }
    func updateRMP(_ address: UInt64, gpa: UInt64, asid: UInt32?) -> UInt64 {
        hostile.updateRMP(address, gpa: gpa, asid: asid)
    }
    func asid(of vm: KernelHandle) -> UInt32? { hostile.asid(of: vm) }
    func forceNextASID(_ asid: UInt32, flushing: Bool) { hostile.forceNextASID(asid, flushing: flushing) }
}
