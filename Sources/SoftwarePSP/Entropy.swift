// Where the firmware's keys come from.

import Crypto

/// The source of every key and random number of the secure processor.
public enum Entropy: Sendable {
    /// The operating system: what a machine uses.
    case system
    /// Everything follows from these bytes: the same calls give the same keys. For tests and for reproducing a run.
    case seed([UInt8])
}

/// Draws bytes, one block of SHA-384(seed ‖ counter) after the other when there is a seed.
struct EntropySource {
    let entropy: Entropy
    private var counter: UInt64 = 0
    /// Given in advance, for known answers: drawn before anything else.
    var prepared: [UInt8] = []

    init(_ entropy: Entropy) { self.entropy = entropy }

    /// A source of its own under the same seed: what is drawn from one does not move the other.
    init(_ entropy: Entropy, purpose: String) {
        switch entropy {
        case .system: self.init(.system)
        case .seed(let seed): self.init(.seed(seed + purpose.utf8))
        }
    }

    mutating func bytes(_ count: Int) -> [UInt8] {
        if prepared.count >= count, count > 0 {
            defer { prepared.removeFirst(count) }
            return Array(prepared.prefix(count))
        }
        guard case .seed(let seed) = entropy else { return randomBytes(count) }
        var result: [UInt8] = []
        while result.count < count {
            let number = (0..<8).map { UInt8(truncatingIfNeeded: counter &>> UInt64(8 &* $0)) }
            counter &+= 1
            let block = SHA384.hash(seed + number)
            for index in block.indices { result.append(block[index]) }
        }
        return Array(result.prefix(count))
    }
}
