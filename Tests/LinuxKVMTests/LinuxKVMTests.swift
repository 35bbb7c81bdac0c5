// The real kernel behind the seam, as far as this machine has it. What a plain VM must do is in KVMConformanceTests.

import KVMABI
import LinuxKVM
import Testing

/// True if this machine's `/dev/kvm` opens.
private let kvmOpens: Bool = {
    let kernel = LinuxKVM()
    guard let handle = try? kernel.open(.kvm) else { return false }
    kernel.close(handle)
    return true
}()

@Suite struct LinuxKVMTests {
    let kernel = LinuxKVM()

    @Test func `an absent node is the kernel's errno`() throws {
        do {
            kernel.close(try kernel.open(.sev))
        } catch {
            #expect([.ENOENT, .EACCES, .EPERM, .ENODEV, .ENXIO].contains(error), "\(error)")
        }
    }

    @Test func `a handle that is not open is EBADF`() {
        let handle = KernelHandle(rawValue: 1_000_000)
        #expect(throws: Errno.EBADF) { try kernel.call(handle, .getAPIVersion) }
        #expect(throws: Errno.EBADF) { try kernel.map(handle, offset: 0, byteCount: 4096) }
        kernel.close(handle)
    }

    @Test func `anonymous memory is zeroed, private and only as large as touched`() throws {
        // Far more than the machine has: nothing is reserved for it.
        let mapping = try kernel.map(.anonymous, offset: 0, byteCount: 1 << 40)
        #expect(mapping.load(at: (1 << 40) - 8, as: UInt64.self) == 0)
        mapping.store(1 as UInt8, at: 1 << 39)
        #expect(mapping.load(at: 1 << 39, as: UInt64.self) == 1)
    }

    @Test(arguments: [0, -1, .min])
    func `a mapping needs a length`(_ byteCount: Int) {
        #expect(throws: Errno.EINVAL) { try kernel.map(.anonymous, offset: 0, byteCount: byteCount) }
    }

    /// Before the kernel sees it: the handle is not even open.
    @Test(arguments: [
        (IoctlRequest.getRegisters, [UInt8](repeating: 0, count: 143)),
        (.setUserMemoryRegion2, .init(repeating: 0, count: 159)),
        (.getCPUID2, [2, 0, 0, 0, 0, 0, 0, 0] + .init(repeating: 0, count: 79)),
        (.getSupportedCPUID, .init(repeating: 0xff, count: 4096)),
        (.setMSRs, [1, 0, 0, 0, 0, 0, 0, 0] + .init(repeating: 0, count: 15)),
        (.getMSRIndexList, [1, 0, 0, 0]),
        (.setGSIRouting, [1, 0, 0, 0, 0, 0, 0, 0]),
        (.getXSave2, .init(repeating: 0, count: 4096)),
        (.setCPUID2, []),
    ])
    func `a buffer shorter than what the kernel would touch is EFAULT`(_ request: IoctlRequest, _ bytes: [UInt8]) {
        var bytes = bytes
        #expect(throws: Errno.EFAULT) {
            try kernel.call(KernelHandle(rawValue: 1_000_000), request, bytes: &bytes)
        }
    }

    @Test(.enabled(if: kvmOpens, "this machine has no /dev/kvm that opens"))
    func `speaks API version 12`() throws {
        let handle = try kernel.open(.kvm)
        defer { kernel.close(handle) }
        #expect(try kernel.call(handle, .getAPIVersion) == KVM.apiVersion)
        #expect(throws: Errno.EINVAL) { try kernel.call(handle, .createVM, value: 0x7fff) }
    }
}
