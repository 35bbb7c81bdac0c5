// Where the software platform's identity lives between two processes: a guest owner makes a session for one platform, and
// the run that uses it must be on the same.
//
//     $XDG_STATE_HOME/swift-snp-vmm/platform        keys and owner, mode 0600
//                                   platform.lock   held while a platform is looked for and made

import CProcess
import Crypto
import KVMABI
import SNPVMM
import SoftwarePSP

/// The folder with the software platform's state.
struct PlatformStateFolder {
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

    /// The state, made if there is none yet; changes are written back as they happen.
    func storage() throws(CommandFailure) -> PlatformStorage {
        let folder = withPath(path) { folder_create_private($0) }
        guard folder >= 0 else { throw failure("make the folder", path, folder) }
        // Two processes that start a first time must not make two platforms.
        let lock = withPath(file + ".lock") { file_lock($0) }
        guard lock >= 0 else { throw failure("lock", file + ".lock", lock) }
        defer { file_close(lock) }
        var bytes: [UInt8] = []
        let existing = withPath(file) { file_open($0) }
        if existing >= 0 {
            file_close(existing)
            bytes = try InputFile(path: file).read(as: "the platform's state")
        } else if existing != -Errno.ENOENT.rawValue {
            throw failure("open", file, existing)
        }
        defer { wipe(&bytes) }
        do {
            return try PlatformStorage(bytes: bytes) { [self] in save($0) }
        } catch {
            throw CommandFailure(status: .badInput, message: "\(file): \(error).")
        }
    }

    /// Replaces the file at once, so no reader sees half of it. A failure is told and not thrown: the firmware has carried
    /// the command out.
    private func save(_ state: [UInt8]) {
        let result = withPath(file) { path in
            withKernelAddress(of: state) { file_replace_private(path, $0, UInt64(state.count)) }
        }
        if result < 0 {
            StandardError.write(
                line: "warning: could not keep the platform's state in \(file): \(Errno(rawValue: -result)). Sessions "
                    + "made for this platform will be refused next time.")
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
