// INIT, INIT_EX, SHUTDOWN: SEV's platform state. Its guests are not modelled.

import SEVABI

extension Firmware {
    /// INIT [SEV 5.1]: UNINIT to INIT.
    mutating func initialize() -> SEVStatus {
        guard sevState == 0 else { return .invalidPlatformState }
        sevState = 1
        return .success
    }

    /// SHUTDOWN [SEV 5.2]: to UNINIT from any state.
    mutating func shutdown() -> SEVStatus {
        sevState = 0
        return .success
    }
}
