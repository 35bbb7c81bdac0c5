// What an SNP VM offers, KVM_SEV_INIT2, and the rules common to all SEV commands [KVM-SEV].

import KVMABI
import TestSupport
import Testing

@Suite struct SNPInitTests {
    @Test(arguments: KernelUnderTest.withSNP)
    func `capabilities of an SNP VM`(_ candidate: KernelUnderTest) throws {
        let machine = try SNPMachine(candidate.start())
        let kernel = machine.kernel
        #expect(try kernel.check(machine.vm, .memoryAttributes) == 8)
        #expect(try kernel.check(machine.vm, .guestMemfd) > 0)
        #expect(try kernel.check(machine.vm, .userMemory2) > 0)
        #expect(try kernel.check(machine.vm, .exitHypercall) == 0x1000)
        for absent: Capability in [.readOnlyMemory, .syncRegisters, .smm] {
            #expect(try kernel.check(machine.vm, absent) == 0, "\(absent)")
        }
        #expect(throws: Errno.EINVAL, "an unknown hypercall bit") {
            try kernel.call(
                machine.vm, .enableCapability, reading: KVMEnableCapability(.exitHypercall, argument: 1 << 13))
        }
    }

    @Test(arguments: KernelUnderTest.withSNP)
    func `VM types, CPUID and the driver agree`(_ candidate: KernelUnderTest) throws {
        let kernel = try candidate.start()
        let kvm = try kernel.open(.kvm)
        defer { kernel.close(kvm) }
        let leaves = KVMCPUIDList.decode(try kernel.supportedCPUID(kvm))
        let leaf = try #require(leaves.first { $0.function == 0x8000_001f })
        #expect(leaf.eax & 1 << 4 != 0, "SEV-SNP")
        let encryptionBit = leaf.ebx & 0x3f
        #expect(encryptionBit >= 32 && encryptionBit < 52)
        #expect(try kernel.check(kvm, .vmTypes) & 1 == 1, "plain VMs as well")
    }

    @Test(arguments: KernelUnderTest.withSNP)
    func `device attributes tell the accepted VMSA features`(_ candidate: KernelUnderTest) throws {
        let kernel = try candidate.start()
        let kvm = try kernel.open(.kvm)
        defer { kernel.close(kvm) }
        func get(_ request: IoctlRequest, group: UInt32, attribute: UInt64) -> (errno: Errno?, value: UInt64) {
            var value: UInt64 = .max
            let errno: Errno? = withKernelAddress(of: &value) { (address: UInt64) in
                do throws(Errno) {
                    try kernel.call(
                        kvm, request, reading: KVMDeviceAttribute(group: group, attribute: attribute, address: address))
                    return nil
                } catch {
                    return error
                }
            }
            return (errno, value)
        }
        let features = get(.getDeviceAttribute, group: 1, attribute: 0)
        #expect(features.errno == nil && features.value & 1 == 0, "bit 0 is KVM's own")
        #expect(get(.hasDeviceAttribute, group: 1, attribute: 0).errno == nil)
        #expect(get(.hasDeviceAttribute, group: 1, attribute: 99).errno == .ENXIO)
        #expect(get(.getDeviceAttribute, group: 1, attribute: 99).errno == .ENXIO)
        #expect(get(.hasDeviceAttribute, group: 7, attribute: 0).errno == .ENXIO)
        let policy = get(.getDeviceAttribute, group: 1, attribute: 1)
        if policy.errno == nil { #expect(policy.value & 0x20000 != 0, "the reserved-one bit") }
    }

    @Test(arguments: KernelUnderTest.withSNP)
    func `INIT2 refuses what the table says, then works once`(_ candidate: KernelUnderTest) throws {
        let machine = try SNPMachine(candidate.start())
        #expect(machine.command(.initialize2, address: 0) == .refused(.EFAULT))
        for bit: UInt32 in 0..<32 {
            #expect(machine.initialize { $0.flags = 1 << bit } == .refused(.EINVAL), "flag \(bit)")
        }
        #expect(machine.initialize { $0.vmsaFeatures = 1 } == .refused(.EINVAL), "bit 0 is KVM's own")
        var accepted: UInt64 = 0
        try withKernelAddress(of: &accepted) { (address: UInt64) throws(Errno) in
            let attribute = KVMDeviceAttribute(
                group: KVMDeviceAttribute.groupSEV, attribute: KVMDeviceAttribute.sevVMSAFeatures, address: address)
            try machine.kernel.call(machine.kvm, .getDeviceAttribute, reading: attribute)
        }
        for bit: UInt64 in 1..<64 where accepted & 1 << bit == 0 {
            #expect(machine.initialize { $0.vmsaFeatures = 1 << bit } == .refused(.EINVAL), "feature \(bit)")
        }
        #expect(machine.initialize { $0.ghcbVersion = 1 } == .refused(.EINVAL))
        #expect(machine.initialize { $0.ghcbVersion = 3 } == .refused(.EINVAL))
        #expect(machine.initialize { ($0.pad1, $0.pad2[7]) = (1, 1) } == .success, "padding is not looked at")
        #expect(machine.initialize() == .refused(.EPERM), "a second time")
    }

    @Test(arguments: KernelUnderTest.withSNP)
    func `INIT2 is for encrypted VM types`(_ candidate: KernelUnderTest) throws {
        let machine = try SNPMachine(candidate.start(), type: .plain)
        #expect(machine.initialize() == .refused(.EINVAL))
        #expect(machine.start() == .refused(.ENOTTY))
        #expect(machine.update(type: 1, gpa: 0, byteCount: 0x1000).outcome == .refused(.EINVAL))
        #expect(machine.finish() == .refused(.ENOTTY))
    }

    @Test(arguments: KernelUnderTest.withSNP)
    func `INIT2 comes before the vCPUs, and KVM_RUN after it`(_ candidate: KernelUnderTest) throws {
        let machine = try SNPMachine(candidate.start())
        try machine.addVCPU()
        #expect(machine.initialize() == .refused(.EINVAL))
        #expect(try machine.run().errno == .EINVAL)
    }

    @Test(arguments: KernelUnderTest.withSNP)
    func `the envelope`(_ candidate: KernelUnderTest) throws {
        let machine = try SNPMachine(candidate.start())
        #expect(try machine.kernel.call(machine.vm, .memoryEncryptOp) == 0, "no argument: SEV is enabled")
        #expect(throws: Errno.EFAULT) { try machine.kernel.call(machine.vm, .memoryEncryptOp, value: 8) }
        for id: UInt32 in [10, 14, 19, 23, 99, 104, .max] {
            #expect(machine.command(SEVCommandID(rawValue: id)) == .refused(.EINVAL), "id \(id)")
        }
        #expect(machine.initialize() == .success)
        for id: UInt32 in [0, 1, 2, 3, 7, 16, 19, 22, 99] {
            #expect(machine.command(SEVCommandID(rawValue: id)) == .refused(.EPERM), "id \(id) on an SNP VM")
        }
        #expect(machine.command(SEVCommandID(rawValue: 104)) == .refused(.EINVAL))
    }

    @Test(arguments: KernelUnderTest.withSNP)
    func `ASIDs run out with EBUSY and come back`(_ candidate: KernelUnderTest) throws {
        let kernel = try candidate.start()
        let kvm = try kernel.open(.kvm)
        var guests: [KernelHandle] = []
        defer { for handle in guests + [kvm] { kernel.close(handle) } }
        func initializeAnother() throws(Errno) {
            let vm = KernelHandle(rawValue: try kernel.call(kvm, .createVM, value: UInt64(VMType.snp.rawValue)))
            guests.append(vm)
            var data = KVMSEVInit()
            try withKernelAddress(of: &data) { (address: UInt64) throws(Errno) in
                var envelope = KVMSEVCommand(id: .initialize2, data: address)
                try kernel.call(vm, .memoryEncryptOp, &envelope)
            }
        }
        var refusal: Errno?
        while refusal == nil, guests.count < 512 {
            do throws(Errno) { try initializeAnother() } catch { refusal = error }
        }
        if refusal == nil || refusal == .EMFILE { try Test.cancel("more ASIDs than this process can hold VMs") }
        #expect(refusal == .EBUSY)
        #expect(guests.count > 2)
        kernel.close(guests.removeFirst())
        try initializeAnother()
    }
}
