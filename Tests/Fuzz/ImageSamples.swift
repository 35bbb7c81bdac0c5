// Small valid images of every kind, with the places of their fields: what mutation starts from.

/// An image and the fields worth changing.
struct ImageSample {
    var bytes: [UInt8]
    /// Offset and byte count of each field of its headers.
    var fields: [(offset: Int, byteCount: Int)]

    /// `Int(…)` of a constant is in range: samples are a few KiB.
    fileprivate mutating func put<T: FixedWidthInteger>(_ value: T, at offset: Int) {
        for index in 0..<T.bitWidth / 8 { bytes[offset + index] = UInt8(truncatingIfNeeded: value >> (8 * index)) }
        fields.append((offset, T.bitWidth / 8))
    }

    fileprivate mutating func put(_ text: String, at offset: Int) {
        for (index, byte) in text.utf8.enumerated() { bytes[offset + index] = byte }
        fields.append((offset, text.utf8.count))
    }
}

extension ImageSample {
    private init(byteCount: Int) { self.init(bytes: [UInt8](repeating: 0, count: byteCount), fields: []) }

    /// Boot protocol 2.15, one setup sector, 4 KiB of code.
    static let bzImage: ImageSample = {
        var image = ImageSample(byteCount: 0x400 + 4096)
        image.put("MZ", at: 0)
        image.put(UInt8(1), at: 0x1f1)
        image.put(UInt32(4096 / 16), at: 0x1f4)
        image.put(UInt16(0xaa55), at: 0x1fe)
        image.put(UInt8(0xeb), at: 0x200)
        image.put(UInt8(0x6a), at: 0x201)
        image.put("HdrS", at: 0x202)
        image.put(UInt16(0x020f), at: 0x206)
        image.put(UInt8(1), at: 0x211)
        image.put(UInt32(0x100000), at: 0x214)
        image.put(UInt32(0x7fff_ffff), at: 0x22c)
        image.put(UInt32(0x200000), at: 0x230)
        image.put(UInt8(1), at: 0x234)
        image.put(UInt8(21), at: 0x235)
        image.put(UInt16(0x7f), at: 0x236)
        image.put(UInt32(0x7ff), at: 0x238)
        image.put(UInt32(0x200), at: 0x248)
        image.put(UInt32(0x100), at: 0x24c)
        image.put(UInt64(0), at: 0x250)
        image.put(UInt64(0x100_0000), at: 0x258)
        image.put(UInt32(0x10_0000), at: 0x260)
        image.put(UInt32(0), at: 0x264)
        return image
    }()

    /// ELF64 with two segments.
    static let elf: ImageSample = {
        var image = ImageSample(byteCount: 0x2000)
        image.put("\u{7f}ELF", at: 0)
        image.put(UInt8(2), at: 4)
        image.put(UInt8(1), at: 5)
        image.put(UInt8(1), at: 6)
        image.put(UInt16(2), at: 0x10)
        image.put(UInt16(62), at: 0x12)
        image.put(UInt32(1), at: 0x14)
        image.put(UInt64(0x100_0000), at: 0x18)
        image.put(UInt64(64), at: 0x20)
        image.put(UInt64(0), at: 0x28)
        image.put(UInt16(64), at: 0x34)
        image.put(UInt16(56), at: 0x36)
        image.put(UInt16(2), at: 0x38)
        for (index, address) in [UInt64(0x100_0000), 0x120_0000].enumerated() {
            let header = 64 + 56 * index
            image.put(UInt32(1), at: header)
            image.put(UInt32(7), at: header + 4)
            image.put(UInt64(0x1000), at: header + 8)
            image.put(0xffff_ffff_8000_0000 &+ address, at: header + 16)
            image.put(address, at: header + 24)
            image.put(UInt64(0x800), at: header + 32)
            image.put(UInt64(0x3000), at: header + 40)
            image.put(UInt64(0x1000), at: header + 48)
        }
        return image
    }()

    /// A PE with `.linux` (the bzImage above), `.initrd` and `.cmdline`.
    static let unifiedKernelImage: ImageSample = {
        let kernel = bzImage
        let text = Array("console=ttyS0 quiet".utf8)
        let initrd = [UInt8](repeating: 0x30, count: 700)
        let linuxOffset = 0x1000
        var image = ImageSample(byteCount: linuxOffset + kernel.bytes.count + 0x1000)
        image.put("MZ", at: 0)
        image.put(UInt32(0x40), at: 0x3c)
        image.put("PE", at: 0x40)
        image.put(UInt16(0), at: 0x42)
        image.put(UInt16(0x8664), at: 0x44)
        image.put(UInt16(3), at: 0x46)
        image.put(UInt32(0), at: 0x4c)
        image.put(UInt16(240), at: 0x54)
        image.put(UInt16(0x22), at: 0x56)
        image.put(UInt16(0x20b), at: 0x58)
        image.put(UInt32(0x1000), at: 0x58 + 32)
        image.put(UInt32(0x200), at: 0x58 + 36)
        image.put(UInt32(truncatingIfNeeded: image.bytes.count), at: 0x58 + 56)
        image.put(UInt32(0x1000), at: 0x58 + 60)
        image.put(UInt32(16), at: 0x58 + 108)
        let initrdOffset = linuxOffset + kernel.bytes.count
        let sections = [
            (".linux", linuxOffset, kernel.bytes), (".initrd", initrdOffset, initrd),
            (".cmdline", initrdOffset + 0x800, text),
        ]
        for (index, (name, offset, contents)) in sections.enumerated() {
            let header = 0x58 + 240 + 40 * index
            image.put(name, at: header)
            image.put(UInt32(truncatingIfNeeded: contents.count), at: header + 8)
            image.put(UInt32(truncatingIfNeeded: offset), at: header + 12)
            image.put(UInt32(truncatingIfNeeded: contents.count), at: header + 16)
            image.put(UInt32(truncatingIfNeeded: offset), at: header + 20)
            image.put(UInt32(0x4000_0040), at: header + 36)
            image.bytes.replaceSubrange(offset..<offset + contents.count, with: contents)
        }
        image.fields += kernel.fields.map { ($0.offset + linuxOffset, $0.byteCount) }
        return image
    }()

    /// A 64 KiB firmware with a GUIDed table, a reset block, a hashes table and five metadata sections.
    static let firmware: ImageSample = {
        let byteCount = 0x1_0000
        var image = ImageSample(byteCount: byteCount)
        func stored(_ digits: String) -> [UInt8] {
            let plain = stride(from: 0, to: 32, by: 2).map { start in
                UInt8(digits.dropFirst(start).prefix(2), radix: 16) ?? 0
            }
            return [3, 2, 1, 0, 5, 4, 7, 6].map { plain[$0] } + plain[8...]
        }
        var end = byteCount - 32
        var total = 18
        func entry(_ guid: String, _ data: [UInt8]) {
            let length = data.count + 18
            image.bytes.replaceSubrange(end - 16..<end, with: stored(guid))
            image.fields.append((end - 16, 16))
            image.put(UInt16(truncatingIfNeeded: length), at: end - 18)
            image.bytes.replaceSubrange(end - length..<end - 18, with: data)
            for offset in stride(from: end - length, to: end - 18, by: 4) { image.fields.append((offset, 4)) }
            end -= length
            total += length
        }
        func word(_ value: UInt32) -> [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) } }
        let footer = end
        end -= 18
        entry("00f771de1a7e4fcb890e68c77e2fb44e", word(0x80_b004))
        entry("7255371f3a3b4b04927b1da6efa8d454", word(0x81_0c00) + word(0x400))
        entry("dc886566984a4798a75e5585a7bf67cc", word(0x600))
        image.bytes.replaceSubrange(footer - 16..<footer, with: stored("96b582de1fb245f7baeaa366c55a082d"))
        image.put(UInt16(truncatingIfNeeded: total), at: footer - 18)

        let metadata = byteCount - 0x600
        let sections: [(UInt32, UInt32, UInt32)] = [
            (0x80_0000, 0x9000, 1), (0x80_d000, 0x1000, 2), (0x80_e000, 0x1000, 3), (0x81_0000, 0x1000, 0x10),
            (0x82_0000, 0x1000, 4),
        ]
        image.put("ASEV", at: metadata)
        image.put(UInt32(truncatingIfNeeded: 16 + 12 * sections.count), at: metadata + 4)
        image.put(UInt32(1), at: metadata + 8)
        image.put(UInt32(truncatingIfNeeded: sections.count), at: metadata + 12)
        for (index, (address, length, kind)) in sections.enumerated() {
            image.put(address, at: metadata + 16 + 12 * index)
            image.put(length, at: metadata + 20 + 12 * index)
            image.put(kind, at: metadata + 24 + 12 * index)
        }
        return image
    }()

    static let all = [bzImage, elf, unifiedKernelImage, firmware]
}
