// SNP_LAUNCH_START: the guest gets its policy and its keys.

import SEVABI

extension Firmware {
    /// SNP_LAUNCH_START [SNP 8.16].
    ///
    /// - Returns: INVALID_GUEST_STATE unless the context is fresh; INVALID_PARAM for reserved bits; POLICY_FAILURE when
    ///   the platform cannot keep the policy; UNSUPPORTED for migration agents and images.
    mutating func launchStart(_ buffer: SNPLaunchStart) -> SEVStatus {
        withContext(at: buffer.context) { firmware, context in
            guard context.state == .initial else { return .invalidGuestState }
            guard buffer.hasValidReservedBits, buffer.policy.hasValidReservedBits,
                firmware.knows(buffer.policy)
            else { return .invalidParameter }
            guard firmware.platformMeets(buffer.policy) else { return .policyFailure }
            if buffer.hasMigrationAgent, !buffer.policy.allowsMigrationAgent { return .policyFailure }
            if buffer.hasMigrationAgent || buffer.hasIMI { return .unsupported }
            context.policy = buffer.policy
            context.gosvw = buffer.gosvw
            context.desiredTSCKHz = buffer.desiredTSCKHz
            context.memoryKey = firmware.entropy.bytes(buffer.policy.requiresAES256 ? 64 : 32)
            context.messageKeys = (0..<4).map { _ in firmware.entropy.bytes(SecretsPage.keyByteCount) }
            context.reportID = firmware.entropy.bytes(32)
            context.migrationRootKey = firmware.entropy.bytes(32)
            context.launchTCB = firmware.profile.currentTCB
            context.launchMitigationVector = firmware.profile.mitigationVector
            context.state = .launch
            return .success
        }
    }

    /// PAGE_SWAP_DISABLE came with ABI 1.58 and is a reserved bit before.
    private func knows(_ policy: GuestPolicy) -> Bool {
        !policy.disablesPageSwap || (profile.apiMajor, profile.apiMinor) >= (1, 58)
    }

    private func platformMeets(_ policy: GuestPolicy) -> Bool {
        if (policy.minimumABIMajor, policy.minimumABIMinor) > (profile.apiMajor, profile.apiMinor) { return false }
        if profile.smtEnabled, !policy.allowsSMT { return false }
        if policy.requiresSingleSocket, profile.socketCount > 1 { return false }
        if policy.requiresAES256, !profile.supportsAES256 { return false }
        if policy.requiresRAPLDisabled, !profile.raplDisabled { return false }
        if policy.requiresCiphertextHiding, !profile.ciphertextHiding { return false }
        return true
    }
}
