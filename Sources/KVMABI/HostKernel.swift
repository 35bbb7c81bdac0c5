// The seam. The VMM knows its host kernel only through these five calls and the kernel's own bytes.
//
// Two kernels stand behind it: `LinuxKVM` (the real one, over CKVM) and `SoftwareKVM` (a kernel in our process). No
// caller can ask which one it has, and no feature may branch on it. A new feature is a new request number plus bytes,
// never a new method here.

/// A host kernel: device nodes to open, requests to issue, memory to map.
///
/// Pointers inside an argument are addresses in this process, as for the real kernel.
public protocol HostKernel: AnyObject, Sendable {
    /// Opens a device node. Throws the kernel's errno (`ENOENT`, `EACCES`, …).
    func open(_ node: DeviceNode) throws(Errno) -> KernelHandle

    /// Issues one request on an open handle.
    ///
    /// - Returns: The kernel's non-negative result: 0, a count, or a new descriptor.
    /// - Throws: The kernel's errno. As with the real kernel, output bytes may have been written all the same
    ///   (`KVM_MEMORY_ENCRYPT_OP` writes its firmware status back, `KVM_RUN` its exit).
    func ioctl(_ handle: KernelHandle, _ request: IoctlRequest, _ argument: IoctlArgument) throws(Errno) -> Int32

    /// Maps `byteCount` bytes of a handle's memory, shared and writable: a vCPU's `kvm_run`, a memory device, or, with
    /// ``KernelHandle/anonymous``, fresh zeroed memory of this process (for the shared half of guest RAM).
    func map(_ handle: KernelHandle, offset: Int64, byteCount: Int) throws(Errno) -> KernelMapping

    /// Frees whole pages of a guest_memfd: `fallocate` with `FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE`. What was in
    /// them is gone; the file keeps its length, and a page that is needed again is a new one.
    ///
    /// - Throws: `EINVAL` for a range that is empty, not page aligned or not inside the file; `EBADF`.
    func punchHole(_ handle: KernelHandle, offset: Int64, byteCount: Int64) throws(Errno)

    /// Closes a handle. Closing one that is not open does nothing.
    func close(_ handle: KernelHandle)
}

/// The device nodes that a VMM opens.
public enum DeviceNode: String, Sendable, CaseIterable {
    /// KVM's system handle.
    case kvm = "/dev/kvm"
    /// The AMD secure processor's driver.
    case sev = "/dev/sev"
    /// Physical memory as the host sees it. Only tests and attack demonstrations open it.
    case memory = "/dev/mem"
}

/// An open file descriptor of a host kernel.
public struct KernelHandle: RawRepresentable, Hashable, Sendable {
    public let rawValue: Int32
    public init(rawValue: Int32) { self.rawValue = rawValue }
    /// No file: ``HostKernel/map(_:offset:byteCount:)`` gives anonymous memory.
    public static let anonymous = KernelHandle(rawValue: -1)
}

/// A whole request word: direction, size, type and number. Dispatch on all of it: several numbers are used twice.
public struct IoctlRequest: RawRepresentable, Hashable, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }
}

/// The third argument of an ioctl.
///
/// Safe to hold: whoever makes `bytes` promises that the buffer lives for the call.
@safe public enum IoctlArgument {
    /// No argument (0).
    case none
    /// A number passed by value.
    case value(UInt64)
    /// The address of a structure that the kernel reads, writes or both; the buffer bounds it.
    case bytes(UnsafeMutableRawBufferPointer)
}
