// The machine's memory and its memory controller.
//
// Every page has three things: bytes, an RMP entry that says who owns it, and a key tag that says what the bytes are.
// On hardware, DRAM holds ciphertext and the memory controller deciphers what the CPU of the right ASID reads. Here the
// bytes of a tagged page are kept as the plaintext under the tag's key, because nobody but that CPU can look at them;
// every other way in goes through `PageStore`, which makes the ciphertext first. So:
//
//     tag 0      the bytes are what DRAM holds: a host page, or ciphertext whose key is not in use any more
//     tag k      the bytes are plaintext; DRAM would hold AES-XTS(key k, tweak = SPA of the page) of them
//
// Changing the owner of a page changes neither bytes nor tag: the work is done when somebody looks (`materialise`,
// `decipher`). A page that nobody ever wrote is known to be zero and is not touched even then, unless it must change.
//
// Concurrency: everything is behind one lock. Pointers given to a CPU leave the lock; the pages behind them stay
// mapped for the life of this object, so a stale translation reads old bytes, never unmapped memory.

import Crypto
import Glibc
import SEVABI
import Synchronization

/// System memory with its reverse map table and one encryption key per ASID [APM2 15.34, 15.36].
@safe
public final class SystemMemory: Sendable {
    /// Address of the first page, a multiple of 2 MiB and not 0, so that a forgotten address is never memory.
    public let base: SPA
    /// A multiple of 2 MiB.
    public let byteCount: UInt64

    /// The one lock. Order: nothing else is locked while it is held.
    let store: Mutex<PageStore>

    /// Reserves address space; no memory is used until pages are written.
    ///
    /// - Parameters:
    ///   - byteCount: Rounded up to 2 MiB.
    ///   - base: Address of the first byte; programmer error unless a multiple of 2 MiB and not zero.
    ///   - asidCount: Key slots; ASIDs are 1..<asidCount.
    ///   - usesLargePages: Lets the kernel back guest memory with 2 MiB pages: faster, but more resident than touched.
    /// - Throws: ``SystemMemoryError`` when the kernel refuses the address space.
    public init(
        byteCount: UInt64 = 64 << 30, base: SPA = SPA(rawValue: 1 << 32), asidCount: Int = 512,
        usesLargePages: Bool = false
    ) throws(SystemMemoryError) {
        precondition(base.isLargePageAligned && base != .zero, "system memory starts at a multiple of 2 MiB, not at 0")
        precondition(byteCount > 0 && byteCount <= 1 << 46, "system memory has up to 64 TiB")
        precondition(asidCount > 0 && asidCount <= 1024, "an ASID has 10 bits")
        let rounded = (byteCount + SPA.largePageByteCount - 1) & ~(SPA.largePageByteCount - 1)
        self.base = base
        self.byteCount = rounded
        let pageStore = try PageStore(
            pageCount: Int(rounded / SPA.pageByteCount), base: base, asidCount: asidCount,
            usesLargePages: usesLargePages)
        store = Mutex(pageStore)
    }

    deinit {
        store.withLock { $0.unmap() }
    }
}

/// The kernel does not give the address space that system memory needs.
public struct SystemMemoryError: Error, Equatable, Sendable, CustomStringConvertible {
    /// What was asked for.
    public let byteCount: UInt64
    /// The kernel's errno.
    public let errno: Int32

    public var description: String {
        "cannot reserve 0x\(String(byteCount, radix: 16)) bytes of address space for the software machine's memory: "
            + "mmap answered errno \(errno). The usual cause is an address-space limit (ulimit -v) or strict "
            + "overcommit (vm.overcommit_memory=2); raise the limit or configure less system memory"
    }
}

/// What the host may not do with physical memory.
public enum HostAccessFault: Error, Equatable, Sendable, CustomStringConvertible {
    /// No memory at this address.
    case outside(SPA)
    /// The RMP forbids the write: the page is not the hypervisor's.
    case rmp(SPA, PageState)

    public var description: String {
        switch self {
        case .outside(let spa): "\(spa) is outside system memory"
        case .rmp(let spa, let state): "the RMP refuses a host write to \(spa): the page is in state \(state)"
        }
    }
}
