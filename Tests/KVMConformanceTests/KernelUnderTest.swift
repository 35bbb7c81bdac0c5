// The kernels of this machine. Every test of this folder takes one of them as `any HostKernel`: one list, each kernel.
//
// SoftwareKVM is always here. LinuxKVM is here where /dev/kvm opens. A kernel that offers VM type 4 also gets the SNP
// list, one that offers types 2 and 3 the SEV list.

import KVMABI
import LinuxKVM
import SoftwareKVM
import Testing

/// A host kernel to test, started afresh for each test.
struct KernelUnderTest: CustomTestStringConvertible, Sendable {
    var name: String
    /// Starts one.
    var start: @Sendable () throws -> any HostKernel

    var testDescription: String { name }

    static let software = KernelUnderTest(name: "SoftwareKVM") { try SoftwareKVM() }
    static let linux = KernelUnderTest(name: "LinuxKVM") { LinuxKVM() }

    /// True if this machine's `/dev/kvm` opens.
    static let linuxIsPresent: Bool = {
        let kernel = LinuxKVM()
        guard let handle = try? kernel.open(.kvm) else { return false }
        kernel.close(handle)
        return true
    }()

    /// Every kernel present.
    static let all: [KernelUnderTest] = linuxIsPresent ? [software, linux] : [software]

    /// The kernels present that offer SNP guests.
    static let withSNP: [KernelUnderTest] = all.filter { $0.offers([.snp]) }

    /// The kernels present that offer SEV and SEV-ES guests.
    static let withSEV: [KernelUnderTest] = all.filter { $0.offers([.sev, .sevES]) }

    private func offers(_ wanted: [VMType]) -> Bool {
        guard let kernel = try? start() else { return false }
        guard let handle = try? kernel.open(.kvm) else { return false }
        defer { kernel.close(handle) }
        let types = (try? kernel.call(handle, .checkExtension, value: UInt64(Capability.vmTypes.rawValue))) ?? 0
        return wanted.allSatisfy { types & (1 << $0.rawValue) != 0 }
    }
}

@Suite struct KernelsPresent {
    @Test(
        .enabled(if: KernelUnderTest.linuxIsPresent, "/dev/kvm does not open here: the list runs on SoftwareKVM alone"))
    func `the list also runs on the real kernel`() {
        #expect(KernelUnderTest.all.contains { $0.name == KernelUnderTest.linux.name })
    }

    @Test func `the software kernel offers SEV, SEV-ES and SNP`() {
        #expect(KernelUnderTest.withSNP.contains { $0.name == KernelUnderTest.software.name })
        #expect(KernelUnderTest.withSEV.contains { $0.name == KernelUnderTest.software.name })
    }
}
