// A guest without a processor: writes its GHCB, executes VMGEXIT, looks at what came back.

import KVMABI
import SEVABI
import SoftwareKVM

/// One SNP vCPU whose GHCB handler is driven by hand. The GHCB is the shared page at 0x1000.
final class GHCBGuest {
    static let ghcbGPA: UInt64 = 0x1000

    let vm: TestVM
    let vcpu: VirtualCPU
    let page: KernelMapping

    init(registersGHCB: Bool = true, hypercallExits: Bool = true) throws {
        vm = try TestVM(readyForLaunch: true)
        if !hypercallExits {
            try vm.kernel.call(vm.vm, .enableCapability, reading: KVMEnableCapability(.exitHypercall, argument: 0))
        }
        try vm.setPrivate(0, 0x1_0000, false)
        vcpu = vm.kernel.vcpu(vm.vcpu)!
        page = vm.shared!
        if registersGHCB {
            _ = vcpu.performVMGEXIT(ghcbMSR: Self.ghcbGPA | 0x12)
        }
    }

    var runPage: RunPage { vm.runPage! }

    /// Runs one event with these fields (exit code and information included) and page bytes.
    func event(_ code: GHCBEvent, info1: UInt64 = 0, info2: UInt64 = 0, _ fill: (inout GHCB) -> Void = { _ in })
        -> RunStep
    {
        var ghcb = GHCB()
        ghcb[.exitCode] = code.rawValue
        ghcb[.exitInfo1] = info1
        ghcb[.exitInfo2] = info2
        fill(&ghcb)
        return vmgexit(ghcb)
    }

    func vmgexit(_ ghcb: GHCB) -> RunStep {
        page.write(ghcb.bytes, at: Int(Self.ghcbGPA))
        return vcpu.performVMGEXIT(ghcbMSR: Self.ghcbGPA)
    }

    /// The GHCB as the guest finds it.
    var ghcb: GHCB { GHCB(bytes: page.copyBytes(at: Int(Self.ghcbGPA), count: 4096))! }

    /// An MSR read through the GHCB; nil when #GP came back.
    func readMSR(_ number: UInt32) -> UInt64? {
        guard event(.msr, { $0[.rcx] = UInt64(number) }) == .resume else { return nil }
        let answer = ghcb
        guard answer[.exitInfo1] == 0, let low = answer[.rax], let high = answer[.rdx] else { return nil }
        return high << 32 | low
    }

    /// An MSR write through the GHCB; false when #GP came back.
    @discardableResult
    func writeMSR(_ number: UInt32, _ value: UInt64) -> Bool {
        let step = event(.msr, info1: 1) {
            $0[.rcx] = UInt64(number)
            $0[.rax] = value & 0xffff_ffff
            $0[.rdx] = value >> 32
        }
        return step == .resume && ghcb[.exitInfo1] == 0
    }

    /// MMIO through the GHCB's shared buffer; nil when it left for the VMM.
    func readMMIO(_ gpa: UInt64, byteCount: UInt64 = 4) -> UInt32? {
        let step = event(.mmioRead, info1: gpa, info2: byteCount) { $0[.scratch] = Self.ghcbGPA + 0x800 }
        return step == .resume ? page.load(at: Int(Self.ghcbGPA) + 0x800, as: UInt32.self) : nil
    }

    func writeMMIO(_ gpa: UInt64, _ value: UInt32) {
        _ = event(.mmioWrite, info1: gpa, info2: 4) {
            $0[.scratch] = Self.ghcbGPA + 0x800
            $0[0x800..<0x804] = value.kernelBytes
        }
    }
}
