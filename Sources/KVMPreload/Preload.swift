// The software kernel in a program that opens /dev/kvm itself. Functions of C's half of the library come here, on the
// program's own threads; the machine starts with the first node that is opened.

import CPreload
import KVMABI
import SoftwareKVM
import Synchronization

/// The machine of this process.
private enum Machine {
    private static let started = Mutex<Result<SoftwareKVM, Errno>?>(nil)

    /// Started by the first caller. A machine that cannot start is a device that is not there.
    static func kernel() -> Result<SoftwareKVM, Errno> {
        started.withLock { started in
            if let started { return started }
            var result: Result<SoftwareKVM, Errno>
            do {
                result = .success(try SoftwareKVM(configuration: Settings.configuration()))
            } catch {
                Settings.complain("\(error)")
                result = .failure(.ENODEV)
            }
            started = result
            return result
        }
    }
}

@_cdecl("snpvmm_preload_open")
public func preloadOpen(_ node: Int32) -> Int32 {
    switch Machine.kernel() {
    case .success(let kernel):
        do { return try kernel.open(node == 0 ? .kvm : .sev).rawValue } catch { return 0 &- error.rawValue }
    case .failure(let error): return 0 &- error.rawValue
    }
}

@_cdecl("snpvmm_preload_ioctl")
public func preloadRequest(_ descriptor: Int32, _ request: UInt32, _ argument: UInt64) -> Int32 {
    guard case .success(let kernel) = Machine.kernel() else { return 0 &- Errno.EBADF.rawValue }
    let request = IoctlRequest(rawValue: request)
    let handle = KernelHandle(rawValue: descriptor)
    let answer = kernel.systemCall(handle, request, argument)
    if Trace.isOn { Trace.show(kernel, handle, request, argument, answer) }
    return answer
}

@_cdecl("snpvmm_preload_close")
public func preloadClose(_ descriptor: Int32) {
    guard case .success(let kernel) = Machine.kernel() else { return }
    let handle = KernelHandle(rawValue: descriptor)
    if Trace.isOn { Trace.forget(handle) }
    kernel.close(handle)
}

@_cdecl("snpvmm_preload_immediate_exit")
public func preloadImmediateExit(_ descriptor: Int32, _ value: Int32) {
    guard case .success(let kernel) = Machine.kernel(),
        let mapping = try? kernel.map(KernelHandle(rawValue: descriptor), offset: 0, byteCount: 4096)
    else { return }
    RunPage(mapping).immediateExit = value != 0
}

@_cdecl("snpvmm_preload_cpuid")
public func preloadCPUID(_ leaf: UInt32, _ subleaf: UInt32, _ register: Int32) -> UInt32 {
    let values = SoftwareKVM.hostCPUID(of: Settings.configuration().profile, leaf: leaf, subleaf: subleaf)
    switch register {
    case 0: return values.eax
    case 1: return values.ebx
    case 2: return values.ecx
    default: return values.edx
    }
}
