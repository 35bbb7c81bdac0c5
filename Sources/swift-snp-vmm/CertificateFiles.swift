// Certificates given on the command line: files and folders.

import Attestation
import CProcess
import Crypto
import KVMABI
import SNPVMM

extension CertificatePool {
    /// Names of files in a folder that hold certificates or revocation lists.
    private static let suffixes = [".pem", ".der", ".crt", ".cer", ".cert", ".crl"]

    /// Adds a file (PEM, DER, or the certificate table of an extended request), or all such files of a folder.
    mutating func add(path: String) throws {
        guard let names = try Self.names(inFolder: path) else {
            try add(InputFile(path: path).read(as: "certificates"), name: path)
            return
        }
        for name in names.sorted() where Self.suffixes.contains(where: { name.lowercased().hasSuffix($0) }) {
            let file = path + "/" + name
            try add(InputFile(path: file).read(as: "certificates"), name: file)
        }
    }

    /// Nil when the path is a file.
    private static func names(inFolder path: String) throws(CommandFailure) -> [String]? {
        var bytes = [UInt8](repeating: 0, count: 1 << 20)
        let room = UInt64(bytes.count)
        let count = withKernelAddress(of: Array(path.utf8) + [0]) { address in
            withKernelAddress(ofMutable: &bytes) { folder_names(address, $0, room) }
        }
        if count == -20 { return nil }  // ENOTDIR
        guard count >= 0 else {
            throw CommandFailure(
                status: .badInput,
                message:
                    "could not read certificates from \(path): \(Errno(rawValue: Int32(truncatingIfNeeded: -count))). "
                    + "Likely cause: a mistyped path, or a missing permission. Next step: check the path.")
        }
        return bytes.prefix(Int(count)).split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
    }
}

extension TrustedRoots {
    /// The roots in files that the caller names.
    init(paths: [String]) throws {
        var pool = CertificatePool()
        for path in paths { try pool.add(path: path) }
        let roots = pool.certificates.filter { $0.subject == $0.issuer }
        guard paths.isEmpty || !roots.isEmpty else {
            throw CommandFailure(
                status: .badInput,
                message:
                    "could not use --trusted-root \(paths.joined(separator: ", ")): expected a certificate that signs "
                    + "itself, found none. Likely cause: an ASK or a VCEK in its place. Next step: give the ARK.")
        }
        self.init(named: roots)
    }
}

extension AttestationError {
    /// What a command ends with: 5 for what is refused, 3 for input that is none.
    var exitStatus: VMMExitStatus {
        switch category {
        case .malformed, .missing, .unusablePolicy: .badInput
        default: .launchRefused
        }
    }
}

extension P384PrivateKey {
    /// A key from a file: PEM or DER, not encrypted.
    static func read(path: String, option: String) throws(CommandFailure) -> P384PrivateKey {
        var file = try InputFile(path: path).read(as: "the key of \(option)")
        defer { wipe(&file) }
        var candidates =
            PEM.isText(file)
            ? (PEM.blocks(file) ?? []).filter { $0.label.hasSuffix("PRIVATE KEY") }.map(\.bytes) : [file]
        defer { for index in candidates.indices { wipe(&candidates[index]) } }
        guard candidates.count == 1, let key = P384PrivateKey(der: candidates[0]) else {
            throw CommandFailure(
                status: .badInput,
                message:
                    "could not use \(path) for \(option): expected one private key on P-384, PEM or DER, not encrypted. "
                    + "Likely cause: a public key, another curve, or a passphrase. Next step: make one with "
                    + "`openssl ecparam -name secp384r1 -genkey -noout -out key.pem`.")
        }
        return key
    }
}
