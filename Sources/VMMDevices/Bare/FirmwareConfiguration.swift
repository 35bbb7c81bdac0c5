// The configuration interface that PC firmware and test images read: a selector at 0x510, bytes at 0x511.

import Synchronization

/// Items by number, and named files through a directory.
public final class FirmwareConfiguration: BusDevice {
    private struct State {
        var item: UInt16 = 0
        var offset = 0
    }
    private let items: [UInt16: [UInt8]]
    private let state = Mutex(State())
    public static let port: UInt64 = 0x510, portCount: UInt64 = 2
    private static let firstFile: UInt16 = 0x20

    /// - Parameter files: Names of at most 55 characters.
    public init(memoryByteCount: UInt64, processorCount: Int, files: [(name: String, contents: [UInt8])] = []) {
        func bytes(_ value: UInt64, _ count: Int) -> [UInt8] {
            (0..<count).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * $0)) }
        }
        let count = bytes(UInt64(processorCount), 2)
        var items: [UInt16: [UInt8]] = [
            0: Array("QEMU".utf8),  // The signature that drivers of this interface compare.
            1: bytes(1, 4),  // The traditional interface, without DMA.
            3: bytes(memoryByteCount, 8), 5: count, 0xf: count,
        ]
        var directory = bytes(UInt64(files.count), 4).reversed() + [UInt8]()
        for (n, file) in files.enumerated() {
            let selector = Self.firstFile + UInt16(truncatingIfNeeded: n)
            items[selector] = file.contents
            directory +=
                bytes(UInt64(file.contents.count), 4).reversed() + bytes(UInt64(selector), 2).reversed() + [0, 0]
            directory += Array(file.name.utf8.prefix(55))
            directory += [UInt8](repeating: 0, count: 56 - min(55, file.name.utf8.count))
        }
        items[0x19] = directory
        self.items = items
    }

    public func read(offset: UInt64, byteCount: Int) -> UInt64 {
        guard offset == 1 else { return 0 }
        return state.withLock { state in
            defer { state.offset &+= 1 }
            guard let item = items[state.item], state.offset < item.count else { return 0 }
            return UInt64(item[state.offset])
        }
    }

    public func write(offset: UInt64, byteCount: Int, value: UInt64) {
        guard offset == 0, byteCount == 2 else { return }
        state.withLock { $0 = State(item: UInt16(truncatingIfNeeded: value), offset: 0) }
    }
}
