// Programs at the other end of unix sockets, for tests that play them.

import CProcess
import Dispatch
import Glibc
import KVMABI

/// One end of a connection. Reads give up after a while, so that a test that fails ends.
public final class SocketPeer: Sendable {
    public struct Failure: Error, CustomStringConvertible {
        public var description: String
    }

    public let descriptor: Int32
    private static let patienceMilliseconds: Int64 = 60_000

    public convenience init(connectingTo path: String) throws {
        let descriptor = withKernelAddress(of: Array(path.utf8) + [0]) { socket_connect($0) }
        guard descriptor >= 0 else { throw Failure(description: "connect to \(path): errno \(-descriptor)") }
        self.init(descriptor)
    }

    /// Waits for somebody to connect.
    public convenience init(acceptedFrom listener: Int32) throws {
        let descriptor = socket_accept(listener)
        guard descriptor >= 0 else { throw Failure(description: "accept: errno \(-descriptor)") }
        self.init(descriptor)
    }

    private init(_ descriptor: Int32) {
        self.descriptor = descriptor
        _ = socket_set_patience(descriptor, Self.patienceMilliseconds)
    }

    deinit { file_close(descriptor) }

    /// - Returns: False when the other end is gone or takes nothing.
    @discardableResult
    public func write(_ bytes: [UInt8]) -> Bool {
        withKernelAddress(of: bytes) { socket_write(descriptor, $0, UInt64(bytes.count)) } == 0
    }

    @discardableResult
    public func write(_ text: String) -> Bool { write(Array(text.utf8)) }

    /// Up to `count` bytes; empty at the end, nil after an error or too long a time.
    public func read(_ count: Int) -> [UInt8]? {
        let bytes = readOrFail(count)
        return bytes.count < 0 ? nil : bytes.bytes
    }

    /// The other end closed the connection, or broke it off, without another byte.
    public var isAtEnd: Bool {
        let result = readOrFail(1).count
        return result == 0 || result == -Int64(ECONNRESET)
    }

    private func readOrFail(_ count: Int) -> (count: Int64, bytes: [UInt8]) {
        var bytes = [UInt8](repeating: 0, count: count)
        let result = withKernelAddress(ofMutable: &bytes) { socket_read(descriptor, $0, UInt64(count)) }
        return (result, Array(bytes.prefix(max(0, Int(result)))))
    }

    /// So many bytes; fewer only at the end.
    public func readExactly(_ count: Int) throws -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count)
        while bytes.count < count {
            guard let more = read(count - bytes.count) else {
                throw Failure(description: "nothing more after \(bytes.count) bytes")
            }
            if more.isEmpty { break }
            bytes += more
        }
        return bytes
    }

    /// A line without its end; at the end of everything " (end)" is behind it.
    public func readLine() throws -> String {
        var line: [UInt8] = []
        while let byte = try readExactly(1).first {
            if byte == 0x0a { return String(decoding: line, as: UTF8.self) }
            line.append(byte)
        }
        return String(decoding: line, as: UTF8.self) + " (end)"
    }

    public func finishWriting() { socket_end_writing(descriptor) }
}

/// A folder for sockets and files of one test, which goes with its contents.
public final class ScratchFolder: Sendable {
    public let path: String

    public init() throws {
        var template = Array("/tmp/snpvmm-test-XXXXXX".utf8CString)
        guard template.withUnsafeMutableBufferPointer({ mkdtemp($0.baseAddress!) }) != nil else {
            throw SocketPeer.Failure(description: "cannot make a folder in /tmp")
        }
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit {
        for name in names { unlink(path + "/" + name) }
        rmdir(path)
    }

    /// Everything in the folder.
    public var names: [String] {
        guard let folder = opendir(path) else { return [] }
        defer { closedir(folder) }
        var names: [String] = []
        while let entry = readdir(folder) {
            let name = withUnsafeBytes(of: entry.pointee.d_name) {
                String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names.sorted()
    }

    public func exists(_ name: String) -> Bool { access(path + "/" + name, F_OK) == 0 }

    /// A socket that programs can connect to; the caller closes it.
    public func listen(_ name: String) throws -> Int32 {
        let listener = withKernelAddress(of: Array((path + "/" + name).utf8) + [0]) { socket_listen($0) }
        guard listener >= 0 else { throw SocketPeer.Failure(description: "listen at \(name): errno \(-listener)") }
        return listener
    }
}

/// A function on a thread of its own.
public final class BackgroundThread {
    private let group = DispatchGroup()

    public init(_ body: @escaping @Sendable () -> Void) {
        DispatchQueue(label: "test").async(group: group, execute: body)
    }

    public func join() { group.wait() }
}
