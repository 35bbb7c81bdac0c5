// Where the software platform's identity lives between two processes: a guest owner makes a session for one platform, and
// the run that uses it must be on the same; reports are verified with certificates that another process has exported.
//
//     $XDG_STATE_HOME/swift-snp-vmm/platform        keys, owner and settings, mode 0600
//                                   platform.lock   held while the platform is made or changed
//                                   manufacturer    32 bytes: the seed of who signs this platform's chip, mode 0600
//                                   certificates    the certificate table that guests got last, for the next run

import CProcess
import Crypto
import KVMABI
import SNPVMM
import SoftwarePSP

/// The folder with the software platform's state.
struct PlatformStateFolder: PlatformStore {
    let path: String

    /// - Parameter path: `--platform-state`; nil takes the user's own folder for such things.
    init(_ path: String?) throws(CommandFailure) {
        if let path {
            self.path = path
        } else if let state = Self.variable("XDG_STATE_HOME"), state.hasPrefix("/") {
            self.path = state + "/swift-snp-vmm"
        } else if let home = Self.variable("HOME"), home.hasPrefix("/") {
            self.path = home + "/.local/state/swift-snp-vmm"
        } else {
            throw CommandFailure(
                status: .badInput,
                message:
                    "could not find a folder for the software platform's state: neither XDG_STATE_HOME nor HOME is "
                    + "an absolute path. Next step: pass --platform-state DIR.")
        }
    }

    private var file: String { path + "/platform" }
    private var manufacturerFile: String { path + "/manufacturer" }
    private var certificatesFile: String { path + "/certificates" }

    /// There is a platform in the folder.
    var hasPlatform: Bool { InputFile(path: file).exists }

    /// Makes the folder if need be.
    func create() throws(CommandFailure) {
        let folder = withPath(path) { folder_create_private($0) }
        guard folder >= 0 else { throw failure("make the folder", path, folder) }
    }

    /// The state, made if there is none yet; changes are written back as they happen.
    ///
    /// - Parameters:
    ///   - seed: A new platform's keys all follow from it; nil for random ones.
    ///   - settings: Of a new platform.
    func storage(
        seed: String? = nil, settings: PlatformSettings = PlatformSettings(of: .milan)
    ) throws(CommandFailure) -> PlatformStorage {
        do {
            let entropy = seed.map { Entropy.seed(Array($0.utf8)) } ?? .system
            return try PlatformStorage(self, entropy: entropy, settings: settings)
        } catch {
            throw explained(error)
        }
    }

    /// What a command ends with.
    func explained(_ error: PlatformStorageError) -> CommandFailure {
        CommandFailure(status: .badInput, message: "\(file): \(error).")
    }

    // MARK: PlatformStore

    func update(
        _ change: ([UInt8]) throws(PlatformStorageError) -> [UInt8]?
    ) throws(PlatformStorageError) {
        var bytes: [UInt8]
        let lock: Int32
        do throws(CommandFailure) {
            lock = try self.lock()
            bytes = try contents(of: file, "the platform's state")
        } catch { throw .notKept(error.message) }
        defer {
            wipe(&bytes)
            file_close(lock)
        }
        guard var new = try change(bytes) else { return }
        defer { wipe(&new) }
        // Replaced at once, so no reader sees half of it.
        let result = replace(file, new)
        if result < 0 { throw .notKept("writing \(file): \(Errno(rawValue: -result))") }
    }

    func report(_ error: PlatformStorageError) { StandardError.write(line: "warning: \(file): \(error).") }

    // MARK: The manufacturer and its certificates

    /// The seed of this platform's manufacturer, made if there is none yet.
    func manufacturerSeed(seed: String? = nil) throws(CommandFailure) -> [UInt8] {
        let lock = try lock()
        defer { file_close(lock) }
        var bytes = try contents(of: manufacturerFile, "the manufacturer's seed")
        if bytes.isEmpty {
            bytes =
                seed.map { HMACSHA256.authenticate(Array($0.utf8), key: Array("manufacturer".utf8)) } ?? randomBytes(32)
            let result = replace(manufacturerFile, bytes)
            if result < 0 { throw failure("write", manufacturerFile, result) }
        }
        guard bytes.count == 32 else {
            throw CommandFailure(
                status: .badInput,
                message:
                    "could not use \(manufacturerFile): \(bytes.count) bytes, expected 32. Likely cause: a damaged file. "
                    + "Next step: restore it, or remove it for a new manufacturer (export the certificates again).")
        }
        return bytes
    }

    /// What was written last into ``openCertificatesToKeep()``; empty when there is nothing, or nothing that can be read.
    func keptCertificates() -> [UInt8] {
        (try? contents(of: certificatesFile, "the platform's certificates")) ?? []
    }

    /// Opens the file for bytes that can be made again.
    /// - Returns: Its descriptor, or a negated errno: not keeping them costs time only.
    func openCertificatesToKeep() -> Int32 { withPath(certificatesFile) { file_open_private($0) } }

    // MARK: Files

    /// One process at a time changes what is in the folder: two that start a first time must not make two platforms.
    private func lock() throws(CommandFailure) -> Int32 {
        try create()
        let lock = withPath(file + ".lock") { file_lock($0) }
        guard lock >= 0 else { throw failure("lock", file + ".lock", lock) }
        return lock
    }

    /// The whole file; empty when there is none.
    private func contents(of file: String, _ purpose: String) throws(CommandFailure) -> [UInt8] {
        let existing = withPath(file) { file_open($0) }
        if existing == -Errno.ENOENT.rawValue { return [] }
        guard existing >= 0 else { throw failure("open", file, existing) }
        file_close(existing)
        return try InputFile(path: file).read(as: purpose)
    }

    private func replace(_ path: String, _ bytes: [UInt8]) -> Int32 {
        withPath(path) { path in
            withKernelAddress(of: bytes) { file_replace_private(path, $0, UInt64(bytes.count)) }
        }
    }

    private static func variable(_ name: String) -> String? {
        var bytes = [UInt8](repeating: 0, count: 4096)
        let count = withKernelAddress(of: Array(name.utf8) + [0]) { name in
            withKernelAddress(ofMutable: &bytes) { process_environment(name, $0, 4096) }
        }
        return count < 0 ? nil : String(decoding: bytes.prefix(Int(count)), as: UTF8.self)
    }

    private func withPath(_ path: String, _ body: (UInt64) -> Int32) -> Int32 {
        withKernelAddress(of: Array(path.utf8) + [0]) { body($0) }
    }

    private func failure(_ what: String, _ path: String, _ result: Int32) -> CommandFailure {
        CommandFailure(
            status: .badInput,
            message: "could not \(what) \(path) for the software platform's state: \(Errno(rawValue: -result)). Likely "
                + "cause: a missing permission. Next step: choose another folder with --platform-state.")
    }
}
