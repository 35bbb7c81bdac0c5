// Recognising images by content.

import GuestImage
import TestSupport
import Testing

struct GuestImageTests {
    @Test func knownKinds() throws {
        #expect(try GuestImage.identify(SyntheticImages.bzImage()).formName == "bzImage")
        #expect(try GuestImage.identify(SyntheticImages.elf()).formName == "ELF vmlinux")
        #expect(try GuestImage.identify(SyntheticImages.uki()).formName == "UKI with a bzImage")
        #expect(try GuestImage.identify(SyntheticImages.firmware()).formName == "firmware")
    }

    /// A kernel with an EFI stub begins as a PE file does, and is a kernel all the same.
    @Test func kernelWithStubIsAKernel() throws {
        var kernel = SyntheticImages.bzImage()
        kernel.replaceSubrange(0..<2, with: Array("MZ".utf8))
        kernel.set(0x3c, 0x40, width: 4)
        kernel.replaceSubrange(0x40..<0x44, with: [0x50, 0x45, 0, 0])
        kernel.set(0x44, 0x8664, width: 2)
        #expect(try GuestImage.identify(kernel).formName == "bzImage")
    }

    @Test(arguments: [
        ([UInt8](), "empty"), (Array("070701000000".utf8), "cpio"), ([0x1f, 0x8b, 8, 0], "gzip"),
        ([0x51, 0x46, 0x49, 0xfb], "qcow2"), (Array("#!/bin/sh".utf8), "script"),
        ([UInt8](repeating: 0, count: 4096), "zero bytes"), ([1, 2, 3], "01 02 03"),
        ([UInt8](repeating: 0xee, count: 510) + [0x55, 0xaa], "boot sector"),
    ])
    func unknownFilesAreNamed(_ bytes: [UInt8], _ name: String) {
        let error = #expect(throws: ImageError.self) { try GuestImage.identify(bytes) }
        #expect(error?.category == .unrecognised)
        #expect(error?.description.contains(name) == true)
        #expect(ImageError.exitStatus == 3)
    }

    @Test func efiProgramIsNoUKI() {
        let error = #expect(throws: ImageError.self) {
            try GuestImage.identify(SyntheticImages.pe([(".text", [0xc3]), (".data", [0])]))
        }
        #expect(error?.category == .unsupported)
        #expect(error?.found.contains(".text .data") == true)
    }

    @Test func partsOfAUKI() throws {
        let image = try UnifiedKernelImage(SyntheticImages.uki(commandLine: "a  b \r\n\0\0"))
        #expect(image.commandLine == Array("a  b".utf8))
        #expect(image.initrd == Array("070701".utf8))
        #expect(image.sectionNames == [".osrel", ".cmdline", ".uname", ".initrd", ".linux"])
        let bare = try UnifiedKernelImage(SyntheticImages.pe([(".linux", SyntheticImages.elf())]))
        #expect(bare.commandLine.isEmpty && bare.initrd.isEmpty && bare.kernel.formName == "ELF vmlinux")
    }

    @Test func onlyTheBaseProfileCounts() throws {
        let image = try UnifiedKernelImage(
            SyntheticImages.pe([
                (".linux", SyntheticImages.bzImage()), (".cmdline", Array("base".utf8)), (".profile", [0]),
                (".cmdline", Array("other".utf8)),
            ]))
        #expect(image.commandLine == Array("base".utf8))
        let error = #expect(throws: ImageError.self) {
            try UnifiedKernelImage(
                SyntheticImages.pe([(".linux", SyntheticImages.bzImage()), (".cmdline", [65]), (".cmdline", [66])]))
        }
        #expect(error?.category == .malformed)
    }

    /// VirtualSize beyond the raw bytes would make a loader invent zeroes.
    @Test func sectionLargerThanItsBytes() {
        var image = SyntheticImages.uki()
        // The entry of `.linux`, the last of five.
        image.set(0x40 + 24 + 16 + 4 * 40 + 16, 0x200, width: 4)
        let error = #expect(throws: ImageError.self) { try GuestImage.identify(image) }
        #expect(error?.category == .malformed)
        #expect(error?.field == "section .linux")
    }
}
