// One processor for both kernels: what a guest asks CPUID for must not depend on who runs it.

import KVMABI
import TestSupport

/// The CPUID list that both kernels can give a guest.
public enum CommonCPUID {
    /// The first kernel's list, of features only what both have.
    public static func list(_ first: any HostKernel, _ second: any HostKernel) throws(Errno) -> [KVMCPUIDEntry] {
        combine(try supported(first), try supported(second))
    }

    /// The list with which a guest sees the same on both: a kernel that lets CPUID through to the processor shows its guests
    /// that one's features, whatever the vCPU was told.
    public static func guestList(_ first: any HostKernel, _ second: any HostKernel) throws(Errno) -> [KVMCPUIDEntry] {
        let ours = try supported(first)
        return combine(
            ours,
            try seenByGuest(second, ours).map { entry in
                var entry = entry
                // RDPID and RDTSCP, which guests use without asking: KVM's emulator has them.
                if entry.function == 7 { entry.ecx |= 1 << 22 }
                if entry.function == 0x8000_0001 { entry.edx |= 1 << 27 }
                return entry
            })
    }

    private static func combine(_ ours: [KVMCPUIDEntry], _ others: [KVMCPUIDEntry]) -> [KVMCPUIDEntry] {
        ours.compactMap { entry in
            guard entry.function >> 28 != 4 else { return nil }
            guard let other = others.first(where: { $0.function == entry.function && $0.index == entry.index }) else {
                return nil
            }
            var entry = entry
            switch entry.function {
            case 1:
                entry.ecx &= other.ecx
                entry.edx &= other.edx
            case 7:
                entry.ebx &= other.ebx
                entry.ecx &= other.ecx
                entry.edx &= other.edx
            case 0xd where entry.index == 0:
                // x87, SSE, AVX: their place in the area is the same everywhere.
                entry.eax &= other.eax & 7
                entry.ebx = 0x340
                entry.ecx = 0x340
            case 0xd where entry.index == 1:
                entry.eax &= other.eax
            case 0xd where entry.index != 2: return nil
            case 0x8000_0001:
                entry.ecx &= other.ecx
                entry.edx &= other.edx
            case 0x8000_0008:
                // Physical and linear address bits: the smaller ones.
                entry.eax = min(entry.eax & 0xff, other.eax & 0xff) | min(entry.eax & 0xff00, other.eax & 0xff00)
                entry.ebx &= other.ebx
            // Memory encryption is nothing of a plain VM.
            case 0x8000_001f: return nil
            default: break
            }
            return entry
        }
    }

    /// What CPUID gives in a guest whose vCPU has this list.
    private static func seenByGuest(_ kernel: any HostKernel, _ list: [KVMCPUIDEntry]) throws(Errno) -> [KVMCPUIDEntry]
    {
        let kvm = try kernel.open(.kvm)
        let vm = KernelHandle(rawValue: try kernel.call(kvm, .createVM, value: 0))
        let vcpu = KernelHandle(rawValue: try kernel.call(vm, .createVCPU, value: 0))
        defer { for handle in [vcpu, vm, kvm] { kernel.close(handle) } }
        let ram = try kernel.map(.anonymous, offset: 0, byteCount: 0x2_0000)
        try kernel.call(
            vm, .setUserMemoryRegion,
            reading: KVMUserspaceMemoryRegion(slot: 0, memoryByteCount: 0x2_0000, userspaceAddress: ram.address))
        let page = RunPage(
            try kernel.map(vcpu, offset: 0, byteCount: Int(try kernel.call(kvm, .getVCPUMmapSize))))
        var bytes = KVMCPUIDList.encode(list)
        try kernel.call(vcpu, .setCPUID2, bytes: &bytes)
        LongMode.writePageTables(encryptionBit: 0) { ram.store($1, at: $0) }
        for (index, descriptor) in LongMode.gdt.enumerated() {
            ram.store(descriptor, at: LongMode.gdtAddress + 8 * index)
        }
        ram.write([0x0f, 0xa2, 0xf4], at: 0x8000)  // cpuid; hlt
        var special = KVMSpecialRegisters()
        try kernel.call(vcpu, .getSpecialRegisters, &special)
        LongMode.enter(&special)
        try kernel.call(vcpu, .setSpecialRegisters, reading: special)
        var seen: [KVMCPUIDEntry] = []
        for entry in list {
            var registers = KVMRegisters()
            (registers.rip, registers.rsp) = (0x8000, 0x1_0000)
            (registers.rax, registers.rcx) = (UInt64(entry.function), UInt64(entry.index))
            try kernel.call(vcpu, .setRegisters, reading: registers)
            try RunGuard.watching(page, seconds: 5) { () throws(Errno) in _ = try kernel.call(vcpu, .run) }
            guard page.exitReason == .halt else { throw .EIO }
            try kernel.call(vcpu, .getRegisters, &registers)
            var answer = entry
            answer.eax = UInt32(truncatingIfNeeded: registers.rax)
            answer.ebx = UInt32(truncatingIfNeeded: registers.rbx)
            answer.ecx = UInt32(truncatingIfNeeded: registers.rcx)
            answer.edx = UInt32(truncatingIfNeeded: registers.rdx)
            seen.append(answer)
        }
        return seen
    }

    static func supported(_ kernel: any HostKernel) throws(Errno) -> [KVMCPUIDEntry] {
        let kvm = try kernel.open(.kvm)
        defer { kernel.close(kvm) }
        var bytes = KVMCPUIDList.room(for: 256)
        try kernel.call(kvm, .getSupportedCPUID, bytes: &bytes)
        return KVMCPUIDList.decode(bytes)
    }
}
