// Bits of an integer. Specifications draw a quadword and name bits 50:12; this says the same in code, once.

/// A run of bits `highest:lowest` of a word, as in a specification's table.
///
///     static let guestFrame = BitField<UInt64>(50, 12)
///     let gfn = Self.guestFrame[entry]
public struct BitField<Word: FixedWidthInteger & UnsignedInteger & Sendable>: Sendable {
    /// The lowest bit of the field.
    public let shift: Int
    /// The number of bits.
    public let width: Int

    /// Bits `highest` down to `lowest`, both inclusive; programmer error if they do not lie in the word in that order.
    public init(_ highest: Int, _ lowest: Int) {
        precondition(lowest >= 0 && highest >= lowest && highest < Word.bitWidth, "bit range \(highest):\(lowest)")
        shift = lowest
        width = highest &- lowest &+ 1
    }

    /// A single bit.
    public init(bit: Int) { self.init(bit, bit) }

    /// The largest value that fits, right aligned.
    public var maximum: Word { width == Word.bitWidth ? .max : (1 << Word(width)) &- 1 }

    /// The field's bits where they stand in the word.
    public var mask: Word { maximum << Word(shift) }

    /// The field of `word`, right aligned.
    public subscript(_ word: Word) -> Word { (word >> Word(shift)) & maximum }

    /// `word` with the field replaced. Bits of `value` that do not fit are dropped.
    public func setting(_ value: Word, in word: Word) -> Word {
        (word & ~mask) | ((value & maximum) << Word(shift))
    }
}
