import GuestImage
import KVMABI
import SEVABI
import SNPVMM
import Synchronization
import Testing
import VMMDevices
import X86Defs

/// A small plan: every page type, and more pages than one request carries.
func samplePlan(normalByteCount: Int = 3 * 4096, features: UInt64 = 1) -> LaunchPlan {
    var processor = ProcessorState()
    processor.rip = 0x10_0200
    processor.generalRegisters[6] = 0x9000
    processor.cr0 = 0x8000_0011
    processor.cr3 = 0x2000 | 1 << 51
    processor.cr4 = 0x20
    processor.efer = 0x1500
    let normal = (0..<normalByteCount).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 12) }
    let page = CPUIDTable(entries: [CPUIDTableEntry(function: 1, eax: 0xa00f11, ecx: 0x4120_2001)]).bytes
    return LaunchPlan(
        regions: [
            .init(
                label: "kernel", pageType: .normal, gpa: 0x10_0000, byteCount: UInt64(normalByteCount), contents: normal
            ),
            .init(label: "RAM", pageType: .zero, gpa: 0, byteCount: 0x8000),
            .init(label: "secrets", pageType: .secrets, gpa: 0xd000, byteCount: 0x1000),
            .init(label: "CPUID page", pageType: .cpuid, gpa: 0xe000, byteCount: 0x1000, contents: page),
        ],
        processors: [processor], guestFeatures: features)
}

/// Launches on a scripted kernel.
func launch(
    _ kernel: any HostKernel, plan: LaunchPlan = samplePlan(), confidential: Bool = true, memory: UInt64 = 16 << 20,
    identity: LaunchIdentity = LaunchIdentity(), certificates: (@Sendable () -> [UInt8]?)? = nil,
    devices: [any VirtioDevice] = [], takesCorrectedCPUID: Bool = false,
    console: @escaping @Sendable (UInt8) -> Void = { _ in },
    observe: @escaping (LaunchEvent) -> Void = { _ in }
) throws(VMMError) -> Machine {
    let host = try Host(kernel)
    let cpuid = try host.guestCPUID(processorCount: 1, technology: confidential ? .snp : nil)
    var configuration = MachineConfiguration(
        technology: confidential ? .snp : nil, memoryByteCount: memory, plan: plan, cpuid: cpuid, identity: identity,
        certificateTable: certificates, devices: devices)
    configuration.takesCorrectedCPUID = takesCorrectedCPUID
    return try Machine(host: host, configuration: configuration, console: console, observe: observe)
}

private func failure(_ body: () throws(VMMError) -> Machine) -> VMMError? {
    do {
        _ = try body()
        return nil
    } catch { return error }
}

@Suite struct LaunchTests {
    @Test func goldenRequestOrderOfAnSNPLaunch() throws {
        let kernel = ScriptedKernel()
        let machine = try launch(kernel)
        #expect(
            kernel.log == [
                "open /dev/kvm", "KVM_GET_API_VERSION", "KVM_GET_SUPPORTED_CPUID room 64",
                "KVM_CHECK_EXTENSION KVM_CAP_VM_TYPES", "KVM_CHECK_EXTENSION KVM_CAP_GUEST_MEMFD",
                "KVM_CHECK_EXTENSION KVM_CAP_USER_MEMORY2", "KVM_CHECK_EXTENSION KVM_CAP_MEMORY_ATTRIBUTES",
                "KVM_CHECK_EXTENSION KVM_CAP_EXIT_HYPERCALL", "KVM_CHECK_EXTENSION KVM_CAP_USER_MEMORY",
                "KVM_CHECK_EXTENSION KVM_CAP_IRQCHIP", "KVM_CHECK_EXTENSION KVM_CAP_IMMEDIATE_EXIT",
                "KVM_CREATE_VM 4", "KVM_ENABLE_CAP", "mmap anonymous 1052672", "open /dev/sev",
                "KVM_SEV_INIT2 features 0x0 ghcb 0", "KVM_CREATE_IRQCHIP", "KVM_SET_GSI_ROUTING",
                "mmap anonymous 16777216", "KVM_CREATE_GUEST_MEMFD 16777216",
                "KVM_SET_USER_MEMORY_REGION2 0 0x0 16777216 flags 4", "KVM_SET_MEMORY_ATTRIBUTES 0x0 16777216 private",
                "KVM_CREATE_VCPU 0", "KVM_GET_VCPU_MMAP_SIZE", "mmap vcpu", "KVM_SET_CPUID2", "KVM_GET_SREGS",
                "KVM_SET_SREGS", "KVM_SET_REGS", "KVM_SET_MSRS",
                "KVM_SEV_SNP_LAUNCH_START policy 0x30000", "KVM_SEV_SNP_LAUNCH_UPDATE NORMAL 0x100 3",
                "KVM_SEV_SNP_LAUNCH_UPDATE ZERO 0x0 8", "KVM_SEV_SNP_LAUNCH_UPDATE SECRETS 0xd 1",
                "KVM_SEV_SNP_LAUNCH_UPDATE CPUID 0xe 1", "KVM_SEV_SNP_LAUNCH_FINISH",
            ])
        #expect(machine.statistics.pages.privatePages == 4096)
    }

    @Test func registersOfThePlanReachTheVCPU() throws {
        let kernel = ScriptedKernel()
        _ = try launch(kernel)
        let state = kernel.state.withLock { $0 }
        #expect(state.registers.rip == 0x10_0200)
        #expect(state.registers.rsi == 0x9000)
        #expect(state.special.cr3 == 0x2000 | 1 << 51)
        #expect(state.special.efer == 0x500)  // SVME is the kernel's to set.
        #expect(state.special.apicBase == 0xfee0_0900)  // As the kernel made it.
        #expect(state.special.cs.selector == 0xf000)
        // HWCR.TscFreqSel behind the others: not every kernel takes it.
        #expect(
            state.msrs == [KVMMSREntry(index: 0x2ff, data: 0x806), KVMMSREntry(index: 0xc001_0015, data: 1 << 24)])
        #expect(state.cpuidSet.first { $0.function == 1 }?.ecx ?? 0 & 1 << 31 != 0)
        #expect(state.cpuidSet.first { $0.function == 7 }?.ecx == 0)
    }

    @Test func featuresLoseTheBitThatTheKernelSets() throws {
        let kernel = ScriptedKernel()
        _ = try launch(kernel, plan: samplePlan(features: 0x21))
        #expect(kernel.log.contains("KVM_SEV_INIT2 features 0x20 ghcb 0"))
    }

    @Test func pagesArriveWholeAndInOrderWhateverTheProgress() throws {
        let plan = samplePlan(normalByteCount: 3 << 20)
        for script: [ScriptedKernel.Update] in [
            [], [.pages(1), .pages(7), .pages(100)], [.refused(.EAGAIN, .success, pagesDone: 0), .pages(3)],
            [.refused(.EINTR, .success, pagesDone: 0), .pages(3), .refused(.EAGAIN, .success, pagesDone: 0)],
            [.refused(.EAGAIN, .success, pagesDone: 5)], [.refused(.EIO, .success, pagesDone: 0)],
            Array(repeating: .pages(1), count: 50),
        ] {
            let kernel = ScriptedKernel()
            kernel.state.withLock { $0.updates = script }
            _ = try launch(kernel, plan: plan)
            let normal = kernel.state.withLock { $0.launched.filter { $0.type == 1 } }
            #expect(normal.first?.gpa == 0x10_0000)
            #expect(normal.flatMap(\.contents) == plan.regions[0].contents)
            var next: UInt64 = 0x10_0000
            for part in normal {
                #expect(part.gpa == next)
                next += UInt64(part.contents.count)
            }
            #expect(!kernel.log.contains { $0.hasSuffix("UNALIGNED") })
        }
    }

    @Test func largeZeroRegionsTouchNoSourceAndShowProgress() throws {
        let kernel = ScriptedKernel()
        var plan = samplePlan()
        plan.regions[1].byteCount = 160 << 20
        plan.regions[1].gpa = 32 << 20
        let seen = Mutex<[UInt64]>([])
        _ = try launch(
            kernel, plan: plan, memory: 256 << 20,
            observe: { event in
                if case .progress(let pages) = event { seen.withLock { $0.append(pages) } }
            })
        #expect(seen.withLock { $0 } == [3, 16384, 32768, 40960, 1, 1])
    }

    @Test func retriesEnd() {
        for (errno, expected) in [(Errno.EAGAIN, 1000), (.EINTR, 1000), (.EIO, 2)] {
            let kernel = ScriptedKernel()
            kernel.state.withLock {
                $0.updates = Array(repeating: .refused(errno, .success, pagesDone: 0), count: 2000)
            }
            let error = failure { () throws(VMMError) in try launch(kernel) }
            #expect(error?.errno == errno)
            #expect(error?.exitStatus == .launchRefused)
            #expect(kernel.log.count { $0.hasPrefix("KVM_SEV_SNP_LAUNCH_UPDATE") } == expected)
        }
    }

    @Test func everyFirmwareStatusIsTold() {
        for raw in UInt32(1)...0x3f {
            let status = FirmwareStatus(rawValue: raw)
            let kernel = ScriptedKernel()
            kernel.state.withLock { $0.updates = [.refused(.EIO, status, pagesDone: 0)] }
            let error = failure { () throws(VMMError) in try launch(kernel) }
            #expect(error?.firmwareStatus == status)
            #expect(error?.description.contains("\(status)") == true)
            #expect(error?.request == "KVM_SEV_SNP_LAUNCH_UPDATE")
            #expect(error?.step == "launch kernel")
            #expect(kernel.log.last?.hasPrefix("KVM_SEV_SNP_LAUNCH_UPDATE") == true)
        }
    }

    @Test func progressThatDoesNotAddUpEndsTheLaunch() {
        let kernel = ScriptedKernel()
        kernel.state.withLock { $0.updates = [.absurd] }
        let error = failure { () throws(VMMError) in try launch(kernel) }
        #expect(error?.exitStatus == .launchRefused)
        #expect(error?.finding?.contains("does not add up") == true)
    }

    @Test func correctedCPUIDPageIsNamedLeafByLeaf() {
        let kernel = ScriptedKernel()
        let corrected = CPUIDTable(entries: [CPUIDTableEntry(function: 1, eax: 0xa00f11, ecx: 0x4020_2001)]).bytes
        kernel.state.withLock { $0.updates = [.complete, .complete, .complete, .corrected(corrected)] }
        let error = failure { () throws(VMMError) in try launch(kernel) }
        #expect(error?.finding == "leaf 0x1 ECX: offered 0x41202001, the firmware accepts 0x40202001")
        #expect(error?.firmwareStatus == .invalidParameter)
        #expect(error?.exitStatus == .launchRefused)
    }

    /// Once only: a firmware that refuses its own values ends the launch.
    @Test func correctedCPUIDPageIsTakenWhereThatIsAsked() throws {
        let corrected = CPUIDTable(entries: [CPUIDTableEntry(function: 1, eax: 0xa00f11, ecx: 0x4020_2001)]).bytes
        let kernel = ScriptedKernel()
        kernel.state.withLock { $0.updates = [.complete, .complete, .complete, .corrected(corrected)] }
        let machine = try launch(kernel, takesCorrectedCPUID: true)
        #expect(machine.cpuidCorrections == ["leaf 0x1 ECX: offered 0x41202001, the firmware accepts 0x40202001"])
        #expect(kernel.state.withLock { $0.launched.last?.contents } == corrected)

        let stubborn = ScriptedKernel()
        stubborn.state.withLock {
            $0.updates = [.complete, .complete, .complete, .corrected(corrected), .corrected(corrected)]
        }
        let error = failure { () throws(VMMError) in try launch(stubborn, takesCorrectedCPUID: true) }
        #expect(error?.firmwareStatus == .invalidParameter)
    }

    @Test func identityReachesTheKernel() throws {
        let kernel = ScriptedKernel()
        let block = IDBlock(launchDigest: LaunchDigest(.init { UInt8($0) }))
        var authentication = IDAuthentication()
        authentication.authorKey = PublicKeyField(x: [1], y: [2])
        _ = try launch(
            kernel, identity: LaunchIdentity(hostData: .init(repeating: 0x5a), identityBlock: (block, authentication)))
        let state = kernel.state.withLock { $0 }
        #expect(state.finish?.idBlockEnabled == 1)
        #expect(state.finish?.authorKeyEnabled == 1)
        #expect(state.finish?.hostData[31] == 0x5a)
        #expect(state.finishBlocks?.block == block.bytes)
        #expect(state.finishBlocks?.authentication == authentication.bytes)
    }

    @Test(arguments: [
        ("open /dev/kvm", Errno.ENOENT, VMMExitStatus.hostCannot), ("open /dev/sev", .EACCES, .hostCannot),
        ("KVM_CREATE_VM", .EINVAL, .hostCannot), ("KVM_ENABLE_CAP", .EINVAL, .hostCannot),
        ("KVM_SEV_INIT2", .EBUSY, .hostCannot), ("KVM_CREATE_GUEST_MEMFD", .ENOMEM, .hostCannot),
        ("KVM_SET_USER_MEMORY_REGION2", .EINVAL, .hostCannot), ("KVM_SET_MEMORY_ATTRIBUTES", .EINVAL, .hostCannot),
        ("KVM_CREATE_VCPU", .EINVAL, .hostCannot), ("KVM_SET_CPUID2", .EINVAL, .hostCannot),
        ("KVM_SET_SREGS", .EINVAL, .hostCannot), ("KVM_SEV_SNP_LAUNCH_START", .EINVAL, .launchRefused),
        ("KVM_SEV_SNP_LAUNCH_START", .EIO, .launchRefused), ("KVM_SEV_SNP_LAUNCH_FINISH", .EIO, .launchRefused),
        ("mmap", .ENOMEM, .hostCannot),
    ]) func everyRefusalHasItsStepAndStatus(request: String, errno: Errno, status: VMMExitStatus) {
        let kernel = ScriptedKernel()
        kernel.refuse(request, errno, .policyFailure)
        let error = failure { () throws(VMMError) in try launch(kernel) }
        #expect(error?.request == request)
        #expect(error?.errno == errno)
        #expect(error?.exitStatus == status)
        #expect(error?.firmwareStatus == (errno == .EIO ? .policyFailure : nil))
    }

    @Test func everythingIsClosedAfterAFailure() {
        let kernel = ScriptedKernel()
        kernel.refuse("KVM_SEV_SNP_LAUNCH_FINISH", .EIO, .badMeasurement)
        #expect(failure { () throws(VMMError) in try launch(kernel) }?.firmwareStatus == .badMeasurement)
        let (closed, next) = kernel.state.withLock { ($0.closed, $0.nextHandle) }
        #expect(closed.sorted() == Array(3..<next))
    }

    @Test func everythingIsClosedAtTheEnd() throws {
        let kernel = ScriptedKernel()
        _ = try launch(kernel)
        let (closed, next) = kernel.state.withLock { ($0.closed, $0.nextHandle) }
        #expect(closed.sorted() == Array(3..<next))
    }

    @Test func missingCapabilityIsNamed() {
        let kernel = ScriptedKernel()
        kernel.state.withLock { $0.capabilities[Capability.vmTypes.rawValue] = 1 }
        let error = failure { () throws(VMMError) in try launch(kernel) }
        #expect(error?.context == "KVM_CAP_VM_TYPES")
        #expect(error?.exitStatus == .hostCannot)
        #expect(!kernel.log.contains { $0.hasPrefix("KVM_CREATE_VM") })
    }

    @Test func foreignAPIVersionIsRefused() {
        let kernel = ScriptedKernel()
        kernel.state.withLock { $0.apiVersion = 11 }
        #expect(failure { () throws(VMMError) in try launch(kernel) }?.finding == "version 11, expected 12")
    }

    @Test func msrThatIsNotTakenIsNamed() {
        let kernel = ScriptedKernel()
        kernel.state.withLock { $0.msrsTaken = 0 }
        #expect(failure { () throws(VMMError) in try launch(kernel) }?.context == "MSR 0x2ff = 0x806")
    }

    @Test func cpuidListGrowsUntilItFits() throws {
        let kernel = ScriptedKernel()
        kernel.state.withLock { $0.cpuid = Array(repeating: $0.cpuid[0], count: 200) }
        #expect(try Host(kernel).supportedCPUID().count == 200)
        #expect(kernel.log.suffix(3) == (6...8).map { "KVM_GET_SUPPORTED_CPUID room \(1 << $0)" })
    }

    @Test func firmwareBelow4GiBGetsASlotOfItsOwn() throws {
        let kernel = ScriptedKernel()
        var plan = samplePlan()
        plan.regions.append(
            .init(
                label: "firmware", pageType: .normal, gpa: 0xffff_f000, byteCount: 0x1000,
                contents: [UInt8](repeating: 1, count: 4096)))
        _ = try launch(kernel, plan: plan)
        #expect(kernel.log.contains("KVM_SET_USER_MEMORY_REGION2 1 0xfffff000 4096 flags 4"))
        #expect(kernel.log.contains("KVM_SET_MEMORY_ATTRIBUTES 0xfffff000 4096 private"))
    }

    @Test func plainGuestIsCopiedAndNeverLaunched() throws {
        let kernel = ScriptedKernel()
        var plan = samplePlan()
        plan.regions = [plan.regions[0]]
        let machine = try launch(kernel, plan: plan, confidential: false)
        #expect(kernel.log.contains("KVM_CREATE_VM 0"))
        #expect(kernel.log.contains("KVM_SET_USER_MEMORY_REGION 0 0x0 16777216"))
        #expect(!kernel.log.contains { $0.contains("SEV") || $0.contains("sev") || $0.contains("MEMFD") })
        let address = try #require(kernel.state.withLock { $0.sharedAddresses.first })
        #expect(peekBytes(address + 0x10_0000, 3 * 4096) == plan.regions[0].contents)
        #expect(machine.statistics.pages.sharedPages == 4096)
        // It must not take itself for an encrypted one.
        #expect(!kernel.state.withLock { $0.cpuidSet.contains { $0.function == 0x8000_001f } })
    }

    @Test func plainPlanThatDoesNotFitIsRefused() {
        let kernel = ScriptedKernel()
        var plan = samplePlan()
        plan.regions = [plan.regions[0]]
        plan.regions[0].gpa = 64 << 20
        // Outside RAM the plan gets a slot of its own; a region that wraps cannot.
        plan.regions[0].gpa = UInt64.max - 0xfff
        let error = failure { () throws(VMMError) in try launch(kernel, plan: plan, confidential: false) }
        #expect(error?.exitStatus == .badInput)
    }

    @Test func stepsAreToldWithTheirTimes() throws {
        let kernel = ScriptedKernel()
        let names = Mutex<[String]>([])
        let machine = try launch(
            kernel,
            observe: { event in
                if case .ended(let phase) = event { names.withLock { $0.append(phase.name) } }
            })
        let expected = [
            "create the VM", "KVM_SEV_INIT2", "memory", "processors", "SNP_LAUNCH_START", "NORMAL kernel", "ZERO RAM",
            "SECRETS secrets", "CPUID CPUID page", "SNP_LAUNCH_FINISH",
        ]
        #expect(names.withLock { $0 } == expected)
        #expect(machine.statistics.phases.map(\.name) == expected)
    }

    @Test func probeSaysWhyNot() {
        #expect(HostProbe.whyNot(.snp, on: ScriptedKernel()) == nil)
        #expect(HostProbe.whyNot(nil, on: ScriptedKernel()) == nil)
        for (request, errno) in [
            ("open /dev/kvm", Errno.ENOENT), ("open /dev/sev", .ENOENT), ("KVM_GET_DEVICE_ATTR", .ENXIO),
        ] {
            let kernel = ScriptedKernel()
            kernel.refuse(request, errno)
            #expect(HostProbe.whyNot(.snp, on: kernel)?.request == request)
        }
    }
}
