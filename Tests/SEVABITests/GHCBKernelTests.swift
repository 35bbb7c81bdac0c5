// GHCB events by the kernel's names: CKVM's table, which the installed headers have confirmed.

import CKVM
import SEVABI
import Testing

private let events: [(name: String, event: GHCBEvent)] = [
    ("SVM_EXIT_READ_DR7", .readDR7), ("SVM_EXIT_WRITE_DR7", .writeDR7), ("SVM_EXIT_RDTSC", .rdtsc),
    ("SVM_EXIT_RDPMC", .rdpmc), ("SVM_EXIT_CPUID", .cpuid), ("SVM_EXIT_INVD", .invd), ("SVM_EXIT_IOIO", .ioio),
    ("SVM_EXIT_MSR", .msr), ("SVM_EXIT_VMMCALL", .vmmcall), ("SVM_EXIT_RDTSCP", .rdtscp),
    ("SVM_EXIT_WBINVD", .wbinvd), ("SVM_EXIT_MONITOR", .monitor), ("SVM_EXIT_MWAIT", .mwait),
    ("SVM_VMGEXIT_MMIO_READ", .mmioRead), ("SVM_VMGEXIT_MMIO_WRITE", .mmioWrite),
    ("SVM_VMGEXIT_NMI_COMPLETE", .nmiComplete), ("SVM_VMGEXIT_AP_HLT_LOOP", .apResetHold),
    ("SVM_VMGEXIT_AP_JUMP_TABLE", .apJumpTable), ("SVM_VMGEXIT_PSC", .pageStateChange),
    ("SVM_VMGEXIT_GUEST_REQUEST", .guestRequest), ("SVM_VMGEXIT_EXT_GUEST_REQUEST", .extendedGuestRequest),
    ("SVM_VMGEXIT_AP_CREATION", .apCreation), ("SVM_VMGEXIT_SNP_RUN_VMPL", .runVMPL),
    ("SVM_VMGEXIT_HV_FEATURES", .hypervisorFeatures), ("SVM_VMGEXIT_TERM_REQUEST", .termination),
    ("SVM_VMGEXIT_UNSUPPORTED_EVENT", .unsupported),
]

@Suite struct GHCBKernelTests {
    @Test func `every event has the kernel's number, and no number is left over`() {
        var kernel: [String: UInt64] = [:]
        for index in 0..<ckvm_constant_count() {
            let entry = ckvm_constant_at(index)
            let name = String(cString: entry.name)
            if name.hasPrefix("SVM_") { kernel[name] = UInt64(entry.value) }
        }
        for (name, event) in events { #expect(kernel.removeValue(forKey: name) == event.rawValue, "\(name)") }
        #expect(kernel.isEmpty)
    }
}
