// The session buffer of LAUNCH_START: the owner's transport keys, wrapped for one platform.

/// Session data, 128 bytes [SEV 6.2.1].
public struct SEVLaunchSessionBlob: Equatable, Sendable {
    public static let byteCount = 128

    /// NONCE, 16 bytes: goes into the master secret.
    public var nonce: [UInt8]  // 0x00
    /// WRAP_TK, 32 bytes: TEK ‖ TIK under the KEK.
    public var wrappedKeys: [UInt8]  // 0x10
    /// WRAP_IV, 16 bytes: the first counter block.
    public var wrapIV: [UInt8]  // 0x30
    /// WRAP_MAC, 32 bytes: over WRAP_TK, by the KIK.
    public var wrapMAC: [UInt8]  // 0x40
    /// POLICY_MAC, 32 bytes: over the policy, by the TIK.
    public var policyMAC: [UInt8]  // 0x60

    /// Another length of any field is a programmer error.
    public init(nonce: [UInt8], wrappedKeys: [UInt8], wrapIV: [UInt8], wrapMAC: [UInt8], policyMAC: [UInt8]) {
        self.nonce = nonce
        self.wrappedKeys = wrappedKeys
        self.wrapIV = wrapIV
        self.wrapMAC = wrapMAC
        self.policyMAC = policyMAC
        precondition(
            [nonce, wrappedKeys, wrapIV, wrapMAC, policyMAC].map(\.count) == [16, 32, 16, 32, 32],
            "the fields of a session have 16, 32, 16, 32 and 32 bytes")
    }

    /// Returns nil unless there are exactly 128 bytes.
    public init?(bytes: [UInt8]) {
        guard bytes.count == Self.byteCount else { return nil }
        nonce = Array(bytes[0x00..<0x10])
        wrappedKeys = Array(bytes[0x10..<0x30])
        wrapIV = Array(bytes[0x30..<0x40])
        wrapMAC = Array(bytes[0x40..<0x60])
        policyMAC = Array(bytes[0x60..<0x80])
    }

    public var bytes: [UInt8] { nonce + wrappedKeys + wrapIV + wrapMAC + policyMAC }
}
