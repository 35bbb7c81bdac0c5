// The same requests to both kernels, in step, and the first answer in which they differ.

import KVMABI
import LinuxKVM
import SoftwareKVM
import Synchronization
import TestSupport

/// In what two kernels differ.
public struct RequestDifference: Sendable, CustomStringConvertible {
    public enum Kind: Sendable, Equatable {
        /// Result or errno.
        case outcome
        /// Bytes of the answer: where the first one differs.
        case bytes(Int)
        /// KVM_RUN's exit.
        case exit
    }
    public var setup: RequestSetup
    /// The whole sequence.
    public var sequence: [RequestStep] = []
    /// Which step of it.
    public var index: Int
    public var step: RequestStep
    /// What was asked when they differed: the step itself, or a reader after it.
    public var request: IoctlRequest
    public var kind: Kind
    public var software: String
    public var real: String

    public var description: String {
        var text = "\(step)"
        if request != step.request { text += ", then \(request)" }
        if case .bytes(let offset) = kind { text += ", byte \(hex(UInt64(offset)))" }
        return text + ": SoftwareKVM \(software), LinuxKVM \(real)"
    }
}

/// What came of one sequence.
public struct RequestVerdict: Sendable {
    /// Answers that were the same.
    public var comparedCount = 0
    public var difference: RequestDifference?
    /// The real kernel said that it cannot emulate what the guest did; the sequence ended there.
    public var wasNotEmulated = false
    /// Both ended with KVM_EXIT_SHUTDOWN, and the sequence with it.
    public var hasShutDown = false
}

/// SoftwareKVM and another kernel.
public final class KernelPair: Sendable {
    private let kernels: [any HostKernel]
    private let cpuid: [UInt8]
    /// The software kernel's special registers of a new vCPU.
    private let resetRegisters: KVMSpecialRegisters
    private static let ramByteCount = 0x2_0000
    private static let codeAddress = 0x8000

    /// - Parameter real: The other kernel; its answers are "LinuxKVM" in texts.
    public init(real: any HostKernel = LinuxKVM()) throws {
        var configuration = SoftwareKVM.Configuration()
        configuration.systemMemoryByteCount = 64 << 20
        configuration.seed = 1
        let software = try SoftwareKVM(configuration: configuration)
        kernels = [software, real]
        cpuid = KVMCPUIDList.encode(try CommonCPUID.list(software, real))
        let kvm = try software.open(.kvm)
        let vm = KernelHandle(rawValue: try software.call(kvm, .createVM, value: 0))
        let vcpu = KernelHandle(rawValue: try software.call(vm, .createVCPU, value: 0))
        defer { for handle in [vcpu, vm, kvm] { software.close(handle) } }
        var special = KVMSpecialRegisters()
        try software.call(vcpu, .getSpecialRegisters, &special)
        resetRegisters = special
    }

    /// One kernel's half.
    private struct Side {
        var kernel: any HostKernel
        var kvm: KernelHandle
        var vm: KernelHandle
        var ram: KernelMapping
        var vcpus: [(handle: KernelHandle, page: RunPage)] = []

        func handle(_ target: RequestStep.Target) -> KernelHandle {
            switch target {
            case .system: kvm
            case .vm: vm
            case .vcpu(let index): vcpus.indices.contains(index) ? vcpus[index].handle : vm
            }
        }
    }

    /// What a request gave.
    private struct Answer: Equatable {
        var outcome: String
        var bytes: [UInt8]
    }

    // MARK: Sequences

    /// Issues a sequence to fresh VMs of both kernels; stops at the first difference.
    public func run(_ sequence: RequestSequence) throws -> RequestVerdict {
        var verdict = try issue(sequence)
        verdict.difference?.sequence = sequence.steps
        return verdict
    }

    private func issue(_ sequence: RequestSequence) throws -> RequestVerdict {
        var verdict = RequestVerdict()
        var sides = try kernels.map { try side($0, sequence.setup) }
        defer {
            for side in sides {
                for vcpu in side.vcpus { side.kernel.close(vcpu.handle) }
                side.kernel.close(side.vm)
                side.kernel.close(side.kvm)
            }
        }
        for (index, step) in sequence.steps.enumerated() {
            try compare(step, index, &sides, sequence.setup, &verdict)
            if verdict.difference != nil || verdict.wasNotEmulated || verdict.hasShutDown { return verdict }
        }
        // What nobody has asked for yet may differ, too.
        for vcpu in 0..<sides[0].vcpus.count {
            for reader in IoctlRequest.vcpuReaders where reader != .getFPU || sequence.steps.count > 1 {
                let last = sequence.steps.last ?? RequestStep(.vcpu(vcpu), reader)
                try read(reader, .vcpu(vcpu), last, sequence.steps.count - 1, sides, sequence.setup, &verdict)
                if verdict.difference != nil { return verdict }
            }
        }
        return verdict
    }

    private func side(_ kernel: any HostKernel, _ setup: RequestSetup) throws -> Side {
        let kvm = try kernel.open(.kvm)
        let vm = KernelHandle(rawValue: try kernel.call(kvm, .createVM, value: 0))
        let ram = try kernel.map(.anonymous, offset: 0, byteCount: Self.ramByteCount)
        var side = Side(kernel: kernel, kvm: kvm, vm: vm, ram: ram)
        if setup.hasIRQChip {
            try kernel.call(vm, .createIRQChip)
            try kernel.call(vm, .createPIT2, reading: KVMPITConfig())
        }
        try kernel.call(
            vm, .setUserMemoryRegion,
            reading: KVMUserspaceMemoryRegion(
                slot: 0, memoryByteCount: UInt64(Self.ramByteCount), userspaceAddress: ram.address))
        for id in 0..<setup.vcpuCount { try addVCPU(&side, UInt64(id), setup) }
        // What a reset leaves in segments' types is the vendor's; compared once, by `resetState`.
        for (index, vcpu) in side.vcpus.enumerated() {
            var special = resetRegisters
            // Only the first one is the boot processor.
            if index > 0 { special.apicBase &= ~0x100 }
            try kernel.call(vcpu.handle, .setSpecialRegisters, reading: special)
        }
        if let code = setup.code, let vcpu = side.vcpus.first {
            ram.write(code, at: Self.codeAddress)
            LongMode.writePageTables(encryptionBit: 0) { ram.store($1, at: $0) }
            for (index, descriptor) in LongMode.gdt.enumerated() {
                ram.store(descriptor, at: LongMode.gdtAddress + 8 * index)
            }
            var special = KVMSpecialRegisters()
            try kernel.call(vcpu.handle, .getSpecialRegisters, &special)
            LongMode.enter(&special)
            try kernel.call(vcpu.handle, .setSpecialRegisters, reading: special)
            var registers = KVMRegisters()
            registers.rip = UInt64(Self.codeAddress)
            registers.rsp = 0x1_0000
            try kernel.call(vcpu.handle, .setRegisters, reading: registers)
        }
        return side
    }

    private func addVCPU(_ side: inout Side, _ id: UInt64, _ setup: RequestSetup) throws(Errno) {
        let handle = KernelHandle(rawValue: try side.kernel.call(side.vm, .createVCPU, value: id))
        let byteCount = try side.kernel.call(side.kvm, .getVCPUMmapSize)
        side.vcpus.append((handle, RunPage(try side.kernel.map(handle, offset: 0, byteCount: Int(byteCount)))))
        if setup.hasCPUID {
            var list = cpuid
            try side.kernel.call(handle, .setCPUID2, bytes: &list)
        }
    }

    // MARK: Steps

    private func compare(
        _ step: RequestStep, _ index: Int, _ sides: inout [Side], _ setup: RequestSetup,
        _ verdict: inout RequestVerdict
    ) throws {
        if step.request == .run { return try compareRun(step, index, sides, setup, &verdict) }
        let bytes = try bytes(step, sides[0])
        let answers = sides.map { issue(step, bytes, $0) }
        judge(answers, step.request, step, index, setup, &verdict)
        if verdict.difference != nil { return }
        if let reader = step.request.reader {
            try read(reader, step.target, step, index, sides, setup, &verdict)
        }
    }

    private func read(
        _ reader: IoctlRequest, _ target: RequestStep.Target, _ step: RequestStep, _ index: Int, _ sides: [Side],
        _ setup: RequestSetup, _ verdict: inout RequestVerdict
    ) throws {
        let bytes = [UInt8](repeating: 0, count: reader.encodedByteCount)
        let question = RequestStep(target, reader)
        judge(sides.map { issue(question, bytes, $0) }, reader, step, index, setup, &verdict)
    }

    private func judge(
        _ answers: [Answer], _ request: IoctlRequest, _ step: RequestStep, _ index: Int, _ setup: RequestSetup,
        _ verdict: inout RequestVerdict
    ) {
        func differ(_ kind: RequestDifference.Kind, _ software: String, _ real: String) {
            verdict.difference = RequestDifference(
                setup: setup, index: index, step: step, request: request, kind: kind, software: software, real: real)
        }
        if answers[0].outcome != answers[1].outcome {
            return differ(.outcome, answers[0].outcome, answers[1].outcome)
        }
        let masked = answers.map { IgnoredField.mask($0.bytes, request, setup) }
        if let offset = zip(masked[0], masked[1]).enumerated().first(where: { $0.element.0 != $0.element.1 })?.offset {
            let first = offset & ~7
            func part(_ bytes: [UInt8]) -> String {
                let word = bytes[first..<min(first + 8, bytes.count)].reversed().reduce(0 as UInt64) {
                    $0 << 8 | UInt64($1)
                }
                return hex(word)
            }
            return differ(.bytes(offset), part(masked[0]), part(masked[1]))
        }
        verdict.comparedCount += 1
    }

    /// What both kernels get.
    private func bytes(_ step: RequestStep, _ software: Side) throws -> [UInt8] {
        guard case .bytes(let base, _) = step.argument else { return [] }
        switch base {
        case .zeros(let count): return [UInt8](repeating: 0, count: count)
        case .bytes(let bytes): return bytes
        case .current:
            if step.request == .setCPUID2 { return cpuid }
            let reader = step.request.reader ?? step.request
            var bytes = [UInt8](repeating: 0, count: max(reader.encodedByteCount, step.request.encodedByteCount))
            _ = try? software.kernel.call(software.handle(step.target), reader, bytes: &bytes)
            return bytes
        }
    }

    private func issue(_ step: RequestStep, _ original: [UInt8], _ side: Side) -> Answer {
        var bytes = original
        var pointers: [Range<Int>] = []
        if case .bytes(_, let changes) = step.argument {
            for change in changes {
                for byte in 0..<change.byteCount where bytes.indices.contains(change.offset + byte) {
                    let value = change.kind == .pointer ? side.ram.address &+ change.value : change.value
                    let part = UInt8(truncatingIfNeeded: value >> UInt64(8 * (byte & 7)))
                    let at = change.offset + byte
                    bytes[at] = change.kind == .xor ? bytes[at] ^ part : part
                }
                if change.kind == .pointer { pointers.append(change.offset..<change.offset + change.byteCount) }
            }
        }
        let handle = side.handle(step.target)
        var outcome: String
        do {
            let result: Int32
            switch step.argument {
            case .none where step.request.takesAddress:
                result = try side.kernel.call(handle, step.request, bytes: &bytes)
            case .none: result = try side.kernel.call(handle, step.request)
            case .value(let value): result = try side.kernel.call(handle, step.request, value: value)
            case .bytes: result = try side.kernel.call(handle, step.request, bytes: &bytes)
            }
            if [.createVM, .createVCPU].contains(step.request) {
                side.kernel.close(KernelHandle(rawValue: result))
                outcome = "= descriptor"
            } else {
                outcome = "= \(result)"
            }
        } catch { outcome = "\(error)" }
        for range in pointers { for at in range where bytes.indices.contains(at) { bytes[at] = 0 } }
        return Answer(outcome: outcome, bytes: bytes)
    }

    // MARK: KVM_RUN

    private func compareRun(
        _ step: RequestStep, _ index: Int, _ sides: [Side], _ setup: RequestSetup, _ verdict: inout RequestVerdict
    ) throws {
        guard case .vcpu(let number) = step.target, sides[0].vcpus.indices.contains(number) else { return }
        var answers: [Answer] = []
        var hasEnded = false
        for side in sides {
            let (handle, page) = side.vcpus[number]
            page.immediateExit = step.isImmediate
            var text: String
            do {
                try RunGuard.watching(page, seconds: 2) { () throws(Errno) in _ = try side.kernel.call(handle, .run) }
                text = Self.exit(page)
                if page.exitReason == .shutdown { hasEnded = true }
                if page.exitReason == .internalError, page.internalError.kind == .emulation {
                    verdict.wasNotEmulated = true
                }
                // Only then is the access of the exit done.
                page.immediateExit = true
                do { try side.kernel.call(handle, .run) } catch {
                    if error != .EINTR { text += ", completed with \(error)" }
                }
            } catch { text = "\(error)" }
            page.immediateExit = false
            answers.append(Answer(outcome: text, bytes: []))
        }
        if verdict.wasNotEmulated { return }
        judge(answers, .run, step, index, setup, &verdict)
        if verdict.difference?.kind == .outcome { verdict.difference?.kind = .exit }
        // What the registers hold after a shutdown is nobody's promise [APM2 15.14.3].
        if hasEnded {
            verdict.hasShutDown = true
            return
        }
        for reader in [.getRegisters, .getSpecialRegisters, .getVCPUEvents] as [IoctlRequest]
        where verdict.difference == nil {
            try read(reader, step.target, step, index, sides, setup, &verdict)
        }
    }

    private static func exit(_ page: RunPage) -> String {
        switch page.exitReason {
        case .io:
            let io = page.portIO
            let data = io.isWrite ? page.portData(io) ?? [] : []
            return "KVM_EXIT_IO \(io.isWrite ? "out" : "in") \(hex(UInt64(io.port))) \(io.size) x\(io.count) \(data)"
        case .mmio:
            let mmio = page.mmio
            return "KVM_EXIT_MMIO \(mmio.isWrite) \(hex(mmio.physicalAddress)) \(mmio.byteCount)"
        case .debug:
            let debug = page.debug
            return "KVM_EXIT_DEBUG \(debug.exception) pc \(hex(debug.pc)) dr6 \(hex(debug.dr6)) dr7 \(hex(debug.dr7))"
        default: return page.exitReason.description
        }
    }
}
