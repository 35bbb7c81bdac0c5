// Interrupt controllers, pending events, clock, capabilities and device attributes.

/// `kvm_lapic_state`, 1024 bytes: the register page of a local APIC, 16 bytes per register.
public struct KVMLAPICState: KernelStructure {
    public var registers: [256 of UInt32] = .init(repeating: 0)

    public init() {}

    /// The register at a byte offset of the APIC page (0x20 = ID, 0x80 = TPR, …); programmer error if not a multiple of
    /// 16 below 1024.
    public subscript(offset offset: Int) -> UInt32 {
        get {
            precondition(offset & 15 == 0, "APIC registers are 16 bytes apart")
            return registers[offset / 4]
        }
        set {
            precondition(offset & 15 == 0, "APIC registers are 16 bytes apart")
            registers[offset / 4] = newValue
        }
    }
}

/// `kvm_mp_state`, 4 bytes.
public struct KVMMPState: KernelStructure, Equatable {
    /// The number; see the named states.
    public var state: UInt32 = 0

    /// `KVM_MP_STATE_RUNNABLE`.
    public static let runnable = Self(state: 0)
    /// `KVM_MP_STATE_UNINITIALIZED`: an application processor that waits for INIT.
    public static let uninitialized = Self(state: 1)
    /// `KVM_MP_STATE_INIT_RECEIVED`: waits for SIPI.
    public static let initReceived = Self(state: 2)
    /// `KVM_MP_STATE_HALTED`.
    public static let halted = Self(state: 3)
    /// `KVM_MP_STATE_SIPI_RECEIVED`.
    public static let sipiReceived = Self(state: 4)
    /// `KVM_MP_STATE_AP_RESET_HOLD`.
    public static let apResetHold = Self(state: 9)

    public init(state: UInt32 = 0) { self.state = state }
}

/// `kvm_vcpu_events`, 64 bytes.
public struct KVMVCPUEvents: KernelStructure {
    public var exceptionInjected: UInt8 = 0  // 0x00
    public var exceptionNumber: UInt8 = 0  // 0x01
    public var exceptionHasErrorCode: UInt8 = 0  // 0x02
    public var exceptionPending: UInt8 = 0  // 0x03
    public var exceptionErrorCode: UInt32 = 0  // 0x04
    public var interruptInjected: UInt8 = 0  // 0x08
    public var interruptNumber: UInt8 = 0  // 0x09
    public var interruptSoft: UInt8 = 0  // 0x0a
    public var interruptShadow: UInt8 = 0  // 0x0b
    public var nmiInjected: UInt8 = 0  // 0x0c
    public var nmiPending: UInt8 = 0  // 0x0d
    public var nmiMasked: UInt8 = 0  // 0x0e
    public var nmiPad: UInt8 = 0  // 0x0f
    public var sipiVector: UInt32 = 0  // 0x10
    /// 1 NMI_PENDING, 2 SIPI_VECTOR, 4 SHADOW, 8 SMM, 16 PAYLOAD, 32 TRIPLE_FAULT.
    public var flags: UInt32 = 0  // 0x14
    public var smm: UInt8 = 0  // 0x18
    public var smiPending: UInt8 = 0  // 0x19
    public var smmInsideNMI: UInt8 = 0  // 0x1a
    public var latchedInit: UInt8 = 0  // 0x1b
    public var tripleFaultPending: UInt8 = 0  // 0x1c
    public var reserved: [26 of UInt8] = .init(repeating: 0)  // 0x1d
    public var exceptionHasPayload: UInt8 = 0  // 0x37
    public var exceptionPayload: UInt64 = 0  // 0x38

    public init() {}
}

/// `kvm_enable_cap`, 104 bytes.
public struct KVMEnableCapability: KernelStructure {
    public var capability: UInt32 = 0  // 0x00
    /// Must be 0.
    public var flags: UInt32 = 0  // 0x04
    public var arguments: [4 of UInt64] = .init(repeating: 0)  // 0x08
    public var pad: [64 of UInt8] = .init(repeating: 0)  // 0x28

    public init() {}

    public init(_ capability: Capability, argument: UInt64 = 0) {
        self.capability = capability.rawValue
        arguments[0] = argument
    }
}

/// `kvm_clock_data`, 48 bytes.
public struct KVMClockData: KernelStructure {
    /// kvmclock, nanoseconds.
    public var clock: UInt64 = 0  // 0x00
    /// 2 TSC_STABLE, 4 REALTIME, 8 HOST_TSC.
    public var flags: UInt32 = 0  // 0x08
    public var pad0: UInt32 = 0  // 0x0c
    /// Nanoseconds since 1970, with flag 4.
    public var realtime: UInt64 = 0  // 0x10
    public var hostTSC: UInt64 = 0  // 0x18
    public var pad: [4 of UInt32] = .init(repeating: 0)  // 0x20

    public init() {}
}

/// `kvm_irq_level`, 8 bytes.
public struct KVMIRQLevel: KernelStructure {
    public var irq: UInt32 = 0  // 0x00
    public var level: UInt32 = 0  // 0x04

    public init(irq: UInt32 = 0, level: UInt32 = 0) {
        self.irq = irq
        self.level = level
    }
}

/// `kvm_irqchip`, 520 bytes.
public struct KVMIRQChip: KernelStructure {
    /// 0 master PIC, 1 slave PIC, 2 I/O APIC.
    public var chipID: UInt32 = 0  // 0x000
    public var pad: UInt32 = 0  // 0x004
    /// The chip's own structure, as far as it needs it.
    public var state: [64 of UInt64] = .init(repeating: 0)  // 0x008

    public init(chipID: UInt32 = 0) { self.chipID = chipID }

    /// The I/O APIC's chip id.
    public static let ioapic: UInt32 = 2

    /// `kvm_ioapic_state`: whether a pin (0 to 23) is masked, bit 16 of its redirection table entry, which are at 0x18.
    public func isMasked(ioapicPin pin: Int) -> Bool {
        precondition((0..<24).contains(pin), "an I/O APIC of KVM has 24 pins")
        return state[3 + pin] & 1 << 16 != 0
    }
}

/// `kvm_pit_config`, 64 bytes.
public struct KVMPITConfig: KernelStructure {
    /// Bit 0: a dummy speaker port.
    public var flags: UInt32 = 0  // 0x00
    public var pad: [15 of UInt32] = .init(repeating: 0)  // 0x04

    public init() {}
}

/// `kvm_msi`, 32 bytes.
public struct KVMMSI: KernelStructure {
    public var addressLow: UInt32 = 0  // 0x00
    public var addressHigh: UInt32 = 0  // 0x04
    public var data: UInt32 = 0  // 0x08
    public var flags: UInt32 = 0  // 0x0c
    public var deviceID: UInt32 = 0  // 0x10
    public var pad: [12 of UInt8] = .init(repeating: 0)  // 0x14

    public init() {}
}

/// `kvm_interrupt`, 4 bytes: a vector to inject, only without an in-kernel local APIC.
public struct KVMInterrupt: KernelStructure {
    /// The vector, 0 to 255.
    public var irq: UInt32 = 0

    public init(irq: UInt32 = 0) { self.irq = irq }
}

/// `kvm_irqfd`, 32 bytes.
public struct KVMIRQFD: KernelStructure {
    public var fd: UInt32 = 0  // 0x00
    public var gsi: UInt32 = 0  // 0x04
    /// 1 DEASSIGN, 2 RESAMPLE.
    public var flags: UInt32 = 0  // 0x08
    public var resampleFD: UInt32 = 0  // 0x0c
    public var pad: [16 of UInt8] = .init(repeating: 0)  // 0x10

    public init() {}
}

/// `kvm_ioeventfd`, 64 bytes.
public struct KVMIOEventFD: KernelStructure {
    public var dataMatch: UInt64 = 0  // 0x00
    public var address: UInt64 = 0  // 0x08
    public var byteCount: UInt32 = 0  // 0x10, len
    public var fd: Int32 = 0  // 0x14
    /// 1 DATAMATCH, 2 PIO, 4 DEASSIGN, 16 FAST_MMIO.
    public var flags: UInt32 = 0  // 0x18
    public var pad: [36 of UInt8] = .init(repeating: 0)  // 0x1c

    public init() {}
}

/// `kvm_device_attr`, 24 bytes.
public struct KVMDeviceAttribute: KernelStructure {
    /// Must be 0.
    public var flags: UInt32 = 0  // 0x00
    public var group: UInt32 = 0  // 0x04
    public var attribute: UInt64 = 0  // 0x08
    /// Address of the value (u64) in this process.
    public var address: UInt64 = 0  // 0x10

    /// `KVM_X86_GRP_SEV`.
    public static let groupSEV: UInt32 = 1
    /// `KVM_X86_SEV_VMSA_FEATURES`: bits accepted in ``KVMSEVInit/vmsaFeatures``.
    public static let sevVMSAFeatures: UInt64 = 0
    /// `KVM_X86_SNP_POLICY_BITS`: policy bits that KVM and the firmware together accept.
    public static let snpPolicyBits: UInt64 = 1
    /// `KVM_X86_SEV_SNP_REQ_CERTS`: 1 when certificate exits can be enabled.
    public static let snpCertificateRequests: UInt64 = 2

    public init(group: UInt32 = 0, attribute: UInt64 = 0, address: UInt64 = 0) {
        self.group = group
        self.attribute = attribute
        self.address = address
    }
}

/// `kvm_irq_routing`: an 8-byte header, then entries of 48 bytes, for `KVM_SET_GSI_ROUTING`.
public enum KVMIRQRouting {
    public static let headerByteCount = 8
    public static let entryByteCount = 48
    /// `KVM_IRQCHIP_IOAPIC`.
    public static let ioapic: UInt32 = 2

    /// GSI n to I/O APIC pin n, and to nothing else: without this call KVM routes GSI 0…15 to the 8259 pair as well.
    public static func ioapicOnly(pinCount: Int) -> [UInt8] {
        var bytes: [UInt8] = []
        func append(_ value: UInt32) {
            for shift in 0..<4 { bytes.append(UInt8(truncatingIfNeeded: value >> (8 * UInt32(shift)))) }
        }
        append(UInt32(truncatingIfNeeded: pinCount))
        append(0)
        for pin in 0..<UInt32(truncatingIfNeeded: max(pinCount, 0)) {
            append(pin)  // gsi
            append(1)  // type: KVM_IRQ_ROUTING_IRQCHIP
            append(0)  // flags
            append(0)  // pad
            append(ioapic)
            append(pin)
            for _ in 0..<6 { append(0) }  // The rest of the 32-byte union.
        }
        return bytes
    }
}
