// `--vsock`: a socket device for the guest, and a unix socket for the host's programs.

import HostSockets
import VMMDevices

/// The guest's CID and the path of the socket.
struct VsockOption: Equatable {
    var guestCID: UInt32
    var path: String

    /// "3,PATH" or "cid=3,path=PATH". Everything behind the comma is the path, other commas included.
    init(_ text: String) throws(CommandFailure) {
        let parts = text.split(separator: ",", maxSplits: 1, omittingEmptySubsequences: false)
        var (number, path) = (parts[0], parts.count == 2 ? parts[1] : "")
        if number.hasPrefix("cid=") {
            number.removeFirst(4)
            // Cloud Hypervisor calls it so.
            for name in ["path=", "socket="] where path.hasPrefix(name) {
                path.removeFirst(name.count)
                break
            }
        }
        guard !path.isEmpty, number.allSatisfy({ $0.isASCII && $0.isNumber }), let guestCID = UInt32(number) else {
            throw .usage(
                "--vsock \(text): expected the guest's CID and a path, for example 3,/run/user/1000/guest.vsock")
        }
        guard VsockCID.guests.contains(guestCID) else {
            throw .usage("--vsock \(text): CID \(guestCID) is reserved; take 3 or more")
        }
        self.guestCID = guestCID
        self.path = String(path)
    }

    /// The folder of the path.
    var folder: String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    /// The device, and the sockets that serve it as long as they are kept.
    func make() throws(CommandFailure) -> (device: VsockDevice, sockets: VsockSockets) {
        let device = VsockDevice(guestCID: guestCID)
        do { return (device, try VsockSockets(device: device, path: path)) } catch {
            throw CommandFailure(status: .badInput, message: "\(error)")
        }
    }
}
