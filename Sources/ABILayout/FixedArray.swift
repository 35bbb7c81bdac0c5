// Fixed arrays, `[48 of UInt8]`, as specifications use them for digests, keys and reserved ranges.

extension InlineArray {
    /// The elements as an ordinary array.
    public var array: [Element] {
        var result: [Element] = []
        result.reserveCapacity(count)
        for index in indices { result.append(self[index]) }
        return result
    }

    /// Copies exactly `count` elements, or gives nil if `elements` has another number of them.
    public init?(exactly elements: some Collection<Element>) {
        guard elements.count == count else { return nil }
        var iterator = elements.makeIterator()
        // Safe: a collection yields `count` elements.
        self.init { _ in iterator.next()! }
    }
}

extension InlineArray where Element: Equatable {
    /// True if all elements are equal, in order.
    public func elementsEqual(_ other: Self) -> Bool {
        for index in indices where self[index] != other[index] { return false }
        return true
    }

    /// True if every element is `value`: the check of a must-be-zero range.
    public func allSatisfy(equal value: Element) -> Bool {
        for index in indices where self[index] != value { return false }
        return true
    }
}
