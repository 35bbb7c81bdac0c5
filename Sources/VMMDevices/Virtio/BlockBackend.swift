// What a disk is made of, behind virtio-blk.

/// Why a disk did not do what it was asked for.
public struct BlockError: Error, Equatable, Sendable {
    /// In words, for the person who runs the VMM: "No space left on device".
    public var reason: String
    /// The disk has no such operation; nothing is wrong with it.
    public var isUnsupported: Bool

    public init(_ reason: String, isUnsupported: Bool = false) {
        self.reason = reason
        self.isUnsupported = isUnsupported
    }
}

/// A disk's bytes. Called by one thread at a time; each call returns when it is done.
///
/// Offsets and lengths are multiples of 512 and inside the disk: ``VirtioBlock`` has checked them. What a call does not do
/// wholly it throws for.
public protocol BlockBackend: AnyObject, Sendable {
    /// Bytes in the disk: a multiple of 512.
    var byteCount: UInt64 { get }
    /// Writing is refused.
    var isReadOnly: Bool { get }
    /// Exactly `byteCount` bytes.
    func read(at offset: UInt64, byteCount: Int) throws(BlockError) -> [UInt8]
    /// Writes all of the bytes; they may still be in a cache of the host.
    func write(_ bytes: [UInt8], at offset: UInt64) throws(BlockError)
    /// Returns when everything that was written is on stable storage.
    func flush() throws(BlockError)
    /// The bytes are not needed any more; what is read there afterwards is anything.
    func discard(at offset: UInt64, byteCount: UInt64) throws(BlockError)
    /// The bytes read as zero afterwards.
    /// - Parameter mayDeallocate: Their space may be given back.
    func writeZeroes(at offset: UInt64, byteCount: UInt64, mayDeallocate: Bool) throws(BlockError)
}
