// The system handle of a host kernel: what it can do, and the CPUID list it offers its guests.

import KVMABI
import SEVABI

/// An open `/dev/kvm`.
public final class Host: Sendable {
    public let kernel: any HostKernel
    let system: KernelHandle

    /// Opens `/dev/kvm` and checks the API version [KVM KVM_GET_API_VERSION].
    public init(_ kernel: any HostKernel) throws(VMMError) {
        self.kernel = kernel
        let step = "open the host kernel"
        system = try request(step, "open /dev/kvm") { () throws(Errno) in try kernel.open(.kvm) }
        let version = try request(step, "KVM_GET_API_VERSION") { () throws(Errno) in
            try kernel.call(system, .getAPIVersion)
        }
        guard version == KVM.apiVersion else {
            throw VMMError(
                .hostCannot, step: step, request: "KVM_GET_API_VERSION",
                finding: "version \(version), expected \(KVM.apiVersion)",
                likelyCause: "a kernel that is not Linux's KVM, or one from before 2007",
                nextStep: "use a current kernel")
        }
    }

    deinit { kernel.close(system) }

    /// The answer to `KVM_CHECK_EXTENSION`: 0 when the kernel does not have it.
    public func value(of capability: Capability) throws(VMMError) -> Int32 {
        try request("ask the host kernel what it can do", "KVM_CHECK_EXTENSION", "\(capability)") {
            () throws(Errno) in
            try kernel.call(system, .checkExtension, value: UInt64(capability.rawValue))
        }
    }

    /// Fails with what is missing unless the kernel can run a guest of this kind.
    ///
    /// - Parameter technology: What protects the guest; nil for a plain one.
    public func require(_ technology: GuestTechnology?) throws(VMMError) {
        let basics: [(Capability, Int32)] = [(.userMemory, 1), (.irqChip, 1), (.immediateExit, 1)]
        let needs: [(Capability, Int32)] =
            switch technology {
            case nil: basics
            // Their memory is the VMM's own: no guest_memfd, no attributes.
            case .sev, .sevES: [(.vmTypes, 1 << Int32(VMType(technology).rawValue))] + basics
            case .snp:
                [
                    (.vmTypes, 1 << Int32(VMType.snp.rawValue)), (.guestMemfd, 1), (.userMemory2, 1),
                    (.memoryAttributes, Int32(KVMMemoryAttributes.privateAttribute)),
                    (.exitHypercall, Int32(KVM.exitHypercallMapGPARange)),
                ] + basics
            }
        for (capability, bits) in needs {
            let found = try value(of: capability)
            // For capabilities that are a mere yes the bit is in every positive answer that means yes.
            guard bits == 1 ? found > 0 : found & bits == bits else {
                throw VMMError(
                    .hostCannot, step: Self.checkStep(technology), request: "KVM_CHECK_EXTENSION",
                    context: "\(capability)",
                    finding: "\(found), expected \(bits == 1 ? "at least 1" : "bits \(hex(bits))")",
                    likelyCause: Self.whatIsNeeded(technology), nextStep: "use another host, or --backend software")
            }
        }
    }

    static func checkStep(_ technology: GuestTechnology?) -> String {
        "check that the host can run \(technology.map { "an \($0.displayName)" } ?? "a") guest"
    }

    private static func whatIsNeeded(_ technology: GuestTechnology?) -> String {
        switch technology {
        case nil: "a kernel without this part of KVM"
        case .sev: "SEV needs Linux 6.10 on an EPYC with SEV enabled in the firmware set-up and kvm_amd sev=1"
        case .sevES:
            "SEV-ES needs Linux 6.10 on an EPYC with ASIDs set aside for it in the firmware set-up and kvm_amd sev_es=1"
        case .snp: "SNP needs Linux 6.11 on an EPYC with SNP enabled in the firmware set-up and kvm_amd sev_snp=1"
        }
    }

    /// The CPUID values that the kernel offers its guests [KVM KVM_GET_SUPPORTED_CPUID], as it gives them.
    public func supportedCPUID() throws(VMMError) -> [KVMCPUIDEntry] {
        var capacity = 64
        while true {
            var bytes = KVMCPUIDList.room(for: capacity)
            do {
                try kernel.call(system, .getSupportedCPUID, bytes: &bytes)
                return KVMCPUIDList.decode(bytes)
            } catch {
                // The list did not fit: the kernel does not say how long it is.
                guard error == .E2BIG, capacity < 1 << 12 else {
                    throw VMMError(
                        step: "read the CPUID values of the host", request: "KVM_GET_SUPPORTED_CPUID",
                        context: "room for \(capacity) entries", errno: error)
                }
                capacity *= 2
            }
        }
    }
}

/// Runs one request and explains a refusal.
@discardableResult
func request<Result>(
    _ step: String, _ name: String, _ context: String = "", _ body: () throws(Errno) -> Result
) throws(VMMError) -> Result {
    do { return try body() } catch {
        throw VMMError(step: step, request: name, context: context, errno: error)
    }
}

/// Whether a kernel can launch guests of a kind, asked without creating anything.
public enum HostProbe {
    /// nil when the kernel can; else the first thing that it cannot.
    ///
    /// - Parameter technology: What protects the guest; nil for a plain one.
    public static func whyNot(_ technology: GuestTechnology?, on kernel: any HostKernel) -> VMMError? {
        do {
            let host = try Host(kernel)
            try host.require(technology)
            guard let technology else { return nil }
            let step = Host.checkStep(technology)
            let sev = try request(step, "open /dev/sev") { () throws(Errno) in try kernel.open(.sev) }
            kernel.close(sev)
            // The attribute came with KVM_SEV_INIT2, the only initialisation that is used here.
            var features: UInt64 = 0
            try request(step, "KVM_GET_DEVICE_ATTR", "KVM_X86_SEV_VMSA_FEATURES") { () throws(Errno) in
                try withKernelAddress(of: &features) { (address) throws(Errno) -> Void in
                    let attribute = KVMDeviceAttribute(
                        group: KVMDeviceAttribute.groupSEV, attribute: KVMDeviceAttribute.sevVMSAFeatures,
                        address: address)
                    try kernel.call(host.system, .getDeviceAttribute, reading: attribute)
                }
            }
            return nil
        } catch {
            return error
        }
    }
}

extension VMType {
    /// The type of `KVM_CREATE_VM` for a guest of this kind.
    init(_ technology: GuestTechnology?) {
        self =
            switch technology {
            case nil: .plain
            case .sev: .sev
            case .sevES: .sevES
            case .snp: .snp
            }
    }
}
