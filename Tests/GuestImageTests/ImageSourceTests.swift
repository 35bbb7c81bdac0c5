// Images that are read piece by piece are what they are in memory, and a file that changes meanwhile traps nothing.

import GuestImage
import Synchronization
import Testing

@Suite struct ImageSourceTests {
    /// A file whose reads are counted; it may be cut off after it was opened.
    private final class File: Sendable {
        let bytes: [UInt8]
        let readableByteCount: Int
        let readByteCount = Mutex(0)

        init(_ bytes: [UInt8], readableByteCount: Int? = nil) {
            self.bytes = bytes
            self.readableByteCount = readableByteCount ?? bytes.count
        }

        var source: ImageSource {
            ImageSource(byteCount: UInt64(bytes.count)) { [self] offset, byteCount, paddedByteCount in
                let start = min(Int(offset), readableByteCount)
                let part = bytes[start..<max(start, min(Int(offset) + byteCount, readableByteCount))]
                readByteCount.withLock { $0 += part.count }
                return Array(part) + [UInt8](repeating: 0, count: max(byteCount, paddedByteCount) - part.count)
            }
        }
    }

    private static let kernel = SyntheticImages.bzImage()
    private static let images: [[UInt8]] = [
        kernel, SyntheticImages.elf(), SyntheticImages.uki(), SyntheticImages.firmware(),
    ]

    @Test(arguments: images.indices) func anImageIsTheSamePieceByPiece(_ index: Int) throws {
        let bytes = Self.images[index]
        let (whole, pieces) = (try GuestImage.identify(bytes), try GuestImage.identify(File(bytes).source))
        #expect("\(whole)" == "\(pieces)")
        #expect(whole.formName == pieces.formName)
    }

    /// Every length it may have when it is opened gives the same refusal or the same image.
    @Test(arguments: images.indices) func aShortImageIsRefusedInTheSameWay(_ index: Int) {
        let bytes = Self.images[index]
        for count in Array(0..<min(0x300, bytes.count)) + Array(stride(from: 0x300, to: bytes.count, by: 509)) {
            let short = Array(bytes.prefix(count))
            let inMemory = Result { try GuestImage.identify(short) }
            let inPieces = Result { try GuestImage.identify(File(short).source) }
            #expect("\(inMemory)" == "\(inPieces)")
        }
    }

    /// A file that becomes shorter while it is read is refused, or has zeroes there.
    @Test(arguments: images.indices) func aFileThatShrinksTrapsNothing(_ index: Int) {
        let bytes = Self.images[index]
        for count in stride(from: 0, to: bytes.count, by: 251) {
            _ = try? GuestImage.identify(File(bytes, readableByteCount: count).source)
        }
    }

    /// A kernel behind its setup part is read once, and the headers' few bytes besides.
    @Test func aKernelIsReadOnce() throws {
        let big = SyntheticImages.bzImage() + [UInt8](repeating: 0x90, count: 1 << 20)
        let file = File(big)
        _ = try LinuxKernel(file.source)
        let image = try BzImage(big)
        #expect(file.readByteCount.withLock { $0 } <= image.protectedMode.count + 3 << 16)
    }
}
