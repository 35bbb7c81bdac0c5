// Pseudo-random numbers that are the same on every machine for the same seed.

/// xoshiro256**, its state filled by SplitMix64.
public struct SeededGenerator: RandomNumberGenerator, Sendable {
    private var state: (UInt64, UInt64, UInt64, UInt64)

    public init(seed: UInt64) {
        var sum = seed
        func next() -> UInt64 {
            sum &+= 0x9e37_79b9_7f4a_7c15
            var value = sum
            value = (value ^ value >> 30) &* 0xbf58_476d_1ce4_e5b9
            value = (value ^ value >> 27) &* 0x94d0_49bb_1331_11eb
            return value ^ value >> 31
        }
        state = (next(), next(), next(), next())
    }

    public mutating func next() -> UInt64 {
        func rotate(_ value: UInt64, _ count: UInt64) -> UInt64 { value << count | value >> (64 - count) }
        let result = rotate(state.1 &* 5, 7) &* 9
        let shifted = state.1 << 17
        state.2 ^= state.0
        state.3 ^= state.1
        state.1 ^= state.2
        state.0 ^= state.3
        state.2 ^= shifted
        state.3 = rotate(state.3, 45)
        return result
    }

    /// A number that leans to the edges: 0, all ones, single bits and their neighbours, small numbers, or anything.
    public mutating func edge<T: FixedWidthInteger & UnsignedInteger>(_ type: T.Type = T.self) -> T {
        let any = T(truncatingIfNeeded: next())
        let bit = T(1) << T(truncatingIfNeeded: next() % UInt64(T.bitWidth))
        switch next() % 8 {
        case 0: return 0
        case 1: return .max
        case 2: return bit
        case 3: return bit &- 1
        case 4: return bit &+ 1
        case 5: return 0 &- bit
        case 6: return any & 0xff
        default: return any
        }
    }

    /// 0..<`bound`; 0 for a bound of 0.
    public mutating func below(_ bound: Int) -> Int {
        bound <= 0 ? 0 : Int(truncatingIfNeeded: next() % UInt64(truncatingIfNeeded: bound))
    }

    /// `count` bytes.
    public mutating func bytes(_ count: Int) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count)
        while bytes.count < count {
            let value = next()
            for shift in stride(from: 0, to: 64, by: 8) where bytes.count < count {
                bytes.append(UInt8(truncatingIfNeeded: value >> UInt64(shift)))
            }
        }
        return bytes
    }
}
