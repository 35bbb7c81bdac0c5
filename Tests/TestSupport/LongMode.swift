// What 64-bit code needs before it can run: a GDT, an IDT, page tables and registers, for guests of a few instructions.
//
// The map is PlainMachine's, in KVMConformanceTests.

import KVMABI

/// What long mode needs, for plain and for SNP guests.
public enum LongMode {
    /// Of the address map of PlainMachine.
    public static let gdtAddress = 0x5000
    public static let idtAddress = 0x6000

    /// Null, 64-bit code at selector 8, data at selector 16.
    public static let gdt: [UInt64] = [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff]

    /// Where ``writePageTables(encryptionBit:_:)`` shows guest physical 0 a second time, without encryption.
    public static let sharedWindow: UInt64 = 0x4000_0000

    /// Writes the page table pages of the address map above; `encryptionBit` goes into tables and identity-mapped RAM.
    public static func writePageTables(encryptionBit: UInt64, _ store: (_ address: Int, _ value: UInt64) -> Void) {
        let table: UInt64 = 0x63 | encryptionBit  // present, writable, accessed, dirty
        let leaf: UInt64 = 0xe3 | encryptionBit  // and 2 MiB
        store(0x1000, 0x2000 | table)
        store(0x2000, 0x3000 | table)
        store(0x2000 + 8 * 1, 0x7000 | table)
        store(0x2000 + 8 * 3, 0x4000 | table)
        for index in 0..<512 {
            store(0x3000 + 8 * index, UInt64(index) << 21 | leaf)
            // Shared memory and device registers are never private.
            store(0x7000 + 8 * index, UInt64(index) << 21 | 0xe3)
            store(0x4000 + 8 * index, (3 << 30 | UInt64(index) << 21) | 0xe3)
        }
    }

    /// Puts the registers into 64-bit mode with the fixture's tables.
    public static func enter(_ sregs: inout KVMSpecialRegisters, encryptionBit: UInt64 = 0) {
        sregs.cs = KVMSegment(selector: 8, attributes: 0xa9b, limit: 0xffff_ffff, base: 0)
        let data = KVMSegment(selector: 16, attributes: 0xc93, limit: 0xffff_ffff, base: 0)
        (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data)
        sregs.gdt = KVMDescriptorTable(base: UInt64(gdtAddress), limit: 23)
        sregs.idt = KVMDescriptorTable(base: UInt64(idtAddress), limit: 0xfff)
        sregs.cr0 = 0x8000_0031  // PG, NE, ET, PE
        sregs.cr3 = 0x1000 | encryptionBit
        sregs.cr4 = 0x20  // PAE
        sregs.efer = 0x500  // LMA, LME
    }

    /// A 64-bit interrupt gate [APM2 4.8.4], DPL 0, code selector 8.
    public static func interruptGate(handler: UInt64) -> (low: UInt64, high: UInt64) {
        (handler & 0xffff | 8 << 16 | 0x8e00 << 32 | (handler >> 16 & 0xffff) << 48, handler >> 32)
    }
}

extension HostKernel {
    /// The argument of `KVM_SET_CPUID2` with everything that the kernel supports.
    public func supportedCPUID(_ kvm: KernelHandle) throws(Errno) -> [UInt8] {
        var bytes = KVMCPUIDList.room(for: 256)
        try call(kvm, .getSupportedCPUID, bytes: &bytes)
        return KVMCPUIDList.encode(KVMCPUIDList.decode(bytes))
    }

    /// `KVM_CHECK_EXTENSION`.
    public func check(_ handle: KernelHandle, _ capability: Capability) throws(Errno) -> Int32 {
        try call(handle, .checkExtension, value: UInt64(capability.rawValue))
    }
}
