// Drivers that do what they like: registers written in any order, rings and descriptors full of noise, requests that were
// half right. The device may stop (DEVICE_NEEDS_RESET), and after a reset it must serve a driver that behaves.

import ABILayout
import TestSupport
import VMMDevices
import VirtioTestSupport

let virtioFuzzers = [
    Fuzzer(
        name: "virtio", summary: "random registers, rings and requests of a disk and an entropy device",
        smokeIterations: 2000, generate: { $0.bytes(16 + $0.below(400)) }, check: checkVirtio)
]

/// A disk of 64 KiB whose backend fails now and then.
private final class NoisyDisk: BlockBackend {
    let byteCount: UInt64 = 1 << 16
    let isReadOnly: Bool
    let failure: BlockError?

    init(isReadOnly: Bool, failure: BlockError?) {
        self.isReadOnly = isReadOnly
        self.failure = failure
    }

    private func act(_ offset: UInt64, _ count: UInt64) throws(BlockError) {
        precondition(offset <= byteCount && count <= byteCount - offset, "the device has checked it")
        if let failure, offset & 0x4000 != 0 { throw failure }
    }
    func read(at offset: UInt64, byteCount: Int) throws(BlockError) -> [UInt8] {
        try act(offset, UInt64(byteCount))
        return [UInt8](repeating: 0x5a, count: byteCount)
    }
    func write(_ bytes: [UInt8], at offset: UInt64) throws(BlockError) { try act(offset, UInt64(bytes.count)) }
    func flush() throws(BlockError) {}
    func discard(at offset: UInt64, byteCount: UInt64) throws(BlockError) { try act(offset, byteCount) }
    func writeZeroes(at offset: UInt64, byteCount: UInt64, mayDeallocate: Bool) throws(BlockError) {
        try act(offset, byteCount)
    }
}

/// Takes an input apart; zeroes follow its end.
private struct Reader {
    var bytes: ArraySlice<UInt8>
    var isEmpty: Bool { bytes.isEmpty }
    mutating func byte() -> UInt8 { bytes.popFirst() ?? 0 }
    mutating func number() -> UInt64 {
        // Mostly small, or near a place that means something.
        let low = UInt64(byte()) | UInt64(byte()) << 8
        return switch byte() & 7 {
        case 0: low
        case 1: low & 0xff
        case 2: 0x1000 + low & 0x3fff
        case 3: 0x2_0000 + low
        case 4: .max - low & 0xff
        case 5: low << 48 | low
        case 6: low << 20
        default: 0
        }
    }
}

@Sendable private func checkVirtio(_ input: [UInt8]) -> Outcome {
    var reader = Reader(bytes: input[...])
    let choice = reader.byte()
    let memory = TestGuestMemory(byteCount: 1 << 18)
    memory.setPrivate(0x3_0000..<0x3_1000)
    let line = TestInterruptLine()
    let isDisk = choice & 1 == 0
    let device: any VirtioDevice =
        isDisk
        ? VirtioBlock(
            NoisyDisk(isReadOnly: choice & 2 != 0, failure: choice & 4 != 0 ? BlockError("no") : nil),
            identifier: "fuzz", perform: { $0() }) : VirtioEntropy()
    let transport = VirtioMMIO(device, memory: memory) { line.set($0) }
    let driver = VirtioDriver(transport, memory: memory)
    let size = device.queueSizes[0]
    _ = driver.negotiate(choice & 8 == 0 ? nil : VirtioFeatures.required)
    driver.start(sizes: [size])

    while !reader.isEmpty { act(&reader, driver, memory, isDisk) }

    let statistics = transport.queues.statistics
    let levels = line.changes
    guard zip(levels, levels.dropFirst()).allSatisfy({ $0 != $1 }), levels.first != false else {
        return .impossible("the interrupt line changed to the level it had")
    }
    guard statistics.faults == 0 || statistics.lastFault != nil else { return .impossible("a fault without a reason") }
    // As a driver that behaves.
    guard driver.negotiate(), !line.isHigh else { return .impossible("a reset device does not negotiate") }
    driver.start(sizes: [size])
    driver.add(isDisk ? [header(0, 0)] : [], writable: isDisk ? [512, 1] : [512])
    driver.kick()
    let used = driver.used()
    guard used.count == 1, used[0].written == (isDisk ? 513 : 512), driver.status == 15 else {
        return .impossible("after a reset: status \(driver.status), \(used.count) answers")
    }
    return statistics.faults > 0
        ? .fine("stopped by a fault") : statistics.requests > 0 ? .fine("served") : .uninteresting("nothing asked")
}

private func header(_ type: UInt32, _ sector: UInt64) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.appendLittleEndian(type)
    bytes.appendLittleEndian(UInt32(0))
    bytes.appendLittleEndian(sector)
    return bytes
}

private func act(_ reader: inout Reader, _ driver: VirtioDriver, _ memory: TestGuestMemory, _ isDisk: Bool) {
    let ring = driver.rings[0]
    switch reader.byte() % 9 {
    case 0:
        // Registers, the status among them: any bit at any time.
        driver.write(UInt64(reader.byte() & 0x7f) << 2, UInt32(truncatingIfNeeded: reader.number()))
    case 1: _ = driver.read(UInt64(reader.byte()))
    case 2:
        let byteCount = 1 << Int(reader.byte() & 3)
        let offset = UInt64(reader.byte()) & ~UInt64(byteCount - 1)
        driver.device.write(offset: 0x100 + offset, byteCount: byteCount, value: reader.number())
        _ = driver.device.read(offset: 0x100 + offset, byteCount: byteCount)
    case 3, 4:
        driver.store(
            VirtioDriver.Descriptor(
                reader.number(), UInt32(truncatingIfNeeded: reader.number()), flags: UInt16(reader.byte() & 7),
                next: UInt16(reader.byte() & 0x9f)),
            at: UInt16(reader.byte() & 15))
    case 5:
        driver.offer(UInt16(reader.byte()) & 0x8f)
        driver.kick(Int(reader.byte() & 1))
    case 6:
        let areas = [ring.driverArea, ring.deviceArea, ring.descriptors, 0x2_0000]
        memory.store(
            UInt16(truncatingIfNeeded: reader.number()),
            at: areas[Int(reader.byte() & 3)] + UInt64(reader.byte()) & ~1)
    case 7:
        // A request of the right form with a field or two that are not.
        let type = UInt32(reader.byte() & 15)
        let data = (0..<Int(reader.byte() & 63)).map { _ in reader.byte() }
        guard driver.nextBuffer < 0x2_f000 else { return }
        driver.add(
            isDisk ? [header(type, reader.number()), data] : [data],
            writable: [Int(reader.byte()) * 4, 1], indirect: reader.byte() & 1 != 0)
        driver.kick()
    default:
        _ = driver.negotiate(reader.byte() & 3 == 0 ? reader.number() << 28 : nil)
        driver.start(sizes: [ring.size])
    }
}
