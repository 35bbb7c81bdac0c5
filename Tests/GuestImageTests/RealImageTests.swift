// Kernels and firmware that others built, where they are installed.

import GuestImage
import SEVABI
import TestSupport
import Testing
import X86Defs

/// Debian's kernels and firmware on this machine.
enum InstalledImages {
    static let kernels: [String] = {
        let built = [BuiltGuest.kernel, BuiltGuest.kernelAMD64].compactMap { $0 }
        let named = [environment("SNPVMM_GUEST_KERNEL")].compactMap { $0 }
        let versions = ["6.1.0-56-cloud-amd64", "6.1.0-56-amd64"].map { "/boot/vmlinuz-" + $0 }
        return (named + built + versions).filter { readFile($0) != nil }
    }()

    static let folder = "/usr/share/OVMF/"
    static let firmwareWithMetadata = ["OVMF_CODE.fd", "OVMF_CODE.secboot.fd"].filter { readFile(folder + $0) != nil }
    static let firmwareWithout = ["OVMF_CODE_4M.fd", "OVMF_CODE_4M.secboot.fd"].filter { readFile(folder + $0) != nil }
}

struct RealImageTests {
    @Test(
        .enabled(if: !InstalledImages.kernels.isEmpty, "no Debian kernel: set SNPVMM_GUEST_KERNEL"),
        arguments: InstalledImages.kernels)
    func kernel(_ path: String) throws {
        let bytes = try #require(readFile(path))
        guard case .kernel(.bzImage(let image)) = try GuestImage.identify(bytes) else {
            Issue.record("\(path) is no bzImage")
            return
        }
        #expect(image.protocolVersion == 0x020f && image.isRelocatable && image.preferredAddress == 0x100_0000)
        #expect(image.alignment == 0x20_0000 && image.maximumCommandLineByteCount == 2047)
        #expect(image.windowByteCount >= UInt64(image.protectedMode.count))
        let machine = MachineDescription(memoryByteCount: 512 << 20)
        let plan = try DirectBoot.plan(
            BootPayload(kernel: .bzImage(image), initrd: [1], commandLine: Array("console=ttyS0".utf8)), on: machine)
        expectExactCover(plan, memoryByteCount: 512 << 20)

        // A copy that was cut short anywhere is refused.
        for count in stride(from: 0, to: bytes.count - 0x600, by: bytes.count / 37) {
            #expect(throws: ImageError.self) { try GuestImage.identify(Array(bytes.prefix(count))) }
        }
        let small = #expect(throws: ImageError.self) {
            try DirectBoot.plan(BootPayload(kernel: .bzImage(image)), on: MachineDescription(memoryByteCount: 32 << 20))
        }
        #expect(small?.category == .memoryTooSmall)
    }

    @Test(
        .enabled(if: !InstalledImages.firmwareWithMetadata.isEmpty, "Debian's package ovmf is not installed"),
        arguments: InstalledImages.firmwareWithMetadata)
    func firmware(_ name: String) throws {
        let image = try FirmwareImage(try #require(readFile(InstalledImages.folder + name)))
        #expect(image.applicationProcessorEntry == 0x0080_b004)
        #expect(image.hashesTable == nil)
        #expect(
            image.sections == [
                .init(gpa: 0x800000, byteCount: 0x9000, type: .memory),
                .init(gpa: 0x80a000, byteCount: 0x3000, type: .memory),
                .init(gpa: 0x80d000, byteCount: 0x1000, type: .secrets),
                .init(gpa: 0x80e000, byteCount: 0x1000, type: .cpuid),
                .init(gpa: 0x80f000, byteCount: 0x11000, type: .memory),
            ])
        let error = #expect(throws: ImageError.self) {
            try FirmwareLaunch.plan(
                image, kernel: HashedKernel(kernel: [1]), on: MachineDescription(memoryByteCount: 64 << 20))
        }
        #expect(error?.category == .unsupported)
    }

    @Test(
        .enabled(if: !InstalledImages.firmwareWithout.isEmpty, "Debian's package ovmf is not installed"),
        arguments: InstalledImages.firmwareWithout)
    func firmwareWithoutMetadata(_ name: String) throws {
        let bytes = try #require(readFile(InstalledImages.folder + name))
        let error = #expect(throws: ImageError.self) { try parseAndPlan(bytes) }
        #expect(error?.category == .unsupported)
        #expect(error?.likelyCause.contains("without SNP support") == true)
        // SEV and SEV-ES need no metadata.
        for technology in [GuestTechnology.sev, .sevES] {
            let plan = try parseAndPlan(bytes, technology: technology)
            #expect(plan.regions.map(\.label) == ["firmware"] && plan.regions[0].contents == bytes)
        }
    }
}
