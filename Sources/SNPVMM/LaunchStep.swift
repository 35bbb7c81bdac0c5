// The steps of a launch, and who speaks to whom in each: what a picture of the launch needs.

/// A box of the picture.
public enum LaunchParty: String, Sendable, CaseIterable {
    /// The guest owner, outside the host.
    case owner
    /// This VMM.
    case hypervisor
    /// The host kernel.
    case kernel
    /// The secure processor.
    case firmware
    /// The guest's memory.
    case memory
}

/// What a step of a launch does.
public enum LaunchStep: String, Sendable, CaseIterable {
    /// `KVM_CREATE_VM`.
    case createVM
    /// `KVM_SEV_INIT2`: the VM becomes a SEV, SEV-ES or SNP VM, and the kernel sets an ASID aside.
    case initialize
    /// The memory slots.
    case memory
    /// The vCPUs and their registers.
    case processors
    /// `SEV_PDH_CERT_EXPORT`: the platform's certificates go to the owner.
    case exportCertificates
    /// The owner answers with certificate, session and policy.
    case session
    /// LAUNCH_START, SNP_LAUNCH_START: the guest gets its key.
    case start
    /// `KVM_MEMORY_ENCRYPT_REG_REGION`: the memory is pinned.
    case registerMemory
    /// LAUNCH_UPDATE_DATA, SNP_LAUNCH_UPDATE: memory is encrypted and measured.
    case update
    /// LAUNCH_UPDATE_VMSA: the vCPUs' registers are encrypted and measured.
    case updateVMSA
    /// LAUNCH_MEASURE: the measurement, and no further update.
    case measure
    /// The owner checks the measurement and answers with packets, or refuses.
    case verdict
    /// LAUNCH_SECRET: a packet of the owner's is decrypted into the guest's memory.
    case secret
    /// LAUNCH_FINISH, SNP_LAUNCH_FINISH.
    case finish
    /// A plain guest's memory is filled.
    case copy

    /// Who hands on to whom, from the first to the last.
    public var path: [LaunchParty] {
        switch self {
        case .createVM, .processors: [.hypervisor, .kernel]
        case .memory, .registerMemory: [.hypervisor, .kernel, .memory]
        case .initialize, .start, .finish: [.hypervisor, .firmware]
        case .exportCertificates: [.firmware, .hypervisor, .owner]
        case .session: [.owner, .hypervisor, .firmware]
        case .update, .updateVMSA: [.hypervisor, .firmware, .memory]
        case .measure: [.firmware, .hypervisor, .owner]
        case .verdict: [.owner, .hypervisor]
        case .secret: [.owner, .hypervisor, .firmware, .memory]
        case .copy: [.hypervisor, .memory]
        }
    }
}

/// Times the steps of a launch and tells the observer.
final class StepRecorder {
    /// A step that goes on.
    struct Open {
        let step: LaunchStep
        let name: String
        let start: ContinuousClock.Instant
    }

    private(set) var phases: [Phase] = []
    private let observe: (LaunchEvent) -> Void
    private let begin = ContinuousClock.now

    init(_ observe: @escaping (LaunchEvent) -> Void) { self.observe = observe }

    func begin(_ step: LaunchStep, _ name: String, pageCount: UInt64 = 0) -> Open {
        observe(.began(name: name, pageCount: pageCount))
        return Open(step: step, name: name, start: .now)
    }

    func progress(_ pagesDone: UInt64) { observe(.progress(pagesDone: pagesDone)) }

    func end(_ open: Open, detail: String = "") {
        let phase = Phase(
            name: open.name, detail: detail, duration: open.start.duration(to: .now), step: open.step,
            start: begin.duration(to: open.start))
        phases.append(phase)
        observe(.ended(phase))
    }

    func record<Result: ~Copyable>(
        _ step: LaunchStep, _ name: String, detail: String = "", _ body: () throws(VMMError) -> Result
    ) throws(VMMError) -> Result {
        let open = begin(step, name)
        let result = try body()
        end(open, detail: detail)
        return result
    }
}
