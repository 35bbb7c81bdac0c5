// Small guests on the software kernel: the whole way from a plan to an outcome.

import Dispatch
import GuestImage
import KVMABI
import LaunchMeasurement
import SEVABI
import SNPVMM
import SoftwareKVM
import Synchronization
import Testing
import X86Defs

/// A flat 64-bit guest: one page of code, identity-mapped up to 4 GiB, its memory private when it is confidential.
struct FlatGuest {
    static let entry: UInt64 = 0x10_0000
    static let memoryByteCount: UInt64 = 2 << 20
    static let secretArea: UInt64 = 0x9000
    private static let pageTables: UInt64 = 0x2000
    let plan: LaunchPlan

    init(_ code: [UInt8], confidential: Bool) { self.init(code, confidential ? .snp : nil) }

    init(_ code: [UInt8], _ technology: GuestTechnology?) {
        let confidential = technology != nil
        var state = ProcessorState()
        state.cs = SegmentRegister(selector: 8, attributes: 0xa9b, limit: 0xffff_ffff)
        let data = SegmentRegister(selector: 16, attributes: 0xc93, limit: 0xffff_ffff)
        state.ds = data
        state.es = data
        state.fs = data
        state.gs = data
        state.ss = data
        state.tr = SegmentRegister(attributes: 0x8b, limit: 0xffff)
        let cBit: UInt64 = confidential ? 1 << 51 : 0
        state.cr0 = 0x8000_0011
        state.cr3 = Self.pageTables | cBit
        state.cr4 = 0x20
        state.efer = 0x500
        state.rip = Self.entry
        state.generalRegisters[4] = 0x10_0000

        // A PML4, a PDPT and four directories of 2 MiB leaves.
        var entries = [UInt64](repeating: 0, count: 6 * 512)
        entries[0] = (Self.pageTables + 0x1000) | 3 | cBit
        for directory in 0..<4 {
            entries[512 + directory] = (Self.pageTables + 0x2000 + UInt64(directory) << 12) | 3 | cBit
        }
        let memoryLeaves = Int(Self.memoryByteCount >> 21)
        for leaf in 0..<2048 { entries[1024 + leaf] = UInt64(leaf) << 21 | 0x83 | (leaf < memoryLeaves ? cBit : 0) }
        let tables = entries.flatMap { entry in (0..<8).map { UInt8(truncatingIfNeeded: entry >> UInt64(8 * $0)) } }
        let page = code + [UInt8](repeating: 0xf4, count: 4096 - code.count)
        var regions: [LaunchPlan.Region] = [
            .init(
                label: "page tables", pageType: .normal, gpa: Self.pageTables, byteCount: UInt64(tables.count),
                contents: tables),
            .init(label: "code", pageType: .normal, gpa: Self.entry, byteCount: 4096, contents: page),
        ]
        if technology == .snp {
            let end = Self.pageTables + UInt64(tables.count)
            for range in [0..<Self.pageTables, end..<Self.entry, (Self.entry + 4096)..<Self.memoryByteCount] {
                regions.append(
                    .init(
                        label: "RAM", pageType: .zero, gpa: range.lowerBound,
                        byteCount: range.upperBound - range.lowerBound))
            }
        }
        var plan = LaunchPlan(
            regions: regions, processors: [state], guestFeatures: technology == .snp ? 1 : 0,
            policy: MachineDescription.defaultPolicy(for: technology), technology: technology)
        if technology == .sev || technology == .sevES {
            plan.secretArea = .init(gpa: Self.secretArea, byteCount: 0x200)
        }
        self.plan = plan
    }
}

final class Output: Sendable {
    private let bytes = Mutex<[UInt8]>([])
    func append(_ byte: UInt8) { bytes.withLock { $0.append(byte) } }
    var text: String { String(decoding: bytes.withLock { $0 }, as: UTF8.self) }
}

private func machine(_ code: [UInt8], confidential: Bool, output: Output = Output()) throws -> Machine {
    try launch(
        try SoftwareKVM(), plan: FlatGuest(code, confidential: confidential).plan, confidential: confidential,
        memory: FlatGuest.memoryByteCount, console: { output.append($0) })
}

/// `mov ecx, 0xC0010130; mov eax, value; xor edx, edx; wrmsr; rep vmmcall`.
private func ghcbMSRRequest(_ value: UInt32) -> [UInt8] {
    let bytes = (0..<4).map { UInt8(truncatingIfNeeded: value >> UInt32(8 * $0)) }
    return [0xb9, 0x30, 0x01, 0x01, 0xc0, 0xb8] + bytes + [0x31, 0xd2, 0x0f, 0x30, 0xf3, 0x0f, 0x01, 0xd9]
}

/// `mov ebx, sleep control; mov byte [rbx], 0x34`.
let powerOff: [UInt8] =
    [0xbb] + (0..<4).map { UInt8(truncatingIfNeeded: GuestAddressMap.sleepControl >> (8 * $0)) } + [0xc6, 0x03, 0x34]

/// From a thread of its own: the tests' threads may all be inside a guest.
private func stopSoon(_ machine: Machine) {
    DispatchQueue(label: "stop").asyncAfter(deadline: .now() + .milliseconds(20)) { machine.stop() }
}

@Suite struct SoftwareMachineTests {
    @Test func plainGuestPrintsAndPowersOff() throws {
        let output = Output()
        // mov dx, 0x3f8; mov al, 'O'; out dx, al; mov al, 'K'; out dx, al
        let code: [UInt8] = [0x66, 0xba, 0xf8, 0x03, 0xb0, 0x4f, 0xee, 0xb0, 0x4b, 0xee] + powerOff
        let machine = try machine(code, confidential: false, output: output)
        let outcome = machine.run()
        #expect(outcome.exitStatus == .success)
        #expect(output.text == "OK")
        #expect(machine.statistics.exits == ["KVM_EXIT_IO": 2, "KVM_EXIT_MMIO": 1])
    }

    @Test func plainGuestEchoesItsInput() throws {
        let output = Output()
        // again: mov dx, 0x3fd; in al, dx; test al, 1; jz again; mov dx, 0x3f8; in al, dx; out dx, al; cmp al, 'q'; jne again
        let code: [UInt8] =
            [
                0x66, 0xba, 0xfd, 0x03, 0xec, 0xa8, 0x01, 0x74, 0xf7, 0x66, 0xba, 0xf8, 0x03, 0xec, 0xee, 0x3c, 0x71,
                0x75, 0xed,
            ]
            + powerOff
        let machine = try machine(code, confidential: false, output: output)
        machine.type(Array("hello q".utf8))
        #expect(machine.run().exitStatus == .success)
        #expect(output.text == "hello q")
    }

    @Test func snpGuestLaunchesAndAsksForItsTermination() throws {
        let machine = try machine(ghcbMSRRequest(0x100 | 1 << 12 | 2 << 16), confidential: true)
        let outcome = machine.run()
        guard case .terminated(let termination) = outcome else {
            Issue.record("\(outcome)")
            return
        }
        #expect(termination == GuestTermination(reasonSet: 1, reason: 2))
        #expect(outcome.exitStatus == .guestFailed)
    }

    @Test(arguments: [true, false]) func tripleFaultIsACrash(confidential: Bool) throws {
        // ud2, with an interrupt table of zeros.
        let outcome = try machine([0x0f, 0x0b], confidential: confidential).run()
        #expect(outcome.exitStatus == .guestFailed)
        #expect(outcome.error?.request == "KVM_EXIT_SHUTDOWN")
    }

    @Test(arguments: [true, false]) func sleepingGuestIsStopped(confidential: Bool) throws {
        // cli; again: hlt; jmp again
        let machine = try machine([0xfa, 0xf4, 0xeb, 0xfd], confidential: confidential)
        stopSoon(machine)
        let outcome = machine.run()
        #expect(outcome.exitStatus == .success)
        #expect(outcome.error == nil)
    }

    @Test(arguments: [true, false]) func busyGuestIsStopped(confidential: Bool) throws {
        let machine = try machine([0xeb, 0xfe], confidential: confidential)
        stopSoon(machine)
        #expect(machine.run().error == nil)
    }

    @Test func identityBlockDecidesTheLaunch() throws {
        let plan = FlatGuest([0xf4], confidential: true).plan
        let measured = MeasuredLaunch(of: plan).digest
        func error(_ block: IDBlock) throws -> VMMError? {
            do {
                _ = try launch(
                    try SoftwareKVM(), plan: plan, memory: FlatGuest.memoryByteCount,
                    identity: LaunchIdentity(identityBlock: (block, IDAuthentication())))
                return nil
            } catch let error as VMMError { return error }
        }
        // Without a signature no ID block passes; which complaint comes first is the firmware's affair.
        let unsigned = try error(IDBlock(launchDigest: measured))
        #expect(unsigned?.request == "KVM_SEV_SNP_LAUNCH_FINISH")
        #expect(unsigned?.exitStatus == .launchRefused)
        let foreign = try error(IDBlock(launchDigest: LaunchDigest()))
        #expect(foreign?.exitStatus == .launchRefused)
    }

    @Test func policyThatThePlatformRefusesIsExplained() throws {
        for policy: UInt64 in [0, 0x10000, 0x8000_0000_0003_0000, 0x3_ff00] {
            var plan = FlatGuest([0xf4], confidential: true).plan
            plan.policy = policy
            #expect(throws: VMMError.self) {
                do { _ = try launch(try SoftwareKVM(), plan: plan, memory: FlatGuest.memoryByteCount) } catch {
                    #expect((error as? VMMError)?.request == "KVM_SEV_SNP_LAUNCH_START", "\(error)")
                    #expect((error as? VMMError)?.exitStatus == .launchRefused)
                    throw error
                }
            }
        }
    }

    @Test func logOfASoftwareLaunchEndsAtTheMeasuredDigest() throws {
        let plan = FlatGuest([0xf4], confidential: true).plan
        let running = Mutex(RunningLaunchDigest())
        let last = Mutex<String?>(nil)
        let log = LaunchLog(
            try SoftwareKVM(),
            digest: { measured in
                running.withLock { digest in
                    switch measured {
                    case .pages(let type, let gpa, let byteCount, let contents):
                        digest.extend(
                            .init(label: "", pageType: type, gpa: gpa, byteCount: byteCount, contents: contents))
                    case .data: Issue.record("an SNP launch has no UPDATE_DATA")
                    case .processors: digest.extend(SealedState(of: plan.processors[0], guestFeatures: 1))
                    }
                    return "\(digest.digest)"
                }
            }, write: { line in if line.contains("launchDigest") { last.withLock { $0 = line } } })
        _ = try launch(log, plan: plan, memory: FlatGuest.memoryByteCount)
        #expect(last.withLock { $0 }?.contains("\(MeasuredLaunch(of: plan).digest)") == true)
    }
}

/// Several machines over one kernel, in one process.
@Suite struct SeveralMachinesTests {
    /// Prints a letter `count` times, waiting between two of them, and switches off.
    private static func printer(_ letter: UInt8, _ count: UInt8) -> [UInt8] {
        // mov dx, 0x3f8; mov bl, count; again: mov ecx, 20000; wait: dec ecx; jnz wait; mov al, letter; out dx, al;
        // dec bl; jnz again
        [
            0x66, 0xba, 0xf8, 0x03, 0xb3, count, 0xb9, 0x20, 0x4e, 0, 0, 0xff, 0xc9, 0x75, 0xfc, 0xb0, letter, 0xee,
            0xfe,
            0xcb, 0x75, 0xf0,
        ] + powerOff
    }

    /// Two guests on two threads: nothing of one gets into the other's console, and a stop of one stops no other.
    @Test func twoRunSideBySide() throws {
        let kernel = try SoftwareKVM()
        let outputs = [Output(), Output()]
        let machines = try [UInt8(ascii: "a"), UInt8(ascii: "b")].enumerated().map { index, letter in
            try launch(
                kernel, plan: FlatGuest(Self.printer(letter, 100), confidential: false).plan, confidential: false,
                memory: FlatGuest.memoryByteCount, console: { outputs[index].append($0) })
        }
        // cli; hlt: this one ends only by its stop, which must not reach the others.
        let sleeper = try launch(
            kernel, plan: FlatGuest([0xfa, 0xf4, 0xeb, 0xfd], confidential: false).plan, confidential: false,
            memory: FlatGuest.memoryByteCount)
        let group = DispatchGroup()
        let failures = Mutex<[String]>([])
        for machine in machines + [sleeper] {
            DispatchQueue(label: "guest").async(group: group) {
                let outcome = machine.run()
                if let error = outcome.error { failures.withLock { $0.append("\(error)") } }
            }
        }
        stopSoon(sleeper)
        group.wait()
        #expect(failures.withLock { $0 } == [])
        #expect(outputs[0].text == String(repeating: "a", count: 100))
        #expect(outputs[1].text == String(repeating: "b", count: 100))
        #expect(machines.map { $0.statistics.consoleByteCount } == [100, 100])
    }

    /// Every ASID is used once; the next guest is refused and told why; a guest that ends gives its ASID back.
    @Test(arguments: [GuestTechnology.snp, .sevES, .sev]) func asidsRunOut(technology: GuestTechnology) throws {
        var configuration = SoftwareKVM.Configuration()
        configuration.platform.snpASIDs = 1...2
        configuration.platform.sevASIDs = 3...4
        let kernel = try SoftwareKVM(configuration: configuration)
        let host = try Host(kernel)
        let cpuid = try host.guestCPUID(processorCount: 1, technology: technology)
        func start() throws(VMMError) -> Machine {
            var plan = technology == .snp ? FlatGuest([0xf4], confidential: true).plan : sevPlan(technology)
            if technology == .sevES { plan.policy = 0x7 }
            return try Machine(
                host: host,
                configuration: MachineConfiguration(
                    technology: technology, memoryByteCount: FlatGuest.memoryByteCount, plan: plan, cpuid: cpuid),
                console: { _ in })
        }
        var machines = [try start(), try start()]
        let asids = machines.map { kernel.guestProtection(of: $0.vmHandle)?.asid ?? 0 }
        #expect(asids.sorted() == (technology == .sev ? [3, 4] : [1, 2]))
        do throws(VMMError) {
            _ = try start()
            Issue.record("a third guest on two ASIDs")
        } catch {
            #expect(error.request == "KVM_SEV_INIT2" && error.errno == .EBUSY)
            #expect(error.likelyCause.contains("ASID"))
        }
        machines.removeFirst()
        machines.append(try start())
        #expect(machines.map { kernel.guestProtection(of: $0.vmHandle)?.asid ?? 0 }.sorted() == asids.sorted())
    }
}
