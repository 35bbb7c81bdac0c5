// A software machine with everything that the isolation suite can use: a hostile kernel, and the same chip once more under
// an older firmware.

import IsolationSuite
import KVMABI
import SEVABI
import SoftwareKVM
import SoftwarePSP
import Synchronization

extension Laboratory {
    /// A software machine for attacks. Its chip is a new one, which nobody else sees.
    ///
    /// - Parameter seed: Makes the machine's random numbers the same each time; nil takes fresh ones.
    public static func software(seed: UInt64? = nil) throws -> Laboratory {
        let chip = Chip()
        let kernel = try SoftwareKVM(configuration: try chip.configuration(seed: seed))
        return Laboratory(kernel: kernel, privileges: HostileSoftwareKernel(kernel)) {
            var configuration = try chip.configuration(seed: seed)
            configuration.platform.apiMinor -= 3
            configuration.platform.build = 1
            configuration.platform.currentTCB = TCBVersion(bootLoader: 3, tee: 0, snp: 20, microcode: 200)
            return try SoftwareKVM(configuration: configuration)
        }
    }
}

/// What is burnt into a chip and stored beside it, so that two firmwares find the same.
private final class Chip: Sendable {
    private let state = Mutex<[UInt8]>([])

    func configuration(seed: UInt64?) throws -> SoftwareKVM.Configuration {
        var configuration = SoftwareKVM.Configuration()
        configuration.seed = seed
        let entropy = seed.map { seed in
            Entropy.seed((0..<8).map { UInt8(truncatingIfNeeded: seed >> UInt64(8 * $0)) })
        }
        configuration.platformStorage = try PlatformStorage(
            bytes: state.withLock { $0 }, entropy: entropy ?? .system
        ) { [self] bytes in state.withLock { $0 = bytes } }
        return configuration
    }
}
