// The virtio devices of a machine: their slots on the MMIO bus, their interrupts, and their view of guest memory.

import GuestImage
import KVMABI
import VMMDevices

extension Machine {
    /// Virtio devices that a machine can have.
    public static var maximumDeviceCount: Int { GuestAddressMap.virtioSlotCount }

    /// Puts the devices behind the slots from the first on; the other slots stay empty.
    static func attach(
        _ devices: [any VirtioDevice], to mmio: inout Bus, memory: GuestMemory, kernel: any HostKernel, vm: KernelHandle
    ) -> [VirtioMMIO] {
        let view = DeviceMemory(memory)
        var transports: [VirtioMMIO] = []
        for index in 0..<GuestAddressMap.virtioSlotCount {
            let base = GuestAddressMap.virtioSlots + UInt64(index) * GuestAddressMap.virtioSlotStride
            let slot: any BusDevice
            if index < devices.count {
                let line = GuestAddressMap.virtioInterrupt + UInt32(index)
                let transport = VirtioMMIO(devices[index], memory: view) { level in
                    // A refusal would be a VM that is gone: the run loop sees that on its own.
                    _ = try? kernel.call(vm, .irqLine, reading: KVMIRQLevel(irq: line, level: level ? 1 : 0))
                }
                transports.append(transport)
                slot = transport
            } else {
                slot = EmptyVirtioSlot()
            }
            mmio.attach(slot, base: base, byteCount: GuestAddressMap.virtioSlotByteCount)
        }
        mmio.attach(
            PresenceRegister((1 << UInt64(transports.count)) - 1), base: GuestAddressMap.virtioPresence, byteCount: 1)
        return transports
    }

    /// What `_STA` of the slots reads.
    private final class PresenceRegister: BusDevice {
        let bits: UInt64
        init(_ bits: UInt64) { self.bits = bits }
        func read(offset: UInt64, byteCount: Int) -> UInt64 { bits }
        func write(offset: UInt64, byteCount: Int, value: UInt64) {}
    }
}

/// Guest memory as devices may touch it: the pages of an SNP guest that are shared now, a plain guest's all.
///
/// Of a SEV or SEV-ES guest it is all as well: which pages that guest encrypts is its secret. What a device reads of
/// those is ciphertext, and what it writes there is garbage to the guest.
final class DeviceMemory: SharedGuestMemory {
    private let memory: GuestMemory

    init(_ memory: GuestMemory) { self.memory = memory }

    /// Where the bytes lie.
    private func place(_ gpa: UInt64, _ byteCount: UInt64) -> (mapping: KernelMapping, offset: Int)? {
        guard let slot = memory.slots.first(where: { $0.range.contains(gpa) }),
            byteCount <= slot.range.upperBound - gpa, let offset = Int(exactly: gpa - slot.range.lowerBound),
            // Safe: inside the slot.
            slot.memfd == nil || memory.isShared(gpa..<gpa + byteCount)
        else { return nil }
        return (slot.shared, offset)
    }

    func isShared(at gpa: UInt64, byteCount: UInt64) -> Bool { place(gpa, byteCount) != nil }

    func read(at gpa: UInt64, byteCount: Int) -> [UInt8]? {
        guard let count = UInt64(exactly: byteCount), let place = place(gpa, count) else { return nil }
        return place.mapping.copyBytesIfInside(at: place.offset, count: byteCount)
    }

    func write(_ bytes: ArraySlice<UInt8>, at gpa: UInt64) -> Bool {
        guard let place = place(gpa, UInt64(bytes.count)), place.mapping.contains(place.offset, bytes.count) else {
            return false
        }
        place.mapping.write(bytes, at: place.offset)
        return true
    }

    func loadIndex(at gpa: UInt64) -> UInt16? {
        guard gpa & 1 == 0, let place = place(gpa, 2) else { return nil }
        return place.mapping.loadAtomically(uint16At: place.offset)
    }

    func storeIndex(_ index: UInt16, at gpa: UInt64) -> Bool {
        guard gpa & 1 == 0, let place = place(gpa, 2) else { return false }
        place.mapping.storeAtomically(uint16: index, at: place.offset)
        return true
    }
}
