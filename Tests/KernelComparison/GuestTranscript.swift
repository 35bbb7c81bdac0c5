// What a guest does to its kernel, as text: every exit with its data, the console by lines, and the registers at the end.
//
//     | ok  #DE: error code  0x0        rip 0x2003d4 rsp 0x21cfd0 rflags 0x46
//     KVM_EXIT_MMIO write 0xfe001000 4 0x34  rip …
//     end rax …
//
// A console line is written when its line feed comes, with where the guest is then. Nothing in a line depends on time.

import KVMABI
import Synchronization
import TestSupport

/// What one run of a guest left.
public struct GuestTranscript: Sendable {
    /// By vCPU, in creation order: the exits and the last registers.
    public var lines: [String] = []
    /// Instructions that the kernel said it cannot emulate, by their first bytes, and how often.
    public var unemulated: [String: Int] = [:]
    /// KVM_RUN's exits.
    public var exitCount = 0
}

/// A host kernel that writes down what its guests do.
public final class TranscribingKernel: HostKernel {
    private struct Processor: Sendable {
        var page: RunPage?
        var lines: [String] = []
        var console: [UInt8] = []
        var exitCount = 0
        var unemulated: [String: Int] = [:]
        var interruptions = 0
        var isShutDown = false
    }
    private struct State: Sendable {
        var processors: [KernelHandle: Processor] = [:]
        var order: [KernelHandle] = []
        var assistant: InstructionAssistant?
    }

    private let base: any HostKernel
    private let cpuid: [KVMCPUIDEntry]
    private let limit: Int
    private let state: Mutex<State>

    /// - Parameters:
    ///   - cpuid: What `KVM_GET_SUPPORTED_CPUID` says instead of what the kernel has.
    ///   - assistant: Executes what the kernel reports as KVM_INTERNAL_ERROR_EMULATION; nil: that exit ends the guest.
    ///   - limit: Exits after which the guest is stopped.
    public init(
        _ base: any HostKernel, cpuid: [KVMCPUIDEntry], assistant: InstructionAssistant? = nil, limit: Int = 100_000
    ) {
        self.base = base
        self.cpuid = cpuid
        self.limit = limit
        state = Mutex(State(assistant: assistant))
    }

    /// What was written down; asks each vCPU for its last registers.
    public func transcript() throws(Errno) -> GuestTranscript {
        var transcript = GuestTranscript()
        let (order, processors) = state.withLock { ($0.order, $0.processors) }
        for (index, handle) in order.enumerated() {
            guard let processor = processors[handle] else { continue }
            if order.count > 1 { transcript.lines.append("vCPU \(index)") }
            transcript.lines += processor.lines
            if !processor.console.isEmpty {
                transcript.lines.append("| " + String(decoding: processor.console, as: UTF8.self))
            }
            if !processor.isShutDown { transcript.lines += try lastRegisters(handle) }
            transcript.exitCount += processor.exitCount
            for (what, count) in processor.unemulated { transcript.unemulated[what, default: 0] += count }
        }
        return transcript
    }

    // MARK: HostKernel

    public func open(_ node: DeviceNode) throws(Errno) -> KernelHandle { try base.open(node) }

    public func punchHole(_ handle: KernelHandle, offset: Int64, byteCount: Int64) throws(Errno) {
        try base.punchHole(handle, offset: offset, byteCount: byteCount)
    }

    /// vCPUs stay open until the transcript is taken.
    public func close(_ handle: KernelHandle) {
        if state.withLock({ $0.processors[handle] == nil }) { base.close(handle) }
    }

    /// Closes the vCPUs.
    public func closeProcessors() {
        for handle in state.withLock({ $0.order }) { base.close(handle) }
    }

    public func map(_ handle: KernelHandle, offset: Int64, byteCount: Int) throws(Errno) -> KernelMapping {
        let mapping = try base.map(handle, offset: offset, byteCount: byteCount)
        state.withLock { state in
            if state.processors[handle] != nil, byteCount >= RunPage.byteCount {
                state.processors[handle]?.page = RunPage(mapping)
            }
        }
        return mapping
    }

    public func ioctl(
        _ handle: KernelHandle, _ request: IoctlRequest, _ argument: IoctlArgument
    ) throws(Errno) -> Int32 {
        switch request {
        case .getSupportedCPUID:
            let room: UInt32 = try argument.load()
            if room < UInt32(cpuid.count) { throw .E2BIG }
            for (index, entry) in cpuid.enumerated() { try argument.store(entry, at: 8 + 40 * index) }
            try argument.store(UInt32(cpuid.count))
            return 0
        case .setUserMemoryRegion:
            let region: KVMUserspaceMemoryRegion = try argument.load()
            try state.withLock { (state) throws(Errno) in try state.assistant?.setRegion(region) }
        case .setUserMemoryRegion2:
            let region: KVMUserspaceMemoryRegion2 = try argument.load()
            let old = KVMUserspaceMemoryRegion(
                slot: region.slot, flags: region.flags, guestPhysicalAddress: region.guestPhysicalAddress,
                memoryByteCount: region.memoryByteCount, userspaceAddress: region.userspaceAddress)
            try state.withLock { (state) throws(Errno) in try state.assistant?.setRegion(old) }
        case .createVCPU:
            let made = try base.ioctl(handle, request, argument)
            let vcpu = KernelHandle(rawValue: made)
            state.withLock { state in
                state.processors[vcpu] = Processor()
                state.order.append(vcpu)
            }
            return made
        case .run: return try run(handle, argument)
        default: break
        }
        return try base.ioctl(handle, request, argument)
    }

    // MARK: KVM_RUN

    private func run(_ handle: KernelHandle, _ argument: IoctlArgument) throws(Errno) -> Int32 {
        guard let page = state.withLock({ $0.processors[handle]?.page }) else { throw .EBADF }
        while true {
            let result: Int32
            do {
                result = try RunGuard.watching(page, seconds: 3) { () throws(Errno) in
                    try base.ioctl(handle, .run, argument)
                }
            } catch {
                try countInterruption(handle, error)
                throw error
            }
            if page.exitReason == .internalError, page.internalError.kind == .emulation,
                try executesForKernel(handle, page)
            {
                continue
            }
            try record(handle, page)
            return result
        }
    }

    /// A guest that stays in KVM_RUN is stopped at last: the VMM would enter it again for ever.
    private func countInterruption(_ handle: KernelHandle, _ error: Errno) throws(Errno) {
        let count = state.withLock { state in
            if error == .EINTR { state.processors[handle]?.interruptions += 1 }
            return state.processors[handle]?.interruptions ?? 0
        }
        if count > 3 { throw .ETIMEDOUT }
    }

    /// An instruction that the kernel could not emulate. False: it stays the exit that it is.
    private func executesForKernel(_ handle: KernelHandle, _ page: RunPage) throws(Errno) -> Bool {
        guard let assistant = state.withLock({ $0.assistant }) else { return false }
        let what = Self.instruction(page.internalError)
        let outcome = try assistant.step(base, handle, cpuid)
        state.withLock { $0.processors[handle]?.unemulated[what, default: 0] += 1 }
        // Exceptions that nobody could take: the exit that the kernel would have made of them.
        if outcome == .shutdown { page.exitReason = .shutdown }
        return outcome == .done
    }

    /// The first three bytes behind the prefixes.
    private static func instruction(_ error: RunPage.InternalError) -> String {
        guard error.data.count >= 3, error.data[0] & 1 != 0 else { return "code that cannot be fetched" }
        let bytes = error.data[1...].flatMap { word in (0..<8).map { UInt8(truncatingIfNeeded: word >> UInt64(8 * $0)) }
        }
        let instruction = bytes.dropFirst().prefix(Int(min(bytes[0], 15)))
        let opcode = instruction.drop {
            [0x66, 0x67, 0xf0, 0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65].contains($0) || $0 >> 4 == 4
        }
        let count = opcode.first == 0x0f || opcode.first ?? 0 >= 0xf2 ? 3 : 1
        return opcode.prefix(count).map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined(separator: " ")
    }

    private func record(_ handle: KernelHandle, _ page: RunPage) throws(Errno) {
        let reason = page.exitReason
        let count = state.withLock { state in
            state.processors[handle]?.exitCount += 1
            return state.processors[handle]?.exitCount ?? 0
        }
        if count > limit { throw .ETIMEDOUT }
        var line: String
        switch reason {
        case .io:
            let io = page.portIO
            let data = io.isWrite ? page.portData(io) ?? [] : []
            if io.isWrite, io.port == 0x3f8, io.size == 1 {
                for byte in data where byte != 13 { try recordConsole(byte, handle) }
                return
            }
            line = "KVM_EXIT_IO \(io.isWrite ? "out" : "in") \(hex(UInt64(io.port))) \(io.size) x\(io.count)"
            if io.isWrite { line += " " + data.map { String($0, radix: 16) }.joined(separator: " ") }
        case .mmio:
            let mmio = page.mmio
            line = "KVM_EXIT_MMIO \(mmio.isWrite ? "write" : "read") \(hex(mmio.physicalAddress)) \(mmio.byteCount)"
            let mask = mmio.byteCount >= 8 ? UInt64.max : (1 << UInt64(8 * mmio.byteCount)) - 1
            if mmio.isWrite { line += " \(hex(mmio.data & mask))" }
        case .internalError:
            let error = page.internalError
            line = "\(reason) \(error.kind.rawValue)"
            if error.kind == .emulation { line += " " + Self.instruction(error) }
        case .shutdown:
            // What the registers hold then is nobody's promise [APM2 15.14.3].
            state.withLock { $0.processors[handle]?.isShutDown = true }
            append("\(reason)", handle)
            return
        default: line = "\(reason)"
        }
        append(line + "  " + (try place(handle)), handle)
    }

    private func recordConsole(_ byte: UInt8, _ handle: KernelHandle) throws(Errno) {
        guard byte == 10 else {
            state.withLock { $0.processors[handle]?.console.append(byte) }
            return
        }
        let text = state.withLock { state in
            let text = String(decoding: state.processors[handle]?.console ?? [], as: UTF8.self)
            state.processors[handle]?.console = []
            return text
        }
        append("| \(text)  " + (try place(handle)), handle)
    }

    private func append(_ line: String, _ handle: KernelHandle) {
        state.withLock { $0.processors[handle]?.lines.append(line) }
    }

    /// Where the guest is once the access of the last exit is done: until KVM_RUN is entered again, some kernels have
    /// moved RIP already and others have not [KVM KVM_RUN, note on KVM_EXIT_IO]. So it is entered, not to run.
    private func place(_ handle: KernelHandle) throws(Errno) -> String {
        if let page = state.withLock({ $0.processors[handle]?.page }), page.exitReason == .io, page.portIO.isWrite {
            let before = page.mapping.copyBytes(at: 0, count: RunPage.byteCount)
            page.immediateExit = true
            do { try base.call(handle, .run) } catch { if error != .EINTR { throw error } }
            page.mapping.write(before, at: 0)
        }
        var registers = KVMRegisters()
        try base.call(handle, .getRegisters, &registers)
        return "rip \(hex(registers.rip)) rsp \(hex(registers.rsp)) rflags \(hex(registers.rflags))"
    }

    private func lastRegisters(_ handle: KernelHandle) throws(Errno) -> [String] {
        var registers = KVMRegisters()
        try base.call(handle, .getRegisters, &registers)
        var special = KVMSpecialRegisters()
        try base.call(handle, .getSpecialRegisters, &special)
        let general: [(String, UInt64)] = [
            ("rax", registers.rax), ("rbx", registers.rbx), ("rcx", registers.rcx), ("rdx", registers.rdx),
            ("rsi", registers.rsi), ("rdi", registers.rdi), ("rsp", registers.rsp), ("rbp", registers.rbp),
            ("r8", registers.r8), ("r9", registers.r9), ("r10", registers.r10), ("r11", registers.r11),
            ("r12", registers.r12), ("r13", registers.r13), ("r14", registers.r14), ("r15", registers.r15),
            ("rip", registers.rip), ("rflags", registers.rflags), ("cr0", special.cr0), ("cr2", special.cr2),
            ("cr3", special.cr3), ("cr4", special.cr4), ("cr8", special.cr8), ("efer", special.efer),
            ("apic base", special.apicBase),
        ]
        var lines = general.map { "end \($0.0) \(hex($0.1))" }
        let segments = [
            ("cs", special.cs), ("ds", special.ds), ("es", special.es), ("fs", special.fs), ("gs", special.gs),
            ("ss", special.ss), ("tr", special.tr), ("ldt", special.ldt),
        ]
        for (name, segment) in segments {
            lines.append(
                "end \(name) \(hex(UInt64(segment.selector))) base \(hex(segment.base)) limit \(hex(UInt64(segment.limit)))"
                    + " attributes \(hex(UInt64(segment.attributes)))")
        }
        for (name, table) in [("gdt", special.gdt), ("idt", special.idt)] {
            lines.append("end \(name) base \(hex(table.base)) limit \(hex(UInt64(table.limit)))")
        }
        return lines
    }
}

func hex(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }
