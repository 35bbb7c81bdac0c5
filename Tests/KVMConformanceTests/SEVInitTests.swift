// How a VM becomes a SEV or SEV-ES guest: INIT2, the calls that it replaced, and what such a VM offers [KVM-SEV].

import KVMABI
import SoftwareKVM
import TestSupport
import Testing

@Suite struct SEVInitTests {
    @Test(arguments: KernelUnderTest.withSEV)
    func `VM types are the bits of CPUID`(_ candidate: KernelUnderTest) throws {
        let kernel = try candidate.start()
        let kvm = try kernel.open(.kvm)
        defer { kernel.close(kvm) }
        let leaves = KVMCPUIDList.decode(try kernel.supportedCPUID(kvm))
        let leaf = try #require(leaves.first { $0.function == 0x8000_001f })
        let types = try kernel.check(kvm, .vmTypes)
        for (type, bit): (VMType, UInt32) in [(.sev, 1), (.sevES, 3), (.snp, 4)] {
            #expect((types >> Int32(type.rawValue) & 1 != 0) == (leaf.eax >> bit & 1 != 0), "type \(type.rawValue)")
        }
        #expect(leaf.edx > 1 && leaf.ecx >= leaf.edx, "ASIDs for every kind of guest")
    }

    @Test(arguments: KernelUnderTest.withSEV)
    func `what a VM cannot do when its registers are its own`(_ candidate: KernelUnderTest) throws {
        let kernel = try candidate.start()
        for kind in SEVKind.allCases {
            let machine = try SEVMachine(kernel, kind)
            let isProtected = kind == .sevES
            #expect((try kernel.check(machine.vm, .readOnlyMemory) == 0) == isProtected, "\(kind)")
            if isProtected {
                #expect(try kernel.check(machine.vm, .syncRegisters) == 0)
                #expect(try kernel.check(machine.vm, .smm) == 0)
            }
            #expect(try kernel.check(machine.vm, .memoryAttributes) == 0, "no private memory")
        }
    }

    @Test(arguments: KernelUnderTest.withSEV)
    func `no read-only slots when registers are the guest's own`(_ candidate: KernelUnderTest) throws {
        let kernel = try candidate.start()
        for kind in SEVKind.allCases {
            let machine = try SEVMachine(kernel, kind)
            let refusal: Errno?
            do throws(Errno) {
                try kernel.call(
                    machine.vm, .setUserMemoryRegion,
                    reading: KVMUserspaceMemoryRegion(
                        slot: 1, flags: KVMUserspaceMemoryRegion.readOnly, guestPhysicalAddress: 0x10_0000,
                        memoryByteCount: 0x1000, userspaceAddress: machine.room.address))
                refusal = nil
            } catch {
                refusal = error
            }
            #expect(refusal == (kind == .sevES ? .EINVAL : nil), "\(kind)")
        }
    }

    @Test(arguments: KernelUnderTest.withSEV)
    func `INIT2 takes zeroes and refuses everything else`(_ candidate: KernelUnderTest) throws {
        let kernel = try candidate.start()
        let features = try vmsaFeatures(kernel)
        for kind: SEVKind in [.sev, .sevES] {
            let machine = try SEVMachine(kernel, kind)
            #expect(machine.command(.initialize2, address: 0) == .refused(.EFAULT))
            for bit in 0..<32 {
                #expect(machine.initialize { $0.flags = 1 << UInt32(bit) } == .refused(.EINVAL), "flag \(bit)")
            }
            for bit in 0..<64 where kind == .sev || features >> UInt64(bit) & 1 == 0 {
                #expect(
                    machine.initialize { $0.vmsaFeatures = 1 << UInt64(bit) } == .refused(.EINVAL), "feature \(bit)")
            }
            let versions: [UInt16] = kind == .sev ? [1, 2, 3, .max] : [3, 4, .max]
            for version in versions {
                #expect(machine.initialize { $0.ghcbVersion = version } == .refused(.EINVAL), "version \(version)")
            }
            #expect(machine.initialize { $0.pad1 = .max } == .success, "padding is not looked at")
            #expect(machine.initialize() == .refused(.EINVAL), "once")
        }
        for version: UInt16 in [0, 1, 2] {
            #expect(try SEVMachine(kernel, .sevES).initialize { $0.ghcbVersion = version } == .success)
        }
    }

    private func vmsaFeatures(_ kernel: any HostKernel) throws -> UInt64 {
        let kvm = try kernel.open(.kvm)
        defer { kernel.close(kvm) }
        var value: UInt64 = 0
        _ = try withKernelAddress(of: &value) { (address: UInt64) throws(Errno) in
            try kernel.call(
                kvm, .getDeviceAttribute,
                reading: KVMDeviceAttribute(
                    group: KVMDeviceAttribute.groupSEV, attribute: KVMDeviceAttribute.sevVMSAFeatures, address: address)
            )
        }
        return value
    }

    @Test(arguments: KernelUnderTest.withSEV)
    func `each INIT belongs to its VM types`(_ candidate: KernelUnderTest) throws {
        let kernel = try candidate.start()
        let old = try SEVMachine(kernel, .oldSEV)
        var data = KVMSEVInit()
        #expect(old.command(.initialize2, &data) == .refused(.EINVAL))
        for kind: SEVKind in [.sev, .sevES] {
            let machine = try SEVMachine(kernel, kind)
            #expect(machine.command(.initialize) == .refused(.EINVAL))
            #expect(machine.command(.initializeES) == .refused(.EINVAL))
        }
    }

    @Test(arguments: KernelUnderTest.withSEV, SEVKind.allCases)
    func `INIT comes before the first vCPU`(_ candidate: KernelUnderTest, _ kind: SEVKind) throws {
        let machine = try SEVMachine(candidate.start(), kind)
        try machine.addVCPU()
        #expect(machine.initialize() == .refused(.EINVAL))
    }

    @Test(arguments: KernelUnderTest.withSEV)
    func `a VM of a confidential type does not run before INIT2`(_ candidate: KernelUnderTest) throws {
        let kernel = try candidate.start()
        for kind: SEVKind in [.sev, .sevES] {
            let machine = try SEVMachine(kernel, kind)
            try machine.addVCPU()
            #expect(throws: Errno.EINVAL) { try kernel.call(machine.vcpu, .run) }
        }
    }

    @Test(arguments: KernelUnderTest.withSEV)
    func `an SNP guest takes none of these commands`(_ candidate: KernelUnderTest) throws {
        guard KernelUnderTest.withSNP.contains(where: { $0.name == candidate.name }) else {
            try Test.cancel("this kernel has no SNP guests")
        }
        let machine = try SNPMachine(candidate.start())
        for id in 0...22 where id != SEVCommandID.initialize2.rawValue {
            let outcome = machine.command(SEVCommandID(rawValue: UInt32(id)))
            switch id {
            case 0, 1, 10, 13, 14, 19: #expect(outcome == .refused(.EINVAL), "command \(id)")
            default: #expect(outcome == .refused(.ENOTTY), "command \(id)")
            }
        }
        #expect(machine.initialize() == .success)
        for id in 0..<100 {
            #expect(machine.command(SEVCommandID(rawValue: UInt32(id))) == .refused(.EPERM), "command \(id)")
        }
    }

    @Test(arguments: KernelUnderTest.withSEV)
    func `NULL asks whether there is SEV`(_ candidate: KernelUnderTest) throws {
        let machine = try SEVMachine(candidate.start(), .sev)
        #expect(try machine.kernel.call(machine.vm, .memoryEncryptOp, value: 0) == 0)
        #expect(throws: Errno.EFAULT) { try machine.kernel.call(machine.vm, .memoryEncryptOp, value: 8) }
        #expect(throws: Errno.EFAULT) { try machine.kernel.call(machine.vm, .memoryEncryptOp, value: 1 << 60) }
    }

    @Test func `encryption contexts are neither copied nor moved`() throws {
        let kernel = try SoftwareKVM()
        let machine = try SEVMachine(kernel, .sev)
        for number: UInt32 in [197, 206] {
            let capability = Capability(rawValue: number)
            #expect(try kernel.check(machine.vm, capability) == 0)
            #expect(throws: Errno.EINVAL) {
                try kernel.call(machine.vm, .enableCapability, reading: KVMEnableCapability(capability))
            }
        }
    }

    // MARK: ASIDs: a small machine of our own

    private static func small(sev: ClosedRange<UInt32> = 100...101, snp: ClosedRange<UInt32> = 1...2) throws
        -> SoftwareKVM
    {
        var configuration = SoftwareKVM.Configuration()
        configuration.platform.sevASIDs = sev
        configuration.platform.snpASIDs = snp
        return try SoftwareKVM(configuration: configuration)
    }

    @Test func `ASIDs run out, by class, and come back`() throws {
        let kernel = try Self.small()
        for kind in SEVKind.allCases {
            var machines = [try SEVMachine(kernel, kind), try SEVMachine(kernel, kind)]
            for machine in machines { #expect(machine.initialize() == .success) }
            let late = try SEVMachine(kernel, kind)
            #expect(late.initialize() == .refused(.EBUSY), "\(kind)")
            let other = try SEVMachine(kernel, kind.isES ? .sev : .sevES)
            #expect(other.initialize() == .success, "the other class has its own")
            machines.removeLast()
            #expect(late.initialize() == .success, "the ASID of a VM that is gone, after a flush")
            #expect(late.start().outcome == .success)
        }
    }

    @Test func `SEV-ES and SNP guests share their ASIDs`() throws {
        let kernel = try Self.small()
        let snp = try SNPMachine(kernel)
        let es = try SEVMachine(kernel, .sevES)
        let late = try SEVMachine(kernel, .oldES)
        #expect(snp.initialize() == .success)
        #expect(es.initialize() == .success)
        #expect(late.initialize() == .refused(.EBUSY))
    }

    @Test func `an ASID goes from guest to guest with a flush, never with its key`() throws {
        let kernel = try Self.small(sev: 100...100)
        var ciphertexts: Set<[UInt8]> = []
        for _ in 0..<3 {
            let machine = try SEVMachine.at(.launching, kernel, .sev)
            #expect(kernel.guestProtection(of: machine.vm)?.asid == 100)
            ciphertexts.insert(machine.ram.copyBytes(at: 0, count: 16))
        }
        #expect(ciphertexts.count == 3)
    }
}
