// The conformance list by rule: every request of a plain VM, with its bytes as they are, each bit of what matters flipped,
// and the values at the edge of what is allowed. One fresh VM for each case.

import KVMABI

/// All cases, in order.
public enum RequestSweep {
    /// The sequences, each of one step that matters.
    public static var all: [RequestSequence] {
        system + machine + interrupts + registers + special + events + smallStates + floatingPoint + msrs + runs
    }

    static let edges: [UInt64] = [
        0, 1, 2, 3, 4, 0xf, 0x10, 0x1f, 0x20, 0xff, 0x100, 0x101, 0xfff, 0x1000, 0x1001, 0xffff, 0x1_0000, 0x7fff_ffff,
        0x8000_0000, 0xffff_ffff, 0x1_0000_0000, 0x7fff_ffff_ffff_f000, 0x8000_0000_0000_0000, .max,
    ]
    private static let plain = RequestSetup()
    private static let irqchip = RequestSetup(hasIRQChip: true)
    private static let longMode = RequestSetup(code: [0xf4])

    private static func one(_ setup: RequestSetup, _ step: RequestStep) -> RequestSequence {
        RequestSequence(setup, [step])
    }

    /// Each bit of some bytes of a state flipped.
    private static func flips(
        _ setup: RequestSetup, _ request: IoctlRequest, _ offsets: some Sequence<Int>, bits: Range<Int> = 0..<64
    ) -> [RequestSequence] {
        offsets.flatMap { offset in
            bits.map {
                one(setup, RequestStep(.vcpu(0), request, .bytes(.current, [.init(offset, 8, 1 << UInt64($0), .xor)])))
            }
        }
    }

    private static func values(
        _ setup: RequestSetup, _ request: IoctlRequest, _ offset: Int, _ byteCount: Int, _ values: [UInt64] = edges
    ) -> [RequestSequence] {
        values.map { one(setup, RequestStep(.vcpu(0), request, .bytes(.current, [.init(offset, byteCount, $0)]))) }
    }

    // MARK: System and VM

    static var system: [RequestSequence] {
        var steps: [RequestStep] = []
        for value in edges {
            steps.append(RequestStep(.system, .getAPIVersion, .value(value)))
            // The mapping's size is the kernel's own; what it refuses is not.
            if value != 0 { steps.append(RequestStep(.system, .getVCPUMmapSize, .value(value))) }
        }
        for value in [0, 6, 7, 31, 32, 33, 0xffff_ffff, 0x1_0000_0000] as [UInt64] {
            steps.append(RequestStep(.system, .createVM, .value(value)))
        }
        for request in [.run, .createVCPU, .createIRQChip, .setTSSAddress, .nmi] as [IoctlRequest] {
            steps.append(RequestStep(.system, request, .value(0)))
        }
        for count in [0, 1] as [UInt64] {
            steps.append(RequestStep(.system, .getSupportedCPUID, .bytes(.zeros(8 + 40), [.init(0, 4, count)])))
            steps.append(RequestStep(.system, .getMSRIndexList, .bytes(.zeros(8), [.init(0, 4, 0)])))
        }
        return steps.map { one(plain, $0) }
    }

    static var machine: [RequestSequence] {
        var steps: [RequestStep] = []
        for value in edges {
            for request in [.setTSSAddress, .setBootCPUID, .createVCPU, .setTSCkHz, .nmi, .run] as [IoctlRequest] {
                // As many vCPU ids as the kernel says are another capability's matter.
                if request == .createVCPU, (0x100...0x1001).contains(value) { continue }
                steps.append(RequestStep(.vm, request, .value(value)))
            }
            steps.append(RequestStep(.vm, .setIdentityMapAddress, .bytes(.zeros(8), [.init(0, 8, value)])))
            for field in 0..<5 {
                let good: [RequestStep.Change] = [.init(0, 4, 1), .init(8, 8, 0x10_0000), .init(16, 8, 0x1000)]
                let change = [
                    RequestStep.Change(0, 4, value), .init(4, 4, value), .init(8, 8, value), .init(16, 8, value),
                    .init(24, 8, value),
                ][field]
                // Past the end of the address space the kernel allows more than a machine has; a length of terabytes is its
                // memory's matter.
                if field == 3, value > 0x1000_0000 { continue }
                steps.append(
                    RequestStep(
                        .vm, .setUserMemoryRegion,
                        .bytes(.zeros(32), good + (field == 4 ? [] : [.init(24, 8, 0, .pointer)]) + [change])))
            }
            for offset in [0, 4, 8, 12] {
                steps.append(
                    RequestStep(.vm, .setClock, .bytes(.zeros(48), [.init(8, 4, value), .init(offset, 1, 0)])))
            }
            for offset in [0, 4] {
                steps.append(RequestStep(.vm, .irqLine, .bytes(.zeros(8), [.init(offset, 4, value)])))
            }
            for (offset, width) in [(0, 4), (4, 4), (8, 4), (12, 4), (16, 4)] {
                steps.append(
                    RequestStep(
                        .vm, .signalMSI, .bytes(.zeros(32), [.init(0, 4, 0xfee0_0000), .init(offset, width, value)])))
            }
            steps.append(RequestStep(.vm, .setGSIRouting, .bytes(.zeros(8 + 48), [.init(4, 4, value)])))
            for offset in [8, 12, 16, 24, 28] {
                steps.append(
                    RequestStep(
                        .vm, .setGSIRouting,
                        .bytes(
                            .zeros(8 + 48), [.init(0, 4, 1), .init(12, 4, 1), .init(24, 4, 2), .init(offset, 4, value)])
                    ))
            }
            steps.append(RequestStep(.vm, .createPIT2, .bytes(.zeros(64), [.init(0, 4, value)])))
            for (offset, width) in [(0, 8), (8, 4), (12, 4)] {
                for request in [.registerCoalescedMMIO, .unregisterCoalescedMMIO] as [IoctlRequest] {
                    steps.append(
                        RequestStep(.vm, request, .bytes(.zeros(16), [.init(8, 4, 16), .init(offset, width, value)])))
                }
            }
            for (offset, width) in [(0, 4), (8, 8)] {
                steps.append(
                    RequestStep(
                        .vm, .getDirtyLog, .bytes(.zeros(16), [.init(8, 8, 0, .pointer), .init(offset, width, value)])))
            }
            steps.append(RequestStep(.vm, .reinjectControl, .bytes(.zeros(32), [])))
        }
        for chip in 0..<5 as Range<UInt64> {
            for request in [.getIRQChip, .setIRQChip] as [IoctlRequest] {
                // Setting zeros would only say what zeros mean.
                if request == .setIRQChip, chip < 3 { continue }
                steps.append(RequestStep(.vm, request, .bytes(.zeros(520), [.init(0, 4, chip)])))
            }
        }
        steps += [
            RequestStep(.vm, .createIRQChip), RequestStep(.vm, .getPIT2, .bytes(.zeros(112), [])),
            RequestStep(.vm, .getClock, .bytes(.zeros(48), [])), RequestStep(.vm, .setPIT2, .bytes(.zeros(112), [])),
            RequestStep(.vm, IoctlRequest(rawValue: 0xaeff)),
        ]
        for capability in [
            .exitHypercall, .splitIRQChip, .x2apicAPI, .maximumVCPUID, .msrPlatformInfo, .exceptionPayload,
            .tripleFaultEvent, .userSpaceMSR, .manualDirtyLogProtect2, .vmTypes, .irqChip, Capability(rawValue: 0x7fff),
        ] as [Capability] {
            for value in edges {
                steps.append(
                    RequestStep(
                        .vm, .enableCapability,
                        .bytes(.zeros(104), [.init(0, 4, UInt64(capability.rawValue)), .init(8, 8, value)])))
            }
            steps.append(
                RequestStep(
                    .vm, .enableCapability,
                    .bytes(.zeros(104), [.init(0, 4, UInt64(capability.rawValue)), .init(4, 4, 1)])))
        }
        return steps.flatMap { step in [plain, irqchip, RequestSetup(vcpuCount: 0)].map { one($0, step) } }
    }

    static var interrupts: [RequestSequence] {
        var list: [RequestSequence] = []
        for setup in [plain, irqchip] {
            for value in edges {
                list.append(one(setup, RequestStep(.vcpu(0), .interrupt, .bytes(.zeros(4), [.init(0, 4, value)]))))
                list.append(one(setup, RequestStep(.vcpu(0), .setMPState, .bytes(.zeros(4), [.init(0, 4, value)]))))
            }
            for state in 0..<16 as Range<UInt64> {
                list.append(one(setup, RequestStep(.vcpu(0), .setMPState, .bytes(.zeros(4), [.init(0, 4, state)]))))
            }
            list += [
                one(setup, RequestStep(.vcpu(0), .nmi)), one(setup, RequestStep(.vcpu(0), .kvmclockControl)),
                one(setup, RequestStep(.vcpu(0), .getLAPIC, .bytes(.zeros(1024), []))),
                one(setup, RequestStep(.vcpu(0), .setVAPICAddress, .bytes(.zeros(8), []))),
                one(setup, RequestStep(.vcpu(0), .tprAccessReporting, .bytes(.zeros(40), []))),
                one(setup, RequestStep(.vcpu(0), .tprAccessReporting, .bytes(.zeros(40), [.init(4, 4, 1)]))),
                one(setup, RequestStep(.vcpu(0), IoctlRequest(rawValue: 0xaeff))),
                one(setup, RequestStep(.vcpu(0), .createVCPU, .value(1))),
            ]
        }
        // The local APIC's registers, but for the timer's.
        for register in stride(from: 0x20, to: 0x400, by: 0x10) where register != 0x380 && register != 0x390 {
            for bit in 0..<32 {
                list.append(
                    one(
                        irqchip,
                        RequestStep(.vcpu(0), .setLAPIC, .bytes(.current, [.init(register, 4, 1 << UInt64(bit), .xor)]))
                    ))
            }
        }
        return list
    }

    // MARK: State

    static var registers: [RequestSequence] {
        var list: [RequestSequence] = []
        for setup in [plain, longMode] {
            list += flips(setup, .setRegisters, [0x88])
            list += values(setup, .setRegisters, 0x80, 8)
            for offset in stride(from: 0, to: 0x88, by: 8) {
                list += values(setup, .setRegisters, offset, 8, [0, .max, 1 << 63])
            }
        }
        return list
    }

    static var special: [RequestSequence] {
        var list: [RequestSequence] = []
        for setup in [plain, longMode, irqchip] {
            list += flips(setup, .setSpecialRegisters, stride(from: 0xe0, to: 0x118, by: 8))
        }
        for setup in [plain, longMode] {
            // Segments: attributes by byte, base and limit by some values.
            for segment in stride(from: 0, to: 24 * 8, by: 24) {
                for attribute in 0x0c..<0x18 {
                    list += values(setup, .setSpecialRegisters, segment + attribute, 1, [0, 1, 2, 3, 0xb, 0xff])
                }
                list += values(setup, .setSpecialRegisters, segment, 8, [0, 0x1234, 1 << 47, 1 << 63, .max])
                list += values(setup, .setSpecialRegisters, segment + 8, 4, [0, 0xffff, 0x10_0000, 0xffff_ffff])
            }
            for table in [0xc0, 0xd0] {
                list += values(setup, .setSpecialRegisters, table, 8, [0, 0x1234, 1 << 47, 1 << 63])
            }
            for word in stride(from: 0x118, to: 0x138, by: 8) {
                list += values(setup, .setSpecialRegisters, word, 8, [1, 1 << 32, 1 << 63])
            }
            list += values(setup, .setSpecialRegisters2, 0x118, 8)
        }
        return list
    }

    static var events: [RequestSequence] {
        var list: [RequestSequence] = []
        for setup in [plain, irqchip] {
            for offset in 0..<0x40 {
                list += values(setup, .setVCPUEvents, offset, 1, [0, 1, 2, 3, 8, 14, 31, 32, 0xff])
            }
            for flag in 0..<8 as Range<UInt64> {
                for offset in 0..<0x1d {
                    let changes: [RequestStep.Change] = [.init(0x14, 4, 1 << flag), .init(offset, 1, 1, .xor)]
                    list.append(one(setup, RequestStep(.vcpu(0), .setVCPUEvents, .bytes(.zeros(64), changes))))
                }
            }
        }
        return list
    }

    static var smallStates: [RequestSequence] {
        var list: [RequestSequence] = []
        list += flips(plain, .setDebugRegisters, stride(from: 0, to: 0x40, by: 8))
        for offset in [0, 4, 8] { list += values(plain, .setXCRs, offset, 4) }
        list += flips(plain, .setXCRs, [0x10])
        func zeros(_ count: Int, _ request: IoctlRequest, _ offset: Int, _ byteCount: Int, _ value: UInt64) {
            list.append(
                one(plain, RequestStep(.vcpu(0), request, .bytes(.zeros(count), [.init(offset, byteCount, value)]))))
        }
        for value in edges {
            zeros(72, .setGuestDebug, 0, 4, value)
            zeros(72, .setGuestDebug, 4, 4, value)
            zeros(8, .setupMCE, 0, 8, value)
            list.append(one(plain, RequestStep(.vcpu(0), .setTSCkHz, .value(value))))
        }
        for bit in 0..<32 as Range<UInt64> { zeros(72, .setGuestDebug, 0, 4, 1 | 1 << bit) }
        for bit in 0..<64 as Range<UInt64> { zeros(8, .setupMCE, 0, 8, 10 | 1 << bit) }
        for count in [0, 1, 256, 257] as [UInt64] { zeros(8 + 40 * 257, .setCPUID2, 0, 4, count) }
        return list
    }

    static var floatingPoint: [RequestSequence] {
        var list: [RequestSequence] = []
        for offset in stride(from: 0, to: 416, by: 8) { list += values(plain, .setFPU, offset, 8, [0, .max, 0x37f]) }
        list += flips(plain, .setXSave, [512, 520, 528]) + flips(plain, .setXSave, [24], bits: 0..<32)
        for offset in stride(from: 0, to: 0x240, by: 8) {
            let changes: [RequestStep.Change] = [.init(512, 8, 3), .init(offset, 2, .max)]
            list.append(one(plain, RequestStep(.vcpu(0), .setXSave, .bytes(.current, changes))))
        }
        return list
    }

    static let msrNumbers: [UInt32] =
        [
            0x10, 0x11, 0x12, 0x1b, 0x3b, 0x48, 0x49, 0x8b, 0xce, 0xfe, 0x174, 0x175, 0x176, 0x179, 0x17a, 0x17b, 0x1a0,
            0x1d9, 0x277, 0x2ff, 0x250, 0x258, 0x26f, 0x251, 0x200, 0x201, 0x20f, 0x6e0, 0x802, 0x808, 0xda0, 0x400,
            0x401,
            0x4b56_4d00, 0x4b56_4d01, 0x4b56_4d02, 0x4b56_4d03, 0x4b56_4d04, 0x4b56_4d05, 0x4b56_4d06, 0xc000_0080,
            0xc000_0081, 0xc000_0082, 0xc000_0083, 0xc000_0084, 0xc000_0100, 0xc000_0101, 0xc000_0102, 0xc000_0103,
            0xc000_0104, 0xc001_0010, 0xc001_0015, 0xc001_001f, 0xc001_0055, 0xc001_0114, 0xc001_0117, 0xc001_0130,
            0xc001_011f,
            0xc001_1029, 0xc001_102a, 0xdead_0000, 0x40000000, 0x40000073,
        ]

    private static let msrValues: [UInt64] = [
        6, 0x0606_0606_0606_0606, 0x508, 0xfee0_0900, 0xfee0_0d00, 0xfee0_0800, 0x500, 0xd01, 0x1d01, 0xc06,
    ]

    static var msrs: [RequestSequence] {
        func argument(_ number: UInt32, _ data: UInt64) -> RequestStep.Argument {
            .bytes(.bytes(KVMMSRList.encode([KVMMSREntry(index: number, data: data)])), [])
        }
        var list: [RequestSequence] = []
        for number in msrNumbers {
            // Time passes between two kernels.
            let reading = number == 0x10 ? [] : [RequestStep(.vcpu(0), .getMSRs, argument(number, 0))]
            for setup in [plain, irqchip] {
                if !reading.isEmpty { list.append(RequestSequence(setup, reading)) }
                for value in edges + msrValues {
                    let writing = RequestStep(.vcpu(0), .setMSRs, argument(number, value))
                    list.append(RequestSequence(setup, [writing] + reading))
                }
            }
        }
        for count in [0, 255, 256, 257] as [UInt64] {
            let changes: [RequestStep.Change] = [.init(0, 4, count), .init(8, 4, 0xc000_0081)]
            list.append(one(plain, RequestStep(.vcpu(0), .getMSRs, .bytes(.zeros(8 + 16 * 257), changes))))
        }
        return list
    }

    // MARK: KVM_RUN

    static var runs: [RequestSequence] {
        let programs: [[UInt8]] = [
            [0xf4], [0xe6, 0x80, 0xf4], [0xe4, 0x80, 0xf4], [0x0f, 0x0b],
            [0x48, 0x89, 0x04, 0x25, 0, 0, 0, 0x10, 0xf4],
            [0x0f, 0xa2, 0xf4], [0x9c, 0x58, 0xe6, 0x80, 0xf4], [0xfb, 0xf4], [0xfb, 0x90, 0xe6, 0x80, 0xf4],
            [0xf3, 0x6e, 0xf4], [0x8b, 0x04, 0x25, 0, 0, 0, 0x10, 0xf4], [0x0f, 0x20, 0xc0, 0xe7, 0x80],
        ]
        var list: [RequestSequence] = []
        for program in programs {
            let setup = RequestSetup(code: program)
            list.append(RequestSequence(setup, [RequestStep(.vcpu(0), .run), RequestStep(.vcpu(0), .run)]))
            list.append(RequestSequence(setup, [RequestStep(.vcpu(0), .run, isImmediate: true)]))
            list.append(RequestSequence(setup, [RequestStep(.vcpu(0), .run, .value(1))]))
            for (offset, value) in [(0, 1), (8, 1), (0xd, 1), (0xe, 1), (3, 1)] as [(Int, UInt64)] {
                for number in [6, 13, 14, 8, 3] as [UInt64] {
                    list.append(
                        RequestSequence(
                            setup,
                            [
                                RequestStep(
                                    .vcpu(0), .setVCPUEvents,
                                    .bytes(
                                        .current, [.init(offset, 1, value), .init(1, 1, number), .init(9, 1, number)])),
                                RequestStep(.vcpu(0), .run),
                            ]))
                }
            }
            for request in [
                RequestStep(.vcpu(0), .nmi), RequestStep(.vcpu(0), .interrupt, .bytes(.zeros(4), [.init(0, 4, 0x20)])),
            ] {
                list.append(
                    RequestSequence(setup, [request, RequestStep(.vcpu(0), .run), RequestStep(.vcpu(0), .run)]))
            }
            for control in [1, 3, 0x1_0001, 0x2_0001, 0x2_0003] as [UInt64] {
                list.append(
                    RequestSequence(
                        setup,
                        [
                            RequestStep(
                                .vcpu(0), .setGuestDebug,
                                .bytes(.zeros(72), [.init(0, 4, control), .init(8, 8, 0x8002), .init(0x40, 8, 0x402)])),
                            RequestStep(.vcpu(0), .run), RequestStep(.vcpu(0), .run),
                        ]))
            }
        }
        return list
    }
}
