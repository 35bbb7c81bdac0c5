// Where the tests find files: the package itself, foreign vectors, and what `make guest firmware` built.

import Glibc

/// The folder of this package.
public enum PackageFolder {
    /// Absolute path, without a slash at its end.
    public static let path: String = {
        // …/Tests/TestSupport/PackageFiles.swift
        var parts = #filePath.split(separator: "/", omittingEmptySubsequences: false)
        parts.removeLast(3)
        return parts.joined(separator: "/")
    }()
}

/// Test vectors made by others. They are read where they lie and are no part of this package.
public enum ForeignVectors {
    /// `$SNPVMM_VECTORS`, or `../shared/vectors` beside the package; nil where there is no such folder.
    public static let folder: String? = {
        let path = environment("SNPVMM_VECTORS") ?? PackageFolder.path + "/../shared/vectors"
        return isFolder(path) ? path : nil
    }()

    /// For `.enabled(if:_:)`.
    public static var arePresent: Bool { folder != nil }
    /// Why a test that needs them is skipped.
    public static let absence = "no foreign test vectors: set SNPVMM_VECTORS to their folder"

    /// One file's bytes; nil where it is absent.
    public static func bytes(_ name: String) -> [UInt8]? {
        guard let folder else { return nil }
        return readFile(folder + "/" + name)
    }
}

/// References made by others, beside the vectors: byte-exact tables of the kernel's interface.
public enum ForeignFacts {
    /// Why a test that needs them is skipped.
    public static let absence = "no foreign reference: set SNPVMM_VECTORS to a folder with facts/ beside it"

    /// One file's text; nil where it is absent.
    public static func text(_ name: String) -> String? {
        guard let vectors = ForeignVectors.folder else { return nil }
        return readFile(vectors + "/../facts/" + name).map { String(decoding: $0, as: UTF8.self) }
    }
}

/// What `make guest` and `make firmware` build. Every path is nil until it has been built.
public enum BuiltGuest {
    /// Why a test that needs one is skipped.
    public static let absence = "not built: run `make guest firmware`"

    /// The default guest: a UKI with Debian's cloud kernel.
    public static var image: String? { present(".guest/guest.img") }
    /// The same with Debian's amd64 kernel (`make guest-amd64`).
    public static var imageAMD64: String? { present(".guest/guest-amd64.img") }
    /// The cloud kernel alone, a bzImage.
    public static var kernel: String? { present(".guest/vmlinuz-cloud-amd64") }
    /// The amd64 kernel alone.
    public static var kernelAMD64: String? { present(".guest/vmlinuz-amd64") }
    /// The ELF file inside it: the guest need not unpack it.
    public static var unpackedKernelAMD64: String? { present(".guest/vmlinux-amd64") }
    /// The default guest's initramfs, a cpio archive.
    public static var initrd: String? { present(".guest/initrd.cpio") }
    /// The amd64 guest's: with the modules of that kernel.
    public static var initrdAMD64: String? { present(".guest/initrd-amd64.cpio") }

    /// The initramfs of the encrypted-disk example (`make .guest/encrypted-disk.cpio`).
    public static var encryptedDisk: String? { present(".guest/encrypted-disk.cpio") }

    /// The default guest's initramfs with Debian's programs behind it (`make guest-debian`).
    public static var debianInitrd: String? { present(".guest/debian.cpio") }
    /// The same programs as a folder, for the host.
    public static var debianTree: String? { present(".guest/debian") }

    /// A flat test guest by the name of its source, such as "hello".
    public static func firmware(_ name: String) -> String? { present("Firmware/build/\(name).elf") }

    /// A Multiboot image or ROM for the bare machine, by the name of its source in Firmware/bare.
    public static func bareImage(_ name: String) -> String? { present("Firmware/build/bare-\(name).bin") }

    private static func present(_ name: String) -> String? {
        let path = PackageFolder.path + "/" + name
        return access(path, R_OK) == 0 ? path : nil
    }
}

/// The programs of this package, built beside the one that runs (the tests or the benchmarks).
public enum BuiltProgram {
    /// Absolute path; nil where it has not been built.
    public static func path(_ name: String) -> String? {
        var buffer = [UInt8](repeating: 0, count: 4096)
        let count = buffer.withUnsafeMutableBytes { bytes in
            bytes.withMemoryRebound(to: CChar.self) { text in
                text.baseAddress.map { readlink("/proc/self/exe", $0, text.count) } ?? 0
            }
        }
        let own = String(decoding: buffer.prefix(max(0, count)), as: UTF8.self)
        let folder = own.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/")
        let path = folder + "/" + name
        return access(path, X_OK) == 0 ? path : nil
    }
}

extension BuiltProgram {
    /// For names of temporary files.
    public static var processIdentifier: Int32 { getpid() }

    /// The host kernel has the devices of an SNP host. Whether it lets us use them is for the tests to find out.
    public static var hasRealSNP: Bool { access("/dev/kvm", R_OK) == 0 && access("/dev/sev", R_OK) == 0 }
}

/// Removes a file, if it is there.
public func removeFile(_ path: String) { unlink(path) }

/// A variable of the environment.
public func environment(_ name: String) -> String? {
    getenv(name).map { String(cString: $0) }
}

/// A whole file; nil where it cannot be read.
public func readFile(_ path: String) -> [UInt8]? {
    guard let file = fopen(path, "rb") else { return nil }
    defer { fclose(file) }
    var bytes: [UInt8] = []
    if fseek(file, 0, SEEK_END) == 0 {
        bytes.reserveCapacity(max(0, ftell(file)))
        rewind(file)
    }
    while true {
        let chunk = [UInt8](unsafeUninitializedCapacity: 1 << 20) { buffer, count in
            count = fread(buffer.baseAddress, 1, buffer.count, file)
        }
        if chunk.isEmpty { return bytes }
        bytes += chunk
    }
}

/// Writes a whole file. Returns false where that fails.
@discardableResult
public func writeFile(_ path: String, _ bytes: [UInt8]) -> Bool {
    guard let file = fopen(path, "wbe") else { return false }
    let count = fwrite(bytes, 1, bytes.count, file)
    return fclose(file) == 0 && count == bytes.count
}

public func isFolder(_ path: String) -> Bool {
    var status = stat()
    return stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
}

/// The names of the files in a folder, sorted; empty where it cannot be read.
public func folderEntries(_ path: String) -> [String] {
    guard let folder = opendir(path) else { return [] }
    defer { closedir(folder) }
    var names: [String] = []
    while let entry = readdir(folder) {
        let name = withUnsafePointer(to: &entry.pointee.d_name) {
            $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
        }
        if name != "." && name != ".." { names.append(name) }
    }
    return names.sorted()
}
