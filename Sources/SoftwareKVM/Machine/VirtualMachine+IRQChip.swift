// KVM_GET_IRQCHIP and KVM_SET_IRQCHIP: the controllers' state in the layouts of `kvm_pic_state` and `kvm_ioapic_state`.

import ABILayout
import KVMABI

extension VirtualMachine {
    func getIRQChip(_ argument: IoctlArgument) throws(Errno) -> Int32 {
        let chip: UInt32 = try argument.load()
        let bytes: [UInt8]? = try interrupts.withLock { (controller) throws(Errno) -> [UInt8]? in
            if controller.kind != .full { throw .ENXIO }
            switch chip {
            case 0: return controller.pic.master.stateBytes(elcrMask: PIC.masterELCRMask)
            case 1: return controller.pic.slave.stateBytes(elcrMask: PIC.slaveELCRMask)
            case 2: return controller.ioapic.stateBytes
            default: return nil
            }
        }
        guard let bytes else { throw .EINVAL }
        for (index, byte) in bytes.enumerated() { try argument.store(byte, at: 8 + index) }
        return 0
    }

    func setIRQChip(_ argument: IoctlArgument) throws(Errno) -> Int32 {
        let chip: KVMIRQChip = try argument.load()
        let bytes = Array(chip.kernelBytes.dropFirst(8))
        let known: Bool? = withInterrupts { controller in
            if controller.kind != .full { return nil }
            switch chip.chipID {
            case 0: controller.pic.master.load(bytes)
            case 1: controller.pic.slave.load(bytes)
            case 2: controller.ioapic.load(bytes)
            default: return false
            }
            return true
        }
        guard let known else { throw .ENXIO }
        if !known { throw .EINVAL }
        return 0
    }
}

extension PICChip {
    /// `kvm_pic_state`: one byte per field.
    func stateBytes(elcrMask: UInt8) -> [UInt8] {
        [
            lines, request, mask, inService, priorityBase, vectorBase, readsInService ? 1 : 0, poll ? 1 : 0,
            specialMask ? 1 : 0, initState, automaticEOI ? 1 : 0, rotateOnAutomaticEOI ? 1 : 0,
            specialFullyNested ? 1 : 0, needsICW4 ? 1 : 0, elcr, elcrMask,
        ]
    }

    mutating func load(_ bytes: [UInt8]) {
        lines = bytes[0]
        request = bytes[1]
        mask = bytes[2]
        inService = bytes[3]
        priorityBase = bytes[4] & 7
        vectorBase = bytes[5]
        readsInService = bytes[6] != 0
        poll = bytes[7] != 0
        specialMask = bytes[8] != 0
        initState = bytes[9] & 3
        automaticEOI = bytes[10] != 0
        rotateOnAutomaticEOI = bytes[11] != 0
        specialFullyNested = bytes[12] != 0
        needsICW4 = bytes[13] != 0
        elcr = bytes[14]
    }
}

extension IOAPIC {
    /// `kvm_ioapic_state`: base u64, selector u32, id u32, irr u32, pad u32, 24 entries u64.
    var stateBytes: [UInt8] {
        var bytes: [UInt8] = []
        bytes.appendLittleEndian(Self.baseAddress)
        bytes.appendLittleEndian(selector)
        bytes.appendLittleEndian(id)
        bytes.appendLittleEndian(lines)
        bytes.appendLittleEndian(UInt32(0))
        for pin in 0..<Self.pinCount { bytes.appendLittleEndian(redirection[pin]) }
        return bytes
    }

    mutating func load(_ bytes: [UInt8]) {
        selector = (bytes.littleEndian(at: 8) ?? 0) & 0xff
        id = (bytes.littleEndian(at: 12) ?? 0) & 15
        lines = (bytes.littleEndian(at: 16) ?? 0) & 0xff_ffff
        for pin in 0..<Self.pinCount { redirection[pin] = bytes.littleEndian(at: 24 + 8 * pin) ?? 0x10000 }
    }
}
