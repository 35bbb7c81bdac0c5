// The stream to the guest's owner.

import CGuestAgent
import CProcess
import KVMABI

/// Bytes to and from the owner.
public protocol OwnerStream {
    /// What has come, after the first byte of it; empty at the end.
    func read() throws(AgentError) -> [UInt8]
    func write(_ bytes: [UInt8]) throws(AgentError)
}

/// A connection by vsock, or to a socket of this machine.
final class OwnerConnection: OwnerStream {
    /// An owner who says nothing for so long has gone.
    private static let patienceMilliseconds: Int64 = 60_000

    private let address: OwnerAddress
    private let descriptor: Int32

    init(_ address: OwnerAddress) throws(AgentError) {
        self.address = address
        descriptor =
            switch address {
            case .vsock(let cid, let port): vsock_connect(cid, port)
            case .unix(let path): withKernelAddress(of: Array(path.utf8) + [0]) { socket_connect($0) }
            }
        guard descriptor >= 0 else { throw Self.failure(address, Errno(rawValue: -descriptor)) }
        _ = socket_set_patience(descriptor, Self.patienceMilliseconds)
    }

    deinit { if descriptor >= 0 { file_close(descriptor) } }

    func read() throws(AgentError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 65536)
        let count = withKernelAddress(ofMutable: &bytes) { socket_read(descriptor, $0, 65536) }
        guard count >= 0 else { throw lost("read", Int32(truncatingIfNeeded: -count)) }
        bytes.removeLast(bytes.count - Int(count))
        return bytes
    }

    func write(_ bytes: [UInt8]) throws(AgentError) {
        let result = withKernelAddress(of: bytes) { socket_write(descriptor, $0, UInt64(bytes.count)) }
        guard result == 0 else { throw lost("write", -result) }
    }

    private func lost(_ what: String, _ errno: Int32) -> AgentError {
        AgentError(
            .unavailable, attempt: "talk to the owner", subject: "\(address)",
            found: "\(what): \(Errno(rawValue: errno))",
            likelyCause: "the owner or the host ended the connection, or said nothing for a minute",
            nextStep: "look at the owner's log")
    }

    private static func failure(_ address: OwnerAddress, _ errno: Errno) -> AgentError {
        let (cause, next): (String, String)
        switch (address, errno.rawValue) {
        case (.vsock, 97):  // EAFNOSUPPORT
            (cause, next) = ("this kernel has no vsock", "load the module vmw_vsock_virtio_transport")
        case (.vsock, 19), (.vsock, 101):  // ENODEV, ENETUNREACH
            (cause, next) = (
                "this machine has no vsock device, or no driver for it",
                "launch the guest with --vsock, and load the module vmw_vsock_virtio_transport"
            )
        case (.vsock, 104), (.vsock, 110), (.vsock, 111):  // ECONNRESET, ETIMEDOUT, ECONNREFUSED
            (cause, next) = ("nobody waits at that port of the host", "start swift-snp-vmm owner serve there first")
        case (.unix, 2), (.unix, 111):  // ENOENT, ECONNREFUSED
            (cause, next) = ("nobody waits there, or a mistyped path", "start swift-snp-vmm owner serve first")
        default: (cause, next) = ("a missing permission, or a wrong address", "check the address")
        }
        return AgentError(
            .unavailable, attempt: "reach the owner", subject: "\(address)", found: "\(errno)", likelyCause: cause,
            nextStep: next)
    }
}
