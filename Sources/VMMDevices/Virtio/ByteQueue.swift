// Bytes on their way from one side to the other.

/// First in, first out. It holds at most about twice the bytes that are in it.
struct ByteQueue: Sendable {
    private var storage: [UInt8] = []
    private var first = 0

    var count: Int { storage.count - first }
    var isEmpty: Bool { first == storage.count }

    mutating func append(_ bytes: ArraySlice<UInt8>) { storage.append(contentsOf: bytes) }

    /// The first bytes, up to `limit`.
    func prefix(_ limit: Int) -> ArraySlice<UInt8> { storage[first...].prefix(limit) }

    mutating func removeFirst(_ count: Int) {
        precondition(count <= self.count)
        first += count
        if isEmpty {
            removeAll()
        } else if first >= storage.count / 2 {
            storage.removeFirst(first)
            first = 0
        }
    }

    mutating func removeAll() {
        storage = []
        first = 0
    }
}
