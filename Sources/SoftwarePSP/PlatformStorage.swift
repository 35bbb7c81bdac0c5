// The chip's own storage: what survives when the machine is switched off.
//
// Whoever starts a machine says where the bytes are. A guest owner makes a session for one PDH and verifies reports of one
// chip, so the process that launches must have the same platform as the one that exported the certificates.

import Crypto
import SEVABI
import Synchronization

/// Why bytes are no platform state, or cannot be kept.
public enum PlatformStorageError: Error, Equatable, Sendable, CustomStringConvertible {
    /// Neither 4392 nor 4816 bytes, or another magic number.
    case notPlatformState(byteCount: Int)
    /// Of a later program.
    case version(UInt32)
    /// The checksum or a value does not fit.
    case damaged(String)
    /// Another chip's state has taken the place of this one's.
    case replaced
    /// The store could not read or write; what came back.
    case notKept(String)

    public var description: String {
        switch self {
        case .notPlatformState(let count):
            "cannot use \(count) bytes as platform state: it has \(StoredPlatform.byteCounts.0) or "
                + "\(StoredPlatform.byteCounts.1) and begins with SNPVMPSP. "
                + "Likely another file; name the right one, or remove it to start with a new platform"
        case .version(let version):
            "cannot use platform state of version \(version): this program knows versions 1 and 2. Likely a later "
                + "program wrote it; use that one, or remove the state to start with a new platform"
        case .damaged(let what):
            "cannot use the platform state: \(what). Likely the file was damaged; restore it, or remove it to start with "
                + "a new platform (sessions made for the old one will be refused)"
        case .replaced:
            "cannot change the platform state: it is another platform's now. Likely somebody removed it while this "
                + "process ran; start again"
        case .notKept(let what):
            "cannot keep the platform state: \(what). Likely a missing permission or a full disk; what was to be changed "
                + "has stayed as it was"
        }
    }
}

/// Where a platform's state is kept. Any number of processes may have the same.
public protocol PlatformStore: Sendable {
    /// Changes the state: nobody else changes it between the call of `change` and the end of this one.
    ///
    /// The state contains private keys: nobody else may read it.
    ///
    /// - Parameter change: Is given what is kept, nothing the first time, and returns what to keep; nil: all stays as it
    ///   is. Called once. What it throws is passed on, and nothing changes.
    /// - Throws: `notKept`.
    func update(
        _ change: ([UInt8]) throws(PlatformStorageError) -> [UInt8]?
    ) throws(PlatformStorageError)

    /// Is told of an error that a command of the firmware met: its status alone says no more than HWERROR_PLATFORM.
    func report(_ error: PlatformStorageError)
}

/// The persistent state of a platform, as it was when it was opened, and how changes of it are kept.
public struct PlatformStorage: Sendable {
    let stored: StoredPlatform
    let store: any PlatformStore

    /// Opens a store, and makes a new chip where there is none.
    ///
    /// - Parameters:
    ///   - entropy: Where the keys of a new chip come from.
    ///   - settings: Of a new chip. Nil: it has those of the machine that it is put into.
    public init(
        _ store: any PlatformStore, entropy: Entropy = .system, settings: PlatformSettings? = nil
    ) throws(PlatformStorageError) {
        var found: StoredPlatform?
        try store.update { (bytes) throws(PlatformStorageError) in
            if !bytes.isEmpty {
                found = try StoredPlatform(bytes: bytes)
                return nil
            }
            var source = EntropySource(entropy)
            let new = StoredPlatform(identity: PlatformIdentity(from: &source), settings: settings)
            found = new
            return new.bytes
        }
        guard let found else { throw .notKept("the store did not say what it has") }
        self.stored = found
        self.store = store
    }

    /// A platform that nobody else has.
    ///
    /// - Parameters:
    ///   - bytes: What `save` was last given; empty for a chip that is switched on for the first time.
    ///   - entropy: Where the keys of a new chip come from.
    ///   - settings: Of a new chip. Nil: it has those of the machine that it is put into.
    ///   - save: Keeps the state. Called before this returns for a new chip, and by the commands that change something, one
    ///     at a time, on their thread.
    public init(
        bytes: [UInt8], entropy: Entropy = .system, settings: PlatformSettings? = nil,
        save: @escaping @Sendable ([UInt8]) -> Void
    ) throws(PlatformStorageError) {
        try self.init(MemoryStore(bytes, save), entropy: entropy, settings: settings)
    }

    /// Product, versions and configuration; nil: those of the machine.
    public var settings: PlatformSettings? { stored.settings }

    var identity: PlatformIdentity { stored.identity }

    /// Changes the settings that are kept now, whoever has changed them since this was opened.
    ///
    /// - Parameters:
    ///   - initial: What a platform without settings has.
    ///   - change: One of the changes of ``PlatformSettings``; its status decides.
    /// - Returns: What `change` returned. Nothing is kept unless that is SUCCESS.
    public func changeSettings(
        initial: PlatformSettings = PlatformSettings(of: .milan), _ change: (inout PlatformSettings) -> SEVStatus
    ) throws(PlatformStorageError) -> SEVStatus {
        var status = SEVStatus.success
        try store.update { (bytes) throws(PlatformStorageError) in
            var kept = try StoredPlatform(bytes: bytes)
            guard kept.identity.chipSeed == identity.chipSeed else { throw .replaced }
            var settings = kept.settings ?? initial
            status = change(&settings)
            guard status == .success else { return nil }
            kept.settings = settings
            return kept.bytes
        }
        return status
    }

    /// Keeps what a running firmware has changed.
    func keep(from base: StoredPlatform, to new: StoredPlatform) throws(PlatformStorageError) {
        try store.update { (bytes) throws(PlatformStorageError) in
            try StoredPlatform(bytes: bytes).merging(from: base, to: new).bytes
        }
    }

    /// The same state with another Diffie-Hellman key: for known answers.
    ///
    /// - Parameter pdh: The private number, 48 bytes big-endian.
    package static func replacing(pdh: [UInt8], in bytes: [UInt8]) -> [UInt8]? {
        guard var stored = try? StoredPlatform(bytes: bytes), let key = P384PrivateKey(bigEndianScalar: pdh) else {
            return nil
        }
        stored.identity.pdh = key
        return stored.bytes
    }
}

/// A store of one process. It has no errors to report.
private final class MemoryStore: PlatformStore {
    private let bytes: Mutex<[UInt8]>
    private let save: @Sendable ([UInt8]) -> Void

    init(_ bytes: [UInt8], _ save: @escaping @Sendable ([UInt8]) -> Void) {
        self.bytes = Mutex(bytes)
        self.save = save
    }

    deinit { bytes.withLock { wipe(&$0) } }

    func update(
        _ change: ([UInt8]) throws(PlatformStorageError) -> [UInt8]?
    ) throws(PlatformStorageError) {
        let kept = try bytes.withLock { (bytes) throws(PlatformStorageError) -> [UInt8]? in
            guard let new = try change(bytes) else { return nil }
            bytes = new
            return new
        }
        if let kept { save(kept) }
    }

    func report(_ error: PlatformStorageError) {}
}
