// The contents of pages in short, for logs and saved plans: enough to see which page of two launches differs.

import Crypto

/// The first 8 bytes of each page's SHA-384. No measurement: it only says whether two pages are the same.
public enum PageDigests {
    /// Digests of consecutive pages; the last page may be shorter.
    public static func of(_ contents: [UInt8]) -> [UInt64] {
        let hasher = SHA2Hasher(.sha384)
        let bytes = contents.span
        return stride(from: 0, to: contents.count, by: 4096).map { start in
            let hash = hasher.hash384(bytes.extracting(start..<min(start + 4096, contents.count)))
            return (0..<8).reduce(0) { $0 &<< 8 | UInt64(hash[$1]) }
        }
    }

    /// 16 digits for each page, without separators.
    public static func text(_ digests: [UInt64]) -> String {
        digests.map { digest in
            let digits = String(digest, radix: 16)
            return String(repeating: "0", count: 16 - digits.count) + digits
        }.joined()
    }

    /// Nil for anything but whole groups of 16 digits.
    public static func parse(_ text: String) -> [UInt64]? {
        let digits = Array(text.utf8)
        guard digits.count % 16 == 0 else { return nil }
        var digests: [UInt64] = []
        for start in stride(from: 0, to: digits.count, by: 16) {
            let group = String(decoding: digits[start..<(start + 16)], as: UTF8.self)
            guard group.utf8.allSatisfy({ $0 != 0x2b && $0 != 0x2d }), let digest = UInt64(group, radix: 16) else {
                return nil
            }
            digests.append(digest)
        }
        return digests
    }
}
