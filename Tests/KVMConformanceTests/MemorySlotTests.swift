// Memory slots of a plain VM [KVM KVM_SET_USER_MEMORY_REGION].

import KVMABI
import TestSupport
import Testing

@Suite struct MemorySlotTests {
    /// A VM without a vCPU, and 1 MiB of memory to point slots at.
    private final class Fixture {
        let kernel: any HostKernel
        let kvm: KernelHandle
        let vm: KernelHandle
        let memory: KernelMapping

        init(_ kernel: any HostKernel) throws {
            self.kernel = kernel
            kvm = try kernel.open(.kvm)
            vm = KernelHandle(rawValue: try kernel.call(kvm, .createVM, value: 0))
            memory = try kernel.map(.anonymous, offset: 0, byteCount: 1 << 20)
        }

        deinit {
            kernel.close(vm)
            kernel.close(kvm)
        }

        func set(_ slot: UInt32, at gpa: UInt64, _ byteCount: UInt64, offset: UInt64 = 0, flags: UInt32 = 0)
            throws(Errno)
        {
            try kernel.call(
                vm, .setUserMemoryRegion,
                reading: KVMUserspaceMemoryRegion(
                    slot: slot, flags: flags, guestPhysicalAddress: gpa, memoryByteCount: byteCount,
                    userspaceAddress: memory.address &+ offset))
        }
    }

    @Test(arguments: KernelUnderTest.all)
    func `unaligned and impossible slots are EINVAL`(_ candidate: KernelUnderTest) throws {
        let fixture = try Fixture(candidate.start())
        #expect(throws: Errno.EINVAL, "address") { try fixture.set(0, at: 0x800, 0x1000) }
        #expect(throws: Errno.EINVAL, "length") { try fixture.set(0, at: 0, 0x1800) }
        #expect(throws: Errno.EINVAL, "host address") { try fixture.set(0, at: 0, 0x1000, offset: 0x10) }
        #expect(throws: Errno.EINVAL, "wrap") { try fixture.set(0, at: 0xffff_ffff_ffff_f000, 0x2000) }
        #expect(throws: Errno.EINVAL, "flags") { try fixture.set(0, at: 0, 0x1000, flags: 1 << 30) }
        #expect(throws: Errno.EINVAL, "guest_memfd flag in the old call") {
            try fixture.set(0, at: 0, 0x1000, flags: 4)
        }
        #expect(throws: Errno.EINVAL, "slot number") { try fixture.set(0xffff, at: 0, 0x1000) }
        let count = UInt32(try fixture.kernel.check(fixture.kvm, .memorySlotCount))
        #expect(throws: Errno.EINVAL, "one slot too many") { try fixture.set(count, at: 0, 0x1000) }
        try fixture.set(count - 1, at: 0x10_0000, 0x1000)
        #expect(throws: Errno.EINVAL, "delete of an empty slot") { try fixture.set(0, at: 0, 0) }
        try fixture.set(0, at: 0, 0x1000)
    }

    @Test(arguments: KernelUnderTest.all)
    func `overlap is EEXIST, neighbours are fine`(_ candidate: KernelUnderTest) throws {
        let fixture = try Fixture(candidate.start())
        try fixture.set(0, at: 0x10000, 0x4000)
        for gpa: UInt64 in [0xf000, 0x10000, 0x11000, 0x13000] {
            #expect(throws: Errno.EEXIST, "at \(gpa)") { try fixture.set(1, at: gpa, 0x2000, offset: 0x8000) }
        }
        #expect(throws: Errno.EEXIST, "around") { try fixture.set(1, at: 0, 0x40000, offset: 0x8000) }
        try fixture.set(1, at: 0xe000, 0x2000, offset: 0x8000)
        try fixture.set(2, at: 0x14000, 0x1000, offset: 0xa000)
    }

    @Test(arguments: KernelUnderTest.all)
    func `a slot can be deleted and made again, but not resized`(_ candidate: KernelUnderTest) throws {
        let fixture = try Fixture(candidate.start())
        try fixture.set(3, at: 0x10000, 0x4000)
        try fixture.set(3, at: 0x10000, 0x4000)  // The same again: nothing to do.
        #expect(throws: Errno.EINVAL, "resize") { try fixture.set(3, at: 0x10000, 0x8000) }
        #expect(throws: Errno.EINVAL, "other memory") { try fixture.set(3, at: 0x10000, 0x4000, offset: 0x4000) }
        try fixture.set(3, at: 0x10000, 0)
        #expect(throws: Errno.EINVAL, "deleted already") { try fixture.set(3, at: 0x10000, 0) }
        try fixture.set(3, at: 0x20000, 0x8000, offset: 0x4000)
    }

    @Test(arguments: KernelUnderTest.all)
    func `a slot can move`(_ candidate: KernelUnderTest) throws {
        let fixture = try Fixture(candidate.start())
        try fixture.set(0, at: 0x10000, 0x4000)
        try fixture.set(0, at: 0x20000, 0x4000)
        try fixture.set(1, at: 0x10000, 0x4000, offset: 0x8000)
        #expect(throws: Errno.EEXIST) { try fixture.set(1, at: 0x22000, 0x4000, offset: 0x8000) }
    }

    /// Where memory attributes exist at all, a VM without private memory has no private attribute.
    @Test(arguments: KernelUnderTest.all)
    func `a plain VM has no private memory`(_ candidate: KernelUnderTest) throws {
        let fixture = try Fixture(candidate.start())
        guard try fixture.kernel.check(fixture.kvm, .userMemory2) > 0 else {
            try Test.cancel("this kernel is older than 6.8")
        }
        #expect(try fixture.kernel.check(fixture.vm, .memoryAttributes) & 8 == 0)
        var attributes = KVMMemoryAttributes(address: 0, byteCount: 0x1000, attributes: 8)
        do {
            try fixture.kernel.call(fixture.vm, .setMemoryAttributes, &attributes)
            Issue.record("marked private")
        } catch {
            // A kernel built without private memory does not know the request at all.
            #expect(error == .EINVAL || error == .ENOTTY)
        }
        var region = KVMUserspaceMemoryRegion2()
        region.memoryByteCount = 0x1000
        region.userspaceAddress = fixture.memory.address
        try fixture.kernel.call(fixture.vm, .setUserMemoryRegion2, &region)
        region.memoryByteCount = 0
        try fixture.kernel.call(fixture.vm, .setUserMemoryRegion2, &region)
    }
}
