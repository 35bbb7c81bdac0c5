// The VLEK: an endorsement key that comes from outside, wrapped for one chip.
//
//     0x000  IV 12      0x00c  0       0x010  wrapped hashstick 384      0x190  TCB_VERSION      0x198  0
//     0x1a0  tag 16                                                                              0x1b0
//
// AES-256-GCM under a key of the chip; the bytes at 0x00c and 0x190 to 0x19f are authenticated with it.

import Crypto
import SEVABI

/// The seed of a cloud provider's VLEK [SNP 8.31]: the same on every chip that it is loaded into.
public struct VLEKHashstick: Sendable, Equatable {
    public static let byteCount = 384
    private let bytes: SecretBytes

    /// The same seed gives the same key.
    public init(seed: [UInt8]) {
        var bytes = CounterKDF.derive(
            key: seed, label: "snp-vlek-hashstick", byteCount: Self.byteCount, hash: .sha384)
        self.bytes = SecretBytes(taking: &bytes)
    }

    /// From the 384 bytes themselves, which are wiped.
    init(taking bytes: inout [UInt8]) { self.bytes = SecretBytes(taking: &bytes) }

    /// Lends the 384 bytes for one call.
    func withBytes(_ body: ([UInt8]) -> Void) { bytes.withBytes(body) }

    func secret(_ product: ProcessorProduct, _ tcb: TCBVersion) -> SecretBytes {
        EndorsementKey.secret(bytes, label: "snp-vlek", product, tcb)
    }

    /// The public half for a reported TCB version: what a VLEK certificate is issued for.
    public func vlek(product: ProcessorProduct, reportedTCB: TCBVersion) -> P384PublicKey {
        EndorsementKey.signingKey(from: secret(product, reportedTCB)).publicKey
    }

    /// What SNP_VLEK_LOAD takes on one chip, 432 bytes. The manufacturer's part: only it and the chip know the chip's key.
    ///
    /// - Parameters:
    ///   - platform: The chip's state.
    ///   - tcb: The newest TCB version that the key can sign for.
    ///   - iv: 12 bytes, new for every blob.
    public func wrapped(
        for platform: PlatformStorage, tcb: TCBVersion, iv: [UInt8] = randomBytes(AES256GCM.nonceByteCount)
    ) -> [UInt8] {
        var blob = iv + [UInt8](repeating: 0, count: 4)
        let tail =
            (0..<8).map { UInt8(truncatingIfNeeded: tcb.rawValue &>> UInt64(8 &* $0)) }
            + [UInt8](repeating: 0, count: 8)
        let sealed = platform.identity.withVLEKWrappingKey { key in
            bytes.withBytes {
                AES256GCM.seal($0, authenticating: Array(blob[12..<16]) + tail, key: key, nonce: iv)
            }
        }
        blob += sealed.ciphertext + tail + sealed.tag
        return blob
    }
}

/// What SNP_VLEK_LOAD leaves in the firmware.
struct LoadedVLEK: Sendable, Equatable {
    let hashstick: VLEKHashstick
    let tcb: TCBVersion

    init(hashstick: VLEKHashstick, tcb: TCBVersion) {
        self.hashstick = hashstick
        self.tcb = tcb
    }

    /// Unwraps a blob of 432 bytes; nil when it was not made for this chip.
    init?(_ blob: [UInt8], for identity: PlatformIdentity) {
        guard blob.count == SNPVLEKLoad.wrappedByteCount else { return nil }
        let plaintext = identity.withVLEKWrappingKey { key in
            AES256GCM.open(
                Array(blob[0x10..<0x190]), tag: Array(blob[0x1a0...]),
                authenticating: Array(blob[0x0c..<0x10] + blob[0x190..<0x1a0]), key: key, nonce: Array(blob[0..<12]))
        }
        guard var plaintext else { return nil }
        hashstick = VLEKHashstick(taking: &plaintext)
        tcb = TCBVersion(
            rawValue: (0..<8).reduce(0) { $0 | UInt64(blob[0x190 + $1]) << UInt64(8 * $1) })
    }
}

extension PlatformIdentity {
    fileprivate func withVLEKWrappingKey<Result>(_ body: ([UInt8]) -> Result) -> Result {
        var key = chipSeed.withBytes {
            CounterKDF.derive(key: $0, label: "snp-vlek-wrap", byteCount: 32, hash: .sha384)
        }
        defer { wipe(&key) }
        return body(key)
    }
}
