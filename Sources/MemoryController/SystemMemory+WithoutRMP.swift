// Pages of SEV and SEV-ES guests: the RMP knows nothing of them, the key of the ASID is all there is.
//
// To the RMP such a page is the hypervisor's. So the host reads ciphertext and may write what it likes, which the guest
// then reads as garbage, or as its own past when the host writes an old ciphertext back. That is what SNP's RMP stops,
// and it is why nothing here checks owners or addresses. Only a VMSA page is better off: the processor keeps an
// integrity value of it that no page of memory holds [APM2 15.35.8].

import SEVABI
import Synchronization

extension SystemMemory {
    // MARK: The processor of a guest

    /// Translates a C=1 access of the processor that runs `asid`, an SEV or SEV-ES guest: called on a TLB miss.
    ///
    /// - Returns: A pointer to the plaintext, writable; for bytes that were not this key's ciphertext that is garbage.
    ///   ``RMPFault/owner`` without a key, or when the RMP gives the page to a guest or to the firmware;
    ///   ``RMPFault/notMemory`` outside memory. The pointer is valid until somebody reads or writes the page as DRAM:
    ///   whoever does so flushes the TLBs.
    public func encryptedPage(_ spa: SPA, asid: UInt32) -> GuestPage {
        store.withLock { store in
            guard let page = store.index(spa) else { return .fault(.notMemory) }
            let key = store.key(asid: asid)
            guard key != 0, !store.entry(page).assigned else { return .fault(.owner) }
            store.decipher(page, key: key)
            store.exposeIntegrity(page)
            store.markWritten(page)
            // SAFETY: the page stays mapped for the life of this object.
            return unsafe .page(store.pointer(page), writable: true)
        }
    }

    /// VMRUN's read of an SEV-ES guest's VMSA.
    ///
    /// - Returns: nil unless the firmware sealed this page for this key (LAUNCH_UPDATE_VMSA) and nobody but the
    ///   processor has changed it since.
    public func loadVMSA(withoutRMP spa: SPA, asid: UInt32) -> VMSA? {
        store.withLock { store in
            guard let page = Self.intactVMSA(spa, asid: asid, in: &store) else { return nil }
            // SAFETY: the save area lies inside the page.
            return unsafe VMSA(bytes: Array(UnsafeRawBufferPointer(start: store.pointer(page), count: VMSA.byteCount)))
        }
    }

    /// #VMEXIT's write of an SEV-ES guest's VMSA. Returns false, and writes nothing, unless
    /// ``loadVMSA(withoutRMP:asid:)`` would succeed.
    public func storeVMSA(withoutRMP spa: SPA, asid: UInt32, _ vmsa: VMSA) -> Bool {
        store.withLock { store in
            guard let page = Self.intactVMSA(spa, asid: asid, in: &store) else { return false }
            // SAFETY: a VMSA has 0x670 bytes, the page 0x1000.
            unsafe vmsa.bytes.withUnsafeBytes { unsafe store.storeVMSA(page, from: $0) }
            return true
        }
    }

    private static func intactVMSA(_ spa: SPA, asid: UInt32, in store: inout PageStore) -> Int? {
        guard spa.isPageAligned, let page = store.index(spa) else { return nil }
        let key = store.key(asid: asid)
        guard key != 0, !store.entry(page).assigned, store.checkIntegrity(page, key: key) else { return nil }
        return page
    }

    // MARK: The firmware

    /// LAUNCH_UPDATE_DATA's effect: what DRAM holds becomes ciphertext of itself under the ASID's key.
    ///
    /// - Returns: False, and nothing changes, unless address and length are multiples of 16, the range is wholly memory
    ///   and the ASID has a key.
    package func firmwareEncrypt(_ spa: SPA, byteCount: Int, asid: UInt32) -> Bool {
        guard contains(spa, byteCount), spa.rawValue & 15 == 0, byteCount & 15 == 0 else { return false }
        return store.withLock { store in
            let key = store.key(asid: asid)
            guard key != 0 else { return false }
            forEachPiece(spa, byteCount) { page, range, _ in
                store.encryptInPlace(store.index(page)!, range, key: key)
            }
            return true
        }
    }

    /// Reads as the guest of an ASID does. Returns nil without a key, or when the range is not wholly memory.
    package func firmwareReadGuest(_ spa: SPA, byteCount: Int, asid: UInt32) -> [UInt8]? {
        guard contains(spa, byteCount) else { return nil }
        return store.withLock { store -> [UInt8]? in
            let key = store.key(asid: asid)
            guard key != 0 else { return nil }
            return unsafe [UInt8](unsafeUninitializedCapacity: byteCount) { buffer, count in
                // SAFETY: the pieces cover 0..<byteCount of the buffer exactly once.
                if let start = buffer.baseAddress {
                    let destination = UnsafeMutableRawPointer(start)
                    forEachPiece(spa, byteCount) { address, range, offset in
                        let page = store.index(address)!
                        store.decipher(page, key: key)
                        unsafe (destination + offset).copyMemory(
                            from: store.pointer(page) + range.lowerBound, byteCount: range.count)
                    }
                }
                count = byteCount
            }
        }
    }

    /// Writes plaintext as the guest of an ASID would: LAUNCH_SECRET, DBG_ENCRYPT. Any alignment.
    ///
    /// - Returns: False, and nothing changes, without a key or when the range is not wholly memory.
    package func firmwareWriteGuest(_ spa: SPA, _ bytes: [UInt8], asid: UInt32) -> Bool {
        guard contains(spa, bytes.count) else { return false }
        return store.withLock { store in
            let key = store.key(asid: asid)
            guard key != 0 else { return false }
            unsafe bytes.withUnsafeBytes { buffer in
                forEachPiece(spa, buffer.count) { address, range, offset in
                    let page = store.index(address)!
                    store.decipher(page, key: key)
                    // SAFETY: offset + range.count is at most the array's length.
                    unsafe store.store(page, range, from: buffer.baseAddress! + offset)
                }
            }
            return true
        }
    }

    /// LAUNCH_UPDATE_VMSA's effect: a page is encrypted like any other, and the processor keeps its integrity value.
    ///
    /// - Returns: False unless the address is a page of memory and the ASID has a key.
    package func firmwareSealVMSA(_ spa: SPA, asid: UInt32) -> Bool {
        store.withLock { store in
            guard spa.isPageAligned, let page = store.index(spa) else { return false }
            let key = store.key(asid: asid)
            guard key != 0 else { return false }
            store.encryptInPlace(page, key: key)
            store.sealIntegrity(page, key: key)
            return true
        }
    }
}
