// `--disk`: Debian's own drivers read and write a disk of the host, and what cannot be a disk is said so.

import Crypto
import Glibc
import TestSupport
import Testing

@Suite(.serialized) struct DiskTests {
    private static let seed = SeededGenerator(seed: 0x76_6462)

    private func file(_ name: String, _ bytes: [UInt8]) throws -> String {
        let path = (environment("TMPDIR") ?? "/tmp") + "/snp-vmm-test-\(BuiltProgram.processIdentifier)-\(name)"
        try #require(writeFile(path, bytes))
        return path
    }

    private func hash(_ bytes: [UInt8]) -> String {
        let digest = SHA256.hash(bytes)
        return digest.indices.map { digest[$0] }.hex
    }

    // MARK: In a guest

    /// Reads a whole disk, writes part of it, reads it again; a read-only one cannot be written. The launch digest is that
    /// of a guest without disks.
    @Test(
        .enabled(if: BuiltGuest.image != nil, "no default guest: run `make guest`"), arguments: ["snp", "sev", "none"])
    func aGuestReadsAndWritesItsDisk(_ technology: String) throws {
        let command = try #require(BuiltProgram.path("swift-snp-vmm"))
        let image = try #require(BuiltGuest.image)
        var numbers = Self.seed
        let contents = numbers.bytes(1 << 20)
        let (disk, other) = (try file("disk-\(technology)", contents), try file("disk-ro", Array(contents[..<8192])))
        defer { for path in [disk, other] { removeFile(path) } }

        var arguments = ["run", image, "--backend", "software", "--confidential", technology, "--rng"]
        arguments += ["--disk", disk, "--disk", other + ",ro"]
        let guest = try ChildProcess(command, arguments, mergesError: true)
        let boot = guest.read(until: "guest:", timeoutMilliseconds: BootTests.patience)
        try #require(boot.found, "\(boot.output)")
        // Typed at once; the echo of a line has a \ where its answer has none.
        guest.write(
            """
            echo be\\fore $(sha256sum < /dev/vda); echo ro=$(cat /sys/block/vda/ro)$(cat /sys/block/vdb/ro)
            dd if=/dev/urandom of=/dev/vda bs=4096 seek=3 count=40 conv=fsync,notrunc 2> /dev/null
            echo 3 > /proc/sys/vm/drop_caches; echo af\\ter $(sha256sum < /dev/vda)
            echo ot\\her $(sha256sum < /dev/vdb); dd if=/dev/zero of=/dev/vdb bs=512 count=1 2>&1 | tail -n 1
            cat /sys/class/misc/hw_random/rng_available; poweroff -f

            """)
        var output = boot.output
        while let more = guest.read(timeoutMilliseconds: BootTests.patience) {
            output += String(decoding: more, as: UTF8.self)
        }
        #expect(guest.wait().ending == .exited(0), "\(output)")
        #expect(output.contains("before \(hash(contents))"), "\(output)")
        #expect(output.contains("ro=01"), "\(output)")
        #expect(output.contains("virtio_rng.0"), "\(output)")
        #expect(output.contains("other \(hash(Array(contents[..<8192])))"), "\(output)")
        let written = try #require(readFile(disk))
        #expect(written != contents && written.count == contents.count)
        #expect(written[..<12288] == contents[..<12288] && written[(43 * 4096)...] == contents[(43 * 4096)...])
        #expect(output.contains("after \(hash(written))"), "\(output)")
        #expect(readFile(other) == Array(contents[..<8192]))
        #expect(output.contains("device  disk: "), "\(output)")

        guard technology != "none" else { return }
        let (ending, measured) = try ChildProcess.run(
            command, ["measure", image, "--confidential", technology], timeoutMilliseconds: 120_000)
        #expect(ending == .exited(0))
        let digest = measured.split(separator: "\n").first.map(String.init) ?? "nothing"
        #expect(output.contains("launch digest (measured before launch): \(digest)"), "\(output)")
    }

    // MARK: What cannot be a disk

    private func refused(_ arguments: [String], _ status: Int32, _ parts: String...) throws {
        let command = try #require(BuiltProgram.path("swift-snp-vmm"))
        let (ending, output) = try ChildProcess.run(
            command, ["run", "/nonexistent/guest.img", "--backend", "software"] + arguments,
            timeoutMilliseconds: 120_000)
        #expect(ending == .exited(status), "\(output)")
        for part in parts { #expect(output.contains(part), "\(output)") }
    }

    @Test func filesThatAreNoDisks() throws {
        let odd = try file("odd-disk", [UInt8](repeating: 0, count: 1000))
        let empty = try file("empty-disk", [])
        defer { for path in [odd, empty] { removeFile(path) } }
        try refused(["--disk", odd], 3, odd, "1000 bytes, expected a multiple of 512", "qemu-img convert")
        try refused(["--disk", empty], 3, "0 bytes")
        try refused(["--disk", "/nonexistent/disk.img"], 3, "ENOENT", "truncate -s")
        try refused(["--disk", "/"], 3, "neither a regular file nor a block device")
        try refused(["--disk", "/dev/null,ro"], 3, "neither a regular file nor a block device")
        try refused(["--disk", ",ro"], 2, "expected a path")
        try refused(["--disk", odd, "--report", odd], 2, "is the same file as")
        try refused([String](repeating: "--rng", count: 1) + (0..<8).flatMap { _ in ["--disk", odd] }, 2, "9 devices")
    }

    /// The lock of another open file, as another VMM has it.
    private func lock(_ path: String, _ type: Int32) throws -> Int32 {
        let descriptor = open(path, (type == F_WRLCK ? O_RDWR : O_RDONLY) | O_CLOEXEC)
        try #require(descriptor >= 0)
        var lock = flock()
        lock.l_type = Int16(type)
        // F_OFD_SETLK.
        try #require(fcntl(descriptor, 37, &lock) == 0)
        return descriptor
    }

    @Test func aDiskInUseIsRefused() throws {
        let disk = try file("locked-disk", [UInt8](repeating: 0, count: 4096))
        defer { removeFile(disk) }
        let inUse = "it is in use by process \(BuiltProgram.processIdentifier)"
        let image = "could not read the image"

        let writer = try lock(disk, F_WRLCK)
        try refused(["--disk", disk], 3, inUse, "Next step")
        try refused(["--disk", disk + ",ro"], 3, inUse, "another program writes it")
        close(writer)
        let reader = try lock(disk, F_RDLCK)
        try refused(["--disk", disk], 3, inUse)
        // Readers share; what is wrong then is the image.
        try refused(["--disk", disk + ",ro"], 3, image)
        close(reader)
        try refused(["--disk", disk], 3, image)
        try refused(["--disk", disk, "--disk", disk], 3, "it is given twice")
        try refused(["--disk", disk + ",ro", "--disk", disk + ",ro"], 3, image)
    }
}
