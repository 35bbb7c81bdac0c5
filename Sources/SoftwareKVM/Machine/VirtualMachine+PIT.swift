// KVM_GET_PIT2 and KVM_SET_PIT2: the timer in the layout of `kvm_pit_state2`, three channels of 24 bytes and flags.

import ABILayout
import KVMABI

extension VirtualMachine {
    private static let stateByteCount = 112

    func getPIT(_ argument: IoctlArgument) throws(Errno) -> Int32 {
        let pit = try interrupts.withLock { (controller) throws(Errno) -> PIT in
            guard let pit = controller.pit else { throw .ENXIO }
            return pit
        }
        var bytes: [UInt8] = []
        for index in 0..<3 { bytes += pit.counters[index].stateBytes }
        bytes += [UInt8](repeating: 0, count: Self.stateByteCount - bytes.count)
        for (index, byte) in bytes.enumerated() { try argument.store(byte, at: index) }
        return 0
    }

    func setPIT(_ argument: IoctlArgument) throws(Errno) -> Int32 {
        var bytes: [UInt8] = []
        for index in 0..<Self.stateByteCount { bytes.append(try argument.load(at: index)) }
        let now = HostClock.monotonic
        try interrupts.withLock { (controller) throws(Errno) in
            if controller.pit == nil { throw .ENXIO }
            for index in 0..<3 {
                controller.pit?.load(channel: index, Array(bytes[24 * index..<24 * index + 24]), now: now)
            }
        }
        return 0
    }
}

extension PIT.Counter {
    /// `kvm_pit_channel_state`.
    fileprivate var stateBytes: [UInt8] {
        var bytes: [UInt8] = []
        bytes.appendLittleEndian(reload)
        bytes.appendLittleEndian(latch ?? 0)
        bytes += [
            latch != nil ? access : 0, status != nil ? 1 : 0, status ?? 0, readsHigh ? 4 : access,
            writesHigh ? 4 : access,
            lowByte, access, mode, isBCD ? 1 : 0, gate ? 1 : 0,
        ]
        bytes.appendLittleEndian(loadedAt)
        return bytes
    }
}

extension PIT {
    /// A channel from its bytes; it counts from now on, as after KVM_SET_PIT2.
    fileprivate mutating func load(channel index: Int, _ bytes: [UInt8], now: UInt64) {
        var counter = Counter()
        let reload: UInt32 = bytes.littleEndian(at: 0) ?? 0
        counter.latch = bytes[6] != 0 ? bytes.littleEndian(at: 4) : nil
        counter.status = bytes[7] != 0 ? bytes[8] : nil
        counter.readsHigh = bytes[9] == 4
        counter.writesHigh = bytes[10] == 4
        counter.lowByte = bytes[11]
        counter.access = bytes[12] & 3
        counter.mode = bytes[13]
        counter.isBCD = bytes[14] != 0
        counter.gate = bytes[15] != 0
        counters[index] = counter
        start(index, reload, now: now)
    }
}
