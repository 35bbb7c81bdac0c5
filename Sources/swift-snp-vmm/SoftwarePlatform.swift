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
