// What the threads of a running guest may still ask of the host, once everything they need is open.
//
// A guest that breaks out of a device or of the software machine holds one thread. That thread can read and write the
// files that are open, and this process's memory; it cannot open a file, start a program, or talk to anybody new.

import CProcess
import KVMABI
import Synchronization

/// What a thread is for, and so what it keeps.
public struct ThreadKind: Sendable {
    let rights: UInt32

    /// Runs a vCPU: requests of KVM, and the console's terminal. Also the main thread's, which runs the first one.
    public static let processor = ThreadKind(rights: UInt32(SANDBOX_KVM | SANDBOX_TERMINAL))
    /// Serves a device: the files that are open, and interrupts.
    public static let device = ThreadKind(rights: UInt32(SANDBOX_KVM))
    /// Reads the console.
    public static let terminal = ThreadKind(rights: UInt32(SANDBOX_KVM | SANDBOX_TERMINAL))
    /// Connects the guest's sockets with unix sockets of the host.
    public static let sockets = ThreadKind(rights: UInt32(SANDBOX_KVM | SANDBOX_SOCKETS))
}

/// The process's sandbox. Nothing happens before ``prepare(cleaning:)``, so that a library's user, or a test, that does not
/// want one has none.
public enum Sandbox {
    private struct Settings: Sendable {
        var folder: String?
    }
    private static let settings = Mutex<Settings?>(nil)

    /// From now on threads that begin take their kind's rights only.
    ///
    /// - Parameter folder: Where this process will remove files at its end; nil for nowhere.
    public static func prepare(cleaning folder: String? = nil) { settings.withLock { $0 = Settings(folder: folder) } }

    /// Takes everything from the calling thread, and the threads that it makes from now on, that its kind does not need.
    /// Does nothing unless ``prepare(cleaning:)`` was called. Cannot be undone.
    ///
    /// - Returns: What the host kernel could not do; empty when all of it is in force.
    @discardableResult
    public static func enter(_ kind: ThreadKind) -> [SandboxGap] {
        guard let settings = settings.withLock({ $0 }) else { return [] }
        return enter(kind, cleaning: settings.folder)
    }

    /// The same, whether or not it was prepared.
    @discardableResult
    public static func enter(_ kind: ThreadKind, cleaning folder: String?) -> [SandboxGap] {
        var gaps: [SandboxGap] = []
        func need(_ part: SandboxGap.Part, _ result: Int32) {
            if result < 0 { gaps.append(SandboxGap(part: part, errno: Errno(rawValue: -result))) }
        }
        need(.privileges, sandbox_drop_privileges())
        let version =
            folder.map { folder in
                withKernelAddress(of: Array(folder.utf8) + [0]) { sandbox_restrict_files($0) }
            } ?? sandbox_restrict_files(0)
        // A kernel without Landlock is no fault: the filter below refuses to open files too.
        need(.files, version)
        let cleanup = folder == nil || version <= 0 ? 0 : UInt32(SANDBOX_CLEANUP)
        need(.calls, sandbox_filter(kind.rights | cleanup))
        return gaps
    }
}

/// A part of the sandbox that is not in force.
public struct SandboxGap: Equatable, Sendable, CustomStringConvertible {
    public enum Part: String, Sendable {
        case privileges = "dropping capabilities"
        case files = "Landlock"
        case calls = "the seccomp filter"
    }
    public var part: Part
    public var errno: Errno

    /// "the seccomp filter: ENOSYS (38)"
    public var description: String { "\(part.rawValue): \(errno)" }
}
