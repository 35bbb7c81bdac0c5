// ioctl(2) as another program calls it: a descriptor, a word and a register, whose meaning the word decides. The real
// kernel's entry code does the same: what cannot be read or written is EFAULT.

import KVMABI

extension SoftwareKVM {
    /// Issues a request for a caller who knows nothing of ``HostKernel``.
    ///
    /// - Parameter argument: A number or an address in this process, as the request has it.
    /// - Returns: What the request gives, or a negated errno.
    public func systemCall(_ handle: KernelHandle, _ request: IoctlRequest, _ argument: UInt64) -> Int32 {
        do {
            guard request.takesAddress else {
                return try ioctl(handle, request, argument == 0 ? .none : .value(argument))
            }
            let header = try user.read(argument, byteCount: min(8, request.encodedByteCount))
            let wanted = request.argumentByteCount(header: header)
            // A list may announce more room than there is: what is used of it counts.
            let count = user.accessibleByteCount(argument, upTo: wanted, writing: request.isAnswered)
            guard count >= request.encodedByteCount else { throw Errno.EFAULT }
            return try ioctl(handle, request, user.argument(at: argument, byteCount: count))
        } catch let error as Errno {
            return 0 &- error.rawValue
        } catch {
            return 0 &- Errno.EINVAL.rawValue
        }
    }

    /// What the host's CPUID says of memory encryption (leaf 0x8000001F), and its signature (leaf 1 EAX): for programs
    /// that ask the processor instead of the kernel.
    public static func hostCPUID(of profile: ProcessorProfile) -> (encryption: KVMCPUIDEntry, signature: UInt32) {
        let leaf = profile.supportedCPUID.last { $0.function == 0x8000_001f }
        return (leaf ?? KVMCPUIDEntry(), profile.signature)
    }
}
