// The software platform as a whole: the chip in its folder, and the manufacturer who signs for it.

import Attestation
import Crypto
import SEVABI
import SoftwarePSP

/// A software platform, its state as it was when this was opened.
struct SoftwarePlatform: Sendable {
    let folder: PlatformStateFolder
    let storage: PlatformStorage

    /// - Parameter path: `--platform-state`; nil for the user's own.
    init(_ path: String?) throws(CommandFailure) {
        folder = try PlatformStateFolder(path)
        storage = try folder.storage()
    }

    /// A platform of a file without settings has the usual ones.
    var settings: PlatformSettings { storage.settings ?? PlatformSettings(of: .milan) }

    func manufacturer() throws(CommandFailure) -> Manufacturer {
        var seed = try folder.manufacturerSeed()
        defer { wipe(&seed) }
        return Manufacturer(seed: seed)
    }

    /// What a guest finds beside its report: the chain of the key that signs now, and the root's revocation list.
    ///
    /// The RSA keys behind it take seconds, so the last table is kept in the folder, with a code that only this
    /// manufacturer can have made.
    func certificateTable() throws(CommandFailure) -> [UInt8] {
        let settings = settings
        let (product, tcb) = (settings.product, settings.reportedTCB)
        let hashstick = settings.vlekHashstick
        let key =
            hashstick?.vlek(product: product, reportedTCB: tcb) ?? storage.vcek(product: product, reportedTCB: tcb)
        var seed = try folder.manufacturerSeed()
        defer { wipe(&seed) }
        let head = Array("certificates 1 \(product.rawValue) \(tcb.rawValue) ".utf8) + key.subjectPublicKeyInfo
        let kept = folder.keptCertificates()
        let codeByteCount = 32
        if kept.count > codeByteCount {
            let table = Array(kept[codeByteCount...])
            let code = HMACSHA256.authenticate(head + table, key: seed)
            if constantTimeEqual(code, Array(kept[..<codeByteCount])) { return table }
        }
        let manufacturer = Manufacturer(seed: seed)
        let table = CertificateTable(entries: [
            hashstick.map { .init(.vlek, manufacturer.vlek(of: $0, product: product, tcb: tcb)) }
                ?? .init(.vcek, manufacturer.vcek(of: storage, product: product, tcb: tcb)),
            .init(
                .ask,
                hashstick == nil
                    ? manufacturer.signingCertificate(product: product)
                    : manufacturer.vlekSigningCertificate(product: product)),
            .init(.ark, manufacturer.rootCertificate(product: product)),
            .init(.crl, manufacturer.revocationList(product: product)),
        ]).bytes
        folder.keepCertificates(HMACSHA256.authenticate(head + table, key: seed) + table)
        return table
    }
}

extension ProcessorProduct {
    /// The same product in words of who verifies.
    var line: ProductLine {
        switch self {
        case .milan: .milan
        case .genoa: .genoa
        case .turin: .turin
        }
    }
}
