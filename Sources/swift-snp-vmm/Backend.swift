// Which host kernel runs the guest: the one place that names concrete kernels.

import ArgumentParser
import KVMABI
import LinuxKVM
import SEVABI
import SNPVMM
import SoftwareKVM

/// `--backend`.
enum BackendChoice: String, ExpressibleByArgument, CaseIterable {
    case auto, kvm, software
}

/// A chosen host kernel.
struct Backend {
    let kernel: any HostKernel
    /// Which backend, and why.
    let announcement: String
    /// What a software run must say before anything secret goes in; nil for a real kernel.
    let warning: String?

    private static let softwareWarning = """
        warning: the software backend protects nothing: this process, its user and the host see everything the guest does. \
        Use it to test, never for secrets.
        """

    /// Chooses, and says why.
    ///
    /// - Parameter platformState: The folder of the software platform's keys; nil for the user's own.
    init(
        _ choice: BackendChoice, technology: GuestTechnology?, memoryByteCount: UInt64, platformState: String? = nil
    ) throws {
        let keepsPlatform = technology == .sev || technology == .sevES || platformState != nil
        let what = technology?.displayName ?? "a plain VM"
        switch choice {
        case .kvm:
            self.init(LinuxKVM(), "backend: kvm (\(what) by the host kernel, as asked)")
        case .software:
            self.init(
                try Self.software(memoryByteCount, keepsPlatform: keepsPlatform, platformState),
                "backend: software (as asked)",
                warning: Self.softwareWarning)
        case .auto:
            let linux = LinuxKVM()
            guard let missing = HostProbe.whyNot(technology, on: linux) else {
                self.init(linux, "backend: kvm (\(what) by the host kernel)")
                return
            }
            let subject = missing.context.isEmpty ? missing.request : "\(missing.request) \(missing.context)"
            self.init(
                try Self.software(memoryByteCount, keepsPlatform: keepsPlatform, platformState),
                "backend: software, because the host kernel cannot do \(what) (\(subject): \(missing.cameBack))",
                warning: Self.softwareWarning)
        }
    }

    private init(_ kernel: any HostKernel, _ announcement: String, warning: String? = nil) {
        self.kernel = kernel
        self.announcement = announcement
        self.warning = warning
    }

    private static func software(
        _ memoryByteCount: UInt64, keepsPlatform: Bool, _ platformState: String?
    ) throws -> SoftwareKVM {
        var configuration = SoftwareKVM.Configuration()
        // Room for the guest and for the secure processor's own pages; what nobody touches costs nothing.
        let (needed, overflow) = memoryByteCount.addingReportingOverflow(1 << 30)
        configuration.systemMemoryByteCount = max(configuration.systemMemoryByteCount, overflow ? .max : needed)
        // An SNP guest's platform has nothing that another process must find again.
        if keepsPlatform { configuration.platformStorage = try PlatformStateFolder(platformState).storage() }
        do { return try SoftwareKVM(configuration: configuration) } catch {
            throw CommandFailure(status: .hostCannot, message: "could not start the software machine: \(error)")
        }
    }
}
