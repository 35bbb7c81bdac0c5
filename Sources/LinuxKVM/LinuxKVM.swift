// The real kernel behind the seam. Bytes pass through untouched; what this file adds is a bound: the kernel writes as
// much as the request word and the counts inside the argument say, so a buffer that is too short for them is refused
// here with EFAULT instead of being overrun.
//
// EINTR: KVM_RUN's is the caller's business (a signal asked the vCPU to stop); every other request is repeated.

import CKVM
import KVMABI

/// The Linux kernel's `/dev/kvm` and `/dev/sev`.
public final class LinuxKVM: HostKernel {
    /// The kernel this process runs on; opens nothing yet.
    public init() {}

    /// Opens the node for reading and writing, close-on-exec.
    public func open(_ node: DeviceNode) throws(Errno) -> KernelHandle {
        // SAFETY: the string lives for the call.
        unsafe KernelHandle(rawValue: try result(node.rawValue.withCString { path in unsafe ckvm_open(path) }))
    }

    /// Issues a request; `EFAULT` if the buffer is shorter than what the kernel would touch.
    public func ioctl(
        _ handle: KernelHandle, _ request: IoctlRequest, _ argument: IoctlArgument
    ) throws(Errno) -> Int32 {
        if case .bytes(let bytes) = argument {
            // The kernel writes what KVM_CAP_XSAVE2 says; 16 KiB hold every state that x86 processors have.
            let needed =
                request == .getXSave2 ? 16384 : request.argumentByteCount(header: unsafe [UInt8](bytes.prefix(8)))
            if argument.byteCount < needed { throw .EFAULT }
        }
        while true {
            let answer = ckvm_ioctl(handle.rawValue, request.rawValue, argument.number)
            if answer == -Errno.EINTR.rawValue, request != .run { continue }
            return try result(answer)
        }
    }

    /// Maps a handle's memory shared; with ``KernelHandle/anonymous``, private zeroed memory without a swap
    /// reservation.
    public func map(_ handle: KernelHandle, offset: Int64, byteCount: Int) throws(Errno) -> KernelMapping {
        if handle == .anonymous { return try KernelMapping.anonymous(byteCount: byteCount) }
        guard let length = UInt64(exactly: byteCount) else { throw .EINVAL }
        var error: Int32 = 0
        let address = unsafe ckvm_map(handle.rawValue, offset, length, &error)
        guard address != 0 else { throw Errno(rawValue: error) }
        // SAFETY: the kernel gave this range; only this mapping's release takes it back.
        return unsafe KernelMapping(address: address, byteCount: byteCount) { _ = ckvm_unmap(address, length) }
    }

    /// Frees pages of a file.
    public func punchHole(_ handle: KernelHandle, offset: Int64, byteCount: Int64) throws(Errno) {
        while true {
            let answer = ckvm_punch_hole(handle.rawValue, offset, byteCount)
            if answer == -Errno.EINTR.rawValue { continue }
            _ = try result(answer)
            return
        }
    }

    /// Closes a handle; mappings of it stay.
    public func close(_ handle: KernelHandle) {
        _ = ckvm_close(handle.rawValue)
    }

    /// Gives a result of zero or more, throws a negated errno.
    private func result(_ answer: Int32) throws(Errno) -> Int32 {
        guard answer >= 0 else { throw Errno(rawValue: 0 &- answer) }
        return answer
    }
}
