// What the secure processor does with memory: it is the third party that the RMP knows, beside hypervisor and guests.
//
// These calls check nothing but addresses: page states and owners are the firmware's business, command by command.

import Crypto
import SEVABI
import Synchronization

/// What a page holds when the firmware hands it to a guest.
package enum SealedContents {
    /// The bytes that are there.
    case asIs
    /// Zeroes; a page that was never written stays untouched.
    case zeroes
    /// These bytes and zeroes behind them.
    case bytes([UInt8])
}

extension SystemMemory {
    /// Changes any entry, immutable or not. The address is memory, page aligned.
    package func firmwareSetEntry(_ spa: SPA, _ entry: RMPEntry) {
        store.withLock { store in
            guard let page = store.index(spa) else { return }
            store.setEntry(page, entry)
        }
    }

    /// Sets every entry to the hypervisor state [SNP 8.2 INIT_RMP].
    package func firmwareResetRMP() {
        store.withLock { $0.resetEntries() }
    }

    /// Reads DRAM. Returns nil when the range is not wholly memory.
    package func firmwareRead(_ spa: SPA, byteCount: Int) -> [UInt8]? { hostSnapshot(spa: spa, byteCount: byteCount) }

    /// Writes DRAM, whoever owns the page. Returns false when the range is not wholly memory.
    package func firmwareWrite(_ spa: SPA, _ bytes: [UInt8]) -> Bool {
        guard contains(spa, bytes.count) else { return false }
        store.withLock { store in
            unsafe bytes.withUnsafeBytes { buffer in
                forEachPiece(spa, buffer.count) { page, range, offset in
                    // SAFETY: offset + range.count is at most the array's length.
                    unsafe store.writeDRAM(store.index(page)!, range, from: buffer.baseAddress! + offset)
                }
            }
        }
        return true
    }

    /// SHA-384 of one page of DRAM, without a copy.
    package func firmwareDigest(_ spa: SPA, _ hasher: SHA2Hasher) -> [48 of UInt8] {
        store.withLock { store in
            guard let page = store.index(spa) else { return .init(repeating: 0) }
            return unsafe store.withDRAM(page) { buffer in
                // SAFETY: the bytes are not changed while the lock is held, and the span does not leave the closure.
                let bytes = unsafe buffer.bindMemory(to: UInt8.self)
                return unsafe hasher.hash384(Span(_unsafeElements: bytes))
            }
        }
    }

    /// Encrypts a page with the key of the entry's ASID and writes its entry: the page is a guest's from here on.
    package func firmwareSeal(_ spa: SPA, _ contents: SealedContents, entry: RMPEntry) {
        store.withLock { store in
            guard let page = store.index(spa) else { return }
            Self.seal(page, contents, key: store.key(asid: entry.asid), in: &store)
            store.setEntry(page, entry)
        }
    }

    /// Encrypts a page of a 2 MiB entry without writing an entry.
    package func firmwareSealContents(_ spa: SPA, _ contents: SealedContents, asid: UInt32) {
        store.withLock { store in
            guard let page = store.index(spa) else { return }
            Self.seal(page, contents, key: store.key(asid: asid), in: &store)
        }
    }

    private static func seal(_ page: Int, _ contents: SealedContents, key: Int, in store: inout PageStore) {
        switch contents {
        case .asIs: store.encryptInPlace(page, key: key)
        case .zeroes: store.zero(page, key: key)
        case .bytes(let bytes): store.replace(page, with: bytes, key: key)
        }
    }

    /// Puts a guest's memory encryption key into its ASID's slot: 32 bytes for AES-128-XTS, 64 for AES-256-XTS.
    /// Returns false when the slot is taken or does not exist.
    package func firmwareInstallKey(asid: UInt32, _ key: [UInt8]) -> Bool {
        store.withLock { $0.installKey(asid: asid, key) }
    }

    /// Empties an ASID's slot: nobody can read what is encrypted with the key any more.
    package func firmwareRemoveKey(asid: UInt32) {
        store.withLock { $0.removeKey(asid: asid) }
    }
}
