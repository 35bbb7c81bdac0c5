// IGVM files: what is read from them, what is refused, and what a loader would put into the guest.

import GuestImage
import SEVABI
import TestSupport
import Testing

@Suite struct IGVMTests {
    /// Two platforms, every kind of page, a parameter area, a processor.
    static func sample(version: UInt32 = 1) -> IGVMBuilder {
        var file = IGVMBuilder()
        file.version = version
        file.addPlatform(mask: 1, type: 2)
        file.addPlatform(mask: 2, type: 5)
        file.add(0x101, [(0xb0000, 8), (1, 4), (0, 4)])
        file.add(0x8000_0355, [(7, 3)])
        file.add(0x301, [(0x2000, 8), (4, 4), (0, 4)])
        // 304 bytes of headers before the data in either version: 6 pages of 32, and the rest below.
        let pages: [(UInt64, UInt64, UInt64, UInt64)] = [
            // (gpa, mask, flags, data type)
            (0x10000, 3, 0, 0), (0x11000, 1, 2, 0), (0x12000, 1, 4, 0), (0x13000, 1, 0, 1), (0x14000, 1, 0, 2),
            (0x15000, 1, 0, 3), (0x16000, 2, 1, 9),
        ]
        let before = file.headers.count
        let offset = UInt64(file.headerOffset) + UInt64(before) + 7 * 32 + 32 + 24 + 32
        for (index, page) in pages.enumerated() {
            file.addPage(
                gpa: page.0, mask: page.1, offset: index == 0 ? offset : 0, flags: page.2, dataType: page.3)
        }
        file.addPage(gpa: 0x17000)
        file.add(0x303, [(0x20000, 8), (1, 4), (4, 4)])
        file.add(0x304, [(0xffff_ffff_f000, 8), (1, 4), (offset + 4096, 4), (0, 2), (0, 2)])
        file.data = [UInt8](repeating: 0xa5, count: 4096) + [UInt8](repeating: 0, count: 4096)
        file.data[4096 + 0x3b0] = 0x21
        #expect(file.dataOffset == offset)
        return file
    }

    @Test(arguments: [UInt32(1), 2])
    func directivesInFileOrder(version: UInt32) throws {
        let file = try IGVMFile(Self.sample(version: version).bytes)
        #expect(file.platforms.map(\.type) == [.snp, .sevES])
        let plan = try IGVMLaunch.plan(file, on: MachineDescription(memoryByteCount: 64 << 20))
        #expect(plan.policy == 0xb0000 && plan.guestFeatures == 0x21 && plan.processors.isEmpty)
        #expect(
            plan.regions.map(\.pageType) == [
                .normal, .unmeasured, .secrets, .cpuid, .cpuid, .normal, .unmeasured, .vmsa,
            ])
        #expect(
            plan.regions.map(\.gpa) == [
                0x10000, 0x11000, 0x13000, 0x14000, 0x15000, 0x17000, 0x20000, 0xffff_ffff_f000,
            ])
        #expect(plan.regions[0].contents == [UInt8](repeating: 0xa5, count: 4096))
        #expect(plan.regions[5].contents == [UInt8](repeating: 0, count: 4096))
        #expect(plan.regions[6].byteCount == 0x2000 && plan.regions[7].contents.count == 4096)
        let native = try IGVMLaunch.plan(file, zeroPages: .native, on: MachineDescription(memoryByteCount: 64 << 20))
        #expect(native.regions[5].pageType == .zero && native.regions[5].contents.isEmpty)
    }

    @Test func platformsAreApart() throws {
        let file = try IGVMFile(Self.sample().bytes)
        // The page of another size is for this one.
        let error = #expect(throws: ImageError.self) {
            try IGVMLaunch.plan(file, on: MachineDescription(memoryByteCount: 64 << 20, technology: .sevES))
        }
        #expect(error?.category == .unsupported && error?.found == "flags 0x1, data type 9")
        let missing = #expect(throws: ImageError.self) {
            try IGVMLaunch.plan(file, on: MachineDescription(memoryByteCount: 64 << 20, technology: .sev))
        }
        #expect(missing?.found == "SEV_SNP, SEV_ES")
        var small = IGVMBuilder()
        small.addPlatform(mask: 4, type: 4)
        small.addPage(gpa: 0, mask: 4)
        small.addPage(gpa: 0x1000, mask: 4, flags: 2)
        let plan = try IGVMLaunch.plan(
            IGVMFile(small.bytes), zeroPages: .native,
            on: MachineDescription(memoryByteCount: 64 << 20, technology: .sev))
        #expect(plan.regions.map(\.pageType) == [.normal], "SEV has measured pages alone")
    }

    @Test func whatIsRefused() throws {
        func refusal(_ change: (inout IGVMBuilder) -> Void) -> ImageError? {
            var file = Self.sample()
            change(&file)
            do throws(ImageError) {
                _ = try IGVMLaunch.plan(IGVMFile(file.bytes), on: MachineDescription(memoryByteCount: 64 << 20))
                return nil
            } catch { return error }
        }
        let cases: [(String, (inout IGVMBuilder) -> Void)] = [
            ("format version", { $0.version = 3 }),
            ("header type", { $0.addPlatform(mask: 4, type: 0) }),
            ("header type", { $0.add(0x101, [(0, 8), (1, 4), (0, 4)]) }),
            ("header type", { $0.add(0x355, [(0, 8)]) }), ("header type", { $0.add(0x102, [(1, 4)]) }),
            ("compatibility mask", { $0.addPage(gpa: 0, mask: 4) }),
            ("compatibility mask", { $0.addPage(gpa: 0, mask: 0) }),
            ("GPA", { $0.addPage(gpa: 0x800) }), ("GPA", { $0.addPage(gpa: 1 << 52) }),
            ("page data", { $0.addPage(gpa: 0, offset: 0xffff_0000) }),
            ("page data at GPA", { $0.addPage(gpa: 0, flags: 1) }),
            ("parameter area index", { $0.add(0x303, [(0, 8), (1, 4), (9, 4)]) }),
            ("parameter area index", { $0.add(0x301, [(0x1000, 8), (4, 4), (0, 4)]) }),
            ("parameter area size", { $0.add(0x301, [(0x1001, 8), (5, 4), (0, 4)]) }),
            ("parameter area size", { $0.add(0x301, [(UInt64.max - 0xfff, 8), (5, 4), (0, 4)]) }),
            ("header length", { $0.add(0x302, [(0, 8)]) }),
            ("header length", { $0.headers += [2, 3, 0, 0, 0xff, 0xff, 0xff, 0xff] }),
            ("header length", { $0.headers += [2, 3, 0, 0, 24, 0, 0, 0] }),
        ]
        for (field, change) in cases {
            let error = refusal(change)
            #expect(error?.field?.hasPrefix(field) == true, "\(field): \(String(describing: error))")
            #expect(error.map(isComplete) == true)
        }
        #expect(refusal { _ in } == nil)
        var none = IGVMBuilder()
        none.add(0x8000_0001, [])
        #expect(throws: ImageError.self) { try IGVMFile(none.bytes) }
        // Masks are single bits, each once.
        for masks in [[UInt64(3)], [1, 1], [0]] {
            var file = IGVMBuilder()
            for mask in masks { file.addPlatform(mask: mask, type: 2) }
            let error = #expect(throws: ImageError.self) { try IGVMFile(file.bytes) }
            #expect(error?.field?.hasPrefix("compatibility mask") == true)
        }
    }

    @Test func everyHeaderBitIsChecked() throws {
        let file = Self.sample().bytes
        let headers = 24 + Self.sample().headers.count
        for index in 0..<headers {
            var bytes = file
            bytes[index] ^= 1 << UInt8(index % 8)
            #expect(throws: ImageError.self, "byte \(index)") { try IGVMFile(bytes) }
        }
        for count in stride(from: 0, to: file.count, by: 97) {
            #expect(throws: ImageError.self) { try IGVMFile(Array(file.prefix(count))) }
        }
        #expect(throws: ImageError.self) { try IGVMFile(file + [0]) }
    }

    /// The same page named by many directives is kept once; what is too much is refused.
    @Test func memoryIsBounded() throws {
        var file = IGVMBuilder()
        file.addPlatform(mask: 1, type: 2)
        for _ in 0..<2000 { file.addPage(gpa: 0, offset: 24) }
        file.data = [UInt8](repeating: 1, count: 4096)
        let plan = try IGVMLaunch.plan(IGVMFile(file.bytes), on: MachineDescription(memoryByteCount: 64 << 20))
        #expect(plan.regions.count == 2000)
        #expect(try GuestImage.identify(file.bytes).formName == "IGVM")
    }
}
