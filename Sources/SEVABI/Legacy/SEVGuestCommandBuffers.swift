// The command buffers of SEV and SEV-ES guests: `sev_data_*` of the kernel's driver [SEV 6, 7], read and written as those of
// the platform.

/// DECOMMISSION, DEACTIVATE, LAUNCH_FINISH, 4 bytes: the guest's handle.

public struct SEVHandleBuffer: Equatable, Sendable {
    public static let byteCount = 4

    public var handle: UInt32  // 0x00

    public init(handle: UInt32) {
        self.handle = handle
    }

    public init?(bytes: [UInt8]) {
        guard bytes.count >= Self.byteCount else { return nil }
        handle = bytes.field(0)
    }

    public var bytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes.setField(0, handle)
        return bytes
    }
}

/// ACTIVATE, 8 bytes [SEV 6.1].
public struct SEVActivate: Equatable, Sendable {
    public static let byteCount = 8

    public var handle: UInt32  // 0x00
    public var asid: UInt32  // 0x04

    public init(handle: UInt32, asid: UInt32) {
        self.handle = handle
        self.asid = asid
    }

    public init?(bytes: [UInt8]) {
        guard bytes.count >= Self.byteCount else { return nil }
        handle = bytes.field(0)
        asid = bytes.field(4)
    }

    public var bytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes.setField(0, handle)
        bytes.setField(4, asid)
        return bytes
    }
}

/// GUEST_STATUS, 13 bytes [SEV 6.16]: everything behind the handle comes back.
public struct SEVGuestStatus: Equatable, Sendable {
    public static let byteCount = 13

    public var handle: UInt32  // 0x00
    /// ``SEVPolicy``.
    public var policy: UInt32  // 0x04
    /// 0 while no ASID is bound.
    public var asid: UInt32  // 0x08
    public var state: SEVGuestState  // 0x0c

    public init(handle: UInt32, policy: UInt32 = 0, asid: UInt32 = 0, state: SEVGuestState = .uninitialized) {
        self.handle = handle
        self.policy = policy
        self.asid = asid
        self.state = state
    }

    public init?(bytes: [UInt8]) {
        guard bytes.count >= Self.byteCount else { return nil }
        handle = bytes.field(0)
        policy = bytes.field(4)
        asid = bytes.field(8)
        state = SEVGuestState(rawValue: bytes[12])
    }

    public var bytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes.setField(0, handle)
        bytes.setField(4, policy)
        bytes.setField(8, asid)
        bytes.setField(12, state.rawValue)
        return bytes
    }
}

/// GSTATE: where an SEV or SEV-ES guest is in its life [SEV 6.17].
public struct SEVGuestState: RawRepresentable, Hashable, Sendable {
    public var rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// UNINIT: there is no such guest.
    public static let uninitialized = SEVGuestState(rawValue: 0)
    /// LUPDATE, after LAUNCH_START.
    public static let launchUpdate = SEVGuestState(rawValue: 1)
    /// LSECRET, after LAUNCH_MEASURE.
    public static let launchSecret = SEVGuestState(rawValue: 2)
    /// RUNNING, after LAUNCH_FINISH.
    public static let running = SEVGuestState(rawValue: 3)
    /// SUPDATE, after SEND_START.
    public static let sendUpdate = SEVGuestState(rawValue: 4)
    /// RUPDATE, after RECEIVE_START.
    public static let receiveUpdate = SEVGuestState(rawValue: 5)
    /// SENT, after SEND_FINISH.
    public static let sent = SEVGuestState(rawValue: 6)
}

/// LAUNCH_START, 36 bytes [SEV 6.2].
public struct SEVLaunchStart: Equatable, Sendable {
    public static let byteCount = 36

    /// In: 0, or a guest whose key is to be shared. Out: the new guest.
    public var handle: UInt32  // 0x00
    /// ``SEVPolicy``.
    public var policy: UInt32  // 0x04
    /// The guest owner's Diffie-Hellman certificate (GODH); 0 = the firmware makes its own session keys.
    public var certificateAddress: SPA  // 0x08
    public var certificateByteCount: UInt32  // 0x10
    public var sessionAddress: SPA  // 0x18
    public var sessionByteCount: UInt32  // 0x20

    public init(
        handle: UInt32 = 0, policy: UInt32, certificateAddress: SPA = .zero, certificateByteCount: UInt32 = 0,
        sessionAddress: SPA = .zero, sessionByteCount: UInt32 = 0
    ) {
        self.handle = handle
        self.policy = policy
        self.certificateAddress = certificateAddress
        self.certificateByteCount = certificateByteCount
        self.sessionAddress = sessionAddress
        self.sessionByteCount = sessionByteCount
    }

    public init?(bytes: [UInt8]) {
        guard bytes.count >= Self.byteCount else { return nil }
        handle = bytes.field(0)
        policy = bytes.field(4)
        certificateAddress = SPA(rawValue: bytes.field(8))
        certificateByteCount = bytes.field(16)
        sessionAddress = SPA(rawValue: bytes.field(24))
        sessionByteCount = bytes.field(32)
    }

    public var bytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes.setField(0, handle)
        bytes.setField(4, policy)
        bytes.setField(8, certificateAddress.rawValue)
        bytes.setField(16, certificateByteCount)
        bytes.setField(24, sessionAddress.rawValue)
        bytes.setField(32, sessionByteCount)
        return bytes
    }
}

/// LAUNCH_UPDATE_DATA and LAUNCH_UPDATE_VMSA, 20 bytes [SEV 6.3, 6.4].
public struct SEVLaunchUpdate: Equatable, Sendable {
    public static let byteCount = 20

    public var handle: UInt32  // 0x00
    public var address: SPA  // 0x08
    public var byteCount: UInt32  // 0x10

    public init(handle: UInt32, address: SPA, byteCount: UInt32) {
        self.handle = handle
        self.address = address
        self.byteCount = byteCount
    }

    public init?(bytes: [UInt8]) {
        guard bytes.count >= Self.byteCount else { return nil }
        handle = bytes.field(0)
        address = SPA(rawValue: bytes.field(8))
        byteCount = bytes.field(16)
    }

    public var bytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes.setField(0, handle)
        bytes.setField(8, address.rawValue)
        bytes.setField(16, byteCount)
        return bytes
    }
}

/// LAUNCH_MEASURE, 20 bytes [SEV 6.5]; the needed length comes back.
public struct SEVLaunchMeasure: Equatable, Sendable {
    public static let byteCount = 20

    public var handle: UInt32  // 0x00
    public var address: SPA  // 0x08
    public var byteCount: UInt32  // 0x10

    public init(handle: UInt32, address: SPA = .zero, byteCount: UInt32 = 0) {
        self.handle = handle
        self.address = address
        self.byteCount = byteCount
    }

    public init?(bytes: [UInt8]) {
        guard bytes.count >= Self.byteCount else { return nil }
        handle = bytes.field(0)
        address = SPA(rawValue: bytes.field(8))
        byteCount = bytes.field(16)
    }

    public var bytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes.setField(0, handle)
        bytes.setField(8, address.rawValue)
        bytes.setField(16, byteCount)
        return bytes
    }
}

/// LAUNCH_SECRET, 52 bytes [SEV 6.6].
public struct SEVLaunchSecret: Equatable, Sendable {
    public static let byteCount = 52

    public var handle: UInt32  // 0x00
    public var headerAddress: SPA  // 0x08
    public var headerByteCount: UInt32  // 0x10
    /// Where the plaintext goes, encrypted with the guest's key.
    public var guestAddress: SPA  // 0x18
    public var guestByteCount: UInt32  // 0x20
    /// The ciphertext of the guest owner.
    public var transportAddress: SPA  // 0x28
    public var transportByteCount: UInt32  // 0x30

    public init(
        handle: UInt32, headerAddress: SPA, headerByteCount: UInt32 = 52, guestAddress: SPA, guestByteCount: UInt32,
        transportAddress: SPA, transportByteCount: UInt32
    ) {
        self.handle = handle
        self.headerAddress = headerAddress
        self.headerByteCount = headerByteCount
        self.guestAddress = guestAddress
        self.guestByteCount = guestByteCount
        self.transportAddress = transportAddress
        self.transportByteCount = transportByteCount
    }

    public init?(bytes: [UInt8]) {
        guard bytes.count >= Self.byteCount else { return nil }
        handle = bytes.field(0)
        headerAddress = SPA(rawValue: bytes.field(8))
        headerByteCount = bytes.field(16)
        guestAddress = SPA(rawValue: bytes.field(24))
        guestByteCount = bytes.field(32)
        transportAddress = SPA(rawValue: bytes.field(40))
        transportByteCount = bytes.field(48)
    }

    public var bytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes.setField(0, handle)
        bytes.setField(8, headerAddress.rawValue)
        bytes.setField(16, headerByteCount)
        bytes.setField(24, guestAddress.rawValue)
        bytes.setField(32, guestByteCount)
        bytes.setField(40, transportAddress.rawValue)
        bytes.setField(48, transportByteCount)
        return bytes
    }
}

/// ATTESTATION, 36 bytes [SEV 6.8]; the needed length comes back.
public struct SEVAttestation: Equatable, Sendable {
    public static let byteCount = 36

    public var handle: UInt32  // 0x00
    public var address: SPA  // 0x08
    /// MNONCE, chosen by who asks.
    public var nonce: [UInt8]  // 0x10
    public var byteCount: UInt32  // 0x20

    public init(handle: UInt32, address: SPA = .zero, nonce: [UInt8], byteCount: UInt32 = 0) {
        precondition(nonce.count == 16, "nonce has 16 bytes, not \(nonce.count)")
        self.handle = handle
        self.address = address
        self.nonce = nonce
        self.byteCount = byteCount
    }

    public init?(bytes: [UInt8]) {
        guard bytes.count >= Self.byteCount else { return nil }
        handle = bytes.field(0)
        address = SPA(rawValue: bytes.field(8))
        nonce = Array(bytes[16..<32])
        byteCount = bytes.field(32)
    }

    public var bytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes.setField(0, handle)
        bytes.setField(8, address.rawValue)
        bytes.setBytes(16, nonce)
        bytes.setField(32, byteCount)
        return bytes
    }
}

/// DBG_DECRYPT and DBG_ENCRYPT, 28 bytes [SEV 7.1, 7.2].
public struct SEVDebug: Equatable, Sendable {
    public static let byteCount = 28

    public var handle: UInt32  // 0x00
    public var source: SPA  // 0x08
    public var destination: SPA  // 0x10
    public var byteCount: UInt32  // 0x18

    public init(handle: UInt32, source: SPA, destination: SPA, byteCount: UInt32) {
        self.handle = handle
        self.source = source
        self.destination = destination
        self.byteCount = byteCount
    }

    public init?(bytes: [UInt8]) {
        guard bytes.count >= Self.byteCount else { return nil }
        handle = bytes.field(0)
        source = SPA(rawValue: bytes.field(8))
        destination = SPA(rawValue: bytes.field(16))
        byteCount = bytes.field(24)
    }

    public var bytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes.setField(0, handle)
        bytes.setField(8, source.rawValue)
        bytes.setField(16, destination.rawValue)
        bytes.setField(24, byteCount)
        return bytes
    }
}
