// What the environment says of the machine. What is no number counts as absent: the program that we are in is not ours to
// stop.
//
//     SNPVMM_SEED      the machine's random numbers come from it
//     SNPVMM_MEMORY    MiB of system memory, of which guest_memfd pages are taken
//     SNPVMM_TSC_KHZ   the guests' TSC frequency
//     SNPVMM_TRACE     1: every request and its answer on standard error, and what KVM_RUN came back for
//     SNPVMM_CPUID     0: the program's CPUID instructions ask the real processor

import CPreload
import SoftwareKVM

enum Settings {
    static func configuration() -> SoftwareKVM.Configuration {
        var configuration = SoftwareKVM.Configuration()
        configuration.handlesAreDescriptors = true
        if let seed = UInt64(exactly: preload_setting(0)) { configuration.seed = seed }
        if let count = UInt64(exactly: preload_setting(1)), (16...1 << 24).contains(count) {
            configuration.systemMemoryByteCount = count << 20
        }
        if let kHz = UInt32(exactly: preload_setting(2)), kHz > 0 { configuration.tscKHz = kHz }
        return configuration
    }

    static func complain(_ text: String) { for byte in "libsnpvmm-preload: \(text)\n".utf8 { preload_say(byte) } }
}
