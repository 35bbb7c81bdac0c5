// What a guest of the software machine finds beside its report, without `--certs`: the chain of the key that signs now, and
// the root's revocation list.
//
// The RSA keys behind it take seconds to make, so they are made when a guest first asks, and the table is kept in the
// platform's folder for the next run, with a code that only this manufacturer can have made. When a guest asks, the process
// is in its sandbox and can open nothing: every file is opened here before.

import Attestation
import CProcess
import Crypto
import KVMABI
import SEVABI
import SoftwarePSP
import Synchronization

/// A software platform's own certificate table, made once.
final class PlatformCertificateTable: Sendable {
    private enum State {
        case made([UInt8])
        case toMake(Ingredients)
    }
    private let state: Mutex<State>

    /// Opens what the table is made of. A platform whose files cannot be used gives its guests an empty table, and says so.
    init(of platform: SoftwarePlatform) {
        do {
            let ingredients = try Ingredients(platform)
            state = Mutex(ingredients.keptTable.map { .made($0) } ?? .toMake(ingredients))
        } catch {
            StandardError.write(line: "warning: guests get no certificates: \(error.message)")
            state = Mutex(.made(CertificateTable(entries: []).bytes))
        }
    }

    /// The table; the first call may take seconds. Opens no file.
    var bytes: [UInt8] {
        state.withLock { state in
            switch state {
            case .made(let table): return table
            case .toMake(let ingredients):
                let table = ingredients.make()
                state = .made(table)
                return table
            }
        }
    }
}

/// Whose certificates, who signs them, and the open file in which they are kept.
private final class Ingredients: Sendable {
    private static let codeByteCount = 32

    private let storage: PlatformStorage
    private let settings: PlatformSettings
    private let seed: SecretBytes
    /// What the table depends on.
    private let head: [UInt8]
    /// What was kept for the same platform; nil when there was nothing, or something else.
    let keptTable: [UInt8]?
    /// Where the table goes; negative when it cannot be kept.
    private let file: Int32

    init(_ platform: SoftwarePlatform) throws(CommandFailure) {
        storage = platform.storage
        settings = platform.settings
        let (product, tcb) = (settings.product, settings.reportedTCB)
        let key =
            settings.vlekHashstick?.vlek(product: product, reportedTCB: tcb)
            ?? storage.vcek(product: product, reportedTCB: tcb)
        head = Array("certificates 1 \(product.rawValue) \(tcb.rawValue) ".utf8) + key.subjectPublicKeyInfo
        var seed = try platform.folder.manufacturerSeed()
        defer { wipe(&seed) }
        self.seed = SecretBytes(seed)
        let kept = platform.folder.keptCertificates()
        let table = Array(kept.dropFirst(Self.codeByteCount))
        let code = HMACSHA256.authenticate(head + table, key: seed)
        let isOurs = constantTimeEqual(code, Array(kept.prefix(Self.codeByteCount)))
        keptTable = isOurs ? table : nil
        file = isOurs ? -1 : platform.folder.openCertificatesToKeep()
    }

    deinit { if file >= 0 { file_close(file) } }

    func make() -> [UInt8] {
        let (product, tcb) = (settings.product, settings.reportedTCB)
        let hashstick = settings.vlekHashstick
        return seed.withBytes { seed in
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
            // Not replaced, but written over: a reader that sees half of it finds that the code is wrong, and makes its own.
            // What cannot be kept costs time only.
            let bytes = HMACSHA256.authenticate(head + table, key: seed) + table
            if file >= 0 { _ = withKernelAddress(of: bytes) { file_overwrite(file, $0, UInt64(bytes.count)) } }
            return table
        }
    }
}
