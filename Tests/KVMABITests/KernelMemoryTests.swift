// The accessors that stand between values and raw memory.

import KVMABI
import Testing

/// A kernel that only looks at what it was given.
private final class EchoKernel: HostKernel {
    func open(_ node: DeviceNode) throws(Errno) -> KernelHandle { throw .ENOENT }

    /// Gives the argument's length, and doubles the first 32-bit word of a structure.
    func ioctl(
        _ handle: KernelHandle, _ request: IoctlRequest, _ argument: IoctlArgument
    ) throws(Errno) -> Int32 {
        switch request {
        case .run: throw .EINTR
        case .createVM, .checkExtension: return Int32(truncatingIfNeeded: argument.number)
        default:
            let word = try argument.load(UInt32.self)
            try argument.store(word &* 2)
            return Int32(argument.byteCount)
        }
    }

    func map(_ handle: KernelHandle, offset: Int64, byteCount: Int) throws(Errno) -> KernelMapping {
        try KernelMapping.anonymous(byteCount: byteCount)
    }

    func punchHole(_ handle: KernelHandle, offset: Int64, byteCount: Int64) throws(Errno) { throw .ENODEV }
    func close(_ handle: KernelHandle) {}
}

@Suite struct KernelMemoryTests {
    private let kernel = EchoKernel()
    private let handle = KernelHandle(rawValue: 3)

    @Test func `calls carry nothing, a number, a structure or bytes`() throws {
        #expect(try kernel.call(handle, .createVM) == 0)
        #expect(try kernel.call(handle, .createVM, value: 4) == 4)
        var state = KVMMPState(state: 5)
        #expect(try kernel.call(handle, .getMPState, &state) == 4)
        #expect(state.state == 10)
        var region = KVMUserspaceMemoryRegion(slot: 1)
        #expect(try kernel.call(handle, .setUserMemoryRegion, &region) == 32)
        #expect(region.slot == 2)
        #expect(try kernel.call(handle, .setUserMemoryRegion, reading: region) == 32)
        #expect(region.slot == 2)
        var bytes = KVMMSRList.encode(reading: [0x10, 0x11])
        #expect(try kernel.call(handle, .getMSRs, bytes: &bytes) == 40)
        #expect(bytes[0] == 4)
    }

    @Test func `refusals come through as they are`() {
        #expect(throws: Errno.EINTR) { try kernel.call(handle, .run) }
        #expect(throws: Errno.ENOENT) { try kernel.open(.kvm) }
        #expect(throws: Errno.EFAULT) { try kernel.call(handle, .getMPState) }
        var none: [UInt8] = []
        #expect(throws: Errno.EFAULT) { try kernel.call(handle, .getMSRs, bytes: &none) }
    }

    @Test func `an argument too short for the structure is EFAULT`() {
        var bytes: [UInt8] = [1, 2, 3]
        #expect(throws: Errno.EFAULT) { try kernel.call(handle, .getMSRs, bytes: &bytes) }
    }

    @Test func `addresses for pointers inside structures`() throws {
        // An empty array has no address worth anything, but asking for it does not trap.
        withKernelAddress(of: []) { (_: UInt64) in }
        var value: UInt64 = 7
        let address = withKernelAddress(of: &value) { (address: UInt64) in address }
        #expect(address != 0)
        #expect(throws: Errno.EBUSY) {
            try withKernelAddress(of: [1, 2, 3]) { (_: UInt64) throws(Errno) -> Void in throw .EBUSY }
        }
        var bytes: [UInt8] = [1, 2]
        #expect(withKernelAddress(ofMutable: &bytes) { (address: UInt64) in address } != 0)
    }

    @Test func `a mapping loads and stores anywhere inside, aligned or not`() throws {
        let mapping = try KernelMapping.anonymous(byteCount: 4096)
        #expect(mapping.byteCount == 4096 && mapping.address % 4096 == 0)
        mapping.store(0x1122_3344_5566_7788 as UInt64, at: 4088)
        #expect(mapping.load(at: 4091, as: UInt16.self) == 0x4455)
        mapping.write([1, 2, 3], at: 1)
        #expect(mapping.copyBytes(at: 0, count: 5) == [0, 1, 2, 3, 0])
        mapping.write([9, 8, 7, 6][1...2], at: 4094)
        #expect(mapping.copyBytes(at: 4094, count: 2) == [8, 7])
        mapping.store(structure: KVMMSREntry(index: 5, data: 6), at: 100)
        #expect(mapping.load(structureAt: 100, as: KVMMSREntry.self) == KVMMSREntry(index: 5, data: 6))
        mapping.fill(0xcc, at: 10, count: 4)
        #expect(mapping.copyBytes(at: 9, count: 6) == [0, 0xcc, 0xcc, 0xcc, 0xcc, 0])
        mapping.write([], at: 4096)
        #expect(mapping.copyBytes(at: 4096, count: 0).isEmpty)
    }

    @Test(arguments: [(0, 4097), (1, 4096), (4096, 1), (-1, 1), (0, -1), (.max, 1), (1, .max), (.min, .min)])
    func `offsets from outside are checked`(_ offset: Int, _ count: Int) throws {
        let mapping = try KernelMapping.anonymous(byteCount: 4096)
        #expect(!mapping.contains(offset, count))
        #expect(mapping.copyBytesIfInside(at: offset, count: count) == nil)
        if count > 0, count < 5000 {
            #expect(!mapping.writeIfInside([UInt8](repeating: 1, count: count), at: offset))
        }
    }

    @Test(arguments: [0, -1])
    func `a mapping of no length is EINVAL`(_ byteCount: Int) {
        #expect(throws: Errno.EINVAL) { try KernelMapping.anonymous(byteCount: byteCount) }
    }

    @Test func `discarded pages are zeroes, and only they`() throws {
        let mapping = try KernelMapping.anonymous(byteCount: 3 * 4096)
        for page in 0..<3 { mapping.store(UInt8(page + 1), at: page * 4096 + 7) }
        try mapping.discard(offset: 4096, byteCount: 4096)
        #expect((0..<3).map { mapping.load(at: $0 * 4096 + 7, as: UInt8.self) } == [1, 0, 3])
        for (offset, byteCount) in [(1, 4096), (0, 100), (0, 4 * 4096), (-4096, 4096), (8192, .max & ~0xfff)] {
            #expect(throws: Errno.EINVAL) { try mapping.discard(offset: offset, byteCount: byteCount) }
        }
    }

    @Test func `a mapping is released with its last reference`() throws {
        final class Flag: Sendable {
            let mapping: KernelMapping
            init() throws(Errno) { mapping = try KernelMapping.anonymous(byteCount: 1) }
        }
        let witness = try Flag()
        do {
            let address = witness.mapping.address
            let other = witness.mapping
            // The release writes into memory that outlives it.
            let view = unsafe KernelMapping(address: address, byteCount: 1) { other.store(1 as UInt8, at: 0) }
            #expect(view.load(at: 0, as: UInt8.self) == 0)
        }
        #expect(witness.mapping.load(at: 0, as: UInt8.self) == 1)
    }

    @Test func `structures turn into bytes and back`() {
        let entry = KVMMSREntry(index: 0x0102_0304, data: 0x0506_0708_090a_0b0c)
        let bytes = entry.kernelBytes
        #expect(bytes == [4, 3, 2, 1, 0, 0, 0, 0, 0x0c, 0x0b, 0x0a, 9, 8, 7, 6, 5])
        #expect(KVMMSREntry(kernelBytes: [0xff] + bytes, at: 1) == entry)
        #expect(KVMMSREntry(kernelBytes: bytes, at: 1) == nil)
        #expect(KVMMSREntry(kernelBytes: bytes, at: -1) == nil)
        #expect(KVMMSREntry(kernelBytes: bytes, at: .max) == nil)
    }
}
