// The two ends of the socket between a VMM and the guest's owner: bytes and errors; what they mean is GuestOwner's.

import CProcess
import GuestOwner
import KVMABI
import SNPVMM

/// One connection, seen from either end.
final class SocketConnection {
    /// Who connects says hello at once; others must not keep VMMs waiting.
    static let helloMilliseconds: Int64 = 10_000
    /// A VMM that has its session and says nothing for so long has gone; loading a large guest takes less.
    static let launchMilliseconds: Int64 = 600_000

    private enum Peer {
        case owner(path: String)
        case vmm
    }

    private let descriptor: Int32
    private let peer: Peer

    /// Connects to a waiting owner.
    init(toOwnerAt path: String) throws(CommandFailure) {
        peer = .owner(path: path)
        descriptor = withKernelAddress(of: Array(path.utf8) + [0]) { socket_connect($0) }
        guard descriptor >= 0 else {
            let errno = Errno(rawValue: -descriptor)
            let (cause, next) =
                switch errno {
                case .ENOENT: ("nobody waits there, or a mistyped path", "start swift-snp-vmm owner serve first")
                case .ECONNREFUSED: ("an owner that has ended", "start swift-snp-vmm owner serve again")
                case .EACCES, .EPERM: ("the socket belongs to another user", "run both as the same user")
                case .ENAMETOOLONG: ("a path of more than 107 bytes", "use a shorter path")
                default: ("something else in the socket's place", "check the path")
                }
            throw CommandFailure(
                status: .badInput,
                message:
                    "could not reach the guest owner at \(path): \(errno). Likely cause: \(cause). Next step: \(next).")
        }
    }

    /// A VMM has connected: it is given ten seconds for its hello.
    fileprivate init(accepted descriptor: Int32) {
        self.descriptor = descriptor
        peer = .vmm
        setPatience(Self.helloMilliseconds)
    }

    deinit { if descriptor >= 0 { file_close(descriptor) } }

    /// Reads and writes fail after so long without a byte.
    func setPatience(_ milliseconds: Int64) { _ = socket_set_patience(descriptor, milliseconds) }

    /// What has come; empty when the other end has closed.
    func read() throws(OwnerError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 65536)
        let count = withKernelAddress(ofMutable: &bytes) { socket_read(descriptor, $0, 65536) }
        guard count >= 0 else { throw failure("read from", count) }
        return Array(bytes.prefix(Int(count)))
    }

    func write(_ bytes: [UInt8]) throws(OwnerError) {
        let result = withKernelAddress(of: bytes) { socket_write(descriptor, $0, UInt64(bytes.count)) }
        guard result == 0 else { throw failure("write to", Int64(result)) }
    }

    private func failure(_ what: String, _ result: Int64) -> OwnerError {
        let found = "\(Errno(rawValue: Int32(truncatingIfNeeded: -result)))"
        switch peer {
        case .owner(let path):
            return OwnerError(
                .connection, attempt: "\(what) the guest owner", subject: "the socket \(path)",
                expected: "a connection", found: found, likelyCause: "the owner stopped or crashed",
                nextStep: "look at the owner's output, and start the launch again")
        case .vmm:
            return OwnerError(
                .connection, attempt: "\(what) the VMM", subject: "the connection", expected: "a connection",
                found: found,
                likelyCause:
                    "the VMM stopped, or was silent for too long (10 seconds before its hello, 10 minutes after)",
                nextStep: "look at the VMM's output, and start the launch again")
        }
    }
}

/// A socket that VMMs connect to.
final class SocketListener {
    private let path: String
    private let descriptor: Int32
    private var isLent = false

    init(path: String) throws(CommandFailure) {
        self.path = path
        descriptor = withKernelAddress(of: Array(path.utf8) + [0]) { socket_listen($0) }
        guard descriptor >= 0 else {
            let errno = Errno(rawValue: -descriptor)
            let (cause, next) =
                switch errno {
                case .EADDRINUSE: ("another owner waits there, or another file has that name", "choose another path")
                case .ENOENT: ("a missing folder", "make it, or choose another path")
                case .ENAMETOOLONG: ("a path of more than 107 bytes", "use a shorter path")
                default: ("a missing permission", "choose another path")
                }
            throw CommandFailure(
                status: .badInput,
                message: "could not wait at the socket \(path): \(errno). Likely cause: \(cause). Next step: \(next).")
        }
    }

    /// The name goes with the listener: nobody waits there any more. What was in the way of a listener that could not
    /// be made is not ours.
    deinit {
        guard descriptor >= 0 else { return }
        if !isLent { file_close(descriptor) }
        withKernelAddress(of: Array(path.utf8) + [0]) { socket_unlink($0) }
    }

    /// The listening descriptor for somebody who closes it; the name stays this object's.
    func takeDescriptor() -> Int32 {
        isLent = true
        return descriptor
    }

    /// Waits for the next connection.
    func next() throws(CommandFailure) -> SocketConnection {
        let connection = socket_accept(descriptor)
        guard connection >= 0 else {
            throw CommandFailure(
                status: .hostCannot,
                message:
                    "could not accept a connection at \(path): \(Errno(rawValue: -connection)). Likely cause: too many "
                    + "open files. Next step: start the owner again.")
        }
        return SocketConnection(accepted: connection)
    }
}
