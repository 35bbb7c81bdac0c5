// Memory of the kernel that the firmware reads or writes: whole pages one after the other, as kmalloc gives them.
//
// What the firmware writes must be firmware pages in the RMP for the time of the command, and is reclaimed afterwards:
// a firmware that could be aimed at any page would undo SNP [SNP 5.3.7].

import KVMABI
import MemoryController
import SEVABI

final class FirmwareBuffer {
    let address: SPA
    let byteCount: Int
    private let driver: SecureProcessorDriver
    /// Pages that are still the firmware's.
    private var firmwarePageCount = 0

    /// SEV_FW_BLOB_MAX_SIZE: what a caller may hand over or ask for at once.
    static let blobLimit: UInt32 = 16 << 10

    private var pageCount: Int { max(1, (byteCount + 4095) >> 12) }

    private init(_ driver: SecureProcessorDriver, byteCount: Int) throws(EncryptFailure) {
        self.driver = driver
        self.byteCount = byteCount
        guard let pages = driver.memory.allocatePages(max(1, (byteCount + 4095) >> 12)) else {
            throw EncryptFailure(.ENOMEM)
        }
        address = pages
    }

    deinit {
        // A page that the firmware keeps is leaked, as the kernel does.
        if giveBack() { _ = driver.memory.freePages(address, pageCount) }
    }

    /// Bytes for the firmware to read.
    static func input(_ bytes: [UInt8], _ driver: SecureProcessorDriver) throws(EncryptFailure) -> FirmwareBuffer {
        let buffer = try FirmwareBuffer(driver, byteCount: bytes.count)
        do { try driver.memory.hostWrite(buffer.address, bytes) } catch { throw EncryptFailure(.EFAULT) }
        return buffer
    }

    /// Zeroes for the firmware to write to.
    static func output(byteCount: Int, _ driver: SecureProcessorDriver) throws(EncryptFailure) -> FirmwareBuffer {
        let buffer = try FirmwareBuffer(driver, byteCount: byteCount)
        guard driver.isSNPInitialized else { return buffer }
        for page in 0..<buffer.pageCount {
            guard driver.memory.rmpUpdate(buffer.page(page), .firmware) == .success else {
                throw EncryptFailure(.EFAULT)
            }
            buffer.firmwarePageCount = page + 1
        }
        return buffer
    }

    private func page(_ index: Int) -> SPA { address + UInt64(index) << 12 }

    /// Takes firmware pages back: SNP_PAGE_RECLAIM, RMPUPDATE.
    private func giveBack() -> Bool {
        while firmwarePageCount > 0 {
            guard driver.takeBack(page(firmwarePageCount - 1)) else { return false }
            firmwarePageCount -= 1
        }
        return true
    }

    /// What is in the buffer after the command.
    func contents() throws(EncryptFailure) -> [UInt8] {
        guard giveBack(), let bytes = driver.memory.hostSnapshot(spa: address, byteCount: byteCount) else {
            throw EncryptFailure(.EFAULT)
        }
        return bytes
    }
}

extension SoftwareKVM {
    /// `psp_copy_user_blob`: what a caller hands to the firmware, in kernel memory.
    func firmwareBlob(_ address: UInt64, byteCount: UInt32) throws(EncryptFailure) -> FirmwareBuffer {
        if address == 0 || byteCount == 0 || byteCount > FirmwareBuffer.blobLimit { throw EncryptFailure(.EINVAL) }
        let bytes: [UInt8]
        do { bytes = try user.read(address, byteCount: Int(byteCount)) } catch { throw EncryptFailure(error) }
        return try FirmwareBuffer.input(bytes, secureProcessor)
    }

    /// copy_to_user.
    func copyOut(_ bytes: [UInt8], to address: UInt64) throws(EncryptFailure) {
        do { try user.write(bytes, to: address) } catch { throw EncryptFailure(error) }
    }
}
