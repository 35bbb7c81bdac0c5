// SNP_LAUNCH_FINISH: the guest may run, if the launch is the one its owner signed.

import Crypto
import MemoryController
import SEVABI

extension Firmware {
    /// SNP_LAUNCH_FINISH [SNP 8.18].
    ///
    /// - Returns: INVALID_GUEST_STATE outside the launch; INVALID_PARAM for reserved bits; INVALID_ADDRESS for an ID
    ///   block or authentication page that is not in memory. With an ID block, in this order: BAD_SIGNATURE (block,
    ///   then ID key), BAD_MEASUREMENT, POLICY_FAILURE, INVALID_PARAM (version, algorithms). A refusal changes nothing.
    mutating func launchFinish(_ buffer: SNPLaunchFinish) -> SEVStatus {
        withContext(at: buffer.context) { firmware, context in
            guard context.state == .launch else { return .invalidGuestState }
            guard buffer.hasValidReservedBits else { return .invalidParameter }
            if buffer.usesIDBlock {
                let status = firmware.acceptIDBlock(buffer, context)
                guard status == .success else { return status }
            }
            context.hostData = buffer.hostData
            context.disablesVCEK = buffer.disablesVCEK
            context.state = .running
            return .success
        }
    }

    private func acceptIDBlock(_ buffer: SNPLaunchFinish, _ context: GuestContext) -> SEVStatus {
        guard let blockBytes = memory.firmwareRead(buffer.idBlock, byteCount: IDBlock.byteCount),
            let authenticationBytes = memory.firmwareRead(
                buffer.idAuthentication, byteCount: IDAuthentication.byteCount),
            let block = IDBlock(bytes: blockBytes),
            let authentication = IDAuthentication(bytes: authenticationBytes)
        else { return .invalidAddress }
        guard isSigned(blockBytes, by: authentication.idKey, authentication.idBlockSignature) else {
            return .badSignature
        }
        if buffer.usesAuthorKey {
            guard isSigned(authentication.idKey.bytes, by: authentication.authorKey, authentication.idKeySignature)
            else {
                return .badSignature
            }
        }
        guard block.launchDigest == context.pageInfo.currentDigest else { return .badMeasurement }
        guard block.policy == context.policy else { return .policyFailure }
        guard block.version == IDBlock.currentVersion, authentication.idKeyAlgorithm == IDAuthentication.ecdsaP384,
            !buffer.usesAuthorKey || authentication.authorKeyAlgorithm == IDAuthentication.ecdsaP384
        else { return .invalidParameter }
        context.idBlock = block
        context.idKeyDigest = LaunchDigest(SHA384.hash(authentication.idKey.bytes))
        context.hasAuthorKey = buffer.usesAuthorKey
        if buffer.usesAuthorKey { context.authorKeyDigest = LaunchDigest(SHA384.hash(authentication.authorKey.bytes)) }
        return .success
    }

    private func isSigned(_ message: [UInt8], by field: PublicKeyField, _ signature: SignatureField) -> Bool {
        guard field.curve == PublicKeyField.p384, let key = P384PublicKey(littleEndianX: field.x, y: field.y) else {
            return false
        }
        return key.isValidSignature(littleEndianR: signature.r, s: signature.s, of: message)
    }
}
