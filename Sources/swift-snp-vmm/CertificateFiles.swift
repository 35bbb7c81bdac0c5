// Roots and keys given on the command line.

import Attestation
import Crypto
import SNPVMM

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
