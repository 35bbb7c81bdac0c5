// Slots, guest_memfd and attributes: the kernel's checks [KVM KVM_SET_USER_MEMORY_REGION2].

import KVMABI
import SEVABI
import SoftwareKVM
import Testing

@Suite struct MemoryRuleTests {
    private func set(_ vm: TestVM, _ change: (inout KVMUserspaceMemoryRegion2) -> Void) -> Errno? {
        var region = vm.region(slot: 1, gpa: 0x1000_0000, byteCount: 4096)
        region.flags = 0
        change(&region)
        return errno { try vm.kernel.call(vm.vm, .setUserMemoryRegion2, &region) }
    }

    @Test func slotArguments() throws {
        let vm = try TestVM()
        try vm.addMemory()
        #expect(set(vm) { $0.guestPhysicalAddress += 1 } == .EINVAL)
        #expect(set(vm) { $0.memoryByteCount += 1 } == .EINVAL)
        #expect(set(vm) { $0.userspaceAddress += 1 } == .EINVAL)
        #expect(set(vm) { $0.guestPhysicalAddress = ~0xfff } == .EINVAL)
        #expect(set(vm) { $0.userspaceAddress = 1 << 47 } == .EINVAL)
        #expect(set(vm) { $0.slot = 0x10000 } == .EINVAL)
        #expect(set(vm) { $0.slot = 32767 } == .EINVAL)
        #expect(set(vm) { $0.memoryByteCount = 0 } == .EINVAL)
        // READONLY is not for VMs with private memory; unknown flags for none.
        #expect(set(vm) { $0.flags = 2 } == .EINVAL)
        #expect(set(vm) { $0.flags = 8 } == .EINVAL)
        #expect(set(vm) { $0.flags = 4 | 1 } == .EINVAL)
        // Overlap with slot 0.
        #expect(set(vm) { $0.guestPhysicalAddress = 0xff000 } == .EEXIST)
        #expect(set(vm) { _ in } == nil)
        // The same again changes nothing; a moved slot may move; size and address in the VMM may not change.
        #expect(set(vm) { _ in } == nil)
        #expect(set(vm) { $0.guestPhysicalAddress += 4096 } == nil)
        #expect(set(vm) { $0.userspaceAddress += 4096 } == .EINVAL)
        #expect(set(vm) { $0.memoryByteCount = 0 } == nil)
        #expect(set(vm) { $0.memoryByteCount = 0 } == .EINVAL)
    }

    @Test func guestMemfdBinding() throws {
        let vm = try TestVM()
        try vm.addMemory()
        var region = vm.region(slot: 1, gpa: 0x1000_0000, byteCount: 4096)
        let call = { errno { try vm.kernel.call(vm.vm, .setUserMemoryRegion2, &region) } }
        // Bound already by slot 0.
        #expect(call() == .EINVAL)
        region.guestMemfdOffset = UInt64(TestVM.memoryByteCount)
        #expect(call() == .EINVAL)
        region.guestMemfdOffset = 5
        #expect(call() == .EINVAL)
        region.guestMemfdOffset = 0
        region.guestMemfd = 12345
        #expect(call() == .EBADF)
        region.guestMemfd = UInt32(vm.vm.rawValue)
        #expect(call() == .EINVAL)
        // Another VM's file.
        let other = KernelHandle(rawValue: try vm.kernel.call(vm.kvm, .createVM, value: 4))
        region.guestMemfd = UInt32(
            try vm.kernel.call(other, .createGuestMemfd, reading: KVMCreateGuestMemfd(byteCount: 4096)))
        #expect(call() == .EINVAL)
        region.guestMemfd = UInt32(
            try vm.kernel.call(vm.vm, .createGuestMemfd, reading: KVMCreateGuestMemfd(byteCount: 4096)))
        #expect(call() == nil)
        // A slot with a private half cannot change, only go.
        #expect(call() == .EINVAL)
        region.memoryByteCount = 0
        #expect(call() == nil)
    }

    @Test func guestMemfdArguments() throws {
        let vm = try TestVM()
        for (size, flags): (UInt64, UInt64) in [(0, 0), (4095, 0), (1 << 63, 0), (4096, 1), (4096, 2), (4096, 4)] {
            let argument = KVMCreateGuestMemfd(byteCount: size, flags: flags)
            #expect(errno { try vm.kernel.call(vm.vm, .createGuestMemfd, reading: argument) } == .EINVAL)
        }
        let file = KernelHandle(
            rawValue: try vm.kernel.call(vm.vm, .createGuestMemfd, reading: KVMCreateGuestMemfd(byteCount: 4096)))
        #expect(errno { _ = try vm.kernel.map(file, offset: 0, byteCount: 4096) } == .ENODEV)
    }

    @Test func attributeArguments() throws {
        let vm = try TestVM()
        let call = { (a: UInt64, s: UInt64, attributes: UInt64, flags: UInt64) in
            errno {
                try vm.kernel.call(
                    vm.vm, .setMemoryAttributes,
                    reading: KVMMemoryAttributes(address: a, byteCount: s, attributes: attributes, flags: flags))
            }
        }
        #expect(call(0, 4096, 8, 1) == .EINVAL)
        #expect(call(0, 4096, 1, 0) == .EINVAL)
        #expect(call(0, 0, 8, 0) == .EINVAL)
        #expect(call(1, 4096, 8, 0) == .EINVAL)
        #expect(call(0, 4097, 8, 0) == .EINVAL)
        #expect(call(~0xfff, 8192, 8, 0) == .EINVAL)
        #expect(call(0, 4096, 8, 0) == nil)
        #expect(call(0, 4096, 0, 0) == nil)
        let plain = try TestVM(type: .plain)
        #expect(
            errno {
                try plain.kernel.call(
                    plain.vm, .setMemoryAttributes, reading: KVMMemoryAttributes(byteCount: 4096, attributes: 8))
            } == .EINVAL)
    }

    @Test func preFaultWaitsForTheLaunch() throws {
        let vm = try TestVM(readyForLaunch: true)
        var range = KVMPreFaultMemory(gpa: 0, byteCount: 4 * 4096)
        #expect(errno { try vm.kernel.call(vm.vcpu, .preFaultMemory, &range) } == .EOPNOTSUPP)
        #expect(vm.start().errno == nil)
        #expect(vm.finish().errno == nil)
        #expect(errno { try vm.kernel.call(vm.vcpu, .preFaultMemory, &range) } == nil)
        #expect(range.byteCount == 0)
        #expect(range.gpa == 4 * 4096)
        #expect(vm.kernel.systemAddress(ofPage: 3, in: vm.memfd) != nil)
        #expect(vm.kernel.systemAddress(ofPage: 4, in: vm.memfd) == nil)
    }

    @Test func capabilitiesAreTypical() throws {
        let vm = try TestVM()
        let kernel = vm.kernel
        func check(_ handle: KernelHandle, _ capability: Capability) throws -> Int32 {
            try kernel.call(handle, .checkExtension, value: UInt64(capability.rawValue))
        }
        #expect(try kernel.call(vm.kvm, .getAPIVersion) == 12)
        #expect(try check(vm.vm, .memoryAttributes) == 8)
        #expect(try check(vm.vm, .exitHypercall) == 0x1000)
        #expect(try check(vm.vm, .readOnlyMemory) == 0)
        #expect(try check(vm.vm, .syncRegisters) == 0)
        #expect(try check(vm.vm, .smm) == 0)
        #expect(try check(vm.vm, .guestMemfd) == 1)
        #expect(
            errno {
                try kernel.call(vm.vm, .enableCapability, reading: KVMEnableCapability(.exitHypercall, argument: 2))
            } == .EINVAL)
        #expect(errno { try kernel.call(vm.kvm, IoctlRequest(rawValue: 0xae99)) } == .EINVAL)
        #expect(errno { try kernel.call(vm.vm, .run) } == .ENOTTY)
        #expect(errno { try kernel.call(vm.sev, .run) } == .EINVAL)
        #expect(errno { try kernel.call(KernelHandle(rawValue: 77), .run) } == .EBADF)
    }

    @Test func lists() throws {
        let vm = try TestVM()
        var none = KVMMSRIndexList.room(for: 0)
        #expect(errno { try vm.kernel.call(vm.kvm, .getMSRIndexList, bytes: &none) } == .E2BIG)
        let count = KVMMSRIndexList.count(none)
        #expect(count > 10)
        var list = KVMMSRIndexList.room(for: count)
        try vm.kernel.call(vm.kvm, .getMSRIndexList, bytes: &list)
        #expect(KVMMSRIndexList.decode(list).contains(0x2ff))
        var few = KVMCPUIDList.room(for: 2)
        #expect(errno { try vm.kernel.call(vm.kvm, .getSupportedCPUID, bytes: &few) } == .E2BIG)
        var all = KVMCPUIDList.room(for: 100)
        try vm.kernel.call(vm.kvm, .getSupportedCPUID, bytes: &all)
        let sev = KVMCPUIDList.decode(all).first { $0.function == 0x8000_001f }
        #expect(sev?.ebx == 0x73)
        #expect((sev?.eax ?? 0) & 0x1a == 0x1a)
    }

    @Test func deviceAttributes() throws {
        let vm = try TestVM()
        var value: UInt64 = ~0
        let read = { (group: UInt32, attribute: UInt64) in
            withKernelAddress(of: &value) { address in
                errno {
                    try vm.kernel.call(
                        vm.kvm, .getDeviceAttribute,
                        reading: KVMDeviceAttribute(group: group, attribute: attribute, address: address))
                }
            }
        }
        #expect(read(1, 0) == nil)
        #expect(value & 1 == 0)
        #expect(read(1, 1) == nil)
        #expect(value & 0x30000 == 0x30000)
        #expect(read(1, 3) == .ENXIO)
        #expect(read(0, 0) == .ENXIO)
        #expect(
            errno { try vm.kernel.call(vm.kvm, .getDeviceAttribute, reading: KVMDeviceAttribute(group: 1)) } == .EFAULT)
    }

    @Test func handlesKeepTheirObjectsAlive() throws {
        let vm = try TestVM(readyForLaunch: true)
        let page = try #require(vm.runPage)
        // The VM's own handle may go first; the vCPU works, and its mapping outlives everything.
        vm.kernel.close(vm.vm)
        #expect(errno { try vm.kernel.call(vm.vm, .checkExtension, value: 0) } == .EBADF)
        var state = KVMMPState()
        #expect(errno { try vm.kernel.call(vm.vcpu, .getMPState, &state) } == nil)
        vm.kernel.close(vm.vcpu)
        vm.kernel.close(vm.memfd)
        page.immediateExit = true
        #expect(page.immediateExit)
        // Numbers are given out again, the lowest first.
        let again = try vm.kernel.open(.sev)
        #expect(again == vm.vm)
        vm.kernel.close(KernelHandle(rawValue: 4711))
    }

    @Test func sevDevice() throws {
        let vm = try TestVM()
        var status = SNPUserStatus()
        let errno = withKernelAddress(of: &status) { address in
            LaunchTests.errno {
                var command = SEVIssueCommand(.snpPlatformStatus, data: address)
                try vm.kernel.call(vm.sev, .sevIssueCommand, &command)
            }
        }
        #expect(errno == nil)
        #expect(status.apiMajor == 1)
        #expect(status.state == 1)
        #expect(status.guestCount == 0)
        var legacy = SEVUserStatus()
        let legacyErrno = withKernelAddress(of: &legacy) { address in
            LaunchTests.errno {
                var command = SEVIssueCommand(.platformStatus, data: address)
                try vm.kernel.call(vm.sev, .sevIssueCommand, &command)
            }
        }
        #expect(legacyErrno == nil)
        #expect(legacy.apiMajor == 1)
        var commit = SEVIssueCommand(.snpCommit)
        #expect(LaunchTests.errno { try vm.kernel.call(vm.sev, .sevIssueCommand, &commit) } == nil)
        var generate = SEVIssueCommand(.pekGenerate)
        #expect(LaunchTests.errno { try vm.kernel.call(vm.sev, .sevIssueCommand, &generate) } == nil)
        #expect(generate.error == 0)
        for number: UInt32 in [13, 14, 1000] {
            var command = SEVIssueCommand(SEVDeviceCommand(rawValue: number))
            #expect(LaunchTests.errno { try vm.kernel.call(vm.sev, .sevIssueCommand, &command) } == .EINVAL)
        }
        var null = SEVIssueCommand(.snpPlatformStatus)
        #expect(LaunchTests.errno { try vm.kernel.call(vm.sev, .sevIssueCommand, &null) } == .EINVAL)
    }
}
