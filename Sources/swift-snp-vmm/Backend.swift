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
    /// The platform under a software kernel; nil for the host's own, and for one that ends with this process.
    let softwarePlatform: SoftwarePlatform?

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
        let what = technology?.displayName ?? "a plain VM"
        switch choice {
        case .kvm:
            self.init(LinuxKVM(), "backend: kvm (\(what) by the host kernel, as asked)")
        case .software:
            try self.init(software: memoryByteCount, technology, platformState, "backend: software (as asked)")
        case .auto:
            let linux = LinuxKVM()
            guard let missing = HostProbe.whyNot(technology, on: linux) else {
                self.init(linux, "backend: kvm (\(what) by the host kernel)")
                return
            }
            let subject = missing.context.isEmpty ? missing.request : "\(missing.request) \(missing.context)"
            try self.init(
                software: memoryByteCount, technology, platformState,
                "backend: software, because the host kernel cannot do \(what) (\(subject): \(missing.cameBack))")
        }
    }

    private init(_ kernel: any HostKernel, _ announcement: String) {
        self.kernel = kernel
        self.announcement = announcement
        warning = nil
        softwarePlatform = nil
    }

    private init(
        software memoryByteCount: UInt64, _ technology: GuestTechnology?, _ platformState: String?,
        _ announcement: String
    ) throws {
        softwarePlatform = try Self.platform(technology, platformState)
        var configuration = SoftwareKVM.Configuration()
        // Room for the guest and for the secure processor's own pages; what nobody touches costs nothing.
        let (needed, overflow) = memoryByteCount.addingReportingOverflow(1 << 30)
        configuration.systemMemoryByteCount = max(configuration.systemMemoryByteCount, overflow ? .max : needed)
        configuration.platformStorage = softwarePlatform?.storage
        do { kernel = try SoftwareKVM(configuration: configuration) } catch {
            throw CommandFailure(status: .hostCannot, message: "could not start the software machine: \(error)")
        }
        self.announcement = announcement
        warning = Self.softwareWarning
    }

    /// A plain guest needs no platform, and an SNP guest runs without one that stays: where no folder can be made, and none was
    /// asked for.
    private static func platform(_ technology: GuestTechnology?, _ path: String?) throws -> SoftwarePlatform? {
        if path == nil {
            if technology == nil { return nil }
            if technology == .snp {
                do { try PlatformStateFolder(nil).create() } catch {
                    StandardError.write(
                        line: "warning: \(error.message) Until then the guest's platform ends with it: it gets no "
                            + "certificates, and nobody can verify its reports.")
                    return nil
                }
            }
        }
        return try SoftwarePlatform(path)
    }
}
