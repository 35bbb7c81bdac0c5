// Which kernel module virtualises on this machine: known differences are known of one of them.

import LinuxKVM
import TestSupport

/// The real kernel of this machine.
public enum HostModule {
    /// `kvm_amd`, `kvm_intel` or `kvm_pvm`; nil where there is none of them.
    public static let name: String? = ["kvm_pvm", "kvm_amd", "kvm_intel"].first { isFolder("/sys/module/\($0)") }

    /// True if `/dev/kvm` opens.
    public static let isPresent: Bool = {
        let kernel = LinuxKVM()
        guard let handle = try? kernel.open(.kvm) else { return false }
        kernel.close(handle)
        return true
    }()

    /// Why a test that needs it is skipped.
    public static let absence = "/dev/kvm does not open here: there is one kernel only"

    /// A kernel that has been compared: whatever differs without a name is a fault. Of others a difference is news.
    public static let isCompared = name == "kvm_pvm"
}
