// Files and standard error, over CProcess: bytes in arrays, errors with a cause and a next step.

import ArgumentParser
import CProcess
import GuestImage
import KVMABI
import SNPVMM
import Synchronization

/// A file given on the command line.
struct InputFile {
    /// No image needs more; a larger file is a mistake.
    static let maximumByteCount: Int64 = 4 << 30

    let path: String

    /// The whole file.
    ///
    /// - Parameter purpose: "the kernel", for messages.
    func read(as purpose: String) throws(CommandFailure) -> [UInt8] {
        let file = try OpenFile(self, purpose)
        let bytes = file.read(at: 0, byteCount: Int(file.byteCount), paddedTo: 0)
        if let errno = file.failure { throw failure(purpose, errno) }
        // A file that shrank while it was read is as long as what there was.
        return bytes.count == file.readByteCount ? bytes : Array(bytes.prefix(file.readByteCount))
    }

    /// Runs `body` with the file as an image that is read where it is looked at.
    func image<Result>(as purpose: String, _ body: (ImageSource) throws -> Result) throws -> Result {
        let file = try OpenFile(self, purpose)
        let source = ImageSource(byteCount: UInt64(file.byteCount)) { file.read(at: $0, byteCount: $1, paddedTo: $2) }
        // What could not be read explains what seems to be wrong with the image.
        do {
            let result = try body(source)
            if let errno = file.failure { throw failure(purpose, errno) }
            return result
        } catch {
            if let errno = file.failure { throw failure(purpose, errno) }
            throw error
        }
    }

    /// The file while it is read.
    private final class OpenFile: Sendable {
        private let descriptor: Int32
        let byteCount: Int64
        private let state = Mutex<(failure: Errno?, readByteCount: Int)>((nil, 0))
        /// The first read that the system refused.
        var failure: Errno? { state.withLock { $0.failure } }
        /// What the last read gave.
        var readByteCount: Int { state.withLock { $0.readByteCount } }

        init(_ file: InputFile, _ purpose: String) throws(CommandFailure) {
            let descriptor = file.withPath { file_open($0) }
            guard descriptor >= 0 else { throw file.failure(purpose, Errno(rawValue: -descriptor)) }
            let byteCount = file_byte_count(descriptor)
            guard byteCount >= 0, byteCount <= InputFile.maximumByteCount else {
                file_close(descriptor)
                guard byteCount < 0 else {
                    throw CommandFailure(
                        status: .badInput,
                        message: "could not read \(purpose) from \(file.path): \(byteCount) bytes, expected at most "
                            + "\(InputFile.maximumByteCount). Likely cause: a disk image in its place. Next step: give the "
                            + "right file.")
                }
                throw file.failure(purpose, Errno(rawValue: Int32(truncatingIfNeeded: -byteCount)))
            }
            self.descriptor = descriptor
            self.byteCount = byteCount
        }

        deinit { file_close(descriptor) }

        func read(at offset: UInt64, byteCount: Int, paddedTo paddedByteCount: Int) -> [UInt8] {
            [UInt8](count: max(byteCount, paddedByteCount)) { address in
                let count = file_read_at(descriptor, address, UInt64(byteCount), offset)
                return state.withLock { state in
                    if count < 0, state.failure == nil {
                        state.failure = Errno(rawValue: Int32(truncatingIfNeeded: -count))
                    }
                    state.readByteCount = Int(max(0, count))
                    return state.readByteCount
                }
            }
        }
    }

    /// The whole file, which must be this long.
    func read(as purpose: String, byteCount: Int) throws(CommandFailure) -> [UInt8] {
        let bytes = try read(as: purpose)
        guard bytes.count == byteCount else {
            throw CommandFailure(
                status: .badInput,
                message: "could not use \(path) as \(purpose): \(bytes.count) bytes, expected \(byteCount). Likely "
                    + "cause: another file in its place, or one that is cut off. Next step: make it anew.")
        }
        return bytes
    }

    /// The file's length now; nil when there is none, or none that can be read.
    var byteCount: Int64? {
        let descriptor = withPath { file_open($0) }
        guard descriptor >= 0 else { return nil }
        defer { file_close(descriptor) }
        let byteCount = file_byte_count(descriptor)
        return byteCount >= 0 ? byteCount : nil
    }

    var exists: Bool { byteCount != nil }

    /// EISDIR.
    var isFolder: Bool { withPath { file_open($0) } == -21 }

    private func withPath(_ body: (UInt64) -> Int32) -> Int32 {
        withKernelAddress(of: Array(path.utf8) + [0]) { body($0) }
    }

    private func failure(_ purpose: String, _ errno: Errno) -> CommandFailure {
        let (cause, next) =
            switch errno {
            case .ENOENT: ("a mistyped path", "check the path")
            case .EACCES, .EPERM: ("this user may not read it", "change the permissions, or copy the file")
            case Errno(rawValue: 21): ("a directory in its place", "give the file itself")
            case Errno(rawValue: 20): ("a file where the path needs a folder", "check the path")
            case Errno(rawValue: 29): ("a pipe or a device in its place", "give a regular file")
            default: ("the disk or the file system", "read the file with another program")
            }
        return CommandFailure(
            status: .badInput,
            message: "could not read \(purpose) from \(path): \(errno). Likely cause: \(cause). Next step: \(next).")
    }
}

/// A file of the command line, with its name in messages.
struct NamedPath {
    var name: String
    var path: String

    /// Nil when the option is not given.
    init?(_ name: String, _ path: String?) {
        guard let path else { return nil }
        (self.name, self.path) = (name, path)
    }

    /// Nothing is written over what is read, nor twice into one file.
    static func check(outputs: [NamedPath], inputs: [NamedPath]) throws(ValidationError) {
        for (index, output) in outputs.enumerated() {
            for other in inputs + outputs[..<index] where output.isSameFile(as: other) {
                throw ValidationError("\(output.name) \(output.path) is the same file as \(other.name).")
            }
        }
    }

    private func isSameFile(as other: NamedPath) -> Bool {
        withKernelAddress(of: Array(path.utf8) + [0]) { mine in
            withKernelAddress(of: Array(other.path.utf8) + [0]) { file_is_same(mine, $0) == 1 }
        }
    }
}

/// A file that is written piece by piece.
final class OutputFile: Sendable {
    private let descriptor: Int32

    init(path: String, purpose: String) throws(CommandFailure) {
        descriptor = withKernelAddress(of: Array(path.utf8) + [0]) { file_create($0) }
        guard descriptor >= 0 else {
            throw CommandFailure(
                status: .badInput,
                message:
                    "could not write \(purpose) to \(path): \(Errno(rawValue: -descriptor)). Likely cause: a missing "
                    + "directory or permission. Next step: choose another path.")
        }
    }

    deinit { file_close(descriptor) }

    /// Writes one line. A full disk loses lines, not the guest.
    func write(line: String) {
        write(bytes: Array(line.utf8) + [0x0a])
    }

    /// Writes bytes as they are.
    func write(bytes: [UInt8]) {
        _ = withKernelAddress(of: bytes) { file_write(descriptor, $0, UInt64(bytes.count)) }
    }
}

/// A folder that files are written into, each at once: a reader sees the old bytes or the new ones.
struct OutputFolder {
    let path: String

    /// Makes the folder, for this user alone, if need be.
    init(_ path: String) throws(CommandFailure) {
        self.path = path
        let result = withKernelAddress(of: Array(path.utf8) + [0]) { folder_create_private($0) }
        guard result >= 0 else {
            throw CommandFailure(
                status: .badInput,
                message:
                    "could not make the folder \(path): \(Errno(rawValue: -result)). Likely cause: a file in its place, "
                    + "or a missing permission. Next step: choose another path.")
        }
    }

    /// Replaces one file, readable by this user alone.
    func write(_ name: String, _ bytes: [UInt8]) throws(CommandFailure) {
        try Self.replace(path + "/" + name, bytes)
    }

    /// Replaces a file, readable by this user alone.
    static func replace(_ path: String, _ bytes: [UInt8]) throws(CommandFailure) {
        let result = withKernelAddress(of: Array(path.utf8) + [0]) { address in
            withKernelAddress(of: bytes) { file_replace_private(address, $0, UInt64(bytes.count)) }
        }
        guard result >= 0 else {
            throw CommandFailure(
                status: .badInput,
                message:
                    "could not write \(path): \(Errno(rawValue: -result)). Likely cause: a missing folder or permission. "
                    + "Next step: choose another path.")
        }
    }
}

/// Messages for people.
enum StandardError {
    static let descriptor: Int32 = 2

    static func write(line: String) { write(line + "\n") }

    static func write(_ text: String) {
        let bytes = Array(text.utf8)
        guard !bytes.isEmpty else { return }
        _ = withKernelAddress(of: bytes) { file_write(descriptor, $0, UInt64(bytes.count)) }
    }
}

/// Lines that another program may be waiting for: each is out when this returns, into a pipe too.
enum StandardOutput {
    static func write(line: String) {
        let bytes = Array(line.utf8) + [0x0a]
        _ = withKernelAddress(of: bytes) { file_write(1, $0, UInt64(bytes.count)) }
    }
}
