// The options that give a guest devices. Nothing that is measured depends on them (GuestImage, Decisions/SlotsBeforeDevices).

import ArgumentParser
import HostSockets
import SNPVMM
import VMMDevices

/// `--disk`, `--vsock` and `--rng`.
struct DeviceOptions: ParsableArguments {
    @Option(
        name: .customLong("disk"),
        help: ArgumentHelp(
            "A raw image or a block device as a virtio disk; with ,ro behind it read-only. Repeatable; the first is vda.",
            valueName: "file[,ro]"))
    var disks: [String] = []
    @Option(
        help: ArgumentHelp(
            "Gives the guest a virtio socket device. A host program that connects to PATH and says \"CONNECT port\" talks to "
                + "that port of the guest; a guest that connects to port P of CID 2 talks to the program that listens at "
                + "PATH_P.", valueName: "cid,path"))
    var vsock: String?
    @Flag(
        help: ArgumentHelp(
            "A virtio entropy device. The host knows the numbers it gives: a confidential guest has RDRAND and needs none."
        ))
    var rng = false

    /// Slots of a machine that these options fill.
    var count: Int { disks.count + (rng ? 1 : 0) + (vsock == nil ? 0 : 1) }

    /// The disks, each with its name in messages.
    var paths: [NamedPath] { disks.compactMap { NamedPath("--disk", DiskOption($0).path) } }

    func validate() throws {
        for text in disks where DiskOption(text).path.isEmpty {
            throw ValidationError("--disk \(text): expected a path, for example disk.img or disk.img,ro.")
        }
        if let vsock { _ = try VsockOption(vsock) }
        guard count <= Machine.maximumDeviceCount else {
            throw ValidationError("\(count) devices: a machine has room for \(Machine.maximumDeviceCount).")
        }
    }

    /// The folder of the socket that this process makes and removes again.
    func socketFolder() throws -> String? { try vsock.map { try VsockOption($0).folder } }

    /// Opens the disks and makes the devices: disks in their order, then the others.
    func make() throws(CommandFailure) -> AttachedDevices {
        var attached = AttachedDevices()
        for (index, text) in disks.enumerated() {
            let option = DiskOption(text)
            let file = try DiskFile(path: option.path, isReadOnly: option.isReadOnly)
            attached.disks.append(file)
            attached.devices.append(
                VirtioBlock(
                    file, identifier: "disk\(index)", perform: { file.perform($0) },
                    report: { StandardError.write(line: "disk \(file.path): \($0)\r") }))
        }
        if let vsock {
            let made = try VsockOption(vsock).make()
            attached.devices.append(made.device)
            attached.socket = made.sockets
        }
        if rng { attached.devices.append(VirtioEntropy()) }
        return attached
    }
}

/// Whether the process gives up what it no longer needs.
enum SandboxChoice: String, ExpressibleByArgument, CaseIterable {
    case on, off
}

/// "FILE" or "FILE,ro".
struct DiskOption: Equatable {
    var path: String
    var isReadOnly: Bool

    init(_ text: String) {
        isReadOnly = text.hasSuffix(",ro")
        path = isReadOnly ? String(text.dropLast(3)) : text
    }
}

/// The devices of a run and what stands behind them.
struct AttachedDevices {
    var devices: [any VirtioDevice] = []
    var disks: [DiskFile] = []
    /// What serves the socket device, until it is stopped.
    var socket: VsockSockets?

    /// Returns when the disks have done what they were asked for.
    func finish() { for disk in disks { disk.finish() } }
}
