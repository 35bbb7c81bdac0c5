// Eventfds of the caller, and the thread that waits for them. With UserMemory.swift the only file of this module that
// makes the system's own calls.
//
// Descriptors are duplicated: the caller may close his. The real kernel notices the last close and forgets the eventfd;
// here it lives until it is deassigned or the VM goes.

import Glibc
import KVMABI
import Synchronization

enum EventFile {
    /// What all descriptors of one eventfd have in common. EBADF: not open; EINVAL: something else.
    static func identity(_ descriptor: Int32) throws(Errno) -> UInt64 {
        var text = [UInt8](repeating: 0, count: 512)
        // SAFETY: the path lives for the call, and the buffer has the length given.
        let file = unsafe open("/proc/self/fdinfo/\(descriptor)", O_RDONLY | O_CLOEXEC)
        if file < 0 { throw .EBADF }
        let count = unsafe read(file, &text, text.count)
        close(file)
        let lines = String(decoding: text.prefix(max(0, count)), as: UTF8.self).split(separator: "\n")
        guard lines.contains(where: { $0.hasPrefix("eventfd-count:") }) else { throw .EINVAL }
        let line = lines.first { $0.hasPrefix("eventfd-id:") }
        return line.flatMap { UInt64($0.drop { !$0.isNumber }) } ?? UInt64(UInt32(bitPattern: descriptor))
    }

    /// A descriptor of our own for the same file.
    static func duplicate(_ descriptor: Int32) throws(Errno) -> Int32 {
        let copy = fcntl(descriptor, F_DUPFD_CLOEXEC, 0)
        if copy < 0 { throw Errno(rawValue: errno) }
        return copy
    }

    static func close(_ descriptor: Int32) { _ = Glibc.close(descriptor) }

    /// Adds one.
    static func signal(_ descriptor: Int32) {
        var one: UInt64 = 1
        // SAFETY: eight bytes of a local.
        _ = unsafe write(descriptor, &one, 8)
    }

    /// Takes what is there; false: nothing was.
    static func take(_ descriptor: Int32) -> Bool {
        var value: UInt64 = 0
        var waiting = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        // SAFETY: one structure and eight bytes, both locals.
        guard unsafe poll(&waiting, 1, 0) == 1, waiting.revents & Int16(POLLIN) != 0 else { return false }
        return unsafe read(descriptor, &value, 8) == 8
    }
}

/// One thread that waits for any of some eventfds.
final class EventPoller: Sendable {
    private struct State: Sendable {
        var descriptors: [Int32] = []
        var isStopped = false
    }
    private let state = Mutex(State())
    /// Wakes the thread when the list has changed; a pipe's ends.
    private let wakeRead: Int32
    private let wakeWrite: Int32
    private let handler: @Sendable (Int32) -> Void

    /// - Parameter handler: Called on the thread, with a descriptor that has something.
    init(handler: @escaping @Sendable (Int32) -> Void) throws(Errno) {
        var ends: [Int32] = [-1, -1]
        // SAFETY: pipe writes two integers.
        if unsafe pipe(&ends) != 0 { throw Errno(rawValue: errno) }
        for end in ends {
            _ = fcntl(end, F_SETFD, FD_CLOEXEC)
            _ = fcntl(end, F_SETFL, O_NONBLOCK)
        }
        (wakeRead, wakeWrite) = (ends[0], ends[1])
        self.handler = handler
        var all = sigset_t()
        var before = sigset_t()
        // Signals are for the caller's own threads.
        // SAFETY: the sets are locals; the thread holds its own reference to self, which `loop` takes over.
        unsafe sigfillset(&all)
        _ = unsafe pthread_sigmask(SIG_BLOCK, &all, &before)
        var thread = pthread_t()
        let reference = unsafe Unmanaged.passRetained(self)
        let result = unsafe pthread_create(
            &thread, nil,
            { argument in
                // SAFETY: the reference that was passed, exactly once.
                guard let argument = unsafe argument else { return nil }
                unsafe Unmanaged<EventPoller>.fromOpaque(argument).takeRetainedValue().loop()
                return nil
            }, reference.toOpaque())
        _ = unsafe pthread_sigmask(SIG_SETMASK, &before, nil)
        if result != 0 {
            unsafe reference.release()
            throw Errno(rawValue: result)
        }
        pthread_detach(thread)
    }

    deinit {
        _ = close(wakeRead)
        _ = close(wakeWrite)
    }

    func watch(_ descriptors: [Int32]) {
        state.withLock { $0.descriptors = descriptors }
        wake()
    }

    /// The thread ends soon.
    func stop() {
        state.withLock { $0.isStopped = true }
        wake()
    }

    private func wake() {
        var byte: UInt8 = 0
        // SAFETY: one byte of a local.
        _ = unsafe write(wakeWrite, &byte, 1)
    }

    private func loop() {
        while true {
            let (stopped, descriptors) = state.withLock { ($0.isStopped, $0.descriptors) }
            if stopped { return }
            var waiting = ([wakeRead] + descriptors).map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
            // SAFETY: the array has the length given.
            _ = unsafe poll(&waiting, UInt(waiting.count), -1)
            for entry in waiting where entry.revents & Int16(POLLIN) != 0 {
                if entry.fd == wakeRead {
                    var drain = [UInt8](repeating: 0, count: 64)
                    _ = unsafe read(wakeRead, &drain, drain.count)
                } else {
                    handler(entry.fd)
                }
            }
        }
    }
}
