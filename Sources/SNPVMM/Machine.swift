// The machine: one VM with its memory, its vCPUs and its devices, launched from a plan.
//
// A value of this type is a launched machine: the initialiser does everything from KVM_CREATE_VM to SNP_LAUNCH_FINISH,
// or throws. What differs between an SNP guest and a plain one is decided by the plan's configuration and by nothing
// that a host kernel says of itself.
//
//     thread        does
//     vCPU          run(): KVM_RUN and every exit; the console's output
//     any other     stop(), type(_:)

import GuestImage
import KVMABI
import Synchronization
import VMMDevices
import X86Defs

/// What to launch.
public struct MachineConfiguration: Sendable {
    /// True: an SNP guest. False: the same machine as a plain VM; the plan's pages are copied into its memory.
    public var confidential: Bool
    /// RAM; the same number the plan was made for.
    public var memoryByteCount: UInt64
    public var plan: LaunchPlan
    /// The CPUID leaves the plan was made with (``Host/guestCPUID(processorCount:confidential:)``).
    public var cpuid: [CPUIDLeaf]
    /// HOST_DATA and ID block, for an SNP guest.
    public var identity: LaunchIdentity

    public init(
        confidential: Bool, memoryByteCount: UInt64, plan: LaunchPlan, cpuid: [CPUIDLeaf],
        identity: LaunchIdentity = LaunchIdentity()
    ) {
        self.confidential = confidential
        self.memoryByteCount = memoryByteCount
        self.plan = plan
        self.cpuid = cpuid
        self.identity = identity
    }
}

/// What a launch tells while it goes on.
public enum LaunchEvent: Sendable {
    /// A step begins: its name, and how many pages it is about (0: not a matter of pages).
    case began(name: String, pageCount: UInt64)
    /// Pages of the current step that are done.
    case progress(pagesDone: UInt64)
    /// The step is over.
    case ended(Phase)
}

/// A launched machine.
public final class Machine: Sendable {
    let host: Host
    let kernel: any HostKernel
    let vm: KernelHandle
    let memory: GuestMemory
    let processors: [VCPU]
    let serial: Serial16550
    let power: PowerBlock
    let ports: Bus
    let mmio: Bus
    let launchPhases: [Phase]
    let runState = Mutex(RunState())
    /// Nil for a plain VM. Kept open: the kernel remembers the descriptor.
    private let sevChannel: SEVChannel?

    /// Creates the VM, gives it memory and vCPUs, and launches the plan.
    ///
    /// - Parameters:
    ///   - console: Gets every byte that the guest sends on its serial line, on the vCPU's thread.
    ///   - observe: Hears of every step, on the calling thread.
    public init(
        host: Host, configuration: MachineConfiguration, console: @escaping @Sendable (UInt8) -> Void,
        observe: @escaping (LaunchEvent) -> Void = { _ in }
    ) throws(VMMError) {
        precondition(!configuration.plan.processors.isEmpty, "a machine has a processor")
        let kernel = host.kernel
        let plan = configuration.plan
        let steps = StepRecorder(observe)
        try host.require(confidential: configuration.confidential)

        let vm = try steps.record("create the VM") { () throws(VMMError) in
            try Self.createVM(host, confidential: configuration.confidential)
        }
        var owned: KernelHandle? = vm
        defer { if let owned { kernel.close(owned) } }
        var channel: SEVChannel?
        var initialized: SNPInitialized?
        if configuration.confidential {
            let opened = try SEVChannel(kernel: kernel, vm: vm)
            channel = opened
            initialized = try steps.record("KVM_SEV_INIT2") { () throws(VMMError) in
                try SNPLaunch.initialize(opened, guestFeatures: plan.guestFeatures)
            }
        }
        try request("create the VM", "KVM_CREATE_IRQCHIP") { () throws(Errno) in
            try kernel.call(vm, .createIRQChip)
        }
        // A hardware-reduced guest never masks the 8259 pair: keep the lines away from it.
        var routing = KVMIRQRouting.ioapicOnly(pinCount: 24)
        try request("create the VM", "KVM_SET_GSI_ROUTING") { () throws(Errno) in
            try kernel.call(vm, .setGSIRouting, bytes: &routing)
        }
        let ranges = Self.memoryRanges(configuration)
        let memory = try steps.record("memory", detail: readable(byteCount: configuration.memoryByteCount)) {
            () throws(VMMError) in
            try GuestMemory(kernel: kernel, vm: vm, ranges: ranges, confidential: configuration.confidential)
        }
        let processors = try steps.record("processors", detail: "\(plan.processors.count)") { () throws(VMMError) in
            var processors: [VCPU] = []
            for (id, state) in plan.processors.enumerated() {
                processors.append(
                    try VCPU(
                        kernel: kernel, vm: vm, system: host.system, id: id, cpuid: configuration.cpuid, state: state))
            }
            return processors
        }
        if let initialized = initialized.take() {
            try Self.launch(plan, initialized, identity: configuration.identity, steps)
        } else {
            try Self.copy(plan, into: memory, steps)
        }

        self.host = host
        self.kernel = kernel
        self.vm = vm
        owned = nil
        self.memory = memory
        self.processors = processors
        sevChannel = channel
        launchPhases = steps.phases

        let output = ConsoleOutput(console)
        self.output = output
        serial = Serial16550(
            interrupt: { level in
                // A refusal would be a VM that is gone: the run loop sees that on its own.
                _ = try? kernel.call(
                    vm, .irqLine, reading: KVMIRQLevel(irq: GuestAddressMap.serialInterrupt, level: level ? 1 : 0))
            },
            transmit: { output.send($0) })
        power = PowerBlock(
            softOffSleepType: GuestAddressMap.softOffSleepType, resetValue: GuestAddressMap.resetValue)
        var ports = Bus()
        ports.attach(
            serial, base: UInt64(GuestAddressMap.serialPort), byteCount: UInt64(GuestAddressMap.serialPortCount))
        self.ports = ports
        var mmio = Bus()
        power.attach(
            to: &mmio, sleepControl: GuestAddressMap.sleepControl, sleepStatus: GuestAddressMap.sleepStatus,
            reset: GuestAddressMap.reset)
        self.mmio = mmio
    }

    let output: ConsoleOutput

    deinit { kernel.close(vm) }

    /// Bytes typed at the guest's console. May be called on any thread.
    /// - Returns: How many the serial line took.
    @discardableResult
    public func type(_ bytes: some Collection<UInt8>) -> Int { serial.receive(bytes) }
}

// MARK: The steps of a launch

extension Machine {
    private static func createVM(_ host: Host, confidential: Bool) throws(VMMError) -> KernelHandle {
        let kernel = host.kernel
        let step = "create the VM"
        let type = confidential ? VMType.snp : .plain
        let descriptor = try request(step, "KVM_CREATE_VM", "type \(type.rawValue)") { () throws(Errno) in
            try kernel.call(host.system, .createVM, value: UInt64(type.rawValue))
        }
        let vm = KernelHandle(rawValue: descriptor)
        guard confidential else { return vm }
        do {
            // Without this every page state change of the guest fails.
            try request(step, "KVM_ENABLE_CAP", "KVM_CAP_EXIT_HYPERCALL") { () throws(Errno) in
                try kernel.call(
                    vm, .enableCapability,
                    reading: KVMEnableCapability(.exitHypercall, argument: KVM.exitHypercallMapGPARange))
            }
        } catch {
            kernel.close(vm)
            throw error
        }
        return vm
    }

    /// RAM, and the pages of the plan that lie outside it: a firmware image below 4 GiB.
    static func memoryRanges(_ configuration: MachineConfiguration) -> [Range<UInt64>] {
        let ram = RangeSet(GuestAddressMap.ramRanges(memoryByteCount: configuration.memoryByteCount))
        var rest = RangeSet<UInt64>()
        for region in configuration.plan.regions {
            let (end, overflow) = region.gpa.addingReportingOverflow(region.byteCount)
            guard !overflow, region.byteCount > 0 else { continue }
            rest.insert(contentsOf: region.gpa..<end)
        }
        rest.subtract(ram)
        return ram.ranges.map { $0 } + rest.ranges.map { $0 }
    }

    private static func launch(
        _ plan: LaunchPlan, _ initialized: consuming SNPInitialized, identity: LaunchIdentity, _ steps: StepRecorder
    ) throws(VMMError) {
        let begin = steps.begin("SNP_LAUNCH_START")
        var launching = try initialized.start(policy: plan.policy)
        steps.end(begin, detail: "policy \(hex(plan.policy))")
        for region in plan.regions {
            let pages = region.byteCount / UInt64(KVM.pageByteCount)
            let begin = steps.begin("\(region.pageType) \(region.label)", pageCount: pages)
            launching = try launching.update(region) { steps.progress($0 / UInt64(KVM.pageByteCount)) }
            steps.end(begin, detail: "\(pages) \(pages == 1 ? "page" : "pages") at \(hex(region.gpa))")
        }
        let last = steps.begin("SNP_LAUNCH_FINISH")
        try launching.finish(identity)
        steps.end(last, detail: "\(plan.processors.count) VMSA")
    }

    /// The plain form of a launch: the plan's pages are copied, the rest of the memory is zero already.
    private static func copy(_ plan: LaunchPlan, into memory: GuestMemory, _ steps: StepRecorder) throws(VMMError) {
        for region in plan.regions where !region.contents.isEmpty {
            let begin = steps.begin("copy \(region.label)")
            guard memory.writeShared(region.contents[...], at: region.gpa) else {
                throw VMMError(
                    .badInput, step: "copy \(region.label)", request: "a write to the guest's memory",
                    context: "\(readable(byteCount: region.byteCount)) at \(hex(region.gpa))",
                    finding: "no memory there", likelyCause: "--memory is too small for the image",
                    nextStep: "use a larger --memory")
            }
            steps.end(begin, detail: "\(readable(byteCount: region.byteCount)) at \(hex(region.gpa))")
        }
    }
}

/// Times the steps of a launch and tells the observer.
private final class StepRecorder {
    private(set) var phases: [Phase] = []
    private let observe: (LaunchEvent) -> Void
    private let clock = ContinuousClock()

    init(_ observe: @escaping (LaunchEvent) -> Void) { self.observe = observe }

    func begin(_ name: String, pageCount: UInt64 = 0) -> (name: String, start: ContinuousClock.Instant) {
        observe(.began(name: name, pageCount: pageCount))
        return (name, clock.now)
    }

    func progress(_ pagesDone: UInt64) { observe(.progress(pagesDone: pagesDone)) }

    func end(_ step: (name: String, start: ContinuousClock.Instant), detail: String = "") {
        let phase = Phase(name: step.name, detail: detail, duration: step.start.duration(to: clock.now))
        phases.append(phase)
        observe(.ended(phase))
    }

    func record<Result: ~Copyable>(
        _ name: String, detail: String = "", _ body: () throws(VMMError) -> Result
    ) throws(VMMError) -> Result {
        let step = begin(name)
        let result = try body()
        end(step, detail: detail)
        return result
    }
}

/// The console's way out, which remembers when it was first used.
final class ConsoleOutput: Sendable {
    private struct State {
        var byteCount: UInt64 = 0
        var firstByte: ContinuousClock.Instant?
    }
    private let state = Mutex(State())
    private let write: @Sendable (UInt8) -> Void

    init(_ write: @escaping @Sendable (UInt8) -> Void) { self.write = write }

    func send(_ byte: UInt8) {
        state.withLock { state in
            if state.byteCount == 0 { state.firstByte = ContinuousClock.now }
            state.byteCount &+= 1
        }
        write(byte)
    }

    var byteCount: UInt64 { state.withLock { $0.byteCount } }
    var firstByte: ContinuousClock.Instant? { state.withLock { $0.firstByte } }
}
