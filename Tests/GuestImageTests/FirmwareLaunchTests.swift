// Plans for firmware images: order, types and refusals.

import GuestImage
import SEVABI
import TestSupport
import Testing
import X86Defs

struct FirmwareLaunchTests {
    private let machine = MachineDescription(memoryByteCount: 64 << 20)

    @Test func fieldsOfAnImage() throws {
        let image = try FirmwareImage(SyntheticImages.firmware())
        #expect(image.loadAddress == 0xffff_e000)
        #expect(image.applicationProcessorEntry == 0x0081_f0e4)
        #expect(image.hashesTable?.gpa == 0x80b400 && image.hashesTable?.byteCount == 0x400)
        #expect(image.sections.map(\.type.rawValue) == [1, 0x10, 2, 3, 1, 4])
        #expect(try FirmwareImage(SyntheticImages.firmware(hashesTable: (0, 0))).hashesTable == nil)
        #expect(
            try FirmwareImage(SyntheticImages.firmware(applicationProcessorEntry: nil)).applicationProcessorEntry == nil
        )
    }

    @Test func qemuOrder() throws {
        let plan = try FirmwareLaunch.plan(FirmwareImage(SyntheticImages.firmware()), on: machine)
        #expect(plan.regions.map(\.gpa) == [0xffff_e000, 0x800000, 0x80b000, 0x80d000, 0x80e000, 0x80f000, 0x812000])
        #expect(plan.regions.map(\.pageType) == [.normal, .zero, .zero, .secrets, .cpuid, .zero, .zero])
        #expect(plan.regions[0].contents == SyntheticImages.firmware())
        let state = plan.processors[0]
        #expect(state.cs.base == 0xffff_0000 && state.rip == 0xfff0 && state.cs.attributes == 0x9b)
        #expect(state.generalRegisters[2] == 0x800f12)
    }

    @Test func otherProfiles() throws {
        let image = try FirmwareImage(SyntheticImages.firmware())
        let ec2 = try FirmwareLaunch.plan(image, profile: .ec2, on: machine)
        #expect(ec2.regions.map(\.pageType) == [.normal, .zero, .zero, .secrets, .zero, .zero, .cpuid])
        #expect(ec2.processors[0].cs.attributes == 0x9a && ec2.processors[0].ss.attributes == 0x92)
        #expect(ec2.processors[0].mxcsr == 0 && ec2.processors[0].generalRegisters[2] == 0x600)
        let gce = try FirmwareLaunch.plan(image, profile: .gce, on: machine)
        #expect(gce.regions.map(\.pageType) == [.normal, .unmeasured, .zero, .secrets, .cpuid, .unmeasured, .zero])
        #expect(gce.regions[1].contents == [UInt8](repeating: 0, count: 0x9000))
        #expect(gce.processors[0].pat == 0x70106)
    }

    @Test func kernelHashes() throws {
        let image = try FirmwareImage(SyntheticImages.firmware())
        let kernel = HashedKernel(kernel: [1, 2, 3])
        let plan = try FirmwareLaunch.plan(image, kernel: kernel, on: machine)
        let page = plan.regions[2]
        #expect(page.pageType == .normal && page.contents.count == 4096)
        #expect(Array(page.contents[0x400..<0x4b0]) == KernelHashesTable(of: kernel).bytes)
        #expect(page.contents[..<0x400].allSatisfy { $0 == 0 } && page.contents[0x4b0...].allSatisfy { $0 == 0 })
        // SHA-256 of one zero byte: the absent command line; of nothing: the absent initrd.
        let table = KernelHashesTable(of: kernel).bytes
        #expect(Array(table[0x24..<0x44]).hex == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d")
        #expect(Array(table[0x56..<0x76]).hex == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    }

    @Test func kernelIsRefusedWithoutAPlaceForItsHashes() throws {
        let kernel = HashedKernel(kernel: [1])
        let bad = [
            SyntheticImages.firmware(hashesTable: (0, 0)), SyntheticImages.firmware(hashesTable: nil),
            SyntheticImages.firmware(sections: [(0x80d000, 0x1000, 2)]),
            SyntheticImages.firmware(hashesTable: (0x80bf80, 0x400)),
            SyntheticImages.firmware(hashesTable: (0x80afff, 0x400)),
            SyntheticImages.firmware(hashesTable: (0x80b400, 175)),
            SyntheticImages.firmware(hashesTable: (0xffff_ffff, 0x400)),
        ]
        for bytes in bad {
            let image = try FirmwareImage(bytes)
            let error = #expect(throws: ImageError.self) {
                try FirmwareLaunch.plan(image, kernel: kernel, on: machine)
            }
            #expect(error?.category == .unsupported)
        }
    }

    @Test func moreProcessorsNeedAResetBlock() throws {
        let two = MachineDescription(memoryByteCount: 64 << 20, processorCount: 2)
        let plan = try FirmwareLaunch.plan(FirmwareImage(SyntheticImages.firmware()), on: two)
        #expect(plan.processors[1].cs.base == 0x0081_0000 && plan.processors[1].rip == 0xf0e4)
        let bare = try FirmwareImage(SyntheticImages.firmware(applicationProcessorEntry: nil))
        #expect(throws: ImageError.self) { try FirmwareLaunch.plan(bare, on: two) }
        _ = try FirmwareLaunch.plan(bare, on: machine)
    }

    @Test func memoryMustReachTheSections() throws {
        let image = try FirmwareImage(SyntheticImages.firmware())
        let error = #expect(throws: ImageError.self) {
            try FirmwareLaunch.plan(image, on: MachineDescription(memoryByteCount: 0x812000))
        }
        #expect(error?.category == .memoryTooSmall)
        _ = try FirmwareLaunch.plan(image, on: MachineDescription(memoryByteCount: 0x813000))
    }

    @Test func plainMachine() throws {
        let plain = MachineDescription(memoryByteCount: 64 << 20, technology: nil)
        let plan = try FirmwareLaunch.plan(FirmwareImage(SyntheticImages.firmware()), on: plain)
        #expect(plan.regions.map(\.label) == ["firmware"])
    }

    @Test func processorTypes() {
        #expect(ProcessorSignature(family: 25, model: 17, stepping: 1).rawValue == 0x00a1_0f11)
        #expect(ProcessorSignature(family: 23, model: 49, stepping: 0) == .epycRome)
        #expect(ProcessorSignature(typeName: "epyc-milan-v2") == .epycMilan)
        #expect(ProcessorSignature(typeName: "EPYC-Naples") == nil)
        #expect(ProcessorSignature.epycGenoa.description == "25/17/0 (0xa10f10)")
        for type in ProcessorSignature.types {
            let signature = type.signature
            #expect(
                ProcessorSignature(family: signature.family, model: signature.model, stepping: signature.stepping)
                    == signature)
        }
    }
}
