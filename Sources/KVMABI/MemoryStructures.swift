// Memory slots, guest_memfd, attributes [KVM KVM_SET_USER_MEMORY_REGION2, KVM_CREATE_GUEST_MEMFD,
// KVM_SET_MEMORY_ATTRIBUTES].

/// `kvm_userspace_memory_region`, 32 bytes: a slot without guest_memfd.
public struct KVMUserspaceMemoryRegion: KernelStructure {
    /// Low 16 bits slot, high 16 bits address space.
    public var slot: UInt32 = 0  // 0x00
    public var flags: UInt32 = 0  // 0x04
    public var guestPhysicalAddress: UInt64 = 0  // 0x08
    /// 0 deletes the slot.
    public var memoryByteCount: UInt64 = 0  // 0x10
    public var userspaceAddress: UInt64 = 0  // 0x18

    /// `KVM_MEM_LOG_DIRTY_PAGES`.
    public static let logDirtyPages: UInt32 = 1
    /// `KVM_MEM_READONLY`.
    public static let readOnly: UInt32 = 2

    public init(
        slot: UInt32 = 0, flags: UInt32 = 0, guestPhysicalAddress: UInt64 = 0, memoryByteCount: UInt64 = 0,
        userspaceAddress: UInt64 = 0
    ) {
        self.slot = slot
        self.flags = flags
        self.guestPhysicalAddress = guestPhysicalAddress
        self.memoryByteCount = memoryByteCount
        self.userspaceAddress = userspaceAddress
    }
}

/// `kvm_userspace_memory_region2`, 160 bytes: a slot with an optional private half.
public struct KVMUserspaceMemoryRegion2: KernelStructure {
    /// Low 16 bits slot, high 16 bits address space.
    public var slot: UInt32 = 0  // 0x00
    public var flags: UInt32 = 0  // 0x04
    public var guestPhysicalAddress: UInt64 = 0  // 0x08
    /// 0 deletes the slot.
    public var memoryByteCount: UInt64 = 0  // 0x10
    /// The shared half.
    public var userspaceAddress: UInt64 = 0  // 0x18
    /// Page aligned.
    public var guestMemfdOffset: UInt64 = 0  // 0x20
    public var guestMemfd: UInt32 = 0  // 0x28
    public var pad1: UInt32 = 0  // 0x2c
    public var pad2: [14 of UInt64] = .init(repeating: 0)  // 0x30

    /// `KVM_MEM_LOG_DIRTY_PAGES`.
    public static let logDirtyPages: UInt32 = 1
    /// `KVM_MEM_READONLY`.
    public static let readOnly: UInt32 = 2
    /// `KVM_MEM_GUEST_MEMFD`.
    public static let guestMemfdFlag: UInt32 = 4

    public init() {}
}

/// `kvm_create_guest_memfd`, 64 bytes.
public struct KVMCreateGuestMemfd: KernelStructure {
    public var byteCount: UInt64 = 0  // 0x00, size
    /// 1 MMAP, 2 INIT_SHARED; `KVM_CAP_GUEST_MEMFD_FLAGS` says which a VM takes.
    public var flags: UInt64 = 0  // 0x08
    public var reserved: [6 of UInt64] = .init(repeating: 0)  // 0x10

    public init(byteCount: UInt64 = 0, flags: UInt64 = 0) {
        self.byteCount = byteCount
        self.flags = flags
    }
}

/// `kvm_memory_attributes`, 32 bytes.
public struct KVMMemoryAttributes: KernelStructure {
    public var address: UInt64 = 0  // 0x00
    public var byteCount: UInt64 = 0  // 0x08
    public var attributes: UInt64 = 0  // 0x10
    /// Must be 0.
    public var flags: UInt64 = 0  // 0x18

    /// `KVM_MEMORY_ATTRIBUTE_PRIVATE`.
    public static let privateAttribute: UInt64 = 8

    public init(address: UInt64 = 0, byteCount: UInt64 = 0, attributes: UInt64 = 0, flags: UInt64 = 0) {
        self.address = address
        self.byteCount = byteCount
        self.attributes = attributes
        self.flags = flags
    }
}

/// `kvm_pre_fault_memory`, 64 bytes. SNP: `EOPNOTSUPP` until the launch is finished.
public struct KVMPreFaultMemory: KernelStructure {
    public var gpa: UInt64 = 0  // 0x00
    public var byteCount: UInt64 = 0  // 0x08
    public var flags: UInt64 = 0  // 0x10
    public var padding: [5 of UInt64] = .init(repeating: 0)  // 0x18

    public init(gpa: UInt64 = 0, byteCount: UInt64 = 0) {
        self.gpa = gpa
        self.byteCount = byteCount
    }
}

/// `kvm_dirty_log`, 16 bytes.
public struct KVMDirtyLog: KernelStructure {
    public var slot: UInt32 = 0  // 0x00
    public var padding1: UInt32 = 0  // 0x04
    public var bitmapAddress: UInt64 = 0  // 0x08

    public init() {}
}

/// `kvm_clear_dirty_log`, 24 bytes.
public struct KVMClearDirtyLog: KernelStructure {
    public var slot: UInt32 = 0  // 0x00
    /// A multiple of 64, or the rest of the slot.
    public var pageCount: UInt32 = 0  // 0x04
    /// A multiple of 64.
    public var firstPage: UInt64 = 0  // 0x08
    /// One bit a page: what is to be clear.
    public var bitmapAddress: UInt64 = 0  // 0x10

    public init() {}
}

/// `kvm_coalesced_mmio_zone`, 16 bytes.
public struct KVMCoalescedZone: KernelStructure, Equatable {
    public var address: UInt64 = 0  // 0x00
    public var byteCount: UInt32 = 0  // 0x08
    /// 1: ports; 0: memory.
    public var isPort: UInt32 = 0  // 0x0c

    public init() {}
}
