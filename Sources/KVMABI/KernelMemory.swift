// The one file of this module that touches raw memory. Everything above the seam works with values and byte arrays;
// here they become addresses for the kernel, and a kernel's mapping becomes checked loads and stores.
//
// Memory that a kernel or a guest shares with us changes under our hands. Each accessor is one load, one store or one
// copy: take a value once, check the copy, use the copy.

internal import CKVM
import Synchronization

/// A structure whose bytes cross the seam: every bit pattern is a valid value, and there is no implicit padding.
public protocol KernelStructure: BitwiseCopyable, Sendable {}

extension UInt8: KernelStructure {}
extension UInt16: KernelStructure {}
extension UInt32: KernelStructure {}
extension UInt64: KernelStructure {}
extension Int32: KernelStructure {}
extension Int64: KernelStructure {}

/// Memory that a ``HostKernel`` mapped into this process; unmapped when the last reference goes.
///
/// All offsets are bytes from the start. An access outside is a programmer error; use the checked variants
/// (`…IfInside`) for offsets that come from a guest or a kernel.
public final class KernelMapping: Sendable {
    /// The address of the first byte in this process, as kernel structures want it (`userspace_addr`).
    public let address: UInt64
    /// The length of the mapping.
    public let byteCount: Int
    private let release: @Sendable () -> Void

    /// Takes over a mapping.
    ///
    /// Unsafe: the caller promises that `byteCount` bytes at `address` are readable and writable until `release` runs.
    @unsafe public init(address: UInt64, byteCount: Int, release: @escaping @Sendable () -> Void) {
        precondition(address != 0 && byteCount >= 0, "a mapping needs an address")
        self.address = address
        self.byteCount = byteCount
        self.release = release
    }

    deinit { release() }

    /// Fresh zeroed memory of this process, private, without a swap reservation: pages exist once touched.
    ///
    /// - Throws: `EINVAL` for a length of 0 or less, `ENOMEM`.
    public static func anonymous(byteCount: Int) throws(Errno) -> KernelMapping {
        guard let length = UInt64(exactly: byteCount) else { throw .EINVAL }
        var error: Int32 = 0
        let address = unsafe ckvm_map_anonymous(length, &error)
        guard address != 0 else { throw Errno(rawValue: error) }
        // SAFETY: the kernel gave this range; only the release takes it back.
        return unsafe KernelMapping(address: address, byteCount: byteCount) { _ = ckvm_unmap(address, length) }
    }

    /// As ``anonymous(byteCount:)``, of the huge pages that the host has set aside (`vm.nr_hugepages`).
    ///
    /// - Throws: `EINVAL` unless the length is a multiple of their size, `ENOMEM` when there are not enough of them.
    public static func hugePages(byteCount: Int) throws(Errno) -> KernelMapping {
        guard let length = UInt64(exactly: byteCount) else { throw .EINVAL }
        var error: Int32 = 0
        let address = unsafe ckvm_map_huge_pages(length, &error)
        guard address != 0 else { throw Errno(rawValue: error) }
        // SAFETY: as above.
        return unsafe KernelMapping(address: address, byteCount: byteCount) { _ = ckvm_unmap(address, length) }
    }

    /// Asks for huge pages behind the mapping: an advice, which a kernel without them ignores.
    public func adviseHugePages() { _ = ckvm_advise_huge_pages(address, UInt64(byteCount)) }

    /// Asks for pages of the usual size: an advice, too.
    public func adviseSmallPages() { _ = ckvm_advise_small_pages(address, UInt64(byteCount)) }

    /// From here on pages of the mapping come from this NUMA node of the host, and from no other.
    ///
    /// - Throws: `EINVAL` for a node that the host has not, `ENOSYS` from a kernel without NUMA.
    public func bind(toNode node: UInt32) throws(Errno) {
        try OwnProcess.check(ckvm_bind_memory(address, UInt64(byteCount), node))
    }

    /// Makes the pages of a part of ``anonymous(byteCount:)`` memory, whose contents stay as they are.
    ///
    /// - Parameter threadCount: Threads that share the work, the calling one included; at most 64.
    /// - Throws: `ENOMEM` when the host, or the node that the memory is bound to, has no more.
    public func populate(offset: Int, byteCount: Int, threadCount: Int) throws(Errno) {
        precondition(contains(offset, byteCount), "populate outside the mapping")
        try OwnProcess.check(
            ckvm_populate(address + UInt64(offset), UInt64(byteCount), UInt32(clamping: threadCount)))
    }

    /// Gives whole pages of ``anonymous(byteCount:)`` memory back to the host; they read as zeroes afterwards.
    ///
    /// - Throws: `EINVAL` for a range that is not page aligned or not inside the mapping.
    public func discard(offset: Int, byteCount: Int) throws(Errno) {
        guard offset % KVM.pageByteCount == 0, byteCount % KVM.pageByteCount == 0, contains(offset, byteCount) else {
            throw .EINVAL
        }
        guard byteCount > 0 else { return }
        let answer = ckvm_discard(address + UInt64(offset), UInt64(byteCount))
        guard answer == 0 else { throw Errno(rawValue: -answer) }
    }

    /// The integer at `offset`, which need not be aligned.
    @inlinable public func load<Value: FixedWidthInteger & BitwiseCopyable>(
        at offset: Int, as type: Value.Type = Value.self
    ) -> Value {
        precondition(contains(offset, MemoryLayout<Value>.size), "load outside the mapping")
        // SAFETY: the check above; integers have no invalid bit patterns; the mapping lives as long as self.
        return unsafe pointer(offset).loadUnaligned(as: Value.self)
    }

    /// Stores an integer at `offset`, which need not be aligned.
    @inlinable public func store<Value: FixedWidthInteger & BitwiseCopyable>(_ value: Value, at offset: Int) {
        precondition(contains(offset, MemoryLayout<Value>.size), "store outside the mapping")
        // SAFETY: as in load.
        unsafe pointer(offset).storeBytes(of: value, as: Value.self)
    }

    /// A structure's bytes at `offset`.
    public func load<Structure: KernelStructure>(structureAt offset: Int, as type: Structure.Type) -> Structure {
        precondition(contains(offset, MemoryLayout<Structure>.size), "load outside the mapping")
        // SAFETY: as in load; KernelStructure promises that every bit pattern is valid.
        return unsafe pointer(offset).loadUnaligned(as: Structure.self)
    }

    /// Stores a structure's bytes at `offset`.
    public func store<Structure: KernelStructure>(structure: Structure, at offset: Int) {
        precondition(contains(offset, MemoryLayout<Structure>.size), "store outside the mapping")
        // SAFETY: as in load.
        unsafe withUnsafeBytes(of: structure) { bytes in
            unsafe pointer(offset).copyMemory(from: bytes.baseAddress!, byteCount: bytes.count)
        }
    }

    /// The byte at `offset`, read as an atomic: for flags that another thread sets.
    public func loadAtomically(byteAt offset: Int) -> UInt8 {
        precondition(contains(offset, 1), "load outside the mapping")
        // SAFETY: as in load; Atomic<UInt8> is one byte with UInt8's representation.
        return unsafe pointer(offset).assumingMemoryBound(to: Atomic<UInt8>.self).pointee.load(ordering: .acquiring)
    }

    /// Stores a byte that another thread may be reading with ``loadAtomically(byteAt:)``.
    public func storeAtomically(byte: UInt8, at offset: Int) {
        precondition(contains(offset, 1), "store outside the mapping")
        // SAFETY: as in loadAtomically.
        unsafe pointer(offset).assumingMemoryBound(to: Atomic<UInt8>.self).pointee.store(byte, ordering: .releasing)
    }

    /// The 16-bit integer at an even `offset`, read as an atomic: what was stored before it is seen after it.
    public func loadAtomically(uint16At offset: Int) -> UInt16 {
        precondition(contains(offset, 2) && offset & 1 == 0, "load outside the mapping, or not aligned")
        // SAFETY: as in loadAtomically(byteAt:); mappings begin at a page, so an even offset is aligned.
        return unsafe pointer(offset).assumingMemoryBound(to: Atomic<UInt16>.self).pointee.load(ordering: .acquiring)
    }

    /// Stores a 16-bit integer at an even `offset` after everything stored before.
    public func storeAtomically(uint16 value: UInt16, at offset: Int) {
        precondition(contains(offset, 2) && offset & 1 == 0, "store outside the mapping, or not aligned")
        // SAFETY: as above.
        unsafe pointer(offset).assumingMemoryBound(to: Atomic<UInt16>.self).pointee.store(value, ordering: .releasing)
    }

    /// A copy of `count` bytes.
    public func copyBytes(at offset: Int, count: Int) -> [UInt8] {
        precondition(contains(offset, count), "copy outside the mapping")
        // SAFETY: the check above.
        return unsafe [UInt8](UnsafeRawBufferPointer(start: pointer(offset), count: count))
    }

    /// A copy of `count` bytes, or nil if they do not lie wholly inside.
    public func copyBytesIfInside(at offset: Int, count: Int) -> [UInt8]? {
        contains(offset, count) ? copyBytes(at: offset, count: count) : nil
    }

    /// Writes all of `bytes` at `offset`.
    public func write(_ bytes: [UInt8], at offset: Int) {
        precondition(contains(offset, bytes.count), "write outside the mapping")
        // SAFETY: the check above; an array of ours never overlaps a mapping.
        unsafe bytes.withUnsafeBytes { source in
            guard let start = source.baseAddress else { return }
            unsafe pointer(offset).copyMemory(from: start, byteCount: source.count)
        }
    }

    /// Writes part of `bytes` at `offset` without an intermediate copy.
    public func write(_ bytes: ArraySlice<UInt8>, at offset: Int) {
        precondition(contains(offset, bytes.count), "write outside the mapping")
        // SAFETY: as above.
        unsafe bytes.withUnsafeBytes { source in
            guard let start = source.baseAddress else { return }
            unsafe pointer(offset).copyMemory(from: start, byteCount: source.count)
        }
    }

    /// Writes all of `bytes` at `offset` if they fit.
    /// - Returns: False, and nothing was written, if they do not.
    public func writeIfInside(_ bytes: [UInt8], at offset: Int) -> Bool {
        guard contains(offset, bytes.count) else { return false }
        write(bytes, at: offset)
        return true
    }

    /// Sets `count` bytes from `offset` on to `value`.
    public func fill(_ value: UInt8 = 0, at offset: Int, count: Int) {
        precondition(contains(offset, count), "fill outside the mapping")
        // SAFETY: the check above.
        unsafe pointer(offset).initializeMemory(as: UInt8.self, repeating: value, count: count)
    }

    /// True if `count` bytes from `offset` on lie wholly inside.
    @inlinable public func contains(_ offset: Int, _ count: Int) -> Bool {
        offset >= 0 && count >= 0 && count <= byteCount && offset <= byteCount &- count
    }

    @usableFromInline @inline(__always)
    @unsafe func pointer(_ offset: Int) -> UnsafeMutableRawPointer {
        // SAFETY: init's promise; callers have checked the offset.
        unsafe UnsafeMutableRawPointer(bitPattern: UInt(address))! + offset
    }
}

extension HostKernel {
    /// Issues a request without an argument.
    @discardableResult
    public func call(_ handle: KernelHandle, _ request: IoctlRequest) throws(Errno) -> Int32 {
        try ioctl(handle, request, .none)
    }

    /// Issues a request whose argument is a number.
    @discardableResult
    public func call(_ handle: KernelHandle, _ request: IoctlRequest, value: UInt64) throws(Errno) -> Int32 {
        try ioctl(handle, request, .value(value))
    }

    /// Issues a request whose argument is a structure that the kernel may change.
    @discardableResult
    public func call<Structure: KernelStructure>(
        _ handle: KernelHandle, _ request: IoctlRequest, _ structure: inout Structure
    ) throws(Errno) -> Int32 {
        // SAFETY: the buffer is exactly the structure and lives for the call.
        unsafe try withUnsafeMutableBytes(of: &structure) { (bytes) throws(Errno) -> Int32 in
            unsafe try self.ioctl(handle, request, .bytes(bytes))
        }
    }

    /// Issues a request whose argument is a structure that the kernel only reads.
    @discardableResult
    public func call<Structure: KernelStructure>(
        _ handle: KernelHandle, _ request: IoctlRequest, reading structure: Structure
    ) throws(Errno) -> Int32 {
        var copy = structure
        return try call(handle, request, &copy)
    }

    /// Issues a request whose argument has a variable length: a header, then entries (``KVMCPUIDEntry``,
    /// ``KVMMSREntry``).
    @discardableResult
    public func call(
        _ handle: KernelHandle, _ request: IoctlRequest, bytes: inout [UInt8]
    ) throws(Errno) -> Int32 {
        // SAFETY: the buffer is exactly the array and lives for the call.
        unsafe try bytes.withUnsafeMutableBufferPointer { (buffer) throws(Errno) -> Int32 in
            unsafe try self.ioctl(handle, request, .bytes(UnsafeMutableRawBufferPointer(buffer)))
        }
    }
}

extension IoctlArgument {
    /// The argument as the kernel's register holds it: 0, the number, or the address.
    public var number: UInt64 {
        switch self {
        case .none: 0
        case .value(let value): value
        case .bytes(let bytes): unsafe address(of: UnsafeRawPointer(bytes.baseAddress))
        }
    }

    /// Bytes behind the argument; 0 unless it is a structure.
    public var byteCount: Int {
        guard case .bytes(let bytes) = self else { return 0 }
        return bytes.count
    }

    /// The structure at `offset`: a kernel's copy-in. Throws `EFAULT` if the argument has no such bytes.
    public func load<Structure: KernelStructure>(
        _ type: Structure.Type = Structure.self, at offset: Int = 0
    ) throws(Errno) -> Structure {
        let bytes = unsafe try checked(offset, MemoryLayout<Structure>.size)
        // SAFETY: checked; the buffer lives for the call; every bit pattern is valid.
        return unsafe UnsafeRawPointer(bytes).loadUnaligned(as: Structure.self)
    }

    /// Writes a structure at `offset`: a kernel's copy-out. Throws `EFAULT` if the argument has no such bytes.
    public func store<Structure: KernelStructure>(_ structure: Structure, at offset: Int = 0) throws(Errno) {
        let target = unsafe try checked(offset, MemoryLayout<Structure>.size)
        // SAFETY: as in load.
        unsafe withUnsafeBytes(of: structure) { source in
            unsafe target.copyMemory(from: source.baseAddress!, byteCount: source.count)
        }
    }

    // The address of `count` bytes at `offset`.
    @unsafe private func checked(_ offset: Int, _ count: Int) throws(Errno) -> UnsafeMutableRawPointer {
        guard case .bytes(let bytes) = self, let start = bytes.baseAddress,
            offset >= 0, count <= bytes.count, offset <= bytes.count &- count
        else { throw .EFAULT }
        return unsafe start + offset
    }
}

/// Runs `body` with the address of a copy-free view of `bytes`, for a pointer inside a structure that the kernel reads
/// through (`uaddr`, `id_block_uaddr`). The address is good during the call only; 0 when `bytes` is empty.
public func withKernelAddress<Result, Failure: Error>(
    of bytes: [UInt8], _ body: (UInt64) throws(Failure) -> Result
) throws(Failure) -> Result {
    // SAFETY: the array lives for the call; only a number leaves. An empty array may have an address all the same.
    unsafe try bytes.withUnsafeBufferPointer { (buffer) throws(Failure) -> Result in
        unsafe try body(buffer.isEmpty ? 0 : address(of: UnsafeRawPointer(buffer.baseAddress)))
    }
}

/// As ``withKernelAddress(of:_:)`` for bytes that the kernel writes.
public func withKernelAddress<Result, Failure: Error>(
    ofMutable bytes: inout [UInt8], _ body: (UInt64) throws(Failure) -> Result
) throws(Failure) -> Result {
    // SAFETY: as above.
    unsafe try bytes.withUnsafeMutableBufferPointer { (buffer) throws(Failure) -> Result in
        unsafe try body(address(of: UnsafeRawPointer(buffer.baseAddress)))
    }
}

extension [UInt8] {
    /// An array that somebody writes at an address, as the kernel does when a file is read: nothing is cleared before.
    ///
    /// - Parameters:
    ///   - count: The array's length.
    ///   - fill: Writes bytes from the address on, at most `count`, and gives their number; the rest is zero.
    public init(count: Int, filledBy fill: (UInt64) -> Int) {
        // SAFETY: the buffer has room for `count` bytes; all of them are initialised when the closure returns.
        unsafe self.init(unsafeUninitializedCapacity: count) { buffer, initialized in
            guard count > 0, let start = buffer.baseAddress else { return }
            let first = unsafe address(of: UnsafeRawPointer(start))
            // An image of many megabytes comes in few pages. An advice; the kernel wants its start at a page.
            let page = UInt64(KVM.pageByteCount)
            let aligned = (first + page - 1) & ~(page - 1)
            if count >= 4 << 20 { _ = ckvm_advise_huge_pages(aligned, (first + UInt64(count) - aligned) & ~(page - 1)) }
            let filled = Swift.max(0, Swift.min(count, fill(first)))
            unsafe (start + filled).initialize(repeating: 0, count: count - filled)
            initialized = count
        }
    }
}

/// Runs `body` with the address of a structure that the kernel reads or writes through a pointer (`kvm_sev_cmd.data`,
/// `kvm_device_attr.addr`).
public func withKernelAddress<Structure: KernelStructure, Result, Failure: Error>(
    of structure: inout Structure, _ body: (UInt64) throws(Failure) -> Result
) throws(Failure) -> Result {
    // SAFETY: as above.
    unsafe try withUnsafeMutableBytes(of: &structure) { (buffer) throws(Failure) -> Result in
        unsafe try body(address(of: UnsafeRawPointer(buffer.baseAddress)))
    }
}

private func address(of pointer: UnsafeRawPointer?) -> UInt64 {
    UInt64(UInt(bitPattern: pointer))
}

extension KernelStructure {
    /// The structure's bytes, as they cross the seam.
    public var kernelBytes: [UInt8] {
        // SAFETY: no padding, so every byte is initialised.
        unsafe withUnsafeBytes(of: self) { unsafe [UInt8]($0) }
    }

    /// The structure in `bytes` at `offset`, or nil if it does not lie wholly inside.
    public init?(kernelBytes bytes: some Collection<UInt8>, at offset: Int = 0) {
        let byteCount = MemoryLayout<Self>.size
        guard offset >= 0, byteCount <= bytes.count, offset <= bytes.count &- byteCount else { return nil }
        let part = [UInt8](bytes.dropFirst(offset).prefix(byteCount))
        // SAFETY: `part` has exactly `byteCount` bytes; every bit pattern is valid.
        self = unsafe part.withUnsafeBytes { unsafe $0.loadUnaligned(as: Self.self) }
    }
}
