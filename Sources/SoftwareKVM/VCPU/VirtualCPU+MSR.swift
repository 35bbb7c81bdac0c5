// RDMSR and WRMSR as KVM answers them, for a guest (intercepted, or through its GHCB) and for the VMM's
// KVM_GET/SET_MSRS.

import KVMABI
import X86Defs

extension VirtualCPU {
    /// Reads an MSR; nil raises #GP in a guest and ends KVM_GET_MSRS.
    func readMSR(_ number: UInt32, hostInitiated: Bool = false) -> UInt64? {
        let now = HostClock.monotonic
        if machineCheck.owns(number) { return machineCheck.read(number, hostInitiated: hostInitiated) }
        switch number {
        case MSRNumber.platformInfo:
            return hostInitiated || vm.showsPlatformInfo.load(ordering: .relaxed) ? msrs.platformInfo : nil
        case MSRNumber.tsc: return tsc
        case MSRNumber.tscAdjust: return msrs.tscAdjust
        // There is nothing behind them; who is not told of them does not find them.
        case MSRNumber.speculationControl: return hostInitiated || announcesSpeculationControl ? 0 : nil
        case MSRNumber.predictionCommand: return nil
        case MSRNumber.tscRatio: return hostInitiated ? MSRNumber.tscRatioValue : nil
        case MSRNumber.virtualSpeculationControl: return hostInitiated ? msrs.virtualSpeculationControl : nil
        case MSRNumber.apicBase: return apicBase
        case MSRNumber.microcodeRevision: return msrs.microcodeRevision
        // Eight variable ranges, fixed ranges, write combining.
        case MSRNumber.mtrrCapabilities: return 0x508
        case MSRNumber.mtrrDefaultType: return msrs.mtrrDefaultType
        case MSRNumber.variableMTRRs: return msrs.variableMTRRs[Int(number & 15)]
        case _ where MSRNumber.isFixedMTRR(number): return msrs.fixedMTRRs[EmulatedMSRs.fixedIndex(number)]
        case MSRNumber.miscEnable: return msrs.miscEnable
        case MSRNumber.powerControl: return msrs.powerControl
        // No supervisor components, and the VMM may know it of a vCPU without XSAVES.
        case MSRNumber.supervisorStateMask where hostInitiated: return 0
        case MSRNumber.hwcr: return msrs.hwcr
        case MSRNumber.deConfiguration: return msrs.deConfiguration
        case MSRNumber.tscAux where !hostInitiated && !announcesTSCAux: return nil
        case MSRNumber.kvmWallClock, MSRNumber.kvmWallClockOld: return msrs.wallClock
        case MSRNumber.kvmSystemTime, MSRNumber.kvmSystemTimeOld: return msrs.systemTime
        case MSRNumber.tscDeadline:
            return vm.interrupts.withLock { $0.apics.indices.contains(index) ? $0.apics[index].tscDeadline : nil }
                ?? (hostInitiated ? 0 : nil)
        case MSRNumber.x2apic:
            return vm.interrupts.withLock { controller in
                controller.apics.indices.contains(index) ? controller.apics[index].readMSR(number, now: now) : nil
            }
        case _ where MSRNumber.harmless.contains(number): return 0
        // Of these KVM keeps 32 bits [KVM svm_get_msr].
        case 0x175, 0x176:
            return readProcessorMSR(number).map {
                hostInitiated ? UInt64(truncatingIfNeeded: UInt32(truncatingIfNeeded: $0)) : $0
            }
        default: return readProcessorMSR(number)
        }
    }

    /// Writes an MSR; false raises #GP in a guest and ends KVM_SET_MSRS.
    func writeMSR(_ number: UInt32, _ value: UInt64, hostInitiated: Bool = false) -> Bool {
        let now = HostClock.monotonic
        if machineCheck.owns(number) {
            return machineCheck.write(
                number, value, hostInitiated: hostInitiated, statusIsWritable: msrs.hwcr & Self.mcStatusWrEn != 0)
        }
        switch number {
        case MSRNumber.platformInfo:
            guard hostInitiated else { return false }
            msrs.platformInfo = value
        case MSRNumber.tsc:
            let before = tscOffsetNow
            tsc = value
            if !hostInitiated { msrs.tscAdjust = msrs.tscAdjust &+ (tscOffsetNow &- before) }
            requestClockUpdate()
        case MSRNumber.tscAdjust:
            // Ignored where CPUID does not announce it [KVM kvm_set_msr_common].
            guard hostInitiated || (cpuidEntry(7, 0)?.ebx ?? 0) & 1 << 1 != 0 else { return true }
            if !hostInitiated {
                moveTSC(by: value &- msrs.tscAdjust)
                requestClockUpdate()
            }
            msrs.tscAdjust = value
        case MSRNumber.speculationControl, MSRNumber.predictionCommand:
            return hostInitiated || announcesSpeculationControl
        case MSRNumber.apicBase: return setAPICBase(value, hostInitiated: hostInitiated)
        case MSRNumber.microcodeRevision:
            // A guest's attempt to load microcode is ignored.
            if hostInitiated { msrs.microcodeRevision = value }
        case MSRNumber.mtrrCapabilities: return false
        // Without scaling for guests, 0 and the ratio that it has.
        case MSRNumber.tscRatio: return hostInitiated && (value == 0 || value == MSRNumber.tscRatioValue)
        case MSRNumber.virtualSpeculationControl:
            // SSBD alone.
            guard hostInitiated, value & ~4 == 0 else { return false }
            msrs.virtualSpeculationControl = value
        case MSRNumber.mtrrDefaultType:
            guard value & ~0xcff == 0, EmulatedMSRs.isMemoryType(value) else { return false }
            msrs.mtrrDefaultType = value
        case MSRNumber.variableMTRRs:
            let reserved = ~((UInt64(1) << UInt64(vm.kernel.configuration.profile.physicalAddressBits)) - 1)
            if number & 1 == 0 {
                guard value & 0xf00 == 0, value & reserved == 0, EmulatedMSRs.isMemoryType(value) else { return false }
            } else {
                guard value & 0x7ff == 0, value & reserved == 0 else { return false }
            }
            msrs.variableMTRRs[Int(number & 15)] = value
        case _ where MSRNumber.isFixedMTRR(number):
            for byte in 0..<8 where !EmulatedMSRs.isMemoryType(value >> UInt64(8 * byte)) { return false }
            msrs.fixedMTRRs[EmulatedMSRs.fixedIndex(number)] = value
        case MSRNumber.miscEnable: msrs.miscEnable = value
        case MSRNumber.powerControl: msrs.powerControl = value
        case MSRNumber.supervisorStateMask where hostInitiated: return value == 0
        case MSRNumber.hwcr:
            // Linux sets the TSC-frequency bit and toggles errata bits, which are swallowed; others are refused as in KVM.
            let kept = Self.tscFreqSel | Self.mcStatusWrEn
            guard value & ~(kept | 0x148) == 0 else { return false }
            msrs.hwcr = value & kept
        case MSRNumber.deConfiguration:
            guard value & ~MSRNumber.deConfigurationValue == 0 else { return false }
            msrs.deConfiguration = value
        case MSRNumber.kvmWallClock, MSRNumber.kvmWallClockOld:
            msrs.wallClock = value
            if !hostInitiated { writeWallClock(value) }
        case MSRNumber.kvmSystemTime, MSRNumber.kvmSystemTimeOld:
            msrs.systemTime = value
            if hostInitiated { requestClockUpdate() } else { writeSystemTime() }
        case MSRNumber.tscDeadline:
            let deadline = monotonic(atTSC: value)
            return vm.withInterrupts { controller in
                // Without a local APIC in the kernel it is written in vain.
                guard controller.apics.indices.contains(index) else { return true }
                controller.apics[index].setTSCDeadline(value, deadline: deadline)
                return true
            }
        case MSRNumber.x2apic:
            let accepted = vm.withInterrupts { controller in
                guard controller.apics.indices.contains(index),
                    let effect = controller.apics[index].writeMSR(number, value, now: now)
                else { return false }
                controller.perform(effect, by: index)
                return true
            }
            // TPR is CR8 in another place.
            if accepted && number == 0x808 { taskPriorityChanged() }
            return accepted
        case _ where MSRNumber.onlyRead.contains(number): return false
        case _ where MSRNumber.harmless.contains(number): break
        case 0x175, 0x176:
            return writeProcessorMSR(number, hostInitiated ? value & 0xffff_ffff : value)
        case MSRNumber.tscAux where !hostInitiated && !announcesTSCAux: return false
        // LMA follows the paging.
        case MSRNumber.efer where hostInitiated:
            return writeProcessorMSR(number, value & ~EFER.lma | (readProcessorMSR(number) ?? 0) & EFER.lma)
        default: return writeProcessorMSR(number, value)
        }
        return true
    }

    /// HWCR bit 18.
    private static let mcStatusWrEn: UInt64 = 1 << 18
    /// HWCR bit 24.
    private static let tscFreqSel: UInt64 = 1 << 24

    /// IBRS, STIBP or SSBD, by the bits of either vendor.
    private var announcesSpeculationControl: Bool {
        (cpuidEntry(7, 0)?.edx ?? 0) & (1 << 26 | 1 << 27 | 1 << 31) != 0
            || (cpuidEntry(0x8000_0008, 0)?.ebx ?? 0) & (1 << 12 | 1 << 14 | 1 << 15 | 1 << 24) != 0
    }

    /// RDTSCP or RDPID.
    private var announcesTSCAux: Bool {
        (cpuidEntry(0x8000_0001, 0)?.edx ?? 0) & 1 << 27 != 0 || (cpuidEntry(7, 0)?.ecx ?? 0) & 1 << 22 != 0
    }

    // MARK: MSRs of the processor

    /// Those that KVM lets the guest reach directly. After sealing, KVM knows only what they were before.
    private func readProcessorMSR(_ number: UInt32) -> UInt64? {
        if !isSealed, let processor { return processor.readOwnMSR(number) }
        switch number {
        case 0x174: return savedState.sysenterCS
        case 0x175: return savedState.sysenterESP
        case 0x176: return savedState.sysenterEIP
        case MSRNumber.pat: return savedState.pat
        case 0xc000_0080: return savedState.efer
        case 0xc000_0081: return savedState.star
        case 0xc000_0082: return savedState.lstar
        case 0xc000_0083: return savedState.cstar
        case 0xc000_0084: return savedState.sfmask
        case 0xc000_0100: return savedState.fs.base
        case 0xc000_0101: return savedState.gs.base
        case 0xc000_0102: return savedState.kernelGSBase
        case 0xc000_0103: return savedState.tscAux
        default: return nil
        }
    }

    private func writeProcessorMSR(_ number: UInt32, _ value: UInt64) -> Bool {
        if !isSealed, let processor { return vm.gate.inside { processor.writeOwnMSR(number, value) } }
        let isCanonical = UInt64(bitPattern: Int64(bitPattern: value << 16) >> 16) == value
        switch number {
        case 0x174: savedState.sysenterCS = value
        case 0x175: savedState.sysenterESP = value
        case 0x176: savedState.sysenterEIP = value
        case MSRNumber.pat:
            for byte in 0..<8 {
                let type = value >> UInt64(8 * byte) & 0xff
                guard type < 8, type != 2, type != 3 else { return false }
            }
            savedState.pat = value
        case 0xc000_0080:
            // SCE, LME, LMA, NXE; SVME is KVM's own.
            guard value & ~0x1d01 == 0 else { return false }
            savedState.efer = value
        case 0xc000_0081: savedState.star = value
        case 0xc000_0082 where isCanonical: savedState.lstar = value
        case 0xc000_0083 where isCanonical: savedState.cstar = value
        case 0xc000_0084: savedState.sfmask = value
        case 0xc000_0100 where isCanonical: savedState.fs.base = value
        case 0xc000_0101 where isCanonical: savedState.gs.base = value
        case 0xc000_0102 where isCanonical: savedState.kernelGSBase = value
        case 0xc000_0103: savedState.tscAux = value & 0xffff_ffff
        default: return false
        }
        return true
    }

    /// True for MSRs that a sealed guest owns: KVM cannot reach them.
    private func isPassedThrough(_ number: UInt32) -> Bool {
        switch number {
        case 0x174...0x176, MSRNumber.pat, 0xc000_0080...0xc000_0084, 0xc000_0100...0xc000_0103, 0xc001_0130: true
        default: false
        }
    }

    // MARK: IA32_APIC_BASE and the task priority

    var apicBase: UInt64 {
        vm.interrupts.withLock { $0.apics.indices.contains(index) ? $0.apics[index].base : apicBaseWithoutLAPIC }
    }

    func setAPICBase(_ value: UInt64, hostInitiated: Bool) -> Bool {
        // x2APIC where CPUID announces it.
        if value & 0x400 != 0, value != apicBase, (cpuidEntry(1, 0)?.ecx ?? 0) & 1 << 21 == 0 { return false }
        let accepted: Bool? = vm.withInterrupts { controller in
            guard controller.apics.indices.contains(index) else { return nil }
            return controller.apics[index].setBase(value, hostInitiated: hostInitiated)
        }
        if accepted == nil {
            // The rules are the same without one in the kernel.
            guard value == apicBaseWithoutLAPIC || LocalAPIC.isBase(value) else { return false }
            apicBaseWithoutLAPIC = value
        }
        // The xAPIC page may have moved.
        if accepted == true { vm.gate.inside { forgetTranslations() } }
        return accepted ?? true
    }

    var taskPriority: UInt64 {
        get {
            vm.interrupts.withLock { $0.apics.indices.contains(index) ? $0.apics[index].taskPriorityClass : nil }
                ?? (processor?.cr8 ?? savedState.cr8)
        }
        set {
            vm.interrupts.withLock { controller in
                if controller.apics.indices.contains(index) { controller.apics[index].taskPriorityClass = newValue }
            }
            if let processor { processor.cr8 = newValue } else { savedState.cr8 = newValue }
        }
    }

    /// The local APIC's TPR was written: CR8 follows.
    func taskPriorityChanged() {
        let value = taskPriority
        if let processor { processor.cr8 = value } else { savedState.cr8 = value }
    }

    // MARK: KVM_GET_MSRS, KVM_SET_MSRS

    func transferMSRs(_ argument: IoctlArgument, writes: Bool) throws(Errno) -> Int32 {
        let count: UInt32 = try argument.load()
        if count >= 256 { throw .E2BIG }
        for position in 0..<Int(count) {
            var entry = try argument.load(KVMMSREntry.self, at: 8 + 16 * position)
            if isSealed && isPassedThrough(entry.index) {
                guard isSealedByOldRules else { return Int32(position) }
                entry.data = 0
                if !writes { try argument.store(entry, at: 8 + 16 * position) }
                continue
            }
            if writes {
                guard writeMSR(entry.index, entry.data, hostInitiated: true) else { return Int32(position) }
            } else {
                guard let value = readMSR(entry.index, hostInitiated: true) else { return Int32(position) }
                entry.data = value
                try argument.store(entry, at: 8 + 16 * position)
            }
        }
        return Int32(count)
    }

    // MARK: kvmclock [KVM msr.rst]

    /// The moment on the monotonic clock at which the guest's TSC reaches `value`.
    private func monotonic(atTSC value: UInt64) -> UInt64 {
        let now = HostClock.monotonic
        let current = tsc
        guard value > current else { return now }
        let (high, low) = (value - current).multipliedFullWidth(by: 1_000_000)
        let divisor = UInt64(max(1, tscKHz))
        return high < divisor ? now &+ divisor.dividingFullWidth((high, low)).quotient : .max
    }

    /// Fills the guest's time page: odd version, contents, even version.
    func writeSystemTime() {
        guard msrs.systemTime & 1 != 0 else { return }
        let address = msrs.systemTime & ~1
        var info = VCPUTimeInfo()
        let (multiplier, shift) = VCPUTimeInfo.scale(tscKHz: tscKHz)
        info.tscToSystemMultiplier = multiplier
        info.tscShift = shift
        info.tscTimestamp = tsc
        info.systemTime = vm.clock.time(at: HostClock.monotonic)
        info.flags = VCPUTimeInfo.stable | (msrs.guestStopped ? VCPUTimeInfo.guestStopped : 0)
        msrs.guestStopped = false
        msrs.timeVersion = (msrs.timeVersion &+ 1) | 1
        guard vm.memory.write(gpa: address, msrs.timeVersion.kernelBytes) else { return }
        info.version = msrs.timeVersion
        guard vm.memory.write(gpa: address, info.bytes) else { return }
        msrs.timeVersion = msrs.timeVersion &+ 1
        _ = vm.memory.write(gpa: address, msrs.timeVersion.kernelBytes)
    }

    /// `pvclock_wall_clock`: the wall-clock time at which the VM's clock was zero.
    private func writeWallClock(_ address: UInt64) {
        guard let old = vm.memory.read(gpa: address, byteCount: 4), var version = UInt32(kernelBytes: old) else {
            return
        }
        version = (version &+ 1) | 1
        guard vm.memory.write(gpa: address, version.kernelBytes) else { return }
        let boot = HostClock.realtime &- vm.clock.time(at: HostClock.monotonic)
        let seconds = UInt32(truncatingIfNeeded: boot / 1_000_000_000)
        let nanoseconds = UInt32(truncatingIfNeeded: boot % 1_000_000_000)
        _ = vm.memory.write(gpa: address &+ 4, seconds.kernelBytes + nanoseconds.kernelBytes)
        _ = vm.memory.write(gpa: address, (version &+ 1).kernelBytes)
    }
}
