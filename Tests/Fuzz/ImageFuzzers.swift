// Whatever bytes a file holds: the parsers refuse them with a whole message or accept them, and a plan made from what
// they accept lies inside the guest's memory, in whole pages, without overlap.

import GuestImage
import SEVABI
import TestSupport
import X86Defs

let imageFuzzers = [
    Fuzzer(
        name: "image-fields", summary: "valid images with header fields at their extremes, cut short or spliced",
        smokeIterations: 20_000, generate: mutatedImage, check: checkImage),
    Fuzzer(
        name: "image-noise", summary: "random bytes behind the signature of some image", smokeIterations: 20_000,
        generate: noiseImage, check: checkImage),
    Fuzzer(
        name: "image-igvm", summary: "IGVM files with changed headers and the checksum that goes with them",
        smokeIterations: 5_000, generate: mutatedIGVM, check: checkImage),
]

private let igvmSample: IGVMBuilder = {
    var file = IGVMBuilder()
    file.addPlatform(mask: 1, type: 2)
    file.addPlatform(mask: 2, type: 5)
    file.add(0x101, [(0x30000, 8), (1, 4), (0, 4)])
    file.add(0x301, [(0x2000, 8), (4, 4), (0, 4)])
    for (index, type) in [UInt64(0), 0, 1, 2, 3].enumerated() {
        file.addPage(gpa: UInt64(index) << 12, mask: 3, offset: index == 0 ? 24 : 0, dataType: type)
    }
    file.add(0x303, [(0x20000, 8), (1, 4), (4, 4)])
    file.add(0x304, [(0xffff_ffff_f000, 8), (1, 4), (24, 4), (0, 2), (0, 2)])
    file.add(0x30b, [(1, 4)] + [(value: UInt64, byteCount: Int)](repeating: (0, 4), count: 173))
    file.data = [UInt8](repeating: 7, count: 4096)
    return file
}()

/// Fields at their extremes, headers doubled or gone, a file cut short; most with a right checksum.
@Sendable private func mutatedIGVM(_ numbers: inout SeededGenerator) -> [UInt8] {
    var file = igvmSample
    for _ in 0...numbers.below(3) {
        let index = numbers.below(file.headers.count / 8) * 8
        switch numbers.below(6) {
        case 0: file.headers.insert(contentsOf: file.headers[index...].prefix(32), at: index)
        case 1: file.headers.removeSubrange(index..<min(file.headers.count, index + 8 * (1 + numbers.below(4))))
        case 2: file.addPage(gpa: numbers.edge(), mask: numbers.edge(), offset: numbers.edge())
        case 3: file.headers[index + numbers.below(8)] = numbers.edge()
        case 4: file.headers[index + numbers.below(8)] ^= 1 << UInt8(numbers.below(8))
        default: file.version = UInt32(1 + numbers.below(2))
        }
        if file.headers.isEmpty { file = igvmSample }
    }
    var bytes = file.bytes
    if numbers.below(8) == 0 { bytes[numbers.below(32)] = numbers.edge() }
    if numbers.below(8) == 0 { bytes.removeLast(numbers.below(bytes.count)) }
    return numbers.below(8) == 0 ? bytes : IGVMBuilder.withChecksum(bytes)
}

/// One to four changes to a valid image.
@Sendable private func mutatedImage(_ numbers: inout SeededGenerator) -> [UInt8] {
    let sample = ImageSample.all[numbers.below(ImageSample.all.count)]
    var bytes = sample.bytes
    for _ in 0...numbers.below(4) {
        switch numbers.below(10) {
        case 0:
            bytes.removeLast(numbers.below(bytes.count))
        case 1:
            bytes += numbers.bytes(numbers.below(600))
        case 2:
            guard !bytes.isEmpty else { continue }
            bytes[numbers.below(bytes.count)] = numbers.edge()
        case 3:
            let other = ImageSample.all[numbers.below(ImageSample.all.count)].bytes
            let start = numbers.below(min(bytes.count, other.count))
            let end = min(bytes.count, other.count, start + numbers.below(0x400))
            if start < end { bytes.replaceSubrange(start..<end, with: other[start..<end]) }
        default:
            let field = sample.fields[numbers.below(sample.fields.count)]
            guard field.offset + field.byteCount <= bytes.count else { continue }
            let value: UInt64 = numbers.edge()
            // Half of the time a small step away from what is there: the edge where valid turns invalid.
            if numbers.below(2) == 0 {
                bytes[field.offset] = bytes[field.offset] &+ (numbers.below(2) == 0 ? 1 : 255)
            } else {
                for index in 0..<min(field.byteCount, 8) {
                    bytes[field.offset + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * index))
                }
            }
        }
    }
    return bytes
}

@Sendable private func noiseImage(_ numbers: inout SeededGenerator) -> [UInt8] {
    var bytes = numbers.bytes(numbers.below(6000))
    let sample = ImageSample.all[numbers.below(ImageSample.all.count)]
    for field in sample.fields where numbers.below(3) == 0 && field.offset + field.byteCount <= bytes.count {
        let range = field.offset..<field.offset + field.byteCount
        bytes.replaceSubrange(range, with: sample.bytes[range])
    }
    return bytes
}

/// Parses, plans and checks the plan.
@Sendable private func checkImage(_ bytes: [UInt8]) -> Outcome {
    do throws(ImageError) {
        let image = try GuestImage.identify(bytes)
        // One technology or none per input, chosen by the input itself: a SEV plan holds a megabyte of zeroes.
        let technologies: [GuestTechnology?] = [.snp, .sevES, .sev, nil]
        let technology = technologies[Int(bytes.reduce(0, &+) & 3)]
        let machine = MachineDescription(memoryByteCount: 64 << 20, technology: technology)
        let plan: LaunchPlan
        switch image {
        case .unifiedKernelImage(let uki): plan = try DirectBoot.plan(BootPayload(uki), on: machine)
        case .kernel(let kernel): plan = try DirectBoot.plan(BootPayload(kernel: kernel), on: machine)
        case .firmware(let firmware):
            plan = try FirmwareLaunch.plan(firmware, kernel: HashedKernel(kernel: [1]), on: machine)
        case .igvm(let file):
            // Its pages lie where it says, and are measured, not launched.
            _ = try IGVMLaunch.plan(file, zeroPages: bytes.count & 1 == 0 ? .measured : .native, on: machine)
            return .fine("planned IGVM")
        }
        if let wrong = fault(in: plan, machine) { return .impossible("\(image.formName): \(wrong)") }
        return .fine("planned \(image.formName)")
    } catch {
        let parts = [error.attempt, error.expected, error.found, error.likelyCause, error.nextStep]
        if parts.contains(where: \.isEmpty) { return .impossible("half a message: \(error)") }
        return error.category == .unrecognised
            ? .uninteresting(error.category.rawValue) : .fine("refused, \(error.category.rawValue)")
    }
}

/// What is wrong with a plan; nil when nothing is.
private func fault(in plan: LaunchPlan, _ machine: MachineDescription) -> String? {
    var pages: [(first: UInt64, end: UInt64, label: String)] = []
    let unit: UInt64 = machine.technology == .sev || machine.technology == .sevES ? 16 : 4096
    for region in plan.regions {
        let (end, overflow) = region.gpa.addingReportingOverflow(region.byteCount)
        guard !overflow else { return "\(region.label) goes round the end of memory" }
        guard region.gpa % unit == 0, region.byteCount % unit == 0, region.byteCount > 0 else {
            return "\(region.label) is not whole units of \(unit)"
        }
        guard region.contents.isEmpty || UInt64(region.contents.count) == region.byteCount else {
            return "\(region.label) has \(region.contents.count) bytes of contents for \(region.byteCount)"
        }
        guard end <= machine.memoryByteCount || region.label == "firmware" && end == 1 << 32 else {
            return "\(region.label) ends beyond memory"
        }
        pages.append((region.gpa, end, region.label))
    }
    pages.sort { $0.first < $1.first }
    for (lower, upper) in zip(pages, pages.dropFirst()) where lower.end > upper.first {
        return "\(lower.label) and \(upper.label) overlap"
    }
    guard plan.processors.count == machine.processorCount else { return "\(plan.processors.count) processors" }
    return nil
}
