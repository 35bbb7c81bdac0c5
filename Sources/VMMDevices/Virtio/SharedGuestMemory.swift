// What a device may touch of its guest's memory.

/// The memory that a guest shares with its host, by guest physical address.
///
/// It changes under the device at any moment: what is read is a copy, and the copy is what is checked and used. Bytes
/// that are no memory, or that are private to the guest, are an answer of this protocol and never a trap.
public protocol SharedGuestMemory: AnyObject, Sendable {
    /// True when all of these bytes are memory that host and guest share.
    func isShared(at gpa: UInt64, byteCount: UInt64) -> Bool
    /// A copy of the bytes; nil unless all of them are shared memory.
    func read(at gpa: UInt64, byteCount: Int) -> [UInt8]?
    /// Writes the bytes.
    /// - Returns: False, and nothing was written, unless all of them are shared memory.
    func write(_ bytes: ArraySlice<UInt8>, at gpa: UInt64) -> Bool
    /// A little-endian 16-bit ring index. What its writer wrote before it is visible to reads after this one.
    /// - Returns: nil unless it is aligned shared memory.
    func loadIndex(at gpa: UInt64) -> UInt16?
    /// Stores a ring index after everything written before.
    /// - Returns: False unless it is aligned shared memory.
    func storeIndex(_ index: UInt16, at gpa: UInt64) -> Bool
}
