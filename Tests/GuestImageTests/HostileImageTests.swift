// Whatever a file holds, parsing and planning end in a value or in one complete error: never in a trap.

import GuestImage
import SEVABI
import TestSupport
import Testing

struct HostileImageTests {
    /// Parses and plans; records an error that a reader could do nothing with.
    @discardableResult
    private func survives(
        _ bytes: [UInt8], technology: GuestTechnology? = .snp, _ what: @autoclosure () -> String
    ) -> Bool {
        do throws(ImageError) {
            let plan = try parseAndPlan(bytes, technology: technology)
            if technology != .snp { expectSoundPlan(plan, memoryByteCount: 64 << 20) }
            return true
        } catch {
            if !isComplete(error) { Issue.record("\(what()): incomplete error \(error)") }
            return false
        }
    }

    @Test(arguments: SyntheticImages.all.map(\.name))
    func truncatedAtEveryLength(_ name: String) throws {
        let bytes = try #require(SyntheticImages.all.first { $0.name == name }).bytes
        #expect(survives(bytes, name))
        // Everything but the very end is needed: only the bzImage's last bytes may be a short 16-byte unit.
        let slack = name == "bzImage" ? 15 : name == "UKI" ? 15 : 0
        for count in 0..<bytes.count {
            let isFine = survives(Array(bytes.prefix(count)), "\(name) cut to \(count) bytes")
            if isFine && count < bytes.count - slack - 1 && name != "ELF" {
                Issue.record("\(name) cut to \(count) of \(bytes.count) bytes was accepted")
            }
        }
    }

    /// Where the header fields of each kind lie.
    private func headerRange(_ name: String, _ bytes: [UInt8]) -> Range<Int> {
        switch name {
        case "bzImage": 0x1f0..<0x26c
        case "ELF": 0..<(64 + 112)
        case "UKI": 0x3c..<(0x40 + 24 + 16 + 200)
        default: (bytes.count - 0x600)..<bytes.count
        }
    }

    @Test(arguments: SyntheticImages.all.map(\.name))
    func everyFieldAtItsExtremes(_ name: String) throws {
        let bytes = try #require(SyntheticImages.all.first { $0.name == name }).bytes
        let range = headerRange(name, bytes)
        // In the firmware image only its metadata and its table are fields.
        let fields = range.filter { name != "firmware" || $0 < bytes.count - 0x5a0 || $0 >= bytes.count - 0x90 }
        for width in [1, 2, 4, 8] {
            let top: UInt64 = width == 8 ? .max : (1 << UInt64(8 * width)) - 1
            for offset in fields where (offset - range.lowerBound) % min(width, 4) == 0 {
                for value in [0, 1, top, top - 1, top >> 1, (top >> 1) + 1] {
                    var changed = bytes
                    changed.set(offset, value, width: width)
                    survives(changed, "\(name) with \(value) in \(width) bytes at \(offset)")
                }
            }
        }
    }

    @Test(arguments: SyntheticImages.all.map(\.name))
    func randomChanges(_ name: String) throws {
        let bytes = try #require(SyntheticImages.all.first { $0.name == name }).bytes
        let range = headerRange(name, bytes)
        var generator = SeededGenerator(seed: 0x51a9)
        for round in 0..<600 {
            var changed = bytes
            for _ in 0...generator.below(4) {
                changed.set(
                    range.lowerBound + generator.below(range.count), generator.edge(), width: 1 << generator.below(4))
            }
            if generator.below(4) == 0 { changed.removeLast(generator.below(changed.count)) }
            survives(changed, "\(name), round \(round)")
            if round % 6 == 0 { survives(changed, technology: .sevES, "\(name) for SEV-ES, round \(round)") }
        }
    }

    @Test func randomBytes() {
        var generator = SeededGenerator(seed: 0xf00d)
        for round in 0..<400 {
            var bytes = generator.bytes(generator.below(3000))
            switch round % 5 {
            case 0: bytes = [0x7f, 0x45, 0x4c, 0x46, 2, 1] + bytes
            case 1: bytes = Array(SyntheticImages.pe([]).prefix(0x46)) + bytes
            case 2 where bytes.count > 0x210: bytes.replaceSubrange(0x202..<0x206, with: Array("HdrS".utf8))
            case 3: bytes += SyntheticImages.firmware().suffix(50)
            default: break
            }
            survives(bytes, "round \(round)")
        }
    }

    @Test func hugeAndContradictoryELF() {
        func category(_ bytes: [UInt8]) -> ImageError.Category? {
            do throws(ImageError) {
                _ = try parseAndPlan(bytes)
                return nil
            } catch { return error.category }
        }
        let code = [UInt8](repeating: 0x90, count: 64)
        #expect(category(SyntheticImages.elf(segments: [(0x100_0000, 0, code, 1 << 51)])) == .unsupported)
        #expect(category(SyntheticImages.elf(segments: [(0x100_0000, 0, code, .max)])) == .malformed)
        #expect(category(SyntheticImages.elf(segments: [(0x100_0000, 0, code, 63)])) == .malformed)
        #expect(category(SyntheticImages.elf(entry: 0x9000, segments: [(0x9000, 0, code, 64)])) == .unsupported)
        #expect(
            category(SyntheticImages.elf(segments: [(0x100_0000, 0, code, 64), (0x100_003f, 0, code, 64)]))
                == .malformed)
        #expect(category(SyntheticImages.elf(entry: 1)) == .malformed)
        #expect(category(SyntheticImages.elf(segments: [])) == .malformed)
        var other = SyntheticImages.elf()
        other.set(0x12, 183, width: 2)
        #expect(category(other) == .unsupported)
    }

    @Test func firmwareRules() {
        func refusal(_ bytes: [UInt8]) -> ImageError? {
            do throws(ImageError) {
                _ = try parseAndPlan(bytes)
                return nil
            } catch { return error }
        }
        #expect(refusal(SyntheticImages.firmware()) == nil)
        let bare = refusal(SyntheticImages.firmware(hasMetadata: false))
        #expect(bare?.category == .unsupported && bare?.likelyCause.contains("without SNP support") == true)
        let bad: [SyntheticImages.Section] = [
            (0x800800, 0x1000, 1), (0x800000, 0, 1), (0x800000, 0x800, 1), (0xffff_f000, 0x1000, 1),
            (0xffff_f000, 0xffff_f000, 1), (0x800000, 0x2000, 2), (0x800000, 0x2000, 3), (0x800000, 0x2000, 0x10),
            (0x800000, 0x1000, 5), (0x800000, 0x8000_0000, 1),
        ]
        for section in bad { #expect(refusal(SyntheticImages.firmware(sections: [section])) != nil, "\(section)") }
        #expect(refusal(SyntheticImages.firmware(sections: [(0x800000, 0x2000, 1), (0x801000, 0x1000, 2)])) != nil)
        #expect(refusal(SyntheticImages.firmware(sections: [(0x800000, 0x1000, 3), (0x801000, 0x1000, 3)])) != nil)
        #expect(refusal(SyntheticImages.firmware(sections: [])) != nil)
    }
}
