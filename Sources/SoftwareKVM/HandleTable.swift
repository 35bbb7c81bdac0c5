// Open files of the kernel: numbers to objects. A file keeps its object alive, and a vCPU's or a mapping's file keeps the
// VM alive, as in the real kernel; when the last one goes, the VM goes.

import KVMABI
import Synchronization

/// What an open handle refers to.
enum OpenFile: Sendable {
    case system
    case sev
    case memory
    case vm(VirtualMachine)
    /// A vCPU refers to its VM without owning it, so its file holds both.
    case vcpu(VirtualCPU, VirtualMachine)
    case guestMemfd(GuestMemfd)
}

/// What is mapped through a handle.
struct Backing: Sendable {
    /// The file, where handles are descriptors.
    var descriptor: Int32?
    var mapping: KernelMapping
}

final class HandleTable: Sendable {
    /// RLIMIT_NOFILE of this kernel's process.
    static let limit = 65_536
    private struct State {
        var files: [OpenFile?] = [nil, nil, nil]
        var lowestFree = 3
    }
    private let state = Mutex(State())
    /// Handles are descriptors of this process, for callers that expect files.
    private let usesDescriptors: Bool

    init(usesDescriptors: Bool) { self.usesDescriptors = usesDescriptors }

    /// Memory that a handle shows when it is mapped: a file of its own where handles are descriptors.
    func backing(byteCount: Int) throws(Errno) -> Backing {
        if !usesDescriptors {
            return Backing(descriptor: nil, mapping: try KernelMapping.anonymous(byteCount: byteCount))
        }
        let descriptor = try MemoryFile.create(byteCount: byteCount)
        do {
            return Backing(descriptor: descriptor, mapping: try MemoryFile.map(descriptor, byteCount: byteCount))
        } catch {
            MemoryFile.close(descriptor)
            throw error
        }
    }

    /// Gives the file a number: the backing's descriptor, or the lowest free one. Throws EMFILE.
    func insert(_ file: OpenFile, backing: Backing? = nil) throws(Errno) -> KernelHandle {
        if usesDescriptors {
            let descriptor: Int32
            if let own = backing?.descriptor { descriptor = own } else { descriptor = try MemoryFile.create() }
            state.withLock { state in
                while state.files.count <= Int(descriptor) { state.files.append(nil) }
                state.files[Int(descriptor)] = file
            }
            return KernelHandle(rawValue: descriptor)
        }
        return try state.withLock { (state) throws(Errno) -> KernelHandle in
            var number = state.lowestFree
            while number < state.files.count, state.files[number] != nil { number += 1 }
            if number >= Self.limit { throw .EMFILE }
            if number == state.files.count { state.files.append(file) } else { state.files[number] = file }
            state.lowestFree = number + 1
            return KernelHandle(rawValue: Int32(number))
        }
    }

    subscript(handle: KernelHandle) -> OpenFile? {
        state.withLock { state in
            let number = Int(handle.rawValue)
            return number >= 0 && number < state.files.count ? state.files[number] : nil
        }
    }

    /// Forgets a handle. The object may be destroyed after the lock is released.
    func remove(_ handle: KernelHandle) {
        let removed: OpenFile? = state.withLock { state in
            let number = Int(handle.rawValue)
            guard number >= 0 && number < state.files.count, let file = state.files[number] else { return nil }
            state.files[number] = nil
            state.lowestFree = min(state.lowestFree, number)
            return file
        }
        if usesDescriptors, removed != nil { MemoryFile.close(handle.rawValue) }
        _ = removed
    }
}
