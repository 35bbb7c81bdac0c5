// Why a socket for guests could not be made.

import KVMABI

/// What was tried on which path, what came back, and what to do about it.
public struct HostSocketError: Error, Equatable, Sendable {
    public var path: String
    public var errno: Errno
    public var likelyCause: String
    public var nextStep: String

    init(path: String, errno: Errno) {
        self.path = path
        self.errno = errno
        (likelyCause, nextStep) =
            switch errno {
            case .EADDRINUSE:
                ("another machine listens there, or a file that is no socket has that name", "choose another path")
            case .ENOENT: ("a missing folder", "make it, or choose another path")
            case .ENAMETOOLONG:
                (
                    "a path of more than \(VsockSockets.maximumPathByteCount) bytes: behind it there must be room for "
                        + "_ and a port", "use a shorter path"
                )
            case .EACCES, .EPERM: ("a missing permission", "choose another path")
            case .EMFILE: ("too many open files", "raise the limit (ulimit -n)")
            case .EAGAIN: ("no room for another thread", "raise the limit of processes (ulimit -u)")
            default: ("the file system cannot hold sockets", "choose another path")
            }
    }
}

extension HostSocketError: CustomStringConvertible {
    public var description: String {
        "could not listen for connections to the guest at \(path): \(errno). Likely cause: \(likelyCause). "
            + "Next step: \(nextStep)."
    }
}
