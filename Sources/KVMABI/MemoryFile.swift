// A file that exists in memory only: what a kernel hands out where its caller expects a descriptor to map.

internal import CKVM

/// A memory file of this process, by its descriptor.
public enum MemoryFile {
    /// Makes a file of so many zeros, close-on-exec. Throws `EMFILE`, `ENFILE`, `ENOMEM`.
    public static func create(byteCount: Int = 0) throws(Errno) -> Int32 {
        let descriptor = ckvm_create_file(UInt64(byteCount))
        if descriptor < 0 { throw Errno(rawValue: 0 &- descriptor) }
        return descriptor
    }

    /// Closes the descriptor; mappings stay.
    public static func close(_ descriptor: Int32) { _ = ckvm_close(descriptor) }

    /// Maps the file's first bytes, shared with whoever else maps them.
    public static func map(_ descriptor: Int32, byteCount: Int) throws(Errno) -> KernelMapping {
        var error: Int32 = 0
        let length = UInt64(byteCount)
        let address = unsafe ckvm_map(descriptor, 0, length, &error)
        guard address != 0 else { throw Errno(rawValue: error) }
        // SAFETY: the kernel gave this range; only this mapping's release takes it back.
        return unsafe KernelMapping(address: address, byteCount: byteCount) { _ = ckvm_unmap(address, length) }
    }
}
