// The system handle [KVM 4, "system ioctls"].

import KVMABI
import TestSupport
import Testing

@Suite struct SystemTests {
    @Test(arguments: KernelUnderTest.all)
    func `API version is 12`(_ candidate: KernelUnderTest) throws {
        let kernel = try candidate.start()
        let kvm = try kernel.open(.kvm)
        defer { kernel.close(kvm) }
        #expect(try kernel.call(kvm, .getAPIVersion) == 12)
        #expect(throws: Errno.EINVAL) { try kernel.call(kvm, .getAPIVersion, value: 1) }
    }

    /// What any VMM of this project needs from a plain VM.
    @Test(arguments: KernelUnderTest.all)
    func `required capabilities are offered`(_ candidate: KernelUnderTest) throws {
        let kernel = try candidate.start()
        let kvm = try kernel.open(.kvm)
        defer { kernel.close(kvm) }
        for capability: Capability in [
            .irqChip, .userMemory, .extendedCPUID, .mpState, .vcpuEvents, .xcrs, .immediateExit,
        ] {
            #expect(try kernel.check(kvm, capability) > 0, "\(capability)")
        }
        #expect(try kernel.check(kvm, .memorySlotCount) >= 32)
        #expect(try kernel.check(kvm, .maximumVCPUCount) >= 1)
        #expect(
            try kernel.check(kvm, Capability(rawValue: 0x7fff_0000)) == 0, "an unknown capability is just not there")
    }

    @Test(arguments: KernelUnderTest.all)
    func `VM types are announced and unknown ones refused`(_ candidate: KernelUnderTest) throws {
        let kernel = try candidate.start()
        let kvm = try kernel.open(.kvm)
        defer { kernel.close(kvm) }
        for type: UInt64 in [6, 31, 32, 33, 0x7fff, 0xffff_ffff] {
            #expect(throws: Errno.EINVAL, "type \(type)") { try kernel.call(kvm, .createVM, value: type) }
        }
        let vm = KernelHandle(rawValue: try kernel.call(kvm, .createVM, value: 0))
        // Not used again: the real kernel may have given the number to another test by now.
        kernel.close(vm)
    }

    @Test(arguments: KernelUnderTest.all)
    func `a vCPU's mapping holds kvm_run and port data`(_ candidate: KernelUnderTest) throws {
        let kernel = try candidate.start()
        let kvm = try kernel.open(.kvm)
        defer { kernel.close(kvm) }
        let byteCount = try kernel.call(kvm, .getVCPUMmapSize)
        #expect(byteCount >= 0x2000 && byteCount % 4096 == 0)
        #expect(throws: Errno.EINVAL) { try kernel.call(kvm, .getVCPUMmapSize, value: 1) }
    }

    @Test(arguments: KernelUnderTest.all)
    func `a handle refuses the requests it does not know`(_ candidate: KernelUnderTest) throws {
        let machine = try PlainMachine(candidate.start())
        let (kernel, unknown) = (machine.kernel, IoctlRequest(rawValue: 0x0000_aeff))
        for request: IoctlRequest in [.run, .createVCPU, .createIRQChip, unknown] {
            #expect(throws: Errno.EINVAL, "system, \(request)") { try kernel.call(machine.kvm, request) }
        }
        #expect(throws: Errno.ENOTTY, "VM") { try kernel.call(machine.vm, unknown) }
        #expect(throws: Errno.EINVAL, "vCPU") { try kernel.call(machine.vcpu, unknown) }
        #expect(throws: Errno.EBADF) { try kernel.call(KernelHandle(rawValue: 1 << 20), .getAPIVersion) }
    }

    @Test(arguments: KernelUnderTest.all)
    func `supported CPUID needs room`(_ candidate: KernelUnderTest) throws {
        let kernel = try candidate.start()
        let kvm = try kernel.open(.kvm)
        defer { kernel.close(kvm) }
        for capacity in [0, 1] {
            var bytes = KVMCPUIDList.room(for: capacity)
            #expect(throws: Errno.E2BIG, "room for \(capacity)") {
                try kernel.call(kvm, .getSupportedCPUID, bytes: &bytes)
            }
        }
        var bytes = KVMCPUIDList.room(for: 256)
        try kernel.call(kvm, .getSupportedCPUID, bytes: &bytes)
        let entries = KVMCPUIDList.decode(bytes)
        #expect(entries.contains { $0.function == 0 } && entries.contains { $0.function == 0x8000_0000 })
        #expect(entries.count > 2 && entries.count < 256)
        let extended = try #require(entries.first { $0.function == 0x8000_0001 })
        #expect(extended.edx & 1 << 29 != 0, "long mode")
    }

    @Test(arguments: KernelUnderTest.all)
    func `the MSR list needs room and says how much`(_ candidate: KernelUnderTest) throws {
        let kernel = try candidate.start()
        let kvm = try kernel.open(.kvm)
        defer { kernel.close(kvm) }
        var none = KVMMSRIndexList.room(for: 0)
        #expect(throws: Errno.E2BIG) { try kernel.call(kvm, .getMSRIndexList, bytes: &none) }
        let count = KVMMSRIndexList.count(none)
        try #require(count > 0 && count < 4096)
        var bytes = KVMMSRIndexList.room(for: count)
        try kernel.call(kvm, .getMSRIndexList, bytes: &bytes)
        let indices = KVMMSRIndexList.decode(bytes)
        #expect(indices.count == count)
        #expect(indices.contains(0xc000_0081), "STAR")
        #expect(indices.contains(0x10), "TSC")
    }
}
