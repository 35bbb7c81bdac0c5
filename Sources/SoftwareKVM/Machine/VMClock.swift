// kvmclock: the VM's nanoseconds, and the pages through which a guest reads them [KVM msr.rst].

import ABILayout
import KVMABI
import Synchronization

/// The clock of a VM: nanoseconds since it was made, or since whatever KVM_SET_CLOCK said.
final class VMClock: Sendable {
    /// VM time = host monotonic time + this, wrapping.
    private let offset: Mutex<UInt64>

    init() { offset = Mutex(0 &- HostClock.monotonic) }

    /// VM time at a moment of the host's monotonic clock.
    func time(at monotonic: UInt64) -> UInt64 { monotonic &+ offset.withLock { $0 } }

    /// KVM_GET_CLOCK.
    func read() -> KVMClockData {
        let now = HostClock.monotonic
        var data = KVMClockData()
        data.clock = time(at: now)
        // KVM_CLOCK_TSC_STABLE, REALTIME, HOST_TSC.
        data.flags = 2 | 4 | 8
        data.realtime = HostClock.realtime
        // The host's TSC of this machine counts nanoseconds.
        data.hostTSC = now
        return data
    }

    /// KVM_SET_CLOCK. With REALTIME the time that has passed since then is added.
    func set(_ data: KVMClockData) {
        var clock = data.clock
        if data.flags & 4 != 0 {
            let now = HostClock.realtime
            if now > data.realtime { clock = clock &+ (now - data.realtime) }
        }
        let now = HostClock.monotonic
        offset.withLock { $0 = clock &- now }
    }
}

/// `pvclock_vcpu_time_info`, 32 bytes.
struct VCPUTimeInfo: Equatable {
    var version: UInt32 = 0
    var tscTimestamp: UInt64 = 0
    var systemTime: UInt64 = 0
    var tscToSystemMultiplier: UInt32 = 0
    var tscShift: Int8 = 0
    /// Bit 0 stable across vCPUs, bit 1 the guest was stopped.
    var flags: UInt8 = 0

    static let stable: UInt8 = 1
    static let guestStopped: UInt8 = 2

    var bytes: [UInt8] {
        var bytes: [UInt8] = []
        bytes.appendLittleEndian(version)
        bytes.appendLittleEndian(UInt32(0))
        bytes.appendLittleEndian(tscTimestamp)
        bytes.appendLittleEndian(systemTime)
        bytes.appendLittleEndian(tscToSystemMultiplier)
        bytes.append(UInt8(bitPattern: tscShift))
        bytes.append(flags)
        bytes += [0, 0]
        return bytes
    }

    /// The multiplier and shift with which ns = ((tsc << shift) · multiplier) >> 32, multiplier ≥ 2³¹.
    static func scale(tscKHz: UInt32) -> (multiplier: UInt32, shift: Int8) {
        var shift: Int8 = 0
        var nanoseconds: UInt64 = 1_000_000_000
        var ticks = UInt64(max(1, tscKHz)) * 1000
        while ticks > nanoseconds * 2 {
            ticks >>= 1
            shift -= 1
        }
        while ticks <= nanoseconds || nanoseconds >> 32 != 0 {
            if nanoseconds >> 32 != 0 || ticks >> 31 & 1 != 0 {
                nanoseconds >>= 1
            } else {
                ticks <<= 1
            }
            shift += 1
        }
        // Safe: nanoseconds < ticks < 2³².
        return (UInt32(truncatingIfNeeded: (nanoseconds << 32) / ticks), shift)
    }
}
