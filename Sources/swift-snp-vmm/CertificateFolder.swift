// Folders with certificates in them, over CProcess: read as deep as tools nest them, written without following links.

import Attestation
import CProcess
import KVMABI
import SEVABI
import SNPVMM

/// A folder tree with files of certificates.
struct CertificateFolder {
    /// No certificate or list is larger; a CRL in PEM is the largest.
    static let maximumFileByteCount: Int64 = 16 << 20
    /// Enough for the paths of a hundred thousand chips.
    private static let maximumListByteCount = 64 << 20

    let path: String

    /// The relative paths of all files, sorted; nil when the path is a file.
    func names() throws(CommandFailure) -> [String]? {
        var capacity = 1 << 16
        while true {
            var bytes = [UInt8](repeating: 0, count: capacity)
            let room = UInt64(capacity)
            let count = withKernelAddress(of: Array(path.utf8) + [0]) { address in
                withKernelAddress(ofMutable: &bytes) { file_tree_names(address, $0, room) }
            }
            if count == -20 { return nil }  // ENOTDIR
            if count == -34, capacity < Self.maximumListByteCount {  // ERANGE
                capacity *= 8
                continue
            }
            guard count >= 0 else {
                throw CommandFailure(
                    status: .badInput,
                    message:
                        "could not read certificates from \(printable(path)): "
                        + "\(Errno(rawValue: Int32(truncatingIfNeeded: -count))). Likely cause: a mistyped path, a missing "
                        + "permission, or a folder with far more in it than certificates. Next step: check the path.")
            }
            return bytes.prefix(Int(count)).split(separator: 0).map { String(decoding: $0, as: UTF8.self) }.sorted()
        }
    }

    /// One file; links to files are followed, for folders that others manage by links.
    func read(_ name: String) throws(CommandFailure) -> [UInt8] { try Self.read(path: path + "/" + name) }

    static func read(path: String) throws(CommandFailure) -> [UInt8] {
        let file = InputFile(path: path)
        if let byteCount = file.byteCount, byteCount > maximumFileByteCount {
            throw CommandFailure(
                status: .badInput,
                message: "could not read certificates from \(printable(path)): \(byteCount) bytes, expected at most "
                    + "\(maximumFileByteCount). Likely cause: a file of another kind. Next step: take it away.")
        }
        return try file.read(as: "certificates")
    }

    /// A certificate in SEV's own form, as they lie beside X.509 ones in what `platform export-certs` writes: version 1, and the
    /// length of one of [SEV C], of one of AMD's, or of a chain. They are nobody's mistake, and nobody's certificates for SNP.
    static func isSEVCertificate(_ file: [UInt8]) -> Bool {
        let byteCounts = [SEVCertificate.byteCount, 3 * SEVCertificate.byteCount, 832, 1600]
        return byteCounts.contains(file.count) && file.starts(with: [1, 0, 0, 0])
    }

    // MARK: A store of ours

    /// A file of the store, read without following links; nil when there is none.
    func storeFile(_ name: String) throws(CommandFailure) -> [UInt8]? {
        let descriptor = withKernelAddress(of: Array(path.utf8) + [0]) { root in
            withKernelAddress(of: Array(name.utf8) + [0]) { file_tree_open(root, $0) }
        }
        if descriptor == -Errno.ENOENT.rawValue { return nil }
        guard descriptor >= 0 else { throw failure("read", name, Errno(rawValue: -descriptor)) }
        defer { file_close(descriptor) }
        let byteCount = file_byte_count(descriptor)
        guard byteCount >= 0, byteCount <= Self.maximumFileByteCount else {
            throw failure("read", name, Errno(rawValue: byteCount < 0 ? Int32(truncatingIfNeeded: -byteCount) : 27))
        }
        var bytes = [UInt8](repeating: 0, count: Int(byteCount))
        let count = withKernelAddress(ofMutable: &bytes) { file_read(descriptor, $0, UInt64(byteCount)) }
        guard count >= 0 else { throw failure("read", name, Errno(rawValue: Int32(truncatingIfNeeded: -count))) }
        return Array(bytes.prefix(Int(count)))
    }

    /// Replaces a file of the store, and makes the folders that it needs.
    func replace(_ name: String, _ bytes: [UInt8]) throws(CommandFailure) {
        let result = withKernelAddress(of: Array(path.utf8) + [0]) { root in
            withKernelAddress(of: Array(name.utf8) + [0]) { path in
                withKernelAddress(of: bytes) { file_tree_replace(root, path, $0, UInt64(bytes.count)) }
            }
        }
        guard result >= 0 else { throw failure("write", name, Errno(rawValue: -result)) }
    }

    /// Makes the folder if need be, and lets no other import into it before the result is closed.
    func lock() throws(CommandFailure) -> Int32 {
        let made = withKernelAddress(of: Array(path.utf8) + [0]) { folder_create_private($0) }
        guard made >= 0 else { throw failure("make", "the folder", Errno(rawValue: -made)) }
        let lock = withKernelAddress(of: Array((path + "/.lock").utf8) + [0]) { file_lock($0) }
        guard lock >= 0 else { throw failure("lock", ".lock", Errno(rawValue: -lock)) }
        return lock
    }

    private func failure(_ what: String, _ name: String, _ errno: Errno) -> CommandFailure {
        let cause =
            errno == Errno(rawValue: 40) || errno == Errno(rawValue: 20)
            ? "a link in the place of a folder or file: a store has none" : "a missing permission, or a full disk"
        return CommandFailure(
            status: .badInput,
            message: "could not \(what) \(printable(name)) in the store \(printable(path)): \(errno). Likely cause: "
                + "\(cause). Next step: look at the store's folders.")
    }
}

extension CertificatePool {
    /// Adds a file (PEM, DER, or the certificate table of an extended request), or what a folder and the folders in it hold
    /// under the names of certificates. In a folder, a file that is none is told about and left out.
    ///
    /// - Parameter report: Only what may be about this report is read, as far as names tell.
    /// - Returns: How many files were left out because of their names.
    @discardableResult
    mutating func add(path: String, for report: AttestationReport? = nil) throws -> Int {
        let folder = CertificateFolder(path: path)
        guard let names = try folder.names() else {
            try add(CertificateFolder.read(path: path), name: printable(path))
            return 0
        }
        var leftOut = 0
        for name in names {
            guard let fileName = CertificateFileName(path: path + "/" + name) else { continue }
            if let report, !fileName.mayServe(report) {
                leftOut += 1
                continue
            }
            do {
                let file = try folder.read(name)
                if CertificateFolder.isSEVCertificate(file) { continue }
                try add(file, name: printable(path + "/" + name))
            } catch let error as AttestationError {
                StandardError.write(line: "warning: left out: \(error)")
            } catch let error as CommandFailure {
                StandardError.write(line: "warning: left out: \(error.message)")
            }
        }
        return leftOut
    }
}

extension EndorsementChain {
    /// The chain for a report, from files and folders. What names say is used first, since stores are large; when it does not
    /// suffice, everything is read, since names may be wrong.
    init(for report: AttestationReport, in paths: [String], trusted: TrustedRoots) throws {
        func pool(_ report: AttestationReport?) throws -> (CertificatePool, leftOut: Int) {
            var pool = CertificatePool()
            var leftOut = 0
            for path in paths { leftOut += try pool.add(path: path, for: report) }
            for root in trusted.named { pool.add(root) }
            return (pool, leftOut)
        }
        let (likely, leftOut) = try pool(report)
        if leftOut > 0, !likely.hasLeaf(for: report) {
            self = try pool(nil).0.chain(for: report, trusted: trusted)
        } else {
            self = try likely.chain(for: report, trusted: trusted)
        }
    }
}
