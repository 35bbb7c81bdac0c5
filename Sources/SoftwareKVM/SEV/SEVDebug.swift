// KVM_SEV_DBG_DECRYPT and KVM_SEV_DBG_ENCRYPT: the host looks into a guest whose policy allows it [SEV 7.1, 7.2].
//
// Page by page. The firmware works on blocks of 16 bytes: pieces that are not aligned go through a bounce page, for a
// write with the guest's bytes around them, read first.

import KVMABI
import MemoryController
import SEVABI

extension VirtualMachine {
    func sevDebug(_ command: KVMSEVCommand, decrypts: Bool) throws(EncryptFailure) {
        let sev = try requireSEV()
        let argument = try commandData(KVMSEVDebug.self, command)
        let sourceEnd = argument.sourceAddress.addingReportingOverflow(UInt64(argument.byteCount))
        if argument.byteCount == 0 || sourceEnd.overflow || argument.destinationAddress == 0 {
            throw EncryptFailure(.EINVAL)
        }
        var source = argument.sourceAddress
        var destination = argument.destinationAddress
        while source < sourceEnd.partialValue {
            try requirePinnable(sev, source & ~4095, byteCount: 4096)
            try requirePages(source & ~4095, byteCount: 4096, writing: false)
            try requirePinnable(sev, destination & ~4095, byteCount: 4096)
            try requirePages(destination & ~4095, byteCount: 4096)
            let count = min(
                4096 - (source & 4095), 4096 - (destination & 4095), sourceEnd.partialValue - source)
            if decrypts {
                try debugDecrypt(sev, from: source, to: destination, byteCount: Int(count))
            } else {
                try debugEncrypt(sev, from: source, to: destination, byteCount: Int(count))
            }
            source += count
            destination = destination &+ count
        }
    }

    /// Guest memory at `source` becomes plaintext at `destination`; inside one page each.
    private func debugDecrypt(
        _ sev: SEVGuest, from source: UInt64, to destination: UInt64, byteCount: Int
    ) throws(EncryptFailure) {
        let blocks = try decryptedBlocks(sev, around: source, byteCount: byteCount)
        let offset = Int(source & 15)
        // The destination may be the guest's memory, even this very page.
        kernel.encryptedMemory.flush(destination, byteCount: UInt64(byteCount))
        try kernel.copyOut(Array(blocks[offset..<offset + byteCount]), to: destination)
    }

    /// Plaintext at `source` becomes guest memory at `destination`; inside one page each.
    private func debugEncrypt(
        _ sev: SEVGuest, from source: UInt64, to destination: UInt64, byteCount: Int
    ) throws(EncryptFailure) {
        kernel.encryptedMemory.flush(source, byteCount: UInt64(byteCount))
        var bytes: [UInt8]
        do { bytes = try kernel.user.read(source, byteCount: byteCount) } catch { throw EncryptFailure(error) }
        let offset = Int(destination & 15)
        if offset != 0 || byteCount & 15 != 0 {
            var blocks = try decryptedBlocks(sev, around: destination, byteCount: byteCount)
            blocks.replaceSubrange(offset..<offset + byteCount, with: bytes)
            bytes = blocks
        }
        let bounce = try FirmwareBuffer.input(bytes, kernel.secureProcessor)
        try kernel.encryptedMemory.withPinnedPieces(
            destination & ~15, byteCount: UInt64(bytes.count), of: self, writesBack: true
        ) { (target, count) throws(EncryptFailure) in
            var buffer = SEVDebug(
                handle: sev.handle ?? 0, source: bounce.address, destination: target,
                byteCount: UInt32(truncatingIfNeeded: count)
            ).bytes
            try issue(sev, .debugEncrypt, &buffer)
        }
    }

    /// The plaintext of all blocks of 16 bytes that a range of one page touches.
    private func decryptedBlocks(
        _ sev: SEVGuest, around address: UInt64, byteCount: Int
    ) throws(EncryptFailure) -> [UInt8] {
        let start = address & ~15
        let blockByteCount = (Int(address & 15) + byteCount + 15) & ~15
        let bounce = try FirmwareBuffer.output(byteCount: blockByteCount, kernel.secureProcessor)
        try kernel.encryptedMemory.withPinnedPieces(
            start, byteCount: UInt64(blockByteCount), of: self, writesBack: false
        ) { (page, count) throws(EncryptFailure) in
            var buffer = SEVDebug(
                handle: sev.handle ?? 0, source: page, destination: bounce.address,
                byteCount: UInt32(truncatingIfNeeded: count)
            ).bytes
            try issue(sev, .debugDecrypt, &buffer)
        }
        return try bounce.contents()
    }
}
