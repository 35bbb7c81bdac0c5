// Copy-in and copy-out: the one file of this module that touches raw memory and the system's own calls.
//
// User pointers are addresses in this process. None is followed before the real kernel has been asked whether it can be:
// a byte written to a pipe from a bad address fails with EFAULT instead of killing us. What passes becomes a `HostPage`,
// whose accessors are bounds-checked.
//
// Pages of SEV guests go through the pipe whole, so that memory that has vanished is an error even in the middle.
//
// Left to callers: a page that was good may be unmapped later by the VMM without deleting its slot. The real kernel
// would notice; here that is the VMM's error, as a dangling pointer of its own would be.

import Glibc
import KVMABI
import MemoryController
import SEVABI
import Synchronization
import X86Core

/// A page of this process that was found accessible. Bytes change under the reader: load once, use the copy.
struct HostPage: Sendable {
    /// Page aligned.
    let address: UInt64

    fileprivate init(address: UInt64) { self.address = address }

    func load<Value: FixedWidthInteger & BitwiseCopyable>(at offset: Int, as type: Value.Type = Value.self) -> Value {
        precondition(offset >= 0 && offset <= 4096 - MemoryLayout<Value>.size, "load outside the page")
        // SAFETY: UserMemory.page found the page readable; the offset was checked.
        return unsafe pointer.loadUnaligned(fromByteOffset: offset, as: Value.self)
    }

    /// Only for pages found writable.
    func store<Value: FixedWidthInteger & BitwiseCopyable>(_ value: Value, at offset: Int) {
        precondition(offset >= 0 && offset <= 4096 - MemoryLayout<Value>.size, "store outside the page")
        // SAFETY: UserMemory.page found the page writable; the offset was checked.
        unsafe pointer.storeBytes(of: value, toByteOffset: offset, as: Value.self)
    }

    func copyBytes(at offset: Int, count: Int) -> [UInt8] {
        precondition(offset >= 0 && count >= 0 && offset <= 4096 - count, "copy outside the page")
        // SAFETY: as in load.
        return unsafe [UInt8](UnsafeRawBufferPointer(start: pointer + offset, count: count))
    }

    func write(_ bytes: ArraySlice<UInt8>, at offset: Int) {
        precondition(offset >= 0 && offset <= 4096 - bytes.count, "write outside the page")
        // SAFETY: as in store.
        unsafe bytes.withUnsafeBytes { source in
            if let start = source.baseAddress {
                unsafe pointer.advanced(by: offset).copyMemory(from: start, byteCount: source.count)
            }
        }
    }

    @unsafe fileprivate var pointer: UnsafeMutableRawPointer {
        // SAFETY: a HostPage is made only from a non-zero address.
        unsafe UnsafeMutableRawPointer(bitPattern: UInt(truncatingIfNeeded: address)).unsafelyUnwrapped
    }
}

/// The memory of the process that calls the kernel.
final class UserMemory: Sendable {
    /// Read and write end of the pipe that bad addresses are tried on; -1 when none could be made.
    private let probe: Mutex<(read: Int32, write: Int32)>
    /// Where a page rests between the pipe and system memory. Used under `probe`'s lock.
    private let staging = StagingPage()

    init() {
        var ends: [Int32] = [-1, -1]
        // SAFETY: pipe writes two integers.
        if unsafe pipe(&ends) == 0 {
            for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        }
        probe = Mutex((ends[0], ends[1]))
    }

    deinit {
        probe.withLock { ends in
            if ends.read >= 0 { Glibc.close(ends.read) }
            if ends.write >= 0 { Glibc.close(ends.write) }
        }
    }

    /// TASK_SIZE: user addresses lie below.
    static let addressLimit: UInt64 = 1 << 47 - 4096

    /// True when every page of the range can be read, and written if `writing`.
    func isAccessible(_ address: UInt64, byteCount: Int, writing: Bool) -> Bool {
        if byteCount == 0 { return true }
        let (end, overflow) = address.addingReportingOverflow(UInt64(byteCount))
        guard byteCount > 0, !overflow, address >= 4096, end <= Self.addressLimit else { return false }
        return probe.withLock { ends in
            guard ends.write >= 0 else { return true }
            var at = address
            while at < end {
                // SAFETY: the kernel checks the address; one byte goes through the pipe and, for a write check, back to
                // where it came from.
                guard let pointer = unsafe UnsafeMutableRawPointer(bitPattern: UInt(at)) else { return false }
                var sink: UInt8 = 0
                guard unsafe Glibc.write(ends.write, pointer, 1) == 1 else { return false }
                if writing {
                    if unsafe Glibc.read(ends.read, pointer, 1) != 1 {
                        _ = unsafe Glibc.read(ends.read, &sink, 1)
                        return false
                    }
                } else {
                    _ = unsafe Glibc.read(ends.read, &sink, 1)
                }
                at = (at & ~4095) + 4096
            }
            return true
        }
    }

    /// True when something is mapped at every page of the range, which is not touched: it may be long.
    func isMapped(_ address: UInt64, byteCount: UInt64) -> Bool {
        let start = address & ~4095
        let (end, overflow) = address.addingReportingOverflow(byteCount)
        guard !overflow, address >= 4096, end <= Self.addressLimit,
            let pointer = unsafe UnsafeMutableRawPointer(bitPattern: UInt(start))
        else { return false }
        // SAFETY: the kernel looks for mappings; MS_ASYNC writes nothing anywhere.
        return unsafe msync(pointer, Int(end - start), MS_ASYNC) == 0
    }

    /// How much of the range can be reached from its beginning, a page at a time.
    func accessibleByteCount(_ address: UInt64, upTo byteCount: Int, writing: Bool) -> Int {
        var done = 0
        while done < byteCount {
            let at = address &+ UInt64(done)
            let count = min(byteCount - done, 4096 - Int(at & 4095))
            guard isAccessible(at, byteCount: count, writing: writing) else { break }
            done += count
        }
        return done
    }

    /// An argument at an address that was just found accessible.
    func argument(at address: UInt64, byteCount: Int) -> IoctlArgument {
        // SAFETY: as in `read`; the caller's caller keeps it for the call.
        unsafe .bytes(
            UnsafeMutableRawBufferPointer(
                start: UnsafeMutableRawPointer(bitPattern: UInt(truncatingIfNeeded: address)), count: byteCount))
    }

    /// copy_from_user.
    func read(_ address: UInt64, byteCount: Int) throws(Errno) -> [UInt8] {
        guard isAccessible(address, byteCount: byteCount, writing: false) else { throw .EFAULT }
        // SAFETY: just found readable.
        return unsafe [UInt8](
            UnsafeRawBufferPointer(start: UnsafeRawPointer(bitPattern: UInt(address)), count: byteCount))
    }

    /// copy_from_user of a structure.
    func read<Structure: KernelStructure>(_ type: Structure.Type, from address: UInt64) throws(Errno) -> Structure {
        let bytes = try read(address, byteCount: MemoryLayout<Structure>.size)
        guard let value = Structure(kernelBytes: bytes) else { throw .EFAULT }
        return value
    }

    /// copy_to_user.
    func write(_ bytes: [UInt8], to address: UInt64) throws(Errno) {
        guard isAccessible(address, byteCount: bytes.count, writing: true) else { throw .EFAULT }
        // SAFETY: just found writable; an array of ours overlaps it only if the caller passes our own memory.
        unsafe bytes.withUnsafeBytes { source in
            if let start = source.baseAddress {
                unsafe _ = memmove(
                    UnsafeMutableRawPointer(bitPattern: UInt(address)).unsafelyUnwrapped, start, source.count)
            }
        }
    }

    /// Copies a page of the caller straight into system memory, as the host kernel does before it gives the page away.
    func copyPage(from address: UInt64, to spa: SPA, of memory: SystemMemory) throws(Errno) {
        guard isAccessible(address, byteCount: 4096, writing: false) else { throw .EFAULT }
        do {
            // SAFETY: just found readable.
            unsafe try memory.hostWrite(
                spa, from: UnsafeRawBufferPointer(start: UnsafeRawPointer(bitPattern: UInt(address)), count: 4096))
        } catch {
            throw .EFAULT
        }
    }

    // MARK: Whole pages that may go away at any moment

    /// Copies a page of the caller into system memory, by way of the pipe: memory that is gone by now gives nil, not a
    /// trap. Returns ``pageHash(at:)`` of what was copied.
    func copyPageIn(from address: UInt64, to spa: SPA, of memory: SystemMemory) -> UInt64? {
        probe.withLock { ends in
            guard fetchPage(address, ends) else { return nil }
            // SAFETY: the staging page has 4096 bytes, and the lock is held.
            do { unsafe try memory.hostWrite(spa, from: UnsafeRawBufferPointer(staging.bytes)) } catch { return nil }
            return unsafe Self.hash(staging.bytes)
        }
    }

    /// Copies what DRAM holds of a page to the caller; false where the caller's memory cannot be written.
    func copyPageOut(_ spa: SPA, of memory: SystemMemory, to address: UInt64) -> Bool {
        guard let bytes = memory.hostSnapshot(spa: spa, byteCount: 4096), address >= 4096, address < Self.addressLimit,
            let target = unsafe UnsafeMutableRawPointer(bitPattern: UInt(address))
        else { return false }
        return probe.withLock { ends in
            guard ends.write >= 0, unsafe Glibc.write(ends.write, bytes, 4096) == 4096 else { return false }
            // SAFETY: the kernel checks the address.
            if unsafe Glibc.read(ends.read, target, 4096) == 4096 { return true }
            drain(ends)
            return false
        }
    }

    /// A number that differs, in all likelihood, when the page's bytes do; nil when they cannot be read.
    func pageHash(at address: UInt64) -> UInt64? {
        probe.withLock { ends in
            guard fetchPage(address, ends) else { return nil }
            // SAFETY: as in copyPageIn.
            return unsafe Self.hash(staging.bytes)
        }
    }

    /// Brings a page to the staging area.
    private func fetchPage(_ address: UInt64, _ ends: (read: Int32, write: Int32)) -> Bool {
        guard address >= 4096, address < Self.addressLimit, ends.write >= 0,
            let source = unsafe UnsafeRawPointer(bitPattern: UInt(address))
        else { return false }
        // SAFETY: the kernel checks the address; a page goes through the empty pipe, which has room for sixteen.
        let written = unsafe Glibc.write(ends.write, source, 4096)
        if written == 4096, unsafe Glibc.read(ends.read, staging.bytes.baseAddress, 4096) == 4096 { return true }
        if written > 0 { drain(ends) }
        return false
    }

    /// Empties the pipe after a transfer that failed half-way.
    private func drain(_ ends: (read: Int32, write: Int32)) {
        var waiting: Int32 = 0
        // SAFETY: FIONREAD stores one integer; the staging page has 4096 bytes.
        while unsafe Glibc.ioctl(ends.read, UInt(FIONREAD), &waiting) == 0, waiting > 0,
            unsafe Glibc.read(ends.read, staging.bytes.baseAddress, 4096) > 0
        {}
    }

    /// Two independent multiply-xor lanes over the page's quadwords.
    @unsafe
    private static func hash(_ page: UnsafeMutableRawBufferPointer) -> UInt64 {
        // SAFETY: the callers pass the staging page, 4096 bytes.
        var a: UInt64 = 1
        var b: UInt64 = 2
        var offset = 0
        while offset < 4096 {
            a = unsafe (a ^ page.load(fromByteOffset: offset, as: UInt64.self)) &* 0x9e37_79b9_7f4a_7c15
            b = unsafe (b ^ page.load(fromByteOffset: offset &+ 8, as: UInt64.self)) &* 0xc2b2_ae3d_27d4_eb4f
            a ^= a &>> 29
            b ^= b &>> 31
            offset &+= 16
        }
        return a ^ (b &<< 1)
    }

    /// The page at a page-aligned address, once found accessible.
    func page(at address: UInt64, writing: Bool) -> HostPage? {
        isAccessible(address, byteCount: 4096, writing: writing) ? HostPage(address: address) : nil
    }

    /// A page that an earlier call of `page(at:writing:)` found accessible.
    func pageFoundBefore(at address: UInt64) -> HostPage { HostPage(address: address) }
}

/// One page of buffer.
// @unchecked Sendable: whoever uses the bytes holds the lock that its owner names.
@safe
private final class StagingPage: @unchecked Sendable {
    let bytes: UnsafeMutableRawBufferPointer

    // SAFETY: freed in deinit only; bytes that were never filled are never read.
    init() { unsafe bytes = .allocate(byteCount: 4096, alignment: 4096) }

    deinit { unsafe bytes.deallocate() }
}

// MARK: What the processor gets

extension GuestPage {
    /// Where the plaintext is, as a number to compare.
    var address: UInt? {
        switch self {
        case .page(let pointer, _): UInt(bitPattern: pointer)
        case .notValidated, .fault: nil
        }
    }
}

extension PhysicalTranslation {
    static func page(_ page: HostPage, writable: Bool) -> PhysicalTranslation {
        // SAFETY: the page is accessible as far as `writable` says.
        unsafe .page(page.pointer, writable: writable)
    }

    /// - Parameter writable: False where the slot forbids stores.
    init(_ page: GuestPage, writable allowed: Bool = true) {
        switch page {
        // SAFETY: SystemMemory's pointers stay mapped for its life, and the VM holds it.
        case .page(let pointer, let writable): self = unsafe .page(pointer, writable: writable && allowed)
        case .notValidated: self = .notValidated
        case .fault: self = .fault
        }
    }
}

extension Processor {
    /// Translations to these pages of this process are stale, and code decoded from them.
    func forgetTranslations(to pages: [UInt]) {
        forgetTranslations(toHostPages: pages)
    }

    /// Code decoded from this memory of the VMM is stale.
    func forgetCode(atHostAddress address: UInt64, byteCount: UInt64) {
        guard let pointer = unsafe UnsafeRawPointer(bitPattern: UInt(truncatingIfNeeded: address)) else { return }
        // SAFETY: the pointer is compared, never followed.
        unsafe forgetCode(at: pointer, byteCount: Int(truncatingIfNeeded: byteCount))
    }
}

// MARK: Mappings

extension KernelMapping {
    /// Another mapping of the same memory, which keeps `owner` alive.
    func shared(byteCount: Int, keeping owner: any Sendable) -> KernelMapping {
        precondition(byteCount <= self.byteCount, "a shared mapping is not longer than its origin")
        // SAFETY: the closure holds the origin, which holds the memory.
        return unsafe KernelMapping(address: address, byteCount: byteCount) { [self, owner] in
            withExtendedLifetime((self, owner)) {}
        }
    }
}

// MARK: Time and sleep

/// The host's clocks, in nanoseconds.
enum HostClock {
    static var monotonic: UInt64 { read(CLOCK_MONOTONIC) }
    static var realtime: UInt64 { read(CLOCK_REALTIME) }

    private static func read(_ clock: clockid_t) -> UInt64 {
        var time = timespec()
        // SAFETY: clock_gettime writes one timespec.
        _ = unsafe clock_gettime(clock, &time)
        return UInt64(truncatingIfNeeded: time.tv_sec) &* 1_000_000_000 &+ UInt64(truncatingIfNeeded: time.tv_nsec)
    }
}

/// Where a halted vCPU's thread sleeps: other threads wake it, and signals end the sleep.
@safe
final class SleepingPlace: @unchecked Sendable {
    // The semaphore is its own lock.
    private let semaphore: UnsafeMutablePointer<sem_t>

    init() {
        unsafe semaphore = .allocate(capacity: 1)
        // SAFETY: freshly allocated, and freed in deinit only.
        _ = unsafe sem_init(semaphore, 0, 0)
    }

    deinit {
        _ = unsafe sem_destroy(semaphore)
        unsafe semaphore.deallocate()
    }

    /// Ends a sleep, or the next one.
    func wake() { _ = unsafe sem_post(semaphore) }

    enum Outcome { case woken, timedOut, interrupted }

    /// Sleeps for at most `nanoseconds`.
    func sleep(nanoseconds: UInt64) -> Outcome {
        let end = HostClock.realtime &+ nanoseconds
        var time = timespec(tv_sec: Int(end / 1_000_000_000), tv_nsec: Int(end % 1_000_000_000))
        // SAFETY: both pointers are good for the call.
        if unsafe sem_timedwait(semaphore, &time) == 0 {
            // Wakes that piled up count as one.
            while unsafe sem_trywait(semaphore) == 0 {}
            return .woken
        }
        return errno == EINTR ? .interrupted : .timedOut
    }
}

/// The host's own processors.
enum HostProcessors {
    static let count = max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN)))

    /// Lets other threads of the host run first.
    static func yield() { sched_yield() }
}
