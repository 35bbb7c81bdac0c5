// A raw image or a block device of the host as a guest's disk.

import CProcess
import Glibc
import KVMABI
import Sandbox
import VMMDevices

/// An open and locked disk. One thread of its own does what waits for it.
final class DiskFile: BlockBackend {
    let path: String
    let byteCount: UInt64
    let isReadOnly: Bool
    private let descriptor: Int32
    private let queue: WorkQueue

    /// Opens and locks the disk: a writable one against everybody, a read-only one against writers.
    init(path: String, isReadOnly: Bool) throws(CommandFailure) {
        self.path = path
        self.isReadOnly = isReadOnly
        descriptor = withKernelAddress(of: Array(path.utf8) + [0]) { disk_open($0, isReadOnly ? 0 : 1) }
        guard descriptor >= 0 else { throw Self.refusal(path, isReadOnly, Errno(rawValue: -descriptor)) }
        let found = disk_byte_count(descriptor)
        guard found > 0, found % Int64(VirtioBlock.sectorByteCount) == 0 else {
            file_close(descriptor)
            throw CommandFailure(
                status: .badInput,
                message: "could not use the disk \(path): "
                    + (found < 0
                        ? "\(Errno(rawValue: Int32(truncatingIfNeeded: -found)))"
                        : "\(found) bytes, expected a multiple of 512 that is not 0")
                    + ". Likely cause: no raw image (a qcow2 file is none), or one that is cut off. Next step: convert it "
                    + "with qemu-img convert -O raw, or make one with truncate -s 1G.")
        }
        byteCount = UInt64(found)
        do { queue = try WorkQueue(.device) } catch {
            file_close(descriptor)
            throw CommandFailure(
                status: .badInput,
                message:
                    "could not start a thread for the disk \(path): \(error). Likely cause: this user has too many. "
                    + "Next step: raise the limit (ulimit -u).")
        }
    }

    deinit { file_close(descriptor) }

    /// Runs work on the disk's thread, after what it was given before.
    func perform(_ work: @escaping @Sendable () -> Void) { queue.async(work) }

    /// Returns when the disk's thread has nothing more to do.
    func finish() { queue.finish() }

    private static func refusal(_ path: String, _ isReadOnly: Bool, _ errno: Errno) -> CommandFailure {
        let (finding, cause, next): (String, String, String) =
            switch errno {
            case .EAGAIN:
                (
                    "it is in use\(user(of: path))",
                    isReadOnly
                        ? "another program writes it"
                        : "another guest has it, or one that reads it while this would write",
                    "end that program, or give every guest a copy; guests that only read may share it: --disk \(path),ro"
                )
            case .EBUSY:
                (
                    "\(errno)", "a block device that is mounted, or part of another device",
                    "unmount it, or give it read-only: --disk \(path),ro"
                )
            case .ENOENT: ("\(errno)", "a mistyped path", "check the path, or make the image: truncate -s 1G \(path)")
            case .EACCES, .EPERM, Errno(rawValue: 30):
                (
                    "\(errno)", "this user may not \(isReadOnly ? "read" : "write") it",
                    isReadOnly
                        ? "change the permissions" : "change the permissions, or give it read-only: --disk \(path),ro"
                )
            case Errno(rawValue: 15), Errno(rawValue: 21):
                ("\(errno)", "neither a regular file nor a block device", "give a raw image")
            default: ("\(errno)", "the file system, or what is below it", "look at dmesg")
            }
        return CommandFailure(
            status: .badInput,
            message:
                "could not open the disk \(path)\(isReadOnly ? " read-only" : ""): \(finding). Likely cause: \(cause). "
                + "Next step: \(next).")
    }

    /// " by process 4711 (qemu-system-x86)".
    private static func user(of path: String) -> String {
        var name = [UInt8](repeating: 0, count: 64)
        let process = withKernelAddress(of: Array(path.utf8) + [0]) { path in
            withKernelAddress(ofMutable: &name) { disk_user(path, $0, 64) }
        }
        guard process > 0 else { return "" }
        if process == getpid() { return " by this command: it is given twice" }
        return " by process \(process) (\(String(decoding: name.prefix { $0 != 0 }, as: UTF8.self)))"
    }

    // MARK: BlockBackend

    func read(at offset: UInt64, byteCount: Int) throws(BlockError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: byteCount)
        try check(withKernelAddress(ofMutable: &bytes) { disk_read(descriptor, $0, UInt64(byteCount), offset) })
        return bytes
    }

    func write(_ bytes: [UInt8], at offset: UInt64) throws(BlockError) {
        try check(withKernelAddress(of: bytes) { disk_write(descriptor, $0, UInt64(bytes.count), offset) })
    }

    func flush() throws(BlockError) { try check(disk_flush(descriptor)) }

    func discard(at offset: UInt64, byteCount: UInt64) throws(BlockError) {
        let result = disk_punch(descriptor, offset, byteCount)
        // A hint: where the file system cannot give space back, nothing is the right thing to do.
        if result == -Errno.EOPNOTSUPP.rawValue { return }
        try check(result)
    }

    func writeZeroes(at offset: UInt64, byteCount: UInt64, mayDeallocate: Bool) throws(BlockError) {
        if mayDeallocate {
            let result = disk_punch(descriptor, offset, byteCount)
            if result != -Errno.EOPNOTSUPP.rawValue { return try check(result) }
        }
        try check(disk_zero(descriptor, offset, byteCount))
    }

    private func check(_ result: Int32) throws(BlockError) {
        guard result < 0 else { return }
        let errno = Errno(rawValue: -result)
        // ENODATA: less was read than the disk had when it was opened.
        throw BlockError(errno.rawValue == 61 ? "the file has become shorter" : "\(errno)")
    }
}
