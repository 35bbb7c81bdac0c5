// Where the attacks happen: a host kernel, what the attacker may do beside its ABI, and who watches the clock.

import KVMABI

/// Interrupts a `KVM_RUN` that does not come back: on hardware a guest whose page is the wrong one may fault for ever.
public protocol RunLimit: Sendable {
    /// Runs `body`, which is inside `KVM_RUN` on this thread, and makes it return `EINTR` if it stays too long.
    func watching(_ page: RunPage, _ body: () throws(Errno) -> Void) throws(Errno)
}

/// No limit, for kernels that always come back.
public struct NoRunLimit: RunLimit {
    public init() {}
    public func watching(_ page: RunPage, _ body: () throws(Errno) -> Void) throws(Errno) { try body() }
}

/// A host kernel under the attacker's control.
public final class Laboratory: Sendable {
    public let kernel: any HostKernel
    /// Nil where the attacker is an ordinary user of its kernel.
    public let privileges: (any HostPrivileges)?
    let limit: any RunLimit
    private let olderFirmware: (@Sendable () throws -> any HostKernel)?

    /// - Parameter olderFirmware: Starts the same machine, with the same chip, under an older firmware; nil where that
    ///   cannot be done.
    public init(
        kernel: any HostKernel, privileges: (any HostPrivileges)?, limit: any RunLimit = NoRunLimit(),
        olderFirmware: (@Sendable () throws -> any HostKernel)? = nil
    ) {
        self.kernel = kernel
        self.privileges = privileges
        self.limit = limit
        self.olderFirmware = olderFirmware
    }

    /// The same machine under an older firmware, or the end of the scenario.
    func withOlderFirmware() throws(Interruption) -> Laboratory {
        guard let olderFirmware else { throw .notRun("needs an older firmware for the same chip") }
        do {
            return Laboratory(kernel: try olderFirmware(), privileges: nil, limit: limit)
        } catch {
            throw .broken("could not start the machine with an older firmware: \(error)")
        }
    }

    /// What only a hostile kernel can do, or the end of the scenario.
    func requirePrivileges() throws(Interruption) -> any HostPrivileges {
        guard let privileges else { throw .notRun("needs host kernel privileges") }
        return privileges
    }

    /// Takes one particular page of memory, if it is free.
    func claim(_ address: UInt64) throws(Interruption) -> Bool {
        let privileges = try requirePrivileges()
        var others: [UInt64] = []
        defer { for page in others { privileges.freePage(page) } }
        for _ in 0..<4096 {
            guard let page = privileges.allocatePage() else { return false }
            if page == address { return true }
            others.append(page)
        }
        return false
    }

    /// Ends the scenario where the kernel cannot make such guests.
    func requireGuests(of subject: Subject) throws(Interruption) {
        let types: Int32
        do throws(Errno) {
            let kvm = try kernel.open(.kvm)
            defer { kernel.close(kvm) }
            types = try kernel.call(kvm, .checkExtension, value: UInt64(Capability.vmTypes.rawValue))
        } catch {
            throw .notRun("/dev/kvm does not answer: \(error)")
        }
        // Kernels from before the capability answer 0 and have plain VMs all the same.
        if subject != .plain, types & 1 << Int32(subject.vmType.rawValue) == 0 {
            throw .notRun("this host offers no \(subject.displayName) guests")
        }
    }

    /// A launched guest that waits for its first command.
    func victim(_ subject: Subject) throws(Interruption) -> VictimMachine {
        let victim = try VictimMachine(subject, in: self)
        try victim.launch()
        try victim.start()
        return victim
    }
}

/// Does one step that should work; a refusal makes the scenario broken, not the attack stopped.
func step<Result>(_ what: String, _ body: () throws(Errno) -> Result) throws(Interruption) -> Result {
    do throws(Errno) { return try body() } catch { throw .broken("could not \(what): \(error)") }
}
