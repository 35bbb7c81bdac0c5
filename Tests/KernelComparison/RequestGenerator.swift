// Sequences of requests from a seed, and how one that shows a difference is made short.

import KVMABI
import TestSupport

extension RequestSequence {
    /// A sequence of some steps: requests of every kind with a few bytes changed, and runs of a few instructions.
    ///
    /// What runs is always 64-bit code of the fixture with other general registers, flags and events: a real kernel is
    /// asked for what a VMM does, and never entered with a state made of noise.
    public init(seed: UInt64) {
        var numbers = SeededGenerator(seed: seed)
        var setup = RequestSetup(hasIRQChip: numbers.below(3) == 0, hasCPUID: numbers.below(8) != 0)
        setup.vcpuCount = 1 + numbers.below(2)
        // HLT would sleep in a kernel with interrupt controllers.
        if !setup.hasIRQChip, numbers.below(2) == 0 { setup.code = Self.programs[numbers.below(Self.programs.count)] }
        var steps: [RequestStep] = []
        var mayRun = setup.code != nil
        for _ in 0..<(2 + numbers.below(14)) {
            let step = Self.step(&numbers, setup, &mayRun)
            steps.append(step)
        }
        self.init(setup, steps)
    }

    /// Straight code that ends: ports, memory, flags, device memory, CPUID, a fault.
    private static let programs: [[UInt8]] = [
        [0xf4], [0xe6, 0x80, 0xf4], [0xe4, 0x80, 0xe6, 0x81, 0xf4], [0x0f, 0x0b],
        [0x50, 0x58, 0x9c, 0x58, 0xe7, 0x80, 0xf4],
        [0x48, 0x89, 0x04, 0x25, 0, 0, 0, 0x10, 0xf4], [0x48, 0x8b, 0x1c, 0x25, 0, 0, 0, 0x10, 0xe6, 0x80, 0xf4],
        [0x48, 0x01, 0xc3, 0x48, 0x11, 0xd1, 0x9c, 0x5e, 0xe7, 0x80, 0xf4],
        [0x48, 0xf7, 0xe3, 0x9c, 0x5f, 0xe7, 0x80, 0xf4],
        [0x48, 0xf7, 0xf3, 0xe7, 0x80, 0xf4], [0xd3, 0xe0, 0x0f, 0xad, 0xd3, 0x9c, 0x5f, 0xe7, 0x80, 0xf4],
        [0x0f, 0xbc, 0xc3, 0x0f, 0xa3, 0xc1, 0x0f, 0x93, 0xc2, 0xe7, 0x80, 0xf4],
    ]

    private static let vcpuStates: [(IoctlRequest, Int)] = [
        (.setRegisters, 144), (.setSpecialRegisters, 312), (.setVCPUEvents, 64), (.setDebugRegisters, 128),
        (.setFPU, 416),
        (.setXCRs, 24), (.setMPState, 4), (.setXSave, 576), (.setSpecialRegisters2, 320), (.setLAPIC, 1024),
    ]

    private static func step(
        _ numbers: inout SeededGenerator, _ setup: RequestSetup, _ mayRun: inout Bool
    ) -> RequestStep {
        let target = RequestStep.Target.vcpu(numbers.below(setup.vcpuCount))
        switch numbers.below(12) {
        case 0, 1, 2, 3:
            let (request, byteCount) = vcpuStates[numbers.below(vcpuStates.count)]
            var changes: [RequestStep.Change] = []
            for _ in 0..<(1 + numbers.below(3)) { changes.append(change(&numbers, request, byteCount)) }
            if request == .setMPState || request == .setSpecialRegisters || request == .setSpecialRegisters2
                || request == .setLAPIC || request == .setXSave || request == .setXCRs
            {
                mayRun = false
            }
            return RequestStep(target, request, .bytes(.current, changes))
        case 4, 5:
            if mayRun { return RequestStep(.vcpu(0), .run, isImmediate: numbers.below(4) == 0) }
            return RequestStep(target, .getVCPUEvents, .bytes(.zeros(64), []))
        case 6:
            let number = RequestSweep.msrNumbers[numbers.below(RequestSweep.msrNumbers.count)]
            let entry = KVMMSREntry(index: number == 0x10 ? 0xc000_0081 : number, data: numbers.edge())
            let isWriting = numbers.below(2) == 0
            // The run reads some of them.
            if isWriting { mayRun = false }
            return RequestStep(target, isWriting ? .setMSRs : .getMSRs, .bytes(.bytes(KVMMSRList.encode([entry])), []))
        case 7: return machineStep(&numbers)
        case 8: return machineStep(&numbers)
        case 9:
            let requests: [IoctlRequest] = [.nmi, .kvmclockControl]
            return RequestStep(target, requests[numbers.below(requests.count)])
        case 10:
            return RequestStep(
                target, .interrupt,
                .bytes(.zeros(4), [.init(0, 4, numbers.below(2) == 0 ? UInt64(numbers.below(256)) : numbers.edge())]))
        default:
            let requests: [(IoctlRequest, Int)] = [
                (.getRegisters, 144), (.getSpecialRegisters, 312), (.getFPU, 416), (.getXCRs, 392), (.getMPState, 4),
                (.getDebugRegisters, 128), (.getLAPIC, 1024), (.getXSave, 4096), (.getSpecialRegisters2, 320),
            ]
            let (request, byteCount) = requests[numbers.below(requests.count)]
            return RequestStep(target, request, .bytes(.zeros(byteCount), []))
        }
    }

    private static func change(
        _ numbers: inout SeededGenerator, _ request: IoctlRequest, _ byteCount: Int
    ) -> RequestStep.Change {
        let widths = [1, 2, 4, 8].filter { $0 <= byteCount }
        let width = widths[numbers.below(widths.count)]
        var offset = numbers.below(byteCount / width) * width
        var value: UInt64 = numbers.edge()
        if request == .setRegisters {
            // RIP stays, of RFLAGS the arithmetic ones and DF change.
            if offset >= 0x80 {
                offset = 0x88
                value &= 0xcd5
                return RequestStep.Change(offset, 8, value & 0xcd5, .xor)
            }
        }
        if request == .setLAPIC {
            // Not the timer.
            offset = 0x80 + 16 * numbers.below(0x2a)
            return RequestStep.Change(offset, 4, value, .xor)
        }
        return RequestStep.Change(offset, width, value, numbers.below(2) == 0 ? .set : .xor)
    }

    private static func machineStep(_ numbers: inout SeededGenerator) -> RequestStep {
        switch numbers.below(8) {
        case 0:
            return RequestStep(
                .vm, .setUserMemoryRegion,
                .bytes(
                    .zeros(32),
                    [
                        .init(0, 4, UInt64(numbers.below(3))), .init(4, 4, UInt64(numbers.below(5))),
                        .init(8, 8, UInt64(numbers.below(64)) << 12), .init(16, 8, UInt64(numbers.below(33)) << 12),
                        .init(24, 8, UInt64(numbers.below(8)) << 12, .pointer),
                        .init([0, 4, 8, 16][numbers.below(4)], 1, numbers.edge() & 0x81, .xor),
                    ]))
        case 1:
            return RequestStep(
                .vm, .irqLine,
                .bytes(.zeros(8), [.init(0, 4, UInt64(numbers.below(32))), .init(4, 4, UInt64(numbers.below(3)))]))
        case 2:
            return RequestStep(
                .vm, .signalMSI,
                .bytes(
                    .zeros(32),
                    [
                        .init(0, 4, 0xfee0_0000 | numbers.edge() & 0xf_ffff), .init(8, 4, numbers.edge() & 0xffff),
                        .init(12, 4, UInt64(numbers.below(3))),
                    ]))
        case 3:
            return RequestStep(
                .vm, .createVCPU, .value(numbers.below(2) == 0 ? UInt64(numbers.below(3)) : 0x2000 | numbers.edge()))
        case 4: return RequestStep(.vm, .getIRQChip, .bytes(.zeros(520), [.init(0, 4, UInt64(numbers.below(4)))]))
        case 5: return RequestStep(.vm, .createIRQChip)
        case 6: return RequestStep(.vm, .setBootCPUID, .value(numbers.edge()))
        default:
            return RequestStep(
                .vm, .enableCapability,
                .bytes(
                    .zeros(104),
                    [
                        .init(0, 4, UInt64([164, 218, 159, 188, 168, 129, 121, 128, 0x7fff][numbers.below(9)])),
                        .init(8, 8, numbers.below(2) == 0 ? UInt64(numbers.below(8)) : numbers.edge()),
                    ]))
        }
    }

    /// As few steps and changes as still show a difference that `isShown` recognises.
    public func shortened(_ isShown: (RequestSequence) -> Bool) -> RequestSequence {
        var best = self
        var index = best.steps.count - 1
        while index >= 0 {
            var candidate = best
            candidate.steps.remove(at: index)
            if isShown(candidate) { best = candidate }
            index -= 1
            index = min(index, best.steps.count - 1)
        }
        for index in best.steps.indices {
            guard case .bytes(let base, let changes) = best.steps[index].argument, changes.count > 1 else { continue }
            var kept = changes
            for position in changes.indices.reversed() where kept.count > 1 {
                var candidate = best
                var fewer = kept
                fewer.remove(at: position)
                candidate.steps[index].argument = .bytes(base, fewer)
                if isShown(candidate) {
                    best = candidate
                    kept = fewer
                }
            }
        }
        return best
    }
}
