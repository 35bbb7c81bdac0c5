// Pages of guests without RMP: encryption in parts of a page, and the integrity value of their VMSAs.
//
// SAFETY: pages are checked indices, ranges lie inside one page, and every source has as many bytes as its range: the
// callers in SystemMemory+WithoutRMP.swift keep that.

import Crypto

/// What the processor keeps of one VMSA page of an SEV-ES guest.
///
/// The value is a hash of the plaintext. It is only taken when the page stops being what the processor last wrote:
/// as long as `digest` is nil, nobody else has had a hand on the page and there is nothing to compare.
struct VMSAIntegrity {
    /// Index of the key under which the page was sealed.
    var key: Int
    /// SHA-256 of the page's plaintext, once somebody else may have touched it.
    var digest: [UInt8]?
    /// A pointer to the plaintext was given away: the digest is kept at all times.
    var isExposed = false
}

extension PageStore {
    // MARK: Guests without RMP

    /// DRAM bytes of a part of one page become ciphertext of themselves under key `index`; the rest of the page stays
    /// what DRAM holds. Exact for parts of whole 16-byte blocks, as a data unit's blocks are enciphered one by one.
    mutating func encryptInPlace(_ page: Int, _ range: Range<Int>, key index: Int) {
        if range.count == Self.pageByteCount { return encryptInPlace(page, key: index) }
        var plaintext = [UInt8](repeating: 0, count: range.count)
        unsafe plaintext.withUnsafeMutableBytes { unsafe copyDRAM(page, range, to: $0.baseAddress!) }
        decipher(page, key: index)
        unsafe plaintext.withUnsafeBytes { unsafe store(page, range, from: $0.baseAddress!) }
    }

    /// Stores into the plaintext as it is.
    mutating func store(_ page: Int, _ range: Range<Int>, from source: UnsafeRawPointer) {
        keepIntegrity(page)
        unsafe (pointer(page) + range.lowerBound).copyMemory(from: source, byteCount: range.count)
        unsafe contents[page].isWritten = true
    }

    /// Makes the page a VMSA under key `index`, as its plaintext is now.
    mutating func sealIntegrity(_ page: Int, key index: Int) {
        decipher(page, key: index)
        integrity[page] = VMSAIntegrity(key: index)
        unsafe contents[page].isIntegrityKept = true
    }

    /// True when the page is a VMSA under key `index` and nobody but the processor has changed it. The bytes are its
    /// plaintext then.
    mutating func checkIntegrity(_ page: Int, key index: Int) -> Bool {
        guard unsafe contents[page].isIntegrityKept, let record = integrity[page], record.key == index else {
            return false
        }
        decipher(page, key: index)
        guard let digest = record.digest ?? integrity[page]?.digest else { return true }
        guard digestOfPage(page) == digest else { return false }
        if !record.isExposed { integrity[page]?.digest = nil }
        return true
    }

    /// The processor's own store to a VMSA page that ``checkIntegrity(_:key:)`` accepted.
    mutating func storeVMSA(_ page: Int, from source: UnsafeRawBufferPointer) {
        unsafe pointer(page).copyMemory(from: source.baseAddress!, byteCount: source.count)
        unsafe contents[page].isWritten = true
        guard integrity[page]?.isExposed == true else { return }
        let digest = digestOfPage(page)
        integrity[page]?.digest = digest
    }

    /// Somebody gets a pointer to the plaintext.
    @inline(__always)
    mutating func exposeIntegrity(_ page: Int) {
        guard unsafe contents[page].isIntegrityKept else { return }
        keepIntegrity(page)
        integrity[page]?.isExposed = true
    }

    /// Before anything but the processor changes a VMSA page: remembers what the processor last wrote.
    @inline(__always)
    mutating func keepIntegrity(_ page: Int) {
        if unsafe contents[page].isIntegrityKept { takeIntegrity(page) }
    }

    private mutating func takeIntegrity(_ page: Int) {
        guard let record = integrity[page], record.digest == nil, unsafe contents[page].key == record.key else {
            return
        }
        let digest = digestOfPage(page)
        integrity[page]?.digest = digest
    }

    private func digestOfPage(_ page: Int) -> [UInt8] {
        // SAFETY: the bytes are not changed while the owner's lock is held, and the span does not leave the call.
        let bytes = unsafe UnsafeRawBufferPointer(start: pointer(page), count: Self.pageByteCount)
        hasher.start()
        unsafe hasher.update(Span(_unsafeElements: bytes.bindMemory(to: UInt8.self)))
        return hasher.finish()
    }
}
