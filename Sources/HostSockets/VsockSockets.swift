// A guest's sockets as unix sockets of its host, in the form of Firecracker and Cloud Hypervisor.
//
//     a program connects to PATH and says "CONNECT 1234\n"   →   the guest's port 1234;  "OK <host port>\n" comes back
//     the guest connects to port 5000 of CID 2               →   a program that listens at PATH_5000
//
// One thread looks after all of them; see VsockSocketLoop.

import CProcess
import KVMABI
import Sandbox
import Synchronization
import VMMDevices

/// Connects a ``VsockDevice`` to unix sockets, until it is stopped or released.
public final class VsockSockets: Sendable {
    /// A unix socket's path has at most 107 bytes; behind this one come `_` and up to ten digits.
    public static let maximumPathByteCount = 96

    private let path: String
    private let listener: Int32
    /// The inode of the path, to know it again.
    private let identity: UInt64
    private let signal: LoopSignal
    private let device: VsockDevice
    private let thread: WorkerThread

    /// Listens at `path`, which only this user may connect to. A socket that nobody listens at any more is replaced.
    ///
    /// - Throws: ``HostSocketError`` when the path is taken, too long, or cannot be made.
    public init(device: VsockDevice, path: String) throws(HostSocketError) {
        self.device = device
        self.path = path
        guard path.utf8.count <= Self.maximumPathByteCount else {
            throw HostSocketError(path: path, errno: .ENAMETOOLONG)
        }
        guard !path.isEmpty, !path.utf8.contains(0) else { throw HostSocketError(path: path, errno: .ENOENT) }
        let signal = try LoopSignal(path: path)
        let listener = withKernelAddress(of: Array(path.utf8) + [0]) { socket_listen($0) }
        guard listener >= 0 else { throw HostSocketError(path: path, errno: Errno(rawValue: -listener)) }
        _ = socket_do_not_wait(listener)
        self.signal = signal
        self.listener = listener
        identity = withKernelAddress(of: Array(path.utf8) + [0]) { socket_identity($0) }
        device.setWake { signal.send() }
        do {
            thread = try WorkerThread(.sockets) {
                VsockSocketLoop(device: device, path: path, listener: listener, signal: signal).run()
            }
        } catch {
            device.setWake(nil)
            file_close(listener)
            throw HostSocketError(path: path, errno: error)
        }
    }

    deinit { stop() }

    /// Ends the connections and takes the path's name away, unless it is another socket's by now. Returns when that is
    /// done; a further call does nothing.
    public func stop() {
        guard signal.stop() else { return }
        device.setWake(nil)
        thread.join()
        file_close(listener)
        withKernelAddress(of: Array(path.utf8) + [0]) { address in
            if identity != 0, socket_identity(address) == identity { socket_unlink(address) }
        }
    }
}

/// Wakes the loop's thread, from any other one.
final class LoopSignal: Sendable {
    /// Readable when there was a signal.
    let descriptor: Int32
    private let stopRequested = Atomic(false)

    init(path: String) throws(HostSocketError) {
        descriptor = wake_create()
        guard descriptor >= 0 else { throw HostSocketError(path: path, errno: Errno(rawValue: -descriptor)) }
    }

    deinit { if descriptor >= 0 { file_close(descriptor) } }

    func send() { wake_send(descriptor) }

    func take() { wake_take(descriptor) }

    var isStopping: Bool { stopRequested.load(ordering: .acquiring) }

    /// - Returns: False when it was called before.
    func stop() -> Bool {
        guard !stopRequested.exchange(true, ordering: .acquiringAndReleasing) else { return false }
        send()
        return true
    }
}
