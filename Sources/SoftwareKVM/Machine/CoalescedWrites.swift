// KVM_REGISTER_COALESCED_MMIO: writes that the VMM need not hear of one by one. They are kept in a ring on the third page
// of a vCPU's mapping; the real kernel shows one ring to all vCPUs, here it is the first vCPU's, where VMMs look for it.

import KVMABI
import Synchronization

typealias CoalescedZone = KVMCoalescedZone

extension VirtualMachine {
    func coalesce(_ zone: KVMCoalescedZone, registers: Bool) throws(Errno) -> Int32 {
        if zone.isPort > 1 { throw .EINVAL }
        coalescedZones.withLock { zones in
            if registers {
                zones.append(zone)
            } else {
                // Every zone that lies inside.
                zones.removeAll { other in
                    other.isPort == zone.isPort && zone.contains(other.address, Int(other.byteCount))
                }
            }
        }
        return 0
    }

    /// A write that somebody else than the VMM's run loop takes.
    func takesWrite(_ address: UInt64, byteCount: Int, value: UInt64, isPort: Bool) -> Bool {
        events.ring(address, byteCount: byteCount, value: value, isPort: isPort)
            || coalesce(address, byteCount: byteCount, value: value, isPort: isPort)
    }

    /// A guest's write. True: it is in the ring, and the guest goes on.
    func coalesce(_ address: UInt64, byteCount: Int, value: UInt64, isPort: Bool) -> Bool {
        coalescedZones.withLock { zones in
            guard zones.contains(where: { $0.isPort == (isPort ? 1 : 0) && $0.contains(address, byteCount) }),
                let mapping = vcpus.first?.runPage.mapping
            else { return false }
            let ring = 2 * 4096
            let first: UInt32 = mapping.load(at: ring)
            let last: UInt32 = mapping.load(at: ring + 4)
            let entryCount: UInt32 = (4096 - 8) / 24
            // Full, or what the VMM has written there is no place in it.
            guard last < entryCount, (last + 1) % entryCount != first else { return false }
            let entry = ring + 8 + 24 * Int(last)
            mapping.store(address, at: entry)
            mapping.store(UInt32(byteCount), at: entry + 8)
            mapping.store(isPort ? 1 as UInt32 : 0, at: entry + 12)
            mapping.store(value, at: entry + 16)
            mapping.storeAtomically(uint16: UInt16((last + 1) % entryCount), at: ring + 4)
            return true
        }
    }
}

extension KVMCoalescedZone {
    fileprivate func contains(_ address: UInt64, _ byteCount: Int) -> Bool {
        address >= self.address && address &- self.address <= UInt64(self.byteCount)
            && UInt64(byteCount) <= UInt64(self.byteCount) &- (address &- self.address)
    }
}
