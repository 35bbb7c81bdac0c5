// `run --certs`: the certificates that an SNP guest finds beside its report [GHCB 4.1.8.1].

import Attestation
import Crypto
import KVMABI
import SNPVMM

/// A certificate table, or what one can be made of.
struct RunCertificates {
    /// SEV_FW_BLOB_MAX_SIZE: Linux's sev-guest driver offers no larger buffer.
    static let maximumByteCount = 0x4000

    private let path: String
    private let pool: CertificatePool
    /// The file is a table already, and goes to the guest as it is.
    private let table: [UInt8]?

    /// - Parameter path: `--certs`.
    init(path: String) throws {
        self.path = path
        var pool = CertificatePool()
        table = CertificateFolder(path: path).isTable ? try CertificateFolder.read(path: path) : nil
        if let table {
            _ = try CertificateTable(bytes: table)
            try Self.check(table, path)
        } else {
            try pool.add(path: path)
            if pool.endorsements.isEmpty {
                throw CommandFailure(
                    status: .badInput,
                    message:
                        "could not use the certificates of \(printable(path)): found neither a VCEK nor a VLEK. Likely "
                        + "cause: another folder. Next step: give the certificates of this host's chip.")
            }
        }
        self.pool = pool
    }

    /// The table for guests of this platform: of several leaves the one for its chip, its reported TCB and its key.
    func table(on kernel: any HostKernel) throws -> [UInt8] {
        if let table { return table }
        let leaves = pool.endorsements
        // Whom to trust is for who verifies.
        let anyRoot = TrustedRoots(named: pool.certificates.filter { $0.subject == $0.issuer })
        let isOneKey = Set(leaves.map(\.subjectPublicKeyInfo)).count == 1
        let chain =
            isOneKey
            ? try pool.chain(of: leaves[0], trusted: anyRoot)
            : try pool.chain(selecting: Self.selection(on: kernel), trusted: anyRoot)
        let bytes = CertificateTable(of: chain, revocationList: chain.newestRevocationList).bytes
        try Self.check(bytes, path)
        return bytes
    }

    /// What the platform says of the key that signs its reports.
    private static func selection(on kernel: any HostKernel) throws -> CertificateSelection {
        let platform = try SEVPlatform(kernel)
        let status = try platform.snpStatus()
        var selection = CertificateSelection()
        if status.flags & 4 != 0 {
            selection.kind = .vlek
        } else {
            selection.chipID = Array(try platform.chipID().prefix(64))
        }
        let processor = try ProcessorIdentity(of: Host(kernel))
        if case .known(let line) = processor.product,
            let versions = SecurityVersions(tcbVersion: status.reportedTCB, of: line)
        {
            selection.product = line
            selection.versions = Dictionary(uniqueKeysWithValues: versions.components.map { ($0.name, $0.value) })
        }
        return selection
    }

    private static func check(_ table: [UInt8], _ path: String) throws(CommandFailure) {
        guard table.count > maximumByteCount else { return }
        throw CommandFailure(
            status: .badInput,
            message:
                "could not use the certificates of \(printable(path)): their table has \(table.count) bytes, expected at "
                + "most \(maximumByteCount), which is what Linux guests have room for. Likely cause: certificates of several "
                + "chips, or a long revocation list. Next step: make a table with `certs export --table`.")
    }
}

extension CertificateFolder {
    /// One file that is neither PEM nor DER, and so must be a table.
    fileprivate var isTable: Bool {
        guard !InputFile(path: path).isFolder, let bytes = try? Self.read(path: path) else { return false }
        return !PEM.isText(bytes) && bytes.first != 0x30
    }
}
