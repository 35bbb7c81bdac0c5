// Kernels for the SEV tests of this folder.

import KVMABI
import SoftwareKVM

enum LaunchKernel {
    /// A small software machine with known random numbers.
    static func software() throws -> SoftwareKVM {
        var small = SoftwareKVM.Configuration()
        small.systemMemoryByteCount = 64 << 20
        small.seed = 11
        return try SoftwareKVM(configuration: small)
    }
}
