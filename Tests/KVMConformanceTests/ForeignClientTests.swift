// What programs that others wrote ask of KVM and our own VMM does not: the kernel's selftests, QEMU, debuggers.

import KVMABI
import SoftwareKVM
import TestSupport
import Testing

@Suite(.serialized) struct ForeignClientTests {
    static let software = KernelUnderTest.software

    // MARK: Registers in the run page

    @Test func `synchronised registers travel in the run page`() throws {
        // inc rbx; out 0x10, al; jmp to the start
        let machine = try PlainMachine(Self.software.start(), code: [0x48, 0xff, 0xc3, 0xe6, 0x10, 0xeb, 0xf9])
        #expect(try machine.kernel.check(machine.vm, .syncRegisters) == 7)
        machine.page.validRegisters = RunPage.generalRegisterSet | RunPage.specialRegisterSet | RunPage.eventSet
        #expect(try machine.run() == .io)
        #expect(machine.page.synchronizedRegisters.rbx == 1)
        #expect(machine.page.synchronizedSpecialRegisters.efer == 0x500)
        var registers = machine.page.synchronizedRegisters
        registers.rbx = 0x100
        machine.page.synchronizedRegisters = registers
        machine.page.dirtyRegisters = RunPage.generalRegisterSet
        #expect(try machine.run() == .io)
        #expect(machine.page.dirtyRegisters == 0)
        #expect(machine.page.synchronizedRegisters.rbx == 0x101)
        #expect(try machine.registers.rbx == 0x101)
    }

    // MARK: Strings from ports

    @Test func `INS asks for as many elements as fit`() throws {
        // rep insb; hlt
        let machine = try PlainMachine(Self.software.start(), code: [0xf3, 0x6c, 0xf4])
        try machine.setRegisters {
            $0.rcx = 1500
            $0.rdx = 0x80
            $0.rdi = 0x9ff0
        }
        var counts: [UInt32] = []
        while try machine.run() == .io {
            let io = machine.page.portIO
            #expect(!io.isWrite && io.size == 1 && io.port == 0x80)
            counts.append(io.count)
            machine.page.setPortData([UInt8](repeating: UInt8(counts.count), count: Int(io.count)), io)
        }
        // To the end of the page, a kilobyte, the rest.
        #expect(counts == [16, 1024, 460])
        #expect(machine.ram.copyBytes(at: 0x9fef, count: 18) == [0] + [UInt8](repeating: 1, count: 16) + [2])
        #expect(try machine.registers.rcx == 0)
        #expect(try machine.registers.rdi == 0x9ff0 + 1500)
    }

    // MARK: Debugging

    private func setDebug(_ machine: PlainMachine, _ control: UInt32, _ dr: [Int: UInt64] = [:]) throws {
        var debug = KVMGuestDebug()
        debug.control = control
        for (number, value) in dr { debug.debugRegisters[number] = value }
        try machine.kernel.call(machine.vcpu, .setGuestDebug, &debug)
    }

    @Test func `INT3 is the VMM's when it says so`() throws {
        let machine = try PlainMachine(Self.software.start(), code: [0x90, 0xcc, 0xf4])
        try setDebug(machine, KVMGuestDebug.enable | KVMGuestDebug.useSoftwareBreakpoints)
        #expect(try machine.run() == .debug)
        #expect(machine.page.debug.exception == 3)
        #expect(machine.page.debug.pc == 0x8001)
        #expect(try machine.registers.rip == 0x8001)
    }

    @Test func `the VMM's breakpoints and watchpoints hide the guest's`() throws {
        // nop; mov [rbx], al; hlt
        let machine = try PlainMachine(Self.software.start(), code: [0x90, 0x88, 0x03, 0xf4])
        try machine.setRegisters { $0.rbx = 0x9000 }
        let control = KVMGuestDebug.enable | KVMGuestDebug.useBreakpoints
        try setDebug(machine, control, [2: 0x8001, 7: 0x420])
        #expect(try machine.run() == .debug)
        #expect(machine.page.debug == RunPage.DebugExit(exception: 1, pc: 0x8001, dr6: 0xffff_0ff4, dr7: 0x420))
        // Writes of one byte at DR0.
        try setDebug(machine, control, [0: 0x9000, 7: 0x1_0402])
        #expect(try machine.run() == .debug)
        #expect(machine.page.debug == RunPage.DebugExit(exception: 1, pc: 0x8003, dr6: 0xffff_0ff1, dr7: 0x1_0402))
        var debug = KVMDebugRegisters()
        try machine.kernel.call(machine.vcpu, .getDebugRegisters, &debug)
        #expect(debug.dr6 == 0xffff_0ff0 && debug.dr7 == 0x400 && debug.db[0] == 0)
        try setDebug(machine, 0)
        #expect(try machine.run() == .halt)
    }

    @Test func `a single step ends behind every instruction, intercepted ones included`() throws {
        // nop; cpuid; in al, 0x10; hlt
        let machine = try PlainMachine(Self.software.start(), code: [0x90, 0x0f, 0xa2, 0xe4, 0x10, 0xf4])
        try setDebug(machine, KVMGuestDebug.enable | KVMGuestDebug.singleStep)
        var places: [UInt64] = []
        for _ in 0..<4 {
            let reason = try machine.run()
            if reason == .debug {
                places.append(machine.page.debug.pc)
                #expect(machine.page.debug.dr6 == 0xffff_4ff0)
            } else {
                #expect(reason == .io)
            }
        }
        #expect(places == [0x8001, 0x8003, 0x8005])
        #expect(try machine.registers.rflags & 0x100 == 0)
    }

    // MARK: The dirty log

    private func dirtyLog(_ machine: PlainMachine) throws(Errno) -> UInt64 {
        var words: UInt64 = 0
        try withKernelAddress(of: &words) { (address) throws(Errno) in
            var log = KVMDirtyLog()
            log.bitmapAddress = address
            try machine.kernel.call(machine.vm, .getDirtyLog, &log)
        }
        return words
    }

    private func setLogging(_ machine: PlainMachine, _ isOn: Bool) throws {
        try machine.kernel.call(
            machine.vm, .setUserMemoryRegion,
            reading: KVMUserspaceMemoryRegion(
                slot: 0, flags: isOn ? KVMUserspaceMemoryRegion.logDirtyPages : 0,
                memoryByteCount: UInt64(PlainMachine.ramByteCount), userspaceAddress: machine.ram.address))
    }

    @Test func `the dirty log names the pages written since it was read`() throws {
        // mov [rbx], al; hlt; jmp to the start
        let machine = try PlainMachine(Self.software.start(), code: [0x88, 0x03, 0xf4, 0xeb, 0xfb])
        try machine.setRegisters { $0.rbx = 0x9000 }
        #expect(try machine.run() == .halt)
        #expect(throws: Errno.ENOENT) { try dirtyLog(machine) }
        try setLogging(machine, true)
        #expect(try dirtyLog(machine) == 0)
        #expect(try machine.run() == .halt)
        #expect(try dirtyLog(machine) == 1 << 9)
        #expect(try dirtyLog(machine) == 0)
        #expect(try machine.run() == .halt)
        #expect(try dirtyLog(machine) == 1 << 9)
        try setLogging(machine, false)
        #expect(throws: Errno.ENOENT) { try dirtyLog(machine) }
    }

    @Test func `with manual protection the VMM clears what it has seen`() throws {
        let machine = try PlainMachine(Self.software.start(), code: [0x88, 0x03, 0xf4, 0xeb, 0xfb])
        try machine.setRegisters { $0.rbx = 0x9000 }
        var capability = KVMEnableCapability()
        capability.capability = Capability.manualDirtyLogProtect2.rawValue
        capability.arguments[0] = 3
        try machine.kernel.call(machine.vm, .enableCapability, &capability)
        try setLogging(machine, true)
        // All of it from the beginning.
        #expect(try dirtyLog(machine) == 0xffff_ffff)
        var words: UInt64 = 0xffff_ffff
        let vm = machine.vm
        let kernel = machine.kernel
        try withKernelAddress(of: &words) { (address) throws(Errno) in
            var clear = KVMClearDirtyLog()
            (clear.pageCount, clear.bitmapAddress) = (32, address)
            try kernel.call(vm, .clearDirtyLog, &clear)
            (clear.firstPage, clear.pageCount) = (1, 31)
            #expect(throws: Errno.EINVAL) { try kernel.call(vm, .clearDirtyLog, &clear) }
        }
        #expect(try dirtyLog(machine) == 0)
        #expect(try machine.run() == .halt)
        #expect(try dirtyLog(machine) == 1 << 9)
        #expect(try dirtyLog(machine) == 1 << 9)
    }

    // MARK: MSRs

    @Test func `an MSR that nobody knows is the VMM's to answer`() throws {
        // rdmsr; hlt
        let machine = try PlainMachine(Self.software.start(), code: [0x0f, 0x32, 0xf4])
        try machine.setRegisters { $0.rcx = 0x1234_5678 }
        var capability = KVMEnableCapability()
        capability.capability = Capability.userSpaceMSR.rawValue
        capability.arguments[0] = 2
        try machine.kernel.call(machine.vm, .enableCapability, &capability)
        #expect(try machine.run() == .readMSR)
        var access = machine.page.msr
        #expect(access.index == 0x1234_5678 && access.reason == 2)
        access.data = 0x1111_2222_3333_4444
        machine.page.msr = access
        #expect(try machine.run() == .halt)
        #expect(try machine.registers.rax == 0x3333_4444)
        #expect(try machine.registers.rdx == 0x1111_2222)
    }

    @Test func `a filter takes even the processor's own MSRs`() throws {
        // rdmsr; hlt
        let machine = try PlainMachine(Self.software.start(), code: [0x0f, 0x32, 0xf4])
        try machine.setRegisters { $0.rcx = 0xc000_0080 }
        var capability = KVMEnableCapability()
        capability.capability = Capability.userSpaceMSR.rawValue
        capability.arguments[0] = 4
        try machine.kernel.call(machine.vm, .enableCapability, &capability)
        var bitmap: UInt64 = 0
        let vm = machine.vm
        let kernel = machine.kernel
        try withKernelAddress(of: &bitmap) { (address) throws(Errno) in
            // Reads of one MSR, whose bit is clear: denied.
            var filter = [UInt8](repeating: 0, count: 392)
            let range = (1 as UInt32).kernelBytes + (1 as UInt32).kernelBytes + (0xc000_0080 as UInt32).kernelBytes
            filter.replaceSubrange(8..<20, with: range)
            filter.replaceSubrange(24..<32, with: address.kernelBytes)
            try kernel.call(vm, .setMSRFilter, bytes: &filter)
        }
        #expect(try machine.run() == .readMSR)
        #expect(machine.page.msr.index == 0xc000_0080 && machine.page.msr.reason == 4)
        machine.page.msr = RunPage.MSRAccess(reason: 4, index: 0xc000_0080, data: 7)
        #expect(try machine.run() == .halt)
        #expect(try machine.registers.rax == 7)
    }

    @Test func `IA32_POWER_CTL keeps what it is given, and the guest sees it`() throws {
        // wrmsr; rdmsr; hlt
        let machine = try PlainMachine(Self.software.start(), code: [0x0f, 0x30, 0x0f, 0x32, 0xf4])
        try machine.setRegisters {
            $0.rcx = 0x1fc
            $0.rax = 0x1234
            $0.rdx = 1
        }
        #expect(try machine.run() == .halt)
        #expect(try machine.registers.rax == 0x1234)
        var get = KVMMSRList.encode(reading: [0x1fc])
        #expect(try machine.kernel.call(machine.vcpu, .getMSRs, bytes: &get) == 1)
        #expect(KVMMSRList.decode(get).map(\.data) == [0x1_0000_1234])
    }

    // MARK: Writes that are not exits

    @Test func `coalesced writes wait in the ring`() throws {
        // mov [rbx], eax; out 0x10, al
        let machine = try PlainMachine(Self.software.start(), code: [0x89, 0x03, 0xe6, 0x10])
        try machine.setRegisters {
            $0.rax = 0x1234_5678
            $0.rbx = 0xb_8000
        }
        var zone = KVMCoalescedZone()
        (zone.address, zone.byteCount) = (0xb_8000, 0x1000)
        try machine.kernel.call(machine.vm, .registerCoalescedMMIO, &zone)
        #expect(try machine.kernel.check(machine.vm, .coalescedMMIO) == 2)
        #expect(try machine.run() == .io)
        let ring = 0x2000
        #expect(machine.page.mapping.load(at: ring, as: UInt64.self) == 1 << 32)
        #expect(machine.page.mapping.load(at: ring + 8, as: UInt64.self) == 0xb_8000)
        #expect(machine.page.mapping.load(at: ring + 16, as: UInt64.self) == 4)
        #expect(machine.page.mapping.load(at: ring + 24, as: UInt32.self) == 0x1234_5678)
        try machine.kernel.call(machine.vm, .unregisterCoalescedMMIO, &zone)
        try machine.setRegisters { $0.rbx = 0xb_8000 }
        #expect(try machine.run() == .mmio)
    }

    // MARK: CPUID

    @Test func `the host's own CPUID is the kernel's list, zero where that has nothing`() throws {
        let kernel = try SoftwareKVM()
        let kvm = try kernel.open(.kvm)
        let profile = SoftwareKVM.Configuration().profile
        for entry in KVMCPUIDList.decode(try kernel.supportedCPUID(kvm)) {
            let host = SoftwareKVM.hostCPUID(of: profile, leaf: entry.function, subleaf: entry.index)
            #expect(host.kernelBytes == entry.kernelBytes, "leaf \(entry.function), \(entry.index)")
        }
        // No bounds registers; where PKRU lies.
        #expect(SoftwareKVM.hostCPUID(of: profile, leaf: 0xd, subleaf: 3).kernelBytes == KVMCPUIDEntry().kernelBytes)
        #expect(SoftwareKVM.hostCPUID(of: profile, leaf: 0xd, subleaf: 9).ebx == 2432)
    }

    // MARK: Descriptors

    @Test func `handles can be descriptors, whose files are the run pages`() throws {
        var configuration = SoftwareKVM.Configuration()
        configuration.handlesAreDescriptors = true
        // out 0x10, al
        let machine = try PlainMachine(SoftwareKVM(configuration: configuration), code: [0xe6, 0x10])
        let foreign = RunPage(try MemoryFile.map(machine.vcpu.rawValue, byteCount: 3 * 4096))
        #expect(try machine.run() == .io)
        #expect(foreign.exitReason == .io && foreign.portIO.port == 0x10)
    }

    @Test func `a system call finds its argument's length by itself`() throws {
        let kernel = try SoftwareKVM()
        let kvm = try kernel.open(.kvm)
        #expect(kernel.systemCall(kvm, .getAPIVersion, 0) == 12)
        #expect(kernel.systemCall(kvm, .checkExtension, UInt64(Capability.coalescedMMIO.rawValue)) == 2)
        #expect(kernel.systemCall(kvm, .getSupportedCPUID, 8) == 0 - Errno.EFAULT.rawValue)
        var list = KVMCPUIDList.room(for: 100)
        let result = withKernelAddress(ofMutable: &list) { kernel.systemCall(kvm, .getSupportedCPUID, $0) }
        #expect(result == 0)
        #expect(KVMCPUIDList.decode(list).first?.function == 0)
        #expect(kernel.systemCall(KernelHandle(rawValue: 77), .getAPIVersion, 0) == 0 - Errno.EBADF.rawValue)
    }
}
