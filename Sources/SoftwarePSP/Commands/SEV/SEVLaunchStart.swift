// LAUNCH_START of SEV and SEV-ES: a guest gets its policy, its memory key, and its owner's transport keys.

import Crypto
import MemoryController
import SEVABI

extension Firmware {
    /// LAUNCH_START [SEV 6.2].
    ///
    /// - Returns: INVALID_PLATFORM_STATE when UNINIT; INVALID_PARAM for reserved policy bits; POLICY_FAILURE for a later
    ///   API than this firmware's, for SEV-ES that INIT did not configure, and for sharing a key with a guest of another
    ///   policy or where one of the two forbids it; INVALID_GUEST for an unknown guest to share with; INVALID_ADDRESS
    ///   for a certificate without a session, a session without a certificate, or one outside memory; INVALID_LENGTH;
    ///   INVALID_CERTIFICATE unless it is a P-384 key for Diffie-Hellman; BAD_MEASUREMENT when the session is not for
    ///   this platform's PDH or not for this policy; RESOURCE_LIMIT. The new handle is written on success only.
    mutating func launchStart(_ buffer: inout SEVLaunchStart) -> SEVStatus {
        guard sevPlatformState != .uninitialized else { return .invalidPlatformState }
        let policy = SEVPolicy(rawValue: buffer.policy)
        guard policy.hasValidReservedBits else { return .invalidParameter }
        guard (policy.minimumAPIMajor, policy.minimumAPIMinor) <= (profile.apiMajor, profile.apiMinor),
            !policy.requiresEncryptedState || isESConfigured
        else { return .policyFailure }
        var sharedKey: SecretBytes?
        if buffer.handle != 0 {
            guard let other = guests[buffer.handle] else { return .invalidGuest }
            guard other.policy == policy, policy.allowsKeySharing else { return .policyFailure }
            sharedKey = other.memoryKey
        }
        guard guests.count < profile.maximumSEVGuestCount, let handle = freeHandle() else { return .resourceLimit }
        let transportKeys: TransportKeys
        switch ownerKeys(buffer, policy) {
        case .success(let keys): transportKeys = keys ?? TransportKeys(from: &entropy)
        case .failure(let error): return error.status
        }
        let memoryKey: SecretBytes
        if let sharedKey {
            memoryKey = sharedKey
        } else {
            var bytes = entropy.bytes(32)
            memoryKey = SecretBytes(taking: &bytes)
        }
        guests[handle] = SEVGuestContext(policy: policy, memoryKey: memoryKey, transportKeys: transportKeys)
        lastHandle = handle
        buffer.handle = handle
        return .success
    }

    /// Handles are not used again until all numbers have been: a stale one finds nobody.
    private func freeHandle() -> UInt32? {
        var handle = lastHandle
        // Safe: one more candidate than guests.
        for _ in 0...guests.count {
            handle = handle == .max ? 1 : handle + 1
            if guests[handle] == nil { return handle }
        }
        return nil
    }

    /// The owner's keys; nil when there is no owner.
    private mutating func ownerKeys(
        _ buffer: SEVLaunchStart, _ policy: SEVPolicy
    ) -> Result<TransportKeys?, StatusError> {
        if buffer.certificateAddress == .zero, buffer.sessionAddress == .zero { return .success(nil) }
        guard buffer.certificateAddress != .zero, buffer.sessionAddress != .zero else {
            return .failure(.init(.invalidAddress))
        }
        guard buffer.certificateByteCount == UInt32(SEVCertificate.byteCount),
            buffer.sessionByteCount == UInt32(SEVLaunchSessionBlob.byteCount)
        else { return .failure(.init(.invalidLength)) }
        guard let certificate = certificate(at: buffer.certificateAddress),
            let bytes = memory.firmwareRead(buffer.sessionAddress, byteCount: SEVLaunchSessionBlob.byteCount),
            let session = SEVLaunchSessionBlob(bytes: bytes)
        else { return .failure(.init(.invalidAddress)) }
        // Its signatures are not looked at: the owner needs nobody's word for a key of his own.
        guard certificate.version == SEVCertificate.currentVersion, certificate.usage == .pdh,
            certificate.algorithm == .ecdhSHA256, certificate.hasZeroPadding, let key = certificate.p384Key
        else { return .failure(.init(.invalidCertificate)) }
        guard var secret = withIdentity({ $0.pdh.sharedSecret(with: key) }) else {
            return .failure(.init(.invalidCertificate))
        }
        defer { wipe(&secret) }
        guard let keys = TransportKeys(session, policy: policy, sharedSecret: secret) else {
            return .failure(.init(.badMeasurement))
        }
        return .success(keys)
    }
}
