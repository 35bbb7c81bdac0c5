// The port space and the MMIO space of the machine: who answers at which address.
//
// Two rules come from what guests do. A read that nobody claims gives all ones and a write that nobody claims is
// swallowed: a guest probes legacy ports at every boot and treats a failed access as fatal. An access that lies partly
// outside a device is done byte by byte, as an 8-bit bus would do it.

/// A device's registers, addressed from the start of the range it was attached at.
///
/// Devices are called on the vCPU's thread; the ones that are also fed from elsewhere lock for themselves.
public protocol BusDevice: AnyObject, Sendable {
    /// Reads `byteCount` (1, 2, 4 or 8) bytes, little-endian. `offset + byteCount` is inside the attached range.
    func read(offset: UInt64, byteCount: Int) -> UInt64
    /// Writes the low `byteCount` bytes of `value`.
    func write(offset: UInt64, byteCount: Int, value: UInt64)
}

/// One address space: ports or MMIO.
public struct Bus: Sendable {
    struct Attachment: Sendable {
        let base: UInt64
        let byteCount: UInt64
        let device: any BusDevice
        var end: UInt64 { base + byteCount }  // Safe: checked in attach.
    }

    /// Sorted by base, without overlaps.
    private var attachments: [Attachment] = []

    public init() {}

    /// Gives a range of addresses to a device.
    ///
    /// An empty, wrapping or overlapping range is a programmer error: the address map is fixed at build time.
    public mutating func attach(_ device: any BusDevice, base: UInt64, byteCount: UInt64) {
        let (end, overflow) = base.addingReportingOverflow(byteCount)
        precondition(byteCount > 0 && !overflow, "empty or wrapping range")
        let index = attachments.firstIndex { $0.base > base } ?? attachments.count
        if index > 0 { precondition(attachments[index - 1].end <= base, "the range is taken") }
        if index < attachments.count { precondition(end <= attachments[index].base, "the range is taken") }
        attachments.insert(Attachment(base: base, byteCount: byteCount, device: device), at: index)
    }

    /// True when no device answers anywhere in the range.
    public func isFree(_ base: UInt64, byteCount: UInt64) -> Bool {
        let (end, overflow) = base.addingReportingOverflow(byteCount)
        return !overflow && !attachments.contains { $0.base < end && base < $0.end }
    }

    /// Reads `byteCount` bytes (1 to 8), little-endian. Bytes that nobody claims are 0xFF.
    public func read(_ address: UInt64, byteCount: Int) -> UInt64 {
        precondition((1...8).contains(byteCount))
        if byteCount.nonzeroBitCount == 1, let hit = attachment(at: address), contains(hit, address, byteCount) {
            return hit.device.read(offset: address - hit.base, byteCount: byteCount) & Self.mask(byteCount)
        }
        var value: UInt64 = 0
        for i in 0..<byteCount {
            let byteAddress = address &+ UInt64(i)
            var byte: UInt64 = 0xff
            if let hit = attachment(at: byteAddress) {
                byte = hit.device.read(offset: byteAddress - hit.base, byteCount: 1) & 0xff
            }
            value |= byte << UInt64(8 * i)
        }
        return value
    }

    /// Writes the low `byteCount` bytes (1 to 8) of `value`. Bytes that nobody claims are dropped.
    public func write(_ address: UInt64, byteCount: Int, value: UInt64) {
        precondition((1...8).contains(byteCount))
        if byteCount.nonzeroBitCount == 1, let hit = attachment(at: address), contains(hit, address, byteCount) {
            hit.device.write(offset: address - hit.base, byteCount: byteCount, value: value & Self.mask(byteCount))
            return
        }
        for i in 0..<byteCount {
            let byteAddress = address &+ UInt64(i)
            if let hit = attachment(at: byteAddress) {
                hit.device.write(offset: byteAddress - hit.base, byteCount: 1, value: value >> UInt64(8 * i) & 0xff)
            }
        }
    }

    private func attachment(at address: UInt64) -> Attachment? {
        var low = 0
        var high = attachments.count
        while low < high {
            let middle = (low + high) / 2
            if attachments[middle].base <= address { low = middle + 1 } else { high = middle }
        }
        guard low > 0 else { return nil }
        let candidate = attachments[low - 1]
        return address < candidate.end ? candidate : nil
    }

    private func contains(_ hit: Attachment, _ address: UInt64, _ byteCount: Int) -> Bool {
        UInt64(byteCount) <= hit.end - address  // Safe: the address is inside, so the difference is positive.
    }

    private static func mask(_ byteCount: Int) -> UInt64 {
        byteCount == 8 ? .max : (1 << UInt64(8 * byteCount)) - 1
    }
}
