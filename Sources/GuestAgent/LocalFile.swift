// Files and programs of the machine that the agent runs on.

import CGuestAgent
import CProcess
import Crypto
import KVMABI

/// A file by its path.
struct LocalFile {
    /// More is no file that the agent has a use for.
    private static let byteLimit: Int64 = 1 << 20

    let path: String

    init(_ path: String) { self.path = path }

    var exists: Bool { (try? read()) != nil }

    /// Without the line's end; nil when it cannot be read.
    var firstLine: String? {
        guard let bytes = try? read() else { return nil }
        return String(decoding: bytes.prefix { $0 != 0x0a }, as: UTF8.self)
    }

    /// The whole file.
    func read() throws(Errno) -> [UInt8] {
        let descriptor = withKernelAddress(of: terminated) { file_open($0) }
        guard descriptor >= 0 else { throw Errno(rawValue: -descriptor) }
        defer { file_close(descriptor) }
        let byteCount = file_byte_count(descriptor)
        guard byteCount >= 0 else { throw Errno(rawValue: Int32(truncatingIfNeeded: -byteCount)) }
        guard byteCount <= Self.byteLimit else { throw .E2BIG }
        // Files of /proc and /sys say nothing of their length.
        var bytes = [UInt8](repeating: 0, count: max(Int(byteCount), 4096))
        let room = UInt64(bytes.count)
        let count = withKernelAddress(ofMutable: &bytes) { file_read(descriptor, $0, room) }
        guard count >= 0 else { throw Errno(rawValue: Int32(truncatingIfNeeded: -count)) }
        bytes.removeLast(bytes.count - Int(count))
        return bytes
    }

    /// Replaces the file: its reader, who is this user alone, sees the old bytes or the new ones.
    func replace(by bytes: [UInt8]) throws(Errno) {
        let result = withKernelAddress(of: terminated) { address in
            withKernelAddress(of: bytes) { file_replace_private(address, $0, UInt64(bytes.count)) }
        }
        guard result >= 0 else { throw Errno(rawValue: -result) }
    }

    private var terminated: [UInt8] { Array(path.utf8) + [0] }
}

/// How a program ended.
enum ProgramEnding: Equatable {
    case exited(Int32)
    case signalled(Int32)
    case notStarted(Errno)
}

/// Runs a program with these bytes on its standard input.
func runProgram(_ arguments: [String], input: [UInt8]) -> ProgramEnding {
    var list: [UInt8] = []
    for argument in arguments { list += Array(argument.utf8) + [0] }
    list.append(0)
    let result = withKernelAddress(of: list) { address in
        withKernelAddress(of: input) { program_run(address, $0, UInt64(input.count)) }
    }
    switch result {
    case ..<0: return .notStarted(Errno(rawValue: -result))
    case 0..<256: return .exited(result)
    default: return .signalled(result &- 256)
    }
}
