import MemoryController
import SEVABI
import SoftwarePSP

/// A platform and a driver for it: what a kernel does around the firmware's commands.
struct Platform {
    static let cpuid = CPUIDProfile(supported: [
        CPUIDTableEntry(function: 0, eax: 7, ebx: 0x6874_7541, ecx: 0x444d_4163, edx: 0x6974_6e65),
        CPUIDTableEntry(function: 1, eax: 0x00a0_0f11, ebx: 0x0001_0800, ecx: 0xc020_2000, edx: 0x078b_fbff),
    ])

    let memory: SystemMemory
    let processor: SecureProcessor

    init(
        initialized: Bool = true, seed: UInt8? = 1, storage: PlatformStorage? = nil,
        _ change: (inout PlatformProfile) -> Void = { _ in }
    ) throws {
        memory = try SystemMemory(byteCount: 16 << 20)
        var profile = PlatformProfile.milan(cpuid: Self.cpuid)
        change(&profile)
        processor = SecureProcessor(
            memory: memory, profile: profile, entropy: seed.map { Entropy.seed([$0]) } ?? .system,
            storage: storage)
        if initialized { precondition(submit(.snpInitializeEx, SNPInitEx().bytes) == .success) }
    }

    func submit(_ command: SEVCommand, _ bytes: [UInt8]) -> SEVStatus {
        var buffer = bytes
        return processor.submit(command, &buffer)
    }

    /// A page in the firmware state.
    func firmwarePage() -> SPA {
        let spa = memory.allocatePages()!
        precondition(memory.rmpUpdate(spa, RMPUpdate(assigned: true, immutable: true)) == .success)
        return spa
    }

    func createContext() -> SPA {
        let spa = firmwarePage()
        precondition(submit(.snpGuestContextCreate, SNPAddressBuffer(address: spa).bytes) == .success)
        return spa
    }

    func start(_ context: SPA, policy: UInt64 = 0x30000) -> SEVStatus {
        submit(.snpLaunchStart, SNPLaunchStart(context: context, policy: GuestPolicy(rawValue: policy)).bytes)
    }

    func activate(_ context: SPA, _ asid: UInt32 = 1) -> SEVStatus {
        submit(.snpActivate, SNPActivate(context: context, asid: asid).bytes)
    }

    func finish(_ context: SPA) -> SEVStatus { submit(.snpLaunchFinish, SNPLaunchFinish(context: context).bytes) }

    func decommission(_ context: SPA) -> SEVStatus {
        submit(.snpDecommission, SNPAddressBuffer(address: context).bytes)
    }

    /// A guest that is being launched.
    func launchingGuest(asid: UInt32 = 1, policy: UInt64 = 0x30000) -> SPA {
        let context = createContext()
        precondition(start(context, policy: policy) == .success)
        precondition(activate(context, asid) == .success)
        return context
    }

    /// A pre-guest page with contents.
    func preGuestPage(asid: UInt32 = 1, gpa: UInt64, _ contents: [UInt8] = []) throws -> SPA {
        let spa = memory.allocatePages()!
        if !contents.isEmpty { try memory.hostWrite(spa, contents) }
        precondition(
            memory.rmpUpdate(spa, RMPUpdate(gpa: gpa, assigned: true, immutable: true, asid: asid)) == .success)
        return spa
    }

    /// What the guest reads at the start of a page; nil when it faults.
    func load(_ spa: SPA, gpa: UInt64, asid: UInt32 = 1, byteCount: Int = 4096) -> [UInt8]? {
        guard case .page(let pointer, _) = memory.guestPage(spa, gpa: gpa, asid: asid) else { return nil }
        return (0..<byteCount).map { unsafe pointer.load(fromByteOffset: $0, as: UInt8.self) }
    }
}

func hex(_ text: String) -> [UInt8] {
    let digits = text.compactMap { $0.hexDigitValue }
    return stride(from: 0, to: digits.count - 1, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
}
