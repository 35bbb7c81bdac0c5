// MSG_KEY: a key for the guest, from a key of the chip, of the provider or of the guest.

import Crypto
import SEVABI

extension Firmware {
    /// MSG_KEY_REQ [SNP 7.2]. Nil for a version or length that does not exist.
    ///
    /// STATUS is INVALID_PARAM for reserved bits, a reserved KEY_SEL, a VMPL that the sender may not speak for, a GUEST_SVN
    /// above the ID block's, a TCB_VERSION above the committed one, or a mitigation that the guest was launched without;
    /// INVALID_KEY for a VLEK that is not loaded or too old, and for a VCEK that the launch has disabled or the platform
    /// masks.
    mutating func deriveKey(_ message: Message, _ context: GuestContext) -> [UInt8]? {
        guard let request = KeyRequest(bytes: message.payload, messageVersion: message.version) else { return nil }
        guard request.hasValidReservedBits, message.maySpeak(for: request.vmpl),
            request.guestSVN <= context.idBlock?.guestSVN ?? 0,
            request.tcbVersion.isAtMost(committedTCB),
            request.launchMitigationVector & ~context.launchMitigationVector == 0
        else { return KeyResponse(status: .invalidParameters).bytes }

        let root: SecretBytes
        if request.usesVMRK {
            root = SecretBytes(context.migrationRootKey)
        } else {
            switch endorsementKind(request.keySelection, for: context) {
            case .failure(let error): return KeyResponse(status: error.status).bytes
            case .success(let kind):
                // MASK_CHIP_KEY takes the chip's key out of attestation and of key derivation.
                guard kind == .vlek || !masksChipKey, let secret = endorsementSecret(kind) else {
                    return KeyResponse(status: .invalidKey).bytes
                }
                root = secret
            }
        }
        var key = root.withBytes {
            CounterKDF.derive(
                key: $0, label: "gmsg-keyreq", context: Self.mixed(request, context), byteCount: 32, hash: .sha384)
        }
        defer { wipe(&key) }
        return KeyResponse(key: key).bytes
    }

    /// What goes into the key beside the root: ROOT_KEY_SELECT, VMPL, GUEST_FIELD_SELECT, then every field, zeroes for
    /// those not selected.
    private static func mixed(_ request: KeyRequest, _ context: GuestContext) -> [UInt8] {
        func number<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
            (0..<(T.bitWidth / 8)).map { UInt8(truncatingIfNeeded: value &>> T(8 &* $0)) }
        }
        func field(_ field: KeyRequest.Fields, _ bytes: [UInt8]) -> [UInt8] {
            request.fields.contains(field) ? bytes : [UInt8](repeating: 0, count: bytes.count)
        }
        let block = context.idBlock
        var result = number(UInt32(request.usesVMRK ? 1 : 0)) + number(request.vmpl) + number(request.fields.rawValue)
        result += field(.policy, number(context.policy.rawValue))
        result += field(.imageID, (0..<16).map { block?.imageID[$0] ?? 0 })
        result += field(.familyID, (0..<16).map { block?.familyID[$0] ?? 0 })
        result += field(.measurement, context.pageInfo.currentDigest.array)
        result += field(.guestSVN, number(request.guestSVN))
        result += field(.tcbVersion, number(request.tcbVersion.rawValue))
        result += field(.launchMitigationVector, number(request.launchMitigationVector))
        return result
    }
}
