// Requests on a vCPU handle, by their whole word [KVM 4, vcpu ioctls].

import KVMABI
import X86Defs

extension VirtualCPU {
    func request(_ request: IoctlRequest, _ argument: IoctlArgument) throws(Errno) -> Int32 {
        try locked { () throws(Errno) in
            switch request {
            case .run:
                if argument.number != 0 { throw .EINVAL }
                return try run()
            case .getRegisters:
                try requireReachableState()
                try argument.store(registers)
            case .setRegisters:
                try requireReachableState()
                registers = try argument.load()
            case .getSpecialRegisters:
                try requireReachableState()
                try argument.store(specialRegisters)
            case .setSpecialRegisters:
                try requireReachableState()
                try setSpecialRegisters(argument.load())
            case .getSpecialRegisters2:
                try requireReachableState()
                try argument.store(KVMSpecialRegisters2(specialRegisters))
            case .setSpecialRegisters2:
                try requireReachableState()
                let value: KVMSpecialRegisters2 = try argument.load()
                if value.flags & ~1 != 0 { throw .EINVAL }
                // PDPTEs come along with PAE paging alone; this processor reads them from memory.
                let usesPAE = value.cr0 & CR0.pg != 0 && value.cr4 & CR4.pae != 0 && value.efer & EFER.lma == 0
                if value.flags != 0, !usesPAE { throw .EINVAL }
                try setSpecialRegisters(KVMSpecialRegisters(value))
            case .getMSRs: return try transferMSRs(argument, writes: false)
            case .setMSRs: return try transferMSRs(argument, writes: true)
            case .setCPUID2: try setCPUID(argument)
            case .getCPUID2: return try vm.kernel.listCPUID(cpuid.map(live), argument)
            case .getLAPIC: try getLAPIC(argument)
            case .setLAPIC: try setLAPIC(argument)
            case .getMPState:
                // What INIT and SIPI have asked for counts from now on [KVM kvm_apic_accept_events].
                takeStartup()
                try argument.store(mpState)
            case .setMPState: try setMPState(argument.load())
            case .getVCPUEvents: try argument.store(events)
            case .setVCPUEvents: try setEvents(argument.load())
            case .getXSave, .getXSave2:
                try requireReachableFPU()
                try argument.store(xsave)
            case .setXSave: try setXSave(argument.load())
            case .getXCRs:
                try requireReachableState()
                var value = KVMXCRs()
                value.count = 1
                value.xcrs[0] = KVMXCR(xcr: 0, value: state.xcr0)
                try argument.store(value)
            case .setXCRs: try setXCRs(argument.load())
            case .getFPU:
                try requireReachableFPU()
                try argument.store(fpu)
            case .setFPU: try setFPU(argument.load())
            case .getDebugRegisters: try getDebugRegisters(argument)
            case .setDebugRegisters: try setDebugRegisters(argument.load())
            case .setGuestDebug: try setGuestDebug(argument.load())
            case .interrupt: try queueInterrupt(argument.load())
            case .nmi: setPendingNMIs(pendingNMIs + 1)
            case .kvmclockControl:
                // A time page that is not there is none.
                let address = msrs.systemTime & ~1
                guard msrs.systemTime & 1 != 0, address & 4095 <= 4096 - 32,
                    vm.memory.userPage(gpa: address & ~4095, writing: false) != nil
                else { throw .EINVAL }
                msrs.guestStopped = true
                requestClockUpdate()
            case .setTSCkHz:
                tscKHz = try vm.kernel.tscKHz(argument)
                processor?.tscKHz = tscKHz
                requestClockUpdate()
            case .getTSCkHz: return Int32(truncatingIfNeeded: tscKHz)
            case .preFaultMemory: try preFault(argument)
            case .tprAccessReporting:
                let flags: UInt32 = try argument.load(at: 4)
                if flags != 0 { throw .EINVAL }
            case .setVAPICAddress:
                let _: UInt64 = try argument.load()
                if !vm.interrupts.withLock({ $0.hasLocalAPIC }) { throw .EINVAL }
            case .setupMCE:
                guard let machineCheck = MachineCheck(capabilities: try argument.load()) else { throw .EINVAL }
                self.machineCheck = machineCheck
            // KVM knows no such request on a vCPU.
            default: throw .EINVAL
            }
            return 0
        }
    }

    /// Registers of a sealed vCPU are the guest's own.
    func requireReachableState() throws(Errno) {
        if isSealed && !isSealedByOldRules { throw .EINVAL }
    }

    // MARK: CPUID

    private func setCPUID(_ argument: IoctlArgument) throws(Errno) {
        let count: UInt32 = try argument.load()
        if count > 256 { throw .E2BIG }
        var entries: [KVMCPUIDEntry] = []
        for position in 0..<Int(count) { entries.append(try argument.load(at: 8 + 40 * position)) }
        if hasRun {
            // A CPU does not change under a running guest; setting the same again is allowed.
            guard entries.count == cpuid.count,
                zip(entries, cpuid).allSatisfy({ live($0).kernelBytes == live($1).kernelBytes })
            else { throw .EINVAL }
            return
        }
        cpuid = entries
    }

    /// The entry of a leaf, as the VMM has set it.
    func cpuidEntry(_ function: UInt32, _ subleaf: UInt32) -> KVMCPUIDEntry? {
        cpuid.first {
            $0.function == function && ($0.flags & KVMCPUIDEntry.significantIndex == 0 || $0.index == subleaf)
        }
    }

    /// The state as CR4 and XCR0 intercepts and the GHCB tell it even of a sealed guest.
    private var liveState: ProcessorState { processor?.state ?? savedState }

    /// CPUID as the guest gets it.
    func cpuidValues(_ function: UInt32, _ subleaf: UInt32) -> (eax: UInt32, ebx: UInt32, ecx: UInt32, edx: UInt32) {
        guard let entry = cpuidEntry(function, subleaf).map(live) else {
            // Topology beyond its last level still tells the subleaf and the x2APIC id [KVM kvm_cpuid].
            guard function == 0xb || function == 0x1f, let level = cpuidEntry(function, 1) else { return (0, 0, 0, 0) }
            return (0, 0, subleaf & 0xff, level.edx)
        }
        return (entry.eax, entry.ebx, entry.ecx, entry.edx)
    }

    /// The VMM's entry with the bits that follow the processor's state.
    private func live(_ entry: KVMCPUIDEntry) -> KVMCPUIDEntry {
        var value = entry
        if entry.function == 1 {
            // The APIC bit follows IA32_APIC_BASE.
            let isEnabled = apicBase & 0x800 != 0
            value.edx = value.edx & ~(1 << 9) | (isEnabled ? entry.edx & (1 << 9) : 0)
            // OSXSAVE follows CR4.
            let hasXSave = value.ecx & 1 << 26 != 0 && liveState.cr4 & CR4.osxsave != 0
            value.ecx = value.ecx & ~(1 << 27) | (hasXSave ? 1 << 27 : 0)
        }
        if entry.function == 7, entry.index == 0 {
            // OSPKE follows CR4.
            let hasKeys = value.ecx & 1 << 3 != 0 && liveState.cr4 & CR4.pke != 0
            value.ecx = value.ecx & ~(1 << 4) | (hasKeys ? 1 << 4 : 0)
        }
        if entry.function == 0xd, entry.index == 0 || entry.index == 1 && value.eax & 10 != 0 {
            // The size of the area for what is enabled now.
            value.ebx = Self.saveAreaSize(liveState.xcr0, compacted: entry.index == 1)
        }
        return value
    }

    // MARK: Local APIC

    private func getLAPIC(_ argument: IoctlArgument) throws(Errno) {
        let now = HostClock.monotonic
        let page = vm.interrupts.withLock { controller in
            controller.apics.indices.contains(index) ? controller.apics[index].registerPage(now: now) : nil
        }
        guard let page, let state = KVMLAPICState(kernelBytes: page) else { throw .EINVAL }
        try argument.store(state)
    }

    private func setLAPIC(_ argument: IoctlArgument) throws(Errno) {
        let state: KVMLAPICState = try argument.load()
        let page = state.kernelBytes
        let now = HostClock.monotonic
        let found = vm.withInterrupts { controller in
            guard controller.apics.indices.contains(index) else { return false }
            controller.apics[index].setRegisterPage(page, now: now)
            return true
        }
        if !found { throw .EINVAL }
        taskPriorityChanged()
    }

    private func setMPState(_ new: KVMMPState) throws(Errno) {
        let hasLAPIC = vm.interrupts.withLock { $0.hasLocalAPIC }
        switch new {
        case .runnable: break
        case .uninitialized, .initReceived, .halted, .sipiReceived, .apResetHold: if !hasLAPIC { throw .EINVAL }
        default: throw .EINVAL
        }
        guard new == .sipiReceived else {
            mpState = new
            return
        }
        // As if a SIPI with the last one's vector had come to a vCPU that waits for it.
        mpState = .initReceived
        vm.interrupts.withLock { controller in
            guard controller.apics.indices.contains(index) else { return }
            controller.apics[index].startupVector = controller.apics[index].lastStartupVector
        }
    }

    private func queueInterrupt(_ argument: KVMInterrupt) throws(Errno) {
        if argument.irq > 255 { throw .EINVAL }
        if vm.interrupts.withLock({ $0.hasLocalAPIC }) { throw .ENXIO }
        queue(vector: UInt8(argument.irq))
    }

    // MARK: Memory

    private func preFault(_ argument: IoctlArgument) throws(Errno) {
        var range: KVMPreFaultMemory = try argument.load()
        if range.flags != 0 || (range.gpa | range.byteCount) & 4095 != 0 || range.byteCount == 0 { throw .EINVAL }
        if range.gpa.addingReportingOverflow(range.byteCount).overflow { throw .EINVAL }
        // KVM allows it to VMs whose memory it populates itself, and to SNP once it is launched.
        if vm.type == .sev || vm.type == .sevES { throw .EOPNOTSUPP }
        if isSNP {
            guard isSealed, let snp = vm.snp, snp.isFinished else { throw .EOPNOTSUPP }
            let view = GuestView(vcpu: self, asid: snp.asid)
            while range.byteCount > 0, view.populate(gpa: range.gpa) {
                range.gpa = range.gpa &+ 4096
                range.byteCount = range.byteCount &- 4096
            }
        } else {
            while range.byteCount > 0, vm.memory.userPage(gpa: range.gpa, writing: false) != nil {
                range.gpa = range.gpa &+ 4096
                range.byteCount = range.byteCount &- 4096
            }
        }
        let before: KVMPreFaultMemory = try argument.load()
        if before.byteCount == range.byteCount { throw .ENOENT }
        try argument.store(range)
    }

    // MARK: Debug

    private func getDebugRegisters(_ argument: IoctlArgument) throws(Errno) {
        try requireReachableState()
        let state = state
        var value = KVMDebugRegisters()
        value.db[0] = state.dr0
        value.db[1] = state.dr1
        value.db[2] = state.dr2
        value.db[3] = state.dr3
        value.dr6 = state.dr6
        value.dr7 = state.dr7
        try argument.store(value)
    }

    private func setDebugRegisters(_ value: KVMDebugRegisters) throws(Errno) {
        try requireReachableState()
        if value.flags != 0 || value.dr6 >> 32 != 0 || value.dr7 >> 32 != 0 { throw .EINVAL }
        var state = state
        state.dr0 = value.db[0]
        state.dr1 = value.db[1]
        state.dr2 = value.db[2]
        state.dr3 = value.db[3]
        state.dr6 = value.dr6
        state.dr7 = value.dr7
        self.state = state
    }
}
