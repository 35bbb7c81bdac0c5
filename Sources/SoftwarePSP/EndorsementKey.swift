// The keys that sign reports, and that keys of guests are derived from: VCEK and VLEK.
//
//     chip seed ─┬─ structVersion, product, reported TCB ─► VCEK secret ─┬─► private key on P-384 ─► reports
//     hashstick ─┘                                     ─► VLEK secret ─┴─► derived keys of guests
//
// A change of the reported TCB gives another key, as on hardware. There newer versions can derive the keys of older ones;
// here the firmware derives any version from the seed, and never one above the committed version, because SNP_CONFIG
// refuses it.

import Crypto
import SEVABI

/// Which endorsement key.
public enum EndorsementKeyKind: Hashable, Sendable {
    /// VCEK: versioned chip endorsement key, of this chip alone.
    case vcek
    /// VLEK: versioned loaded endorsement key, of all chips of one cloud provider.
    case vlek
}

enum EndorsementKey {
    /// The secret of 48 bytes that belongs to one TCB version of a product.
    static func secret(_ seed: SecretBytes, label: String, _ product: ProcessorProduct, _ tcb: TCBVersion)
        -> SecretBytes
    {
        var context: [UInt8] = [product.structureVersion]
        context += product.rawValue.utf8
        context.append(0)
        context += (0..<8).map { UInt8(truncatingIfNeeded: tcb.rawValue &>> UInt64(8 &* $0)) }
        var bytes = seed.withBytes {
            CounterKDF.derive(key: $0, label: label, context: context, byteCount: 48, hash: .sha384)
        }
        return SecretBytes(taking: &bytes)
    }

    /// The private key that belongs to a secret.
    static func signingKey(from secret: SecretBytes) -> P384PrivateKey {
        secret.withBytes { P384PrivateKey(derivedFrom: $0, label: "snp-report") }
    }
}

extension PlatformIdentity {
    func vcekSecret(_ product: ProcessorProduct, _ tcb: TCBVersion) -> SecretBytes {
        EndorsementKey.secret(chipSeed, label: "snp-vcek", product, tcb)
    }
}

extension PlatformStorage {
    /// The public half of the chip's VCEK for a reported TCB version: what its manufacturer issues a certificate for.
    public func vcek(product: ProcessorProduct, reportedTCB: TCBVersion) -> P384PublicKey {
        EndorsementKey.signingKey(from: identity.vcekSecret(product, reportedTCB)).publicKey
    }

    /// CHIP_ID as in reports, 64 bytes.
    public func chipID(product: ProcessorProduct) -> [UInt8] { identity.chipID(socket: 0, of: product) }
}

extension Firmware {
    /// The secret of the key that signs now; nil for a VLEK that is not loaded or too old for the reported TCB version.
    mutating func endorsementSecret(_ kind: EndorsementKeyKind) -> SecretBytes? {
        let (product, tcb) = (profile.product, reportedTCB)
        switch kind {
        case .vcek: return withIdentity { $0.vcekSecret(product, tcb) }
        case .vlek: return vlek.flatMap { tcb.isAtMost($0.tcb) ? $0.hashstick.secret(product, tcb) : nil }
        }
    }

    /// Which key a guest's KEY_SEL means, or the status that says why there is none.
    mutating func endorsementKind(
        _ selection: EndorsementKeySelection, for context: GuestContext
    ) -> Result<EndorsementKeyKind, GuestMessageError> {
        let kind: EndorsementKeyKind
        switch selection {
        case .automatic: kind = vlek != nil ? .vlek : .vcek
        case .vcek: kind = .vcek
        case .vlek: kind = .vlek
        default: return .failure(.init(.invalidParameters))
        }
        if kind == .vcek, context.disablesVCEK { return .failure(.init(.invalidKey)) }
        guard endorsementSecret(kind) != nil else { return .failure(.init(.invalidKey)) }
        return .success(kind)
    }
}
