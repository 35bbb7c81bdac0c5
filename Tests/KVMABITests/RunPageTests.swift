// kvm_run: each accessor of RunPage writes where the kernel's table says, and reads back what it wrote.

import CKVM
import KVMABI
import Testing

/// `kvm_run`'s fields in CKVM's table.
private let offsets: [String: Int] = {
    var result: [String: Int] = [:]
    for index in 0..<ckvm_field_count() {
        let entry = ckvm_field_at(index)
        if String(cString: entry.structure) == "kvm_run" { result[String(cString: entry.field)] = Int(entry.value) }
    }
    return result
}()

@Suite struct RunPageTests {
    let mapping: KernelMapping
    let page: RunPage

    init() throws {
        mapping = try KernelMapping.anonymous(byteCount: 3 * 4096)
        page = RunPage(mapping)
    }

    private func at<T: FixedWidthInteger & BitwiseCopyable>(_ field: String, _ type: T.Type = T.self) throws -> T {
        mapping.load(at: try #require(offsets[field], "\(field)"), as: T.self)
    }

    @Test func `the header`() throws {
        page.requestInterruptWindow = 1
        page.immediateExit = true
        page.exitReason = .systemEvent
        page.readyForInterruptInjection = true
        page.interruptFlag = true
        page.flags = 0x8001
        page.cr8 = 0x11
        page.apicBase = 0xfee0_0900
        page.validRegisters = 0x22
        page.dirtyRegisters = 0x33
        #expect(try at("request_interrupt_window", UInt8.self) == 1)
        #expect(try at("immediate_exit", UInt8.self) == 1)
        #expect(try at("exit_reason", UInt32.self) == 24)
        #expect(try at("ready_for_interrupt_injection", UInt8.self) == 1)
        #expect(try at("if_flag", UInt8.self) == 1)
        #expect(try at("flags", UInt16.self) == 0x8001)
        #expect(try at("cr8", UInt64.self) == 0x11)
        #expect(try at("apic_base", UInt64.self) == 0xfee0_0900)
        #expect(try at("kvm_valid_regs", UInt64.self) == 0x22)
        #expect(try at("kvm_dirty_regs", UInt64.self) == 0x33)
        #expect(page.immediateExit && page.interruptFlag && page.readyForInterruptInjection)
        #expect(page.exitReason == .systemEvent)
        page.immediateExit = false
        #expect(!page.immediateExit)
        #expect(offsets[""] == RunPage.byteCount)
    }

    @Test func `port I/O with its data in the second page`() throws {
        let io = RunPage.PortIO(isWrite: true, size: 4, port: 0x3f8, count: 3)
        page.portIO = io
        #expect(try at("io.direction", UInt8.self) == 1)
        #expect(try at("io.size", UInt8.self) == 4)
        #expect(try at("io.port", UInt16.self) == 0x3f8)
        #expect(try at("io.count", UInt32.self) == 3)
        #expect(try at("io.data_offset", UInt64.self) == 0x1000)
        #expect(page.portIO == io)
        let data = [UInt8](1...12)
        #expect(page.setPortData(data + [99], io))
        #expect(page.portData(io) == data)
        #expect(mapping.load(at: 0x100c, as: UInt8.self) == 0)
    }

    @Test(arguments: [.max, 1 << 63, 12288, 12287] as [UInt64])
    func `port data outside the mapping is refused`(_ offset: UInt64) {
        let io = RunPage.PortIO(isWrite: false, size: 2, port: 0, count: 1, dataOffset: offset)
        #expect(page.portData(io) == nil)
        #expect(!page.setPortData([1, 2], io))
        let long = RunPage.PortIO(isWrite: false, size: 255, port: 0, count: .max)
        #expect(page.portData(long) == nil)
    }

    @Test func `memory-mapped I/O`() throws {
        let access = RunPage.MMIO(physicalAddress: 0xfec0_0010, data: 0x1122_3344, byteCount: 4, isWrite: true)
        page.mmio = access
        #expect(try at("mmio.phys_addr", UInt64.self) == 0xfec0_0010)
        #expect(try at("mmio.data", UInt64.self) == 0x1122_3344)
        #expect(try at("mmio.len", UInt32.self) == 4)
        #expect(try at("mmio.is_write", UInt8.self) == 1)
        #expect(page.mmio == access)
        page.mmioData = 0x55
        #expect(page.mmio.data == 0x55)
    }

    @Test func `hypercalls`() throws {
        page.hypercall = RunPage.Hypercall(number: 12, arguments: [1, 2, 3, 4, 5, 6], result: 7, flags: 1)
        #expect(try at("hypercall.nr", UInt64.self) == 12)
        #expect(try at("hypercall.args", UInt64.self) == 1)
        #expect(mapping.load(at: 80, as: UInt64.self) == 6)
        #expect(try at("hypercall.ret", UInt64.self) == 7)
        #expect(try at("hypercall.longmode", UInt32.self) == 1)
        page.hypercallResult = 0
        #expect(page.hypercall.result == 0)
        #expect(page.hypercall.arguments[5] == 6)
    }

    @Test func `memory faults`() throws {
        // Not in the installed header of older distributions: flags 32, gpa 40, size 48.
        page.memoryFault = RunPage.MemoryFault(flags: 8, gpa: 0x1000, byteCount: 0x2000)
        #expect(mapping.load(at: 32, as: UInt64.self) == 8)
        #expect(mapping.load(at: 40, as: UInt64.self) == 0x1000)
        #expect(mapping.load(at: 48, as: UInt64.self) == 0x2000)
        #expect(page.memoryFault.isPrivate)
    }

    @Test func `system events and internal errors`() throws {
        page.systemEvent = RunPage.SystemEvent(type: .sevTermination, data: [0x0100])
        #expect(try at("system_event.type", UInt32.self) == 6)
        #expect(try at("system_event.ndata", UInt32.self) == 1)
        #expect(try at("system_event.data", UInt64.self) == 0x0100)
        #expect(page.systemEvent == RunPage.SystemEvent(type: .sevTermination, data: [0x0100]))

        page.internalError = RunPage.InternalError(kind: .emulation, data: [1, 2, 3])
        #expect(try at("internal.suberror", UInt32.self) == 1)
        #expect(try at("internal.ndata", UInt32.self) == 3)
        #expect(try at("internal.data", UInt64.self) == 1)
        #expect(page.internalError.data == [1, 2, 3])

        mapping.store(UInt32.max, at: try #require(offsets["internal.ndata"]))
        #expect(page.internalError.data.count == 16, "a count beyond the array is cut")
    }

    @Test func `MSR and debug exits, entry failures`() throws {
        page.msr = RunPage.MSRAccess(error: 1, reason: 2, index: 0xc001_0130, data: 5)
        #expect(try at("msr.error", UInt8.self) == 1)
        #expect(try at("msr.reason", UInt32.self) == 2)
        #expect(try at("msr.index", UInt32.self) == 0xc001_0130)
        #expect(try at("msr.data", UInt64.self) == 5)
        #expect(page.msr == RunPage.MSRAccess(error: 1, reason: 2, index: 0xc001_0130, data: 5))

        page.debug = RunPage.DebugExit(exception: 1, pc: 2, dr6: 3, dr7: 4)
        #expect(try at("debug.arch.exception", UInt32.self) == 1)
        #expect(try at("debug.arch.pc", UInt64.self) == 2)
        #expect(try at("debug.arch.dr6", UInt64.self) == 3)
        #expect(try at("debug.arch.dr7", UInt64.self) == 4)
        #expect(page.debug == RunPage.DebugExit(exception: 1, pc: 2, dr6: 3, dr7: 4))

        page.failEntryReason = 0x77
        #expect(try at("fail_entry.hardware_entry_failure_reason", UInt64.self) == 0x77)
        page.hardwareExitReason = 0x78
        #expect(try at("hw.hardware_exit_reason", UInt64.self) == 0x78)
    }
}
