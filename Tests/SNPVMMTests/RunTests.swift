import Dispatch
import GuestImage
import KVMABI
import SEVABI
import SNPVMM
import Synchronization
import Testing

/// A value that closures change.
private final class Kept<Value: Sendable>: Sendable {
    private let mutex: Mutex<Value>
    init(_ value: Value) { mutex = Mutex(value) }
    var value: Value { mutex.withLock { $0 } }
    func update(_ body: (inout Value) -> Void) { mutex.withLock { body(&$0) } }
}

/// Runs a launched machine through scripted exits.
private struct Rig {
    let kernel = ScriptedKernel()
    let machine: Machine
    let console = Console()

    final class Console: Sendable {
        let bytes = Mutex<[UInt8]>([])
        var text: String { String(decoding: bytes.withLock { $0 }, as: UTF8.self) }
    }

    init(
        _ exits: [ScriptedKernel.Exit], confidential: Bool = true, certificates: (@Sendable () -> [UInt8]?)? = nil
    ) throws {
        var plan = samplePlan()
        if !confidential { plan.regions = [plan.regions[0]] }
        machine = try launch(kernel, plan: plan, confidential: confidential, certificates: certificates) {
            [console] byte in
            console.bytes.withLock { $0.append(byte) }
        }
        kernel.state.withLock { $0.exits = exits }
    }

    /// The pages' states as the kernel was told since the launch.
    var conversions: [String] {
        kernel.log.filter { $0.hasPrefix("KVM_SET_MEMORY_ATTRIBUTES") }.dropFirst().map { String($0.dropFirst(26)) }
    }
}

private func out(_ port: UInt16, _ bytes: [UInt8], size: UInt8 = 1) -> ScriptedKernel.Exit {
    .init { (page) throws(Errno) in
        page.exitReason = .io
        let io = RunPage.PortIO(isWrite: true, size: size, port: port, count: UInt32(bytes.count / Int(size)))
        page.portIO = io
        page.setPortData(bytes, io)
    }
}

private func mmioWrite(_ address: UInt64, _ value: UInt64) -> ScriptedKernel.Exit {
    .init { (page) throws(Errno) in
        page.exitReason = .mmio
        page.mmio = .init(physicalAddress: address, data: value, byteCount: 1, isWrite: true)
    }
}

private func mapGPARange(_ gpa: UInt64, _ pages: UInt64, _ attributes: UInt64) -> ScriptedKernel.Exit {
    .init { (page) throws(Errno) in
        page.exitReason = .hypercall
        page.hypercall = .init(number: 12, arguments: [gpa, pages, attributes, 0, 0, 0])
    }
}

private func memoryFault(_ gpa: UInt64, _ byteCount: UInt64, isPrivate: Bool) -> ScriptedKernel.Exit {
    .init { (page) throws(Errno) in
        page.exitReason = .memoryFault
        page.memoryFault = .init(flags: isPrivate ? 8 : 0, gpa: gpa, byteCount: byteCount)
        throw .EFAULT
    }
}

private func systemEvent(_ type: SystemEventType, _ data: [UInt64] = []) -> ScriptedKernel.Exit {
    .init { (page) throws(Errno) in
        page.exitReason = .systemEvent
        page.systemEvent = .init(type: type, data: data)
    }
}

private func reason(_ reason: ExitReason) -> ScriptedKernel.Exit {
    ScriptedKernel.Exit { (page) throws(Errno) in page.exitReason = reason }
}
private func errno(_ errno: Errno) -> ScriptedKernel.Exit { ScriptedKernel.Exit { (_) throws(Errno) in throw errno } }

private func isPowerOff(_ outcome: RunOutcome) -> Bool { if case .powerOff = outcome { true } else { false } }
private func isStopped(_ outcome: RunOutcome) -> Bool { if case .stopped = outcome { true } else { false } }

@Suite struct RunTests {
    @Test func serialOutputReachesTheConsole() throws {
        let rig = try Rig([out(0x3f8, Array("he".utf8)), out(0x3f8, Array("llo".utf8))])
        #expect(isPowerOff(rig.machine.run()))
        #expect(rig.console.text == "hello")
        let statistics = rig.machine.statistics
        #expect(statistics.consoleByteCount == 5)
        #expect(statistics.untilFirstOutput != nil)
        #expect(statistics.exits == ["KVM_EXIT_IO": 2, "KVM_EXIT_SYSTEM_EVENT": 1])
    }

    @Test func portReadsAreAnswered() throws {
        let answers = Kept<[[UInt8]]>([])
        func read(_ port: UInt16, size: UInt8, count: UInt32) -> [ScriptedKernel.Exit] {
            let io = RunPage.PortIO(isWrite: false, size: size, port: port, count: count)
            return [
                ScriptedKernel.Exit { (page) throws(Errno) in
                    page.exitReason = .io
                    page.portIO = io
                },
                ScriptedKernel.Exit { (page) throws(Errno) in
                    answers.update { $0.append(page.portData(io)!) }
                    page.exitReason = .irqWindowOpen
                },
            ]
        }
        let rig = try Rig(
            read(0x3fd, size: 1, count: 2) + read(0xcfc, size: 4, count: 1) + read(0x3fe, size: 2, count: 1))
        #expect(isPowerOff(rig.machine.run()))
        #expect(answers.value == [[0x60, 0x60], [0xff, 0xff, 0xff, 0xff], [0xb0, 0x00]])
    }

    @Test func unclaimedMemoryReadsAsOnes() throws {
        let answer = Mutex<UInt64>(0)
        let rig = try Rig([
            ScriptedKernel.Exit { (page) throws(Errno) in
                page.exitReason = .mmio
                page.mmio = .init(physicalAddress: 0xfed4_0000, byteCount: 4, isWrite: false)
            },
            ScriptedKernel.Exit { (page) throws(Errno) in
                answer.withLock { $0 = page.mmioData }
                page.exitReason = .irqWindowOpen
            },
        ])
        #expect(isPowerOff(rig.machine.run()))
        #expect(answer.withLock { $0 } == 0xffff_ffff)
    }

    @Test func powerOffAndResetAreExits() throws {
        let off = try Rig([mmioWrite(GuestAddressMap.sleepStatus, 0x80), mmioWrite(GuestAddressMap.sleepControl, 0x34)])
        let outcome = off.machine.run()
        #expect(isPowerOff(outcome))
        #expect(outcome.exitStatus == .success)
        let reset = try Rig([mmioWrite(GuestAddressMap.reset, UInt64(GuestAddressMap.resetValue))])
        #expect(reset.machine.run().exitStatus == .guestFailed)
    }

    @Test func typedBytesRaiseTheSerialInterrupt() throws {
        let rig = try Rig([out(0x3fa, [1]), out(0x3fc, [0x0b]), out(0x3f9, [1])])
        #expect(isPowerOff(rig.machine.run()))
        #expect(rig.machine.type([0x41]) == 1)
        #expect(rig.kernel.state.withLock { $0.interruptLevels } == [1])
        rig.kernel.state.withLock {
            $0.exits = [
                ScriptedKernel.Exit { (page) throws(Errno) in
                    page.exitReason = .io
                    page.portIO = .init(isWrite: false, size: 1, port: 0x3f8)
                }
            ]
        }
        #expect(isPowerOff(rig.machine.run()))
        #expect(rig.kernel.state.withLock { $0.interruptLevels } == [1, 0])
    }

    @Test func pageStateChangesBecomeAttributes() throws {
        let results = Mutex<[UInt64]>([])
        let keep = ScriptedKernel.Exit { (page) throws(Errno) in
            results.withLock { $0.append(page.hypercallResult) }
            page.exitReason = .irqWindowOpen
        }
        let rig = try Rig([
            mapGPARange(0x4000, 2, 0), keep, mapGPARange(0x5000, 1, 0x10), keep,
            mapGPARange(0x4001, 1, 0), keep,  // Not aligned.
            mapGPARange(0x4000, 0, 0), keep,  // Nothing.
            mapGPARange(16 << 20, 1, 0), keep,  // No RAM.
            mapGPARange(0, 1 << 60, 0), keep, mapGPARange(~0xfff, 2, 0), keep, mapGPARange(0, .max, 0x10), keep,
        ])
        #expect(isPowerOff(rig.machine.run()))
        let invalid = UInt64(bitPattern: -22)
        #expect(results.withLock { $0 } == [0, 0] + Array(repeating: invalid, count: 6))
        #expect(rig.conversions == ["0x4000 8192 shared", "0x5000 4096 private"])
        let pages = rig.machine.statistics.pages
        #expect(pages.sharedPages == 1)
        #expect(pages.privatePages == 4095)
        #expect(pages.convertedToShared == 2)
        #expect(pages.convertedToPrivate == 1)
    }

    /// A page is allocated on one side only.
    @Test func aConvertedPageLosesItsOldHalf() throws {
        let shared = Mutex<UInt64>(0)
        func look(_ body: @escaping @Sendable (UnsafeMutablePointer<UInt8>) -> Void) -> ScriptedKernel.Exit {
            ScriptedKernel.Exit { (page) throws(Errno) in
                // The slot's mapping is the last that was made.
                shared.withLock { body(UnsafeMutablePointer(bitPattern: UInt($0 + 0x4000))!) }
                page.exitReason = .irqWindowOpen
            }
        }
        let seen = Mutex<[UInt8]>([])
        let rig = try Rig([
            mapGPARange(0x4000, 2, 0),
            look { bytes in for page in 0..<2 { bytes[page * 4096] = UInt8(0x51 + page) } },
            mapGPARange(0x4000, 1, 0x10),
            look { bytes in seen.withLock { $0 = [bytes[0], bytes[4096]] } },
        ])
        shared.withLock { $0 = rig.kernel.with { $0.sharedAddresses.last! } }
        #expect(isPowerOff(rig.machine.run()))
        #expect(seen.withLock { $0 } == [0, 0x52])
        let log = rig.kernel.log
        let change = try #require(log.firstIndex { $0 == "KVM_SET_MEMORY_ATTRIBUTES 0x4000 8192 shared" })
        #expect(log[change + 1].hasPrefix("fallocate ") && log[change + 1].hasSuffix(" 0x4000 8192"))
        #expect(log.filter { $0.hasPrefix("fallocate") }.count == 1)
    }

    @Test func aHoleThatTheHostRefusesFailsTheChange() throws {
        let result = Mutex<UInt64>(0)
        let rig = try Rig([
            mapGPARange(0x4000, 2, 0),
            ScriptedKernel.Exit { (page) throws(Errno) in
                result.withLock { $0 = page.hypercallResult }
                page.exitReason = .irqWindowOpen
            },
        ])
        rig.kernel.refuse("fallocate", .ENOSPC)
        #expect(isPowerOff(rig.machine.run()))
        #expect(result.withLock { Int64(bitPattern: $0) } == -22)
    }

    @Test func otherHypercallsAreUnknown() throws {
        let result = Mutex<UInt64>(0)
        let rig = try Rig([
            ScriptedKernel.Exit { (page) throws(Errno) in
                page.exitReason = .hypercall
                page.hypercall = .init(number: 1, arguments: .init(repeating: 0))
            },
            ScriptedKernel.Exit { (page) throws(Errno) in
                result.withLock { $0 = page.hypercallResult }
                page.exitReason = .irqWindowOpen
            },
        ])
        #expect(isPowerOff(rig.machine.run()))
        #expect(result.withLock { Int64(bitPattern: $0) } == -1000)
        #expect(rig.machine.statistics.unknownHypercalls == [1: 1])
    }

    @Test func memoryFaultConvertsAndRunsAgain() throws {
        let rig = try Rig([
            memoryFault(0x4010, 8, isPrivate: false), memoryFault(0x4000, 0x2000, isPrivate: true), out(0x3f8, [0x2e]),
        ])
        #expect(isPowerOff(rig.machine.run()))
        #expect(rig.conversions == ["0x4000 4096 shared", "0x4000 8192 private"])
        #expect(rig.console.text == ".")
        #expect(rig.machine.statistics.exits["KVM_EXIT_MEMORY_FAULT"] == 2)
    }

    @Test(arguments: [
        (UInt64(0xfee0_0020), UInt64(4)), (16 << 20, 4096), (.max, 1), (0xffff_ffff_ffff_f000, 0x1000), (0, .max),
        ((16 << 20) - 1, 2),
    ]) func memoryFaultOutsideRAMEndsTheGuest(gpa: UInt64, byteCount: UInt64) throws {
        let rig = try Rig([memoryFault(gpa, byteCount, isPrivate: true)])
        let outcome = rig.machine.run()
        #expect(outcome.exitStatus == .guestFailed)
        #expect(outcome.error?.request == "KVM_EXIT_MEMORY_FAULT")
        #expect(rig.conversions.isEmpty)
    }

    @Test func memoryFaultThatNeverEndsIsGivenUp() throws {
        let rig = try Rig(Array(repeating: memoryFault(0x4000, 4096, isPrivate: true), count: 500))
        #expect(rig.machine.run().error?.finding == "the same fault again and again")
    }

    @Test func staleMemoryFaultDoesNotExplainAnotherEFAULT() throws {
        let rig = try Rig([memoryFault(0x4000, 4096, isPrivate: false), errno(.EFAULT)])
        let outcome = rig.machine.run()
        #expect(outcome.error?.request == "KVM_RUN")
        #expect(outcome.error?.errno == .EFAULT)
    }

    @Test func terminationByTheMSRProtocolIsDecoded() throws {
        let rig = try Rig([systemEvent(.sevTermination, [0x100 | 1 << 12 | 2 << 16])])
        let outcome = rig.machine.run()
        guard case .terminated(let termination) = outcome else {
            Issue.record("\(outcome)")
            return
        }
        #expect(termination == GuestTermination(reasonSet: 1, reason: 2))
        #expect(outcome.exitStatus == .guestFailed)
        #expect(outcome.error?.description.contains("PVALIDATE") == true)
    }

    @Test func terminationByTheGHCBPageIsDecoded() throws {
        let rig = try Rig([systemEvent(.sevTermination, [0x6000])])
        var ghcb = GHCB()
        ghcb[.exitCode] = GHCBEvent.termination.rawValue
        ghcb[.exitInfo1] = 0x20
        ghcb[.exitInfo2] = 0x800
        ghcb.clearValidBitmap()  // As the kernel leaves it.
        let address = try #require(rig.kernel.state.withLock { $0.sharedAddresses.last })
        for (index, byte) in ghcb[0..<4096].enumerated() { poke(address + 0x6000 + UInt64(index), byte) }
        guard case .terminated(let termination) = rig.machine.run() else {
            Issue.record("not decoded")
            return
        }
        #expect(termination == GuestTermination(reasonSet: 0, reason: 2, detail: 0x800))
        #expect(termination.description.contains("detail 0x800"))
    }

    @Test func terminationEventWhoseReasonIsOverwrittenIsNotGuessed() throws {
        let rig = try Rig([systemEvent(.sevTermination, [0x6000])])
        let address = try #require(rig.kernel.state.withLock { $0.sharedAddresses.last })
        poke(address + 0x6000 + 0x390, GHCBEvent.termination.rawValue)
        let outcome = rig.machine.run()
        guard case .terminated(let termination) = outcome else {
            Issue.record("not decoded")
            return
        }
        #expect(termination == GuestTermination(reasonSet: nil, reason: nil))
        #expect(outcome.error?.description.contains("does not pass its reason on") == true)
    }

    @Test(arguments: [[], [0x7000], [0xffff_ffff_ffff_f000], [0x12]] as [[UInt64]])
    func terminationThatCannotBeDecodedIsStillAnError(data: [UInt64]) throws {
        let rig = try Rig([systemEvent(.sevTermination, data)])
        #expect(rig.machine.run().exitStatus == .guestFailed)
    }

    @Test func crashesAreTold() throws {
        let cases: [(ScriptedKernel.Exit, String)] = [
            (reason(.shutdown), "a triple fault"),
            (
                ScriptedKernel.Exit { (page) throws(Errno) in
                    page.exitReason = .internalError
                    page.internalError = .init(kind: .emulation, data: [1, 0x0000_0000_d901_0f03, 0])
                }, "KVM_INTERNAL_ERROR_EMULATION, instruction bytes 0f 01 d9"
            ),
            (
                ScriptedKernel.Exit { (page) throws(Errno) in
                    page.exitReason = .internalError
                    page.internalError = .init(kind: .deliveringEvent, data: [7])
                }, "KVM_INTERNAL_ERROR_DELIVERY_EV, data 0x7"
            ),
            (
                ScriptedKernel.Exit { (page) throws(Errno) in
                    page.exitReason = .failEntry
                    page.failEntryReason = .max
                }, "VMRUN failed with 0xffffffffffffffff"
            ),
            (
                ScriptedKernel.Exit { (page) throws(Errno) in
                    page.exitReason = .unknown
                    page.hardwareExitReason = 0x42
                }, "KVM_EXIT_UNKNOWN, hardware exit 0x42"
            ),
            (reason(ExitReason(rawValue: 77)), "exit reason 77"),
            (systemEvent(.crash, [1, 2]), "event 3, data 0x1 0x2"),
        ]
        for (exit, finding) in cases {
            let outcome = try Rig([exit]).machine.run()
            #expect(outcome.error?.finding == finding)
            #expect(outcome.exitStatus == .guestFailed)
        }
    }

    @Test func nonsenseInTheRunPageIsAnError() throws {
        for io in [
            RunPage.PortIO(isWrite: true, size: 3, port: 0x3f8), .init(isWrite: true, size: 0, port: 0x3f8),
            .init(isWrite: true, size: 1, port: 0x3f8, count: .max),
            .init(isWrite: false, size: 4, port: 0, dataOffset: .max),
            .init(isWrite: false, size: 4, port: 0, dataOffset: 12287),
        ] {
            let rig = try Rig([
                ScriptedKernel.Exit { (page) throws(Errno) in
                    page.exitReason = .io
                    page.portIO = io
                }
            ])
            #expect(rig.machine.run().exitStatus == .hostCannot)
        }
        for byteCount in [UInt32(0), 9, .max] {
            let rig = try Rig([
                ScriptedKernel.Exit { (page) throws(Errno) in
                    page.exitReason = .mmio
                    page.mmio = .init(physicalAddress: 0, byteCount: byteCount, isWrite: true)
                }
            ])
            #expect(rig.machine.run().exitStatus == .hostCannot)
        }
    }

    @Test func interruptedRunsGoOn() throws {
        let rig = try Rig([errno(.EINTR), errno(.EAGAIN), errno(.EINTR), out(0x3f8, [0x21])])
        #expect(isPowerOff(rig.machine.run()))
        #expect(rig.machine.statistics.exits["EINTR"] == 2)
        #expect(rig.machine.statistics.exits["EAGAIN"] == 1)
        #expect(rig.console.text == "!")
    }

    @Test func refusedRunIsExplained() throws {
        for (code, status) in [
            (Errno.EINVAL, VMMExitStatus.guestFailed), (.ENOMEM, .hostCannot), (.EPERM, .hostCannot),
        ] {
            let outcome = try Rig([errno(code)]).machine.run()
            #expect(outcome.error?.errno == code)
            #expect(outcome.exitStatus == status)
        }
    }

    @Test func stopBeforeAndDuringARun() throws {
        let early = try Rig([out(0x3f8, [1])])
        early.machine.stop()
        #expect(isStopped(early.machine.run()))
        #expect(early.machine.run().exitStatus == .success)

        // A guest that sleeps: KVM_RUN comes back only when it is interrupted.
        let entered = Kept(false)
        let rig = try Rig([
            ScriptedKernel.Exit { (page) throws(Errno) in
                entered.update { $0 = true }
                while !page.immediateExit {}
                throw .EINTR
            }
        ])
        let machine = rig.machine
        // On a thread of its own: the tests' threads may all be inside a guest.
        DispatchQueue(label: "stop").async {
            while !entered.value {}
            machine.stop()
        }
        #expect(isStopped(machine.run()))
    }

    // MARK: Certificates

    @Test func certificatesGoIntoTheGuestsBuffer() throws {
        let answers = Kept<[RunPage.CertificateRequest]>([])
        func ask(_ gpa: UInt64, _ pages: UInt64) -> [ScriptedKernel.Exit] {
            [
                .init { (page) throws(Errno) in
                    page.exitReason = .snpRequestCertificates
                    page.certificateRequest = .init(gpa: gpa, pageCount: pages)
                },
                .init { (page) throws(Errno) in
                    let answer = page.certificateRequest
                    answers.update { $0.append(answer) }
                    throw .EAGAIN
                },
            ]
        }
        let table = (0..<5000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        let isReady = Kept(true)
        let rig = try Rig(
            ask(0x6000, 2) + ask(0x6000, 1) + ask(0x6000, 0) + ask(0xffff_0000_0000, 2) + ask(.max - 4095, 2),
            certificates: { isReady.value ? table : nil })
        let address = try #require(rig.kernel.state.withLock { $0.sharedAddresses.last })
        #expect(isPowerOff(rig.machine.run()))
        #expect(
            answers.value == [
                .init(gpa: 0x6000, pageCount: 2), .init(gpa: 0x6000, pageCount: 2, result: 28),
                .init(gpa: 0x6000, pageCount: 2, result: 28), .init(gpa: 0xffff_0000_0000, pageCount: 2, result: 5),
                .init(gpa: .max - 4095, pageCount: 2, result: 5),
            ])
        #expect(peekBytes(address + 0x6000, 5000) == table)
        #expect(peekBytes(address + 0x6000 + 5000, 8) == [UInt8](repeating: 0, count: 8))
        // Not now.
        isReady.update { $0 = false }
        answers.update { $0 = [] }
        rig.kernel.state.withLock { $0.exits = ask(0x6000, 2) }
        #expect(isPowerOff(rig.machine.run()))
        #expect(answers.value == [.init(gpa: 0x6000, pageCount: 2, result: 11)])
        // Asked for once, before the first vCPU.
        let log = rig.kernel.log
        let position = try #require(log.firstIndex(of: "KVM_SEV_SNP_ENABLE_REQ_CERTS"))
        #expect(try position < #require(log.firstIndex { $0.hasPrefix("KVM_CREATE_VCPU") }))
        #expect(!(try Rig([])).kernel.log.contains("KVM_SEV_SNP_ENABLE_REQ_CERTS"))
    }

    @Test func aKernelWithoutCertificateExitsRefusesTheLaunch() throws {
        let kernel = ScriptedKernel()
        kernel.refuse("KVM_SEV_SNP_ENABLE_REQ_CERTS", .EINVAL)
        do throws(VMMError) {
            _ = try launch(kernel, certificates: { [] })
            Issue.record("launched")
        } catch {
            #expect(
                error.description.contains("KVM_SEV_SNP_ENABLE_REQ_CERTS") && error.description.contains("before 7.0"))
        }
    }

    @Test func systemEventsForPowerAreEnds() throws {
        #expect(isPowerOff(try Rig([systemEvent(.shutdown)]).machine.run()))
        #expect(try Rig([systemEvent(.reset)]).machine.run().exitStatus == .guestFailed)
    }
}
