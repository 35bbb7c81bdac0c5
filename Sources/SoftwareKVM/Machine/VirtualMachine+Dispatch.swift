// Requests on a VM handle, by their whole word [KVM 4, vm ioctls].

import KVMABI

extension VirtualMachine {
    func request(_ request: IoctlRequest, _ argument: IoctlArgument) throws(Errno) -> Int32 {
        if kernel.unknownRequests.contains(request) { throw .ENOTTY }
        switch request {
        case .checkExtension:
            return kernel.value(of: Capability(rawValue: UInt32(truncatingIfNeeded: argument.number)), vmType: type)
        case .createVCPU: return try createVCPU(argument.number)
        case .setUserMemoryRegion:
            let old: KVMUserspaceMemoryRegion = try argument.load()
            if old.flags & ~(KVMUserspaceMemoryRegion.logDirtyPages | KVMUserspaceMemoryRegion.readOnly) != 0 {
                throw .EINVAL
            }
            var region = KVMUserspaceMemoryRegion2()
            region.slot = old.slot
            region.flags = old.flags
            region.guestPhysicalAddress = old.guestPhysicalAddress
            region.memoryByteCount = old.memoryByteCount
            region.userspaceAddress = old.userspaceAddress
            return try setRegion(region)
        case .setUserMemoryRegion2: return try setRegion(argument.load())
        case .setMemoryAttributes: return try setAttributes(argument.load())
        case .createGuestMemfd: return try createGuestMemfd(argument.load())
        case .memoryEncryptOp: return try encryptOperation(argument)
        case .memoryEncryptRegisterRegion, .memoryEncryptUnregisterRegion:
            return try encryptRegion(argument.load(), registers: request == .memoryEncryptRegisterRegion)
        case .enableCapability: return try enableCapability(argument.load())
        case .createIRQChip: return try createIRQChip()
        case .createPIT2: return try createPIT(argument.load())
        case .setMMUPageCount:
            // There are no shadow pages here, and KVM takes no fewer than this (KVM_MIN_ALLOC_MMU_PAGES).
            if argument.number < 64 { throw .EINVAL }
            return 0
        case .setTSSAddress:
            // Three pages below 4 GiB; AMD processors do not need them.
            if argument.number > 0xffff_ffff - 3 * 4096 { throw .EINVAL }
            return 0
        case .setIdentityMapAddress:
            let _: UInt64 = try argument.load()
            if !vcpus.isEmpty { throw .EINVAL }
            return 0
        case .setBootCPUID:
            return try locked { () throws(Errno) in
                if !vcpus.isEmpty { throw .EBUSY }
                if argument.number > vcpuIDLimit ?? Self.maximumVCPUID { throw .EINVAL }
                bootVCPUIdentifier = UInt32(truncatingIfNeeded: argument.number)
                return 0
            }
        case .irqLine, .irqLineStatus: return try setLine(argument, reports: request == .irqLineStatus)
        case .getDirtyLog: return try getDirtyLog(argument.load())
        case .clearDirtyLog: return try clearDirtyLog(argument.load())
        case .setMSRFilter: return try setMSRFilter(argument)
        case .registerCoalescedMMIO: return try coalesce(argument.load(), registers: true)
        case .unregisterCoalescedMMIO: return try coalesce(argument.load(), registers: false)
        case .ioeventfd: return try setIOEventFD(argument.load())
        case .irqfd: return try setIRQFD(argument.load())
        case .reinjectControl:
            // Ticks of this PIT are never lost, whatever its mode.
            return try interrupts.withLock { (controller) throws(Errno) -> Int32 in
                if controller.pit == nil { throw .ENXIO }
                return 0
            }
        case .getPIT2: return try getPIT(argument)
        case .setPIT2: return try setPIT(argument)
        case .signalMSI: return try signalMSI(argument.load())
        case .setGSIRouting: return try setRouting(argument)
        case .getIRQChip: return try getIRQChip(argument)
        case .setIRQChip: return try setIRQChip(argument)
        case .setClock:
            let data: KVMClockData = try argument.load()
            if data.flags & ~(2 | 4 | 8) != 0 { throw .EINVAL }
            clock.set(data)
            for vcpu in vcpus { vcpu.requestClockUpdate() }
            return 0
        case .getClock:
            try argument.store(clock.read())
            return 0
        case .setTSCkHz:
            let kHz = try kernel.tscKHz(argument)
            return try locked { () throws(Errno) in
                if !vcpus.isEmpty { throw .EINVAL }
                defaultTSCkHz = kHz
                return 0
            }
        case .getTSCkHz: return Int32(truncatingIfNeeded: try locked { () throws(Errno) in defaultTSCkHz })
        default: throw .ENOTTY
        }
    }

    private func enableCapability(_ argument: KVMEnableCapability) throws(Errno) -> Int32 {
        if argument.flags != 0 { throw .EINVAL }
        switch Capability(rawValue: argument.capability) {
        case .exitHypercall:
            if argument.arguments[0] & ~(1 << 12) != 0 { throw .EINVAL }
            hypercallExits.store(argument.arguments[0], ordering: .relaxed)
            return 0
        case .splitIRQChip:
            if argument.arguments[0] > 4096 { throw .EINVAL }
            return try locked { () throws(Errno) in
                try interrupts.withLock { (controller) throws(Errno) in
                    // The same answer for vCPUs that are there already [KVM kvm_vm_ioctl_enable_cap].
                    if controller.hasLocalAPIC || !vcpus.isEmpty { throw .EEXIST }
                    controller.kind = .split(pins: Int(argument.arguments[0]))
                }
                return 0
            }
        case .x2apicAPI:
            if argument.arguments[0] & ~3 != 0 { throw .EINVAL }
            return 0
        case .maximumVCPUID:
            // Once; the first vCPU sets it to what is possible. What it is already it may be set to again
            // [KVM KVM_CAP_MAX_VCPU_ID].
            let limit = argument.arguments[0]
            if limit > Self.maximumVCPUID { throw .EINVAL }
            return try locked { () throws(Errno) in
                if bootVCPUIdentifier > limit { throw .EINVAL }
                let current = vcpuIDLimit ?? (vcpus.isEmpty ? 0 : Self.maximumVCPUID)
                if current == limit { return 0 }
                if current != 0 { throw .EINVAL }
                vcpuIDLimit = limit
                return 0
            }
        case .msrPlatformInfo:
            showsPlatformInfo.store(argument.arguments[0] != 0, ordering: .relaxed)
            return 0
        case .exceptionPayload:
            reportsPayloads.store(argument.arguments[0] != 0, ordering: .relaxed)
            return 0
        case .tripleFaultEvent:
            reportsTripleFaults.store(argument.arguments[0] != 0, ordering: .relaxed)
            return 0
        case .userSpaceMSR:
            if argument.arguments[0] & ~7 != 0 { throw .EINVAL }
            userSpaceMSRReasons.store(UInt32(argument.arguments[0]), ordering: .relaxed)
            return 0
        case .manualDirtyLogProtect2:
            // KVM_DIRTY_LOG_INITIALLY_SET means nothing without KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE.
            let options = argument.arguments[0]
            if options & ~3 != 0 || options == 2 { throw .EINVAL }
            memory.setManualLogOptions(options)
            return 0
        default: throw .EINVAL
        }
    }

    private func createIRQChip() throws(Errno) -> Int32 {
        try locked { () throws(Errno) in
            try interrupts.withLock { (controller) throws(Errno) in
                if controller.hasLocalAPIC { throw .EEXIST }
                if !vcpus.isEmpty { throw .EINVAL }
                controller.kind = .full
                controller.installDefaultRoutes()
            }
            return 0
        }
    }

    private func createPIT(_ configuration: KVMPITConfig) throws(Errno) -> Int32 {
        // Flags: bit 0 is a dummy port 0x61, which is what we have; others have never been refused.
        return try locked { () throws(Errno) in
            try interrupts.withLock { (controller) throws(Errno) in
                if controller.pit != nil { throw .EEXIST }
                if controller.kind != .full { throw .ENOENT }
                controller.pit = PIT()
            }
            return 0
        }
    }

    private func setLine(_ argument: IoctlArgument, reports: Bool) throws(Errno) -> Int32 {
        let level: KVMIRQLevel = try argument.load()
        let now = HostClock.monotonic
        let known: Bool? = withInterrupts { controller in
            // With a split chip the VMM's I/O APIC raises its pins as messages this way.
            if !controller.hasLocalAPIC { return nil }
            return controller.setLine(gsi: level.irq, asserted: level.level != 0, now: now)
        }
        guard known != nil else { throw .ENXIO }
        if reports { try argument.store(KVMIRQLevel(irq: 1, level: level.level)) }
        return 0
    }

    private func signalMSI(_ message: KVMMSI) throws(Errno) -> Int32 {
        // KVM_MSI_VALID_DEVID is let through, and means nothing here.
        if message.flags & ~1 != 0 { throw .EINVAL }
        let count: Int? = withInterrupts { controller in
            guard controller.hasLocalAPIC else { return nil }
            return controller.deliverMSI(
                addressLow: message.addressLow, addressHigh: message.addressHigh, data: message.data)
        }
        guard let count else { throw .EINVAL }
        // A message for nobody: KVM's -1 becomes an errno on its way out.
        if count < 0 { throw .EPERM }
        return Int32(count)
    }

    /// KVM_SET_GSI_ROUTING: header of 8 bytes, entries of 48.
    private func setRouting(_ argument: IoctlArgument) throws(Errno) -> Int32 {
        let count: UInt32 = try argument.load()
        let flags: UInt32 = try argument.load(at: 4)
        if flags != 0 || count > 4096 { throw .EINVAL }
        if !interrupts.withLock({ $0.hasLocalAPIC }) { throw .EINVAL }
        var routes: [UInt32: [InterruptRoute]] = [:]
        for index in 0..<Int(count) {
            let base = 8 + 48 * index
            let gsi: UInt32 = try argument.load(at: base)
            let kind: UInt32 = try argument.load(at: base + 4)
            let entryFlags: UInt32 = try argument.load(at: base + 8)
            if gsi >= 4096 || entryFlags != 0 { throw .EINVAL }
            switch kind {
            case 1:
                let chip: UInt32 = try argument.load(at: base + 16)
                let pin: UInt32 = try argument.load(at: base + 20)
                switch chip {
                case 0 where pin < 8: routes[gsi, default: []].append(.pic(Int(pin)))
                case 1 where pin < 8: routes[gsi, default: []].append(.pic(Int(pin) + 8))
                case 2 where pin < 24: routes[gsi, default: []].append(.ioapic(pin: Int(pin)))
                default: throw .EINVAL
                }
            case 2:
                let low: UInt32 = try argument.load(at: base + 16)
                let high: UInt32 = try argument.load(at: base + 20)
                let data: UInt32 = try argument.load(at: base + 24)
                routes[gsi, default: []].append(.msi(addressLow: low, addressHigh: high, data: data))
            default: throw .EINVAL
            }
        }
        withInterrupts { $0.setRoutes(routes) }
        return 0
    }
}
