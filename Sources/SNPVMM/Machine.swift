// The machine: one VM with its memory, its vCPUs and its devices, launched from a plan.
//
// A value of this type is a launched machine: the initialiser does everything from KVM_CREATE_VM to LAUNCH_FINISH, or
// throws. What differs between SEV, SEV-ES, SNP and plain guests is decided by the configuration and by nothing that a
// host kernel says of itself.
//
//     thread        does
//     vCPU          run(): KVM_RUN and every exit; the console's output. One thread each, the boot processor's the caller's
//     any other     stop(), pressPowerButton(), type(_:)

import GuestImage
import KVMABI
import SEVABI
import Synchronization
import VMMDevices
import X86Defs

/// What to launch.
public struct MachineConfiguration: Sendable {
    /// What protects the guest; nil: the same machine as a plain VM, whose plan is copied into its memory.
    public var technology: GuestTechnology?
    /// RAM; the same number the plan was made for.
    public var memoryByteCount: UInt64
    public var plan: LaunchPlan
    /// The CPUID leaves the plan was made with (``Host/guestCPUID(processorCount:technology:)``).
    public var cpuid: [CPUIDLeaf]
    /// HOST_DATA and ID block, for an SNP guest.
    public var identity: LaunchIdentity
    /// An SNP guest whose CPUID page the firmware refuses is launched with the values that it accepts
    /// (``Machine/cpuidCorrections``); else its launch ends.
    public var takesCorrectedCPUID = false
    /// Gives the certificate table that an SNP guest finds beside its report [GHCB 4.1.8.1]; nil: not now, the guest asks
    /// again. Called for each such report on the vCPU's thread, so it can follow a change of the platform's TCB. Without
    /// it the guest finds an empty table. Needs Linux 7.0.
    public var certificateTable: (@Sendable () -> [UInt8]?)?
    /// Behind the virtio-mmio slots, first to first; at most ``Machine/maximumDeviceCount``. Nothing measured depends on them.
    public var devices: [any VirtioDevice]
    /// Where the guest's memory comes from.
    public var memoryPlacement = MemoryPlacement()
    /// The host's processors that a vCPU's thread may run on, by the vCPU's index. The calling thread of ``Machine/run()``, which
    /// runs the boot processor, gets its own back afterwards.
    public var processorAffinity: [Int: [Int]] = [:]
    /// Makes it a bare machine, for images that bring their own everything; a plain one only.
    public var bare: BareMachineConfiguration?

    public init(
        technology: GuestTechnology?, memoryByteCount: UInt64, plan: LaunchPlan, cpuid: [CPUIDLeaf],
        identity: LaunchIdentity = LaunchIdentity(), certificateTable: (@Sendable () -> [UInt8]?)? = nil,
        devices: [any VirtioDevice] = [], bare: BareMachineConfiguration? = nil
    ) {
        precondition(bare == nil || technology == nil, "a bare machine is a plain one")
        self.bare = bare
        self.technology = technology
        self.memoryByteCount = memoryByteCount
        self.plan = plan
        self.cpuid = cpuid
        self.identity = identity
        self.certificateTable = certificateTable
        self.devices = devices
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
    let virtio: [VirtioMMIO]
    /// Of a bare machine.
    let bareDevices: BareDevices?
    let launchPhases: [Phase]
    let launchedMap: MemoryMap
    /// What LAUNCH_MEASURE answered, for a SEV or SEV-ES guest.
    public let measurement: SEVMeasurement?
    /// The registers of an SNP guest's CPUID page in which the firmware did not accept what the host offered: "leaf 0x7 EBX: offered
    /// 0x…, the firmware accepts 0x…". Not measured either way.
    public let cpuidCorrections: [String]
    let runState = Mutex(RunState())
    let certificateTable: (@Sendable () -> [UInt8]?)?
    let processorAffinity: [Int: [Int]]
    /// Nil for a plain VM. Kept open: the kernel remembers the descriptor, and guest requests need it.
    private let sevChannel: SEVChannel?

    /// Creates the VM, gives it memory and vCPUs, and launches the plan.
    ///
    /// - Parameters:
    ///   - owner: Gives a SEV or SEV-ES guest its session and its secrets, on the calling thread; nil: nobody does, and the
    ///     launch waits for nothing.
    ///   - console: Gets every byte that the guest sends on its serial line, on the vCPU's thread.
    ///   - observe: Hears of every step, on the calling thread.
    public init(
        host: Host, configuration: MachineConfiguration, owner: (any LaunchOwner)? = nil,
        console: @escaping @Sendable (UInt8) -> Void,
        observe: @escaping (LaunchEvent) -> Void = { _ in }
    ) throws(VMMError) {
        precondition(!configuration.plan.processors.isEmpty, "a machine has a processor")
        precondition(configuration.devices.count <= Self.maximumDeviceCount, "the machine has fewer slots")
        let kernel = host.kernel
        let plan = configuration.plan
        let steps = StepRecorder(observe)
        let technology = configuration.technology
        if let refusal = Self.contradiction(configuration, owner: owner) { throw refusal }
        try host.require(technology)

        let vm = try steps.record(.createVM, "create the VM") { () throws(VMMError) in
            try Self.createVM(host, technology)
        }
        var owned: KernelHandle? = vm
        defer { if let owned { kernel.close(owned) } }
        var channel: SEVChannel?
        var initialized: InitializedVM?
        if let technology {
            let opened = try SEVChannel(kernel: kernel, vm: vm)
            channel = opened
            initialized = try steps.record(.initialize, "KVM_SEV_INIT2", detail: technology.displayName) {
                () throws(VMMError) in
                try InitializedVM(opened, technology, guestFeatures: plan.guestFeatures)
            }
            // Before the first vCPU.
            if technology == .snp, configuration.certificateTable != nil {
                try opened.run("let guests ask for certificates", .snpEnableCertificateRequests)
            }
        }
        try request("create the VM", "KVM_CREATE_IRQCHIP") { () throws(Errno) in
            try kernel.call(vm, .createIRQChip)
        }
        if configuration.bare != nil {
            try request("create the VM", "KVM_CREATE_PIT2") { () throws(Errno) in
                try kernel.call(vm, .createPIT2, reading: KVMPITConfig())
            }
        } else {
            // A hardware-reduced guest never masks the 8259 pair: keep the lines away from it.
            var routing = KVMIRQRouting.ioapicOnly(pinCount: 24)
            try request("create the VM", "KVM_SET_GSI_ROUTING") { () throws(Errno) in
                try kernel.call(vm, .setGSIRouting, bytes: &routing)
            }
        }
        let ranges = Self.memoryRanges(configuration)
        let memory = try steps.record(
            .memory, "memory", detail: readable(byteCount: configuration.memoryByteCount)
        ) { () throws(VMMError) in
            try GuestMemory(
                kernel: kernel, vm: vm, ranges: ranges, technology: technology,
                placement: configuration.memoryPlacement)
        }
        try memory.populate(configuration.memoryPlacement, steps)
        let processors = try steps.record(.processors, "processors", detail: "\(plan.processors.count)") {
            () throws(VMMError) in
            var processors: [VCPU] = []
            for (id, state) in plan.processors.enumerated() {
                processors.append(
                    try VCPU(
                        kernel: kernel, vm: vm, system: host.system, id: id, cpuid: configuration.cpuid, state: state))
            }
            return processors
        }
        var map = MemoryMap(plan)
        switch consume initialized {
        case .some(.snp(let initialized)):
            cpuidCorrections = try Self.launch(plan, initialized, configuration, steps)
            measurement = nil
        case .some(.sev(let initialized)):
            let launched = try Self.launch(
                plan, initialized, in: memory, of: kernel, owner: owner, steps)
            measurement = launched.measurement
            cpuidCorrections = []
            map.secretArea = launched.secretArea
        case nil:
            try Self.copy(plan, into: memory, steps)
            measurement = nil
            cpuidCorrections = []
        }
        map.atLaunch = memory.areas

        self.host = host
        self.kernel = kernel
        self.vm = vm
        owned = nil
        self.memory = memory
        self.processors = processors
        sevChannel = channel
        certificateTable = configuration.certificateTable
        processorAffinity = configuration.processorAffinity
        launchPhases = steps.phases
        launchedMap = map

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
        var mmio = Bus()
        if let bare = configuration.bare {
            bareDevices = try BareDevices(
                bare, memoryByteCount: configuration.memoryByteCount, processorCount: plan.processors.count,
                ports: &ports, mmio: &mmio, output: output,
                setLine: { line, level in
                    _ = try? kernel.call(vm, .irqLine, reading: KVMIRQLevel(irq: line, level: level ? 1 : 0))
                })
            virtio = []
        } else {
            bareDevices = nil
            power.attach(
                to: &mmio, sleepControl: GuestAddressMap.sleepControl, sleepStatus: GuestAddressMap.sleepStatus,
                reset: GuestAddressMap.reset)
            virtio = Self.attach(configuration.devices, to: &mmio, memory: memory, kernel: kernel, vm: vm)
        }
        self.ports = ports
        self.mmio = mmio
    }

    let output: ConsoleOutput

    deinit {
        // Threads of devices may live on: after this they touch neither the guest's memory nor the VM's interrupts.
        for slot in virtio { slot.reset() }
        kernel.close(vm)
    }

    /// Presses the machine's power button: a guest that has a driver for it begins to power itself off, and ``run()`` returns
    /// when it is done. May be called on any thread.
    /// - Returns: False when nobody in the guest listens, as when it has not booted so far, or is a bare machine.
    @discardableResult
    public func pressPowerButton() -> Bool {
        let line = GuestAddressMap.powerButtonInterrupt
        var chip = KVMIRQChip(chipID: KVMIRQChip.ioapic)
        guard bareDevices == nil, (try? kernel.call(vm, .getIRQChip, &chip)) != nil,
            !chip.isMasked(ioapicPin: Int(line))
        else { return false }
        for level in [1, 0] as [UInt32] {
            // A refusal would be a VM that is gone: the run loop sees that on its own.
            _ = try? kernel.call(vm, .irqLine, reading: KVMIRQLevel(irq: line, level: level))
        }
        return true
    }

    /// Bytes typed at the guest's console. May be called on any thread.
    /// - Returns: How many the serial line took.
    @discardableResult
    public func type(_ bytes: some Collection<UInt8>) -> Int { serial.receive(bytes) }
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
