// CPUID and MSR lists: a header with a count, then entries. Requests encode only the header's length, so the bytes are
// an array here, and the count says how much room they have.

/// `kvm_cpuid_entry2`, 40 bytes.
public struct KVMCPUIDEntry: KernelStructure {
    public var function: UInt32 = 0  // 0x00
    public var index: UInt32 = 0  // 0x04
    /// ``significantIndex`` or 0.
    public var flags: UInt32 = 0  // 0x08
    public var eax: UInt32 = 0  // 0x0c
    public var ebx: UInt32 = 0  // 0x10
    public var ecx: UInt32 = 0  // 0x14
    public var edx: UInt32 = 0  // 0x18
    public var padding: [3 of UInt32] = .init(repeating: 0)  // 0x1c

    /// `KVM_CPUID_FLAG_SIGNIFCANT_INDEX`: ECX selects a sub-leaf.
    public static let significantIndex: UInt32 = 1

    public init() {}

    /// One leaf; `index` nil means that ECX does not matter.
    public init(function: UInt32, index: UInt32? = nil, eax: UInt32, ebx: UInt32, ecx: UInt32, edx: UInt32) {
        self.function = function
        self.index = index ?? 0
        flags = index == nil ? 0 : Self.significantIndex
        self.eax = eax
        self.ebx = ebx
        self.ecx = ecx
        self.edx = edx
    }
}

/// `kvm_cpuid2`: u32 `nent`, u32 padding, then entries.
public enum KVMCPUIDList {
    /// Bytes before the first entry.
    public static let headerByteCount = 8

    /// The argument of `KVM_SET_CPUID2`.
    public static func encode(_ entries: [KVMCPUIDEntry]) -> [UInt8] { encodeList(entries) }

    /// The argument of `KVM_GET_SUPPORTED_CPUID` and `KVM_GET_CPUID2`: zeroed room for `capacity` entries.
    public static func room(for capacity: Int) -> [UInt8] {
        encodeList(.init(repeating: KVMCPUIDEntry(), count: capacity))
    }

    /// The entries that `bytes` announces, as far as they lie inside.
    public static func decode(_ bytes: [UInt8]) -> [KVMCPUIDEntry] { decodeList(bytes) }
}

/// `kvm_msr_entry`, 16 bytes.
public struct KVMMSREntry: KernelStructure, Equatable {
    public var index: UInt32 = 0  // 0x00
    public var reserved: UInt32 = 0  // 0x04
    public var data: UInt64 = 0  // 0x08

    public init(index: UInt32 = 0, data: UInt64 = 0) {
        self.index = index
        self.data = data
    }
}

/// `kvm_msrs`: u32 `nmsrs`, u32 padding, then entries. The requests return how many entries were handled.
public enum KVMMSRList {
    /// Bytes before the first entry.
    public static let headerByteCount = 8

    /// The argument of `KVM_SET_MSRS`.
    public static func encode(_ entries: [KVMMSREntry]) -> [UInt8] { encodeList(entries) }

    /// The argument of `KVM_GET_MSRS` for these MSR numbers.
    public static func encode(reading indices: [UInt32]) -> [UInt8] {
        encodeList(indices.map { KVMMSREntry(index: $0) })
    }

    /// The entries that `bytes` announces, as far as they lie inside.
    public static func decode(_ bytes: [UInt8]) -> [KVMMSREntry] { decodeList(bytes) }
}

/// `kvm_msr_list`: u32 `nmsrs`, then MSR numbers.
public enum KVMMSRIndexList {
    /// The argument of `KVM_GET_MSR_INDEX_LIST`: zeroed room for `capacity` numbers.
    public static func room(for capacity: Int) -> [UInt8] {
        UInt32(capacity).kernelBytes + [UInt8](repeating: 0, count: 4 * capacity)
    }

    /// How many numbers the kernel has, also after `E2BIG`.
    public static func count(_ bytes: [UInt8]) -> Int { Int(UInt32(kernelBytes: bytes) ?? 0) }

    /// The numbers that `bytes` announces, as far as they lie inside.
    public static func decode(_ bytes: [UInt8]) -> [UInt32] {
        let room = max(0, (bytes.count - 4) / 4)
        return (0..<min(count(bytes), room)).compactMap { UInt32(kernelBytes: bytes, at: 4 + 4 * $0) }
    }
}

private func encodeList<Entry: KernelStructure>(_ entries: [Entry]) -> [UInt8] {
    // Safe: a caller with 2^32 entries is a programmer error.
    var bytes = UInt32(entries.count).kernelBytes + [0, 0, 0, 0]
    bytes.reserveCapacity(8 + entries.count * MemoryLayout<Entry>.size)
    for entry in entries { bytes += entry.kernelBytes }
    return bytes
}

private func decodeList<Entry: KernelStructure>(_ bytes: [UInt8]) -> [Entry] {
    let entryByteCount = MemoryLayout<Entry>.size
    let announced = Int(UInt32(kernelBytes: bytes) ?? 0)
    let room = max(0, (bytes.count - 8) / entryByteCount)
    return (0..<min(announced, room)).compactMap { Entry(kernelBytes: bytes, at: 8 + entryByteCount * $0) }
}
