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

    /// What the host's CPUID says, for programs that ask the processor instead of the kernel. A leaf or subleaf that it has
    /// not is zero.
    public static func hostCPUID(of profile: ProcessorProfile, leaf: UInt32, subleaf: UInt32) -> KVMCPUIDEntry {
        let entry = profile.supportedCPUID.first {
            $0.function == leaf && ($0.flags & KVMCPUIDEntry.significantIndex == 0 || $0.index == subleaf)
        }
        return entry ?? KVMCPUIDEntry()
    }
}
