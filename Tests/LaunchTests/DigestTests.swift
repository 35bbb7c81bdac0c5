// Two computations of one number: what the firmware measures during a launch through the seam, and what
// LaunchMeasurement says of the plan.

import GuestImage
import KVMABI
import LaunchMeasurement
import SEVABI
import SoftwareKVM
import Testing
import X86Defs

@Suite struct DigestTests {
    private func region(_ type: PageType, _ gpa: UInt64, _ contents: [UInt8], pages: UInt64 = 1) -> LaunchPlan.Region {
        LaunchPlan.Region(label: "test", pageType: type, gpa: gpa, byteCount: pages << 12, contents: contents)
    }

    /// Runs a plan by hand and returns the firmware's digest.
    private func launch(_ plan: LaunchPlan) throws -> LaunchDigest? {
        let vm = try TestVM(readyForLaunch: false)
        try vm.setPrivate(0, UInt64(TestVM.memoryByteCount))
        for (id, state) in plan.processors.enumerated() {
            try vm.addVCPU(UInt64(id))
            try vm.setState(state)
        }
        #expect(vm.start(policy: plan.policy).errno == nil)
        for region in plan.regions {
            let source = region.contents.isEmpty ? nil : try vm.pages(region.contents)
            // SECRETS wants a source, whose contents do not matter.
            let dummy = try vm.pages([])
            let result = vm.update(
                region.pageType, gpa: region.gpa, pages: region.byteCount >> 12, source: source ?? dummy)
            #expect(result.errno == nil)
            #expect(result.argument.byteCount == 0)
        }
        #expect(vm.finish().errno == nil)
        return vm.kernel.launchDigest(of: vm.vm)
    }

    @Test func digestsAgree() throws {
        let code = (0..<3 * 4096).map { UInt8(truncatingIfNeeded: $0 &* 31 ^ $0 >> 8) }
        let plan = LaunchPlan(
            regions: [
                region(.normal, 0x1_0000, code, pages: 3), region(.zero, 0x2_0000, [], pages: 16),
                region(.unmeasured, 0x4_0000, [UInt8](repeating: 9, count: 4096)), region(.secrets, 0x5_0000, []),
            ],
            processors: [TestVM.longModeState])
        #expect(try launch(plan) == MeasuredLaunch(of: plan).digest)
    }

    @Test func registersEnterTheDigest() throws {
        var reset = ProcessorState()
        reset.generalRegisters[2] = 0x00a0_0f11
        reset.cs.attributes = 0x9b
        reset.fcw = 0
        reset.mxcsr = 0
        var changed = TestVM.longModeState
        changed.generalRegisters[0] = 1
        for states in [[reset], [TestVM.longModeState], [changed], [TestVM.longModeState, reset, reset]] {
            let plan = LaunchPlan(regions: [region(.zero, 0, [])], processors: states)
            #expect(try launch(plan) == MeasuredLaunch(of: plan).digest)
        }
    }

    @Test func whatKVMAddsMayBeThereAlready() throws {
        var without = TestVM.longModeState
        without.cr4 = 0x20
        without.efer = 0x500
        var with = without
        with.cr4 = 0x60
        with.efer = 0x1500
        let a = try launch(LaunchPlan(regions: [region(.zero, 0, [])], processors: [without]))
        let b = try launch(LaunchPlan(regions: [region(.zero, 0, [])], processors: [with]))
        #expect(a == b)
        #expect(a != nil)
    }
}
