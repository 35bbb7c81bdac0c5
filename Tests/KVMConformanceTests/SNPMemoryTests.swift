// guest_memfd, slots with a private half, memory attributes [KVM KVM_CREATE_GUEST_MEMFD, KVM_SET_MEMORY_ATTRIBUTES].

import KVMABI
import TestSupport
import Testing

@Suite struct SNPMemoryTests {
    @Test(arguments: KernelUnderTest.withSNP)
    func `guest_memfd wants whole pages and known flags`(_ candidate: KernelUnderTest) throws {
        let machine = try SNPMachine(candidate.start())
        for (byteCount, flags): (UInt64, UInt64) in [(0, 0), (0x1800, 0), (1 << 63, 0), (0x1000, 1 << 40), (0x1000, 2)]
        {
            var create = KVMCreateGuestMemfd(byteCount: byteCount, flags: flags)
            #expect(throws: Errno.EINVAL, "\(byteCount) bytes, flags \(flags)") {
                try machine.kernel.call(machine.vm, .createGuestMemfd, &create)
            }
        }
        try machine.addMemory()
        #expect(throws: Errno.ENODEV, "private memory cannot be mapped") {
            try machine.kernel.map(machine.memfd, offset: 0, byteCount: 0x1000)
        }
    }

    /// fallocate [guest_memfd]: whole pages inside the file; holes may be made twice and before anything was there.
    @Test(arguments: KernelUnderTest.withSNP)
    func `holes in a guest_memfd`(_ candidate: KernelUnderTest) throws {
        let machine = try SNPMachine(candidate.start())
        try machine.addMemory()
        let end = Int64(SNPMachine.ramByteCount)
        for (offset, byteCount): (Int64, Int64) in [
            (0, 0), (-0x1000, 0x1000), (0, -0x1000), (1, 0x1000), (0, 0x1001), (end, 0x1000), (0, end + 0x1000),
        ] {
            #expect(throws: Errno.EINVAL, "\(byteCount) bytes at \(offset)") {
                try machine.kernel.punchHole(machine.memfd, offset: offset, byteCount: byteCount)
            }
        }
        for handle in [machine.vm, machine.sev] {
            #expect(throws: Errno.ENODEV) { try machine.kernel.punchHole(handle, offset: 0, byteCount: 0x1000) }
        }
        #expect(throws: Errno.EBADF) {
            try machine.kernel.punchHole(KernelHandle(rawValue: 1 << 20), offset: 0, byteCount: 0x1000)
        }
        for _ in 0..<2 { try machine.kernel.punchHole(machine.memfd, offset: 0, byteCount: end) }
    }

    @Test(arguments: KernelUnderTest.withSNP)
    func `slots with a private half`(_ candidate: KernelUnderTest) throws {
        let machine = try SNPMachine(candidate.start())
        try machine.addMemory()
        let end = SNPMachine.ramByteCount
        var other = KVMCreateGuestMemfd(byteCount: 0x10000)
        let handle = UInt32(bitPattern: try machine.kernel.call(machine.vm, .createGuestMemfd, &other))
        func refuse(
            _ what: Comment, _ errno: Errno = .EINVAL, _ change: @escaping (inout KVMUserspaceMemoryRegion2) -> Void
        ) {
            #expect(throws: errno, what) {
                try machine.setSlot(2, at: end, byteCount: 0x4000) {
                    $0.guestMemfd = handle
                    $0.guestMemfdOffset = 0
                    $0.userspaceAddress = machine.shared.address
                    change(&$0)
                }
            }
        }
        refuse("log dirty pages") { $0.flags |= KVMUserspaceMemoryRegion2.logDirtyPages }
        refuse("read only") { $0.flags |= KVMUserspaceMemoryRegion2.readOnly }
        refuse("unaligned offset") { $0.guestMemfdOffset = 0x800 }
        refuse("offset and length past the end of the file") { $0.guestMemfdOffset = 0xd000 }
        refuse("offset that wraps") { $0.guestMemfdOffset = ~0xfff }
        refuse("unaligned address") { $0.guestPhysicalAddress += 0x10 }
        refuse("unaligned host address") { $0.userspaceAddress += 0x10 }
        refuse("not a guest_memfd") { $0.guestMemfd = UInt32(bitPattern: machine.sev.rawValue) }
        refuse("not open", .EBADF) { $0.guestMemfd = 1 << 20 }
        refuse("overlap", .EEXIST) { $0.guestPhysicalAddress = 0x5_f000 }
        refuse("a range of the file that a slot has already") {
            $0.guestMemfd = UInt32(bitPattern: machine.memfd.rawValue)
            $0.guestMemfdOffset = 0x5_e000
            $0.memoryByteCount = 0x1000
        }
        machine.kernel.close(KernelHandle(rawValue: Int32(bitPattern: handle)))
    }

    @Test(arguments: KernelUnderTest.withSNP)
    func `a slot with a private half can only be deleted`(_ candidate: KernelUnderTest) throws {
        let machine = try SNPMachine(candidate.start())
        try machine.addMemory()
        #expect(throws: Errno.EINVAL) { try machine.setSlot(0, at: 0, byteCount: 0x2_0000) }
        #expect(throws: Errno.EINVAL) {
            try machine.setSlot(0, at: 0x10_0000, byteCount: SNPMachine.firstSlotByteCount)
        }
        try machine.setSlot(0, at: 0, byteCount: 0)
        #expect(throws: Errno.EINVAL) { try machine.setSlot(0, at: 0, byteCount: 0) }
        try machine.setSlot(0, at: 0, byteCount: 0x2_0000)
        try machine.setSlot(2, at: 0x2_0000, byteCount: 0x2_0000)
    }

    @Test(arguments: KernelUnderTest.withSNP)
    func `a guest_memfd belongs to its VM`(_ candidate: KernelUnderTest) throws {
        let kernel = try candidate.start()
        let first = try SNPMachine(kernel)
        let second = try SNPMachine(kernel)
        try first.addMemory()
        try second.addMemory()
        #expect(throws: Errno.EINVAL) {
            try second.setSlot(5, at: 0x10_0000, byteCount: 0x1000) {
                $0.guestMemfd = UInt32(bitPattern: first.memfd.rawValue)
                $0.userspaceAddress = second.shared.address
                $0.guestMemfdOffset = 0
            }
        }
    }

    @Test(arguments: KernelUnderTest.withSNP)
    func `attributes want whole pages and known bits`(_ candidate: KernelUnderTest) throws {
        let machine = try SNPMachine(candidate.start())
        let good = KVMMemoryAttributes(address: 0, byteCount: 0x1000, attributes: 8)
        func refuse(_ what: Comment, _ change: (inout KVMMemoryAttributes) -> Void) {
            var attributes = good
            change(&attributes)
            #expect(throws: Errno.EINVAL, what) {
                try machine.kernel.call(machine.vm, .setMemoryAttributes, reading: attributes)
            }
        }
        refuse("flags") { $0.flags = 1 }
        refuse("unknown attribute") { $0.attributes = 1 }
        refuse("length 0") { $0.byteCount = 0 }
        refuse("unaligned address") { $0.address = 0x800 }
        refuse("unaligned length") { $0.byteCount = 0x1800 }
        refuse("wrap") { ($0.address, $0.byteCount) = (~0xfff, 0x2000) }
        // No slot needs to be there.
        try machine.setPrivate(true, at: 0, byteCount: 0x1000)
        try machine.setPrivate(true, at: 0, byteCount: 0x100_0000)
        try machine.setPrivate(false, at: 0x1000, byteCount: 0x1000)
    }

    @Test(arguments: KernelUnderTest.withSNP)
    func `memory is not prefaulted before the launch is finished`(_ candidate: KernelUnderTest) throws {
        let machine = try SNPMachine.started(candidate.start())
        guard try machine.kernel.check(machine.kvm, .preFaultMemory) > 0 else {
            try Test.cancel("this kernel does not prefault")
        }
        var range = KVMPreFaultMemory(gpa: 0, byteCount: 0x1000)
        #expect(throws: Errno.EOPNOTSUPP) { try machine.kernel.call(machine.vcpu, .preFaultMemory, &range) }
    }
}
