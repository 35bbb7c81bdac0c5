// SEV commands of one VM: the envelope, and the staging area where everything lies that a command points to.
//
// All bytes that the kernel reads lie in one page aligned area, because kernels from 7.0 on refuse a source that is not
// aligned.

import KVMABI

/// The channel for SEV commands of one VM.
final class SEVChannel: Sendable {
    /// Room for contents behind the command's own structure.
    static let dataByteCount = 1 << 20
    private static let dataOffset = KVM.pageByteCount

    private let kernel: any HostKernel
    private let vm: KernelHandle
    private let sev: KernelHandle
    private let staging: KernelMapping

    /// Opens `/dev/sev`. It stays open until the launch is over: the kernel remembers the descriptor from START on.
    init(kernel: any HostKernel, vm: KernelHandle) throws(VMMError) {
        self.kernel = kernel
        self.vm = vm
        let step = "prepare the launch"
        staging = try request(step, "mmap", "staging area") { () throws(Errno) in
            try kernel.map(.anonymous, offset: 0, byteCount: Self.dataOffset + Self.dataByteCount)
        }
        sev = try request(step, "open /dev/sev") { () throws(Errno) in try kernel.open(.sev) }
    }

    deinit { kernel.close(sev) }

    /// Where contents lie, as a kernel structure wants it.
    var dataAddress: UInt64 { staging.address + UInt64(Self.dataOffset) }

    func store(_ bytes: ArraySlice<UInt8>, at offset: Int = 0) { staging.write(bytes, at: Self.dataOffset + offset) }

    func clearData(byteCount: Int) { staging.fill(at: Self.dataOffset, count: byteCount) }

    func data(byteCount: Int) -> [UInt8] { staging.copyBytes(at: Self.dataOffset, count: byteCount) }

    /// Issues a command once. The structure comes back as the kernel left it, also after a refusal.
    func issue<Structure: KernelStructure>(
        _ id: SEVCommandID, _ structure: inout Structure
    ) -> (errno: Errno, firmwareStatus: FirmwareStatus)? {
        staging.store(structure: structure, at: 0)
        let refusal = issue(KVMSEVCommand(id: id, data: staging.address, sevHandle: sev))
        structure = staging.load(structureAt: 0, as: Structure.self)
        return refusal
    }

    private func issue(_ command: KVMSEVCommand) -> (errno: Errno, firmwareStatus: FirmwareStatus)? {
        var command = command
        do {
            try kernel.call(vm, .memoryEncryptOp, &command)
            return nil
        } catch { return (error, FirmwareStatus(rawValue: command.error)) }
    }

    /// Issues a command that either succeeds or ends the launch.
    func run<Structure: KernelStructure>(
        _ step: String, _ id: SEVCommandID, _ context: String, _ structure: inout Structure
    ) throws(VMMError) {
        if let refusal = issue(id, &structure) { throw Self.failure(step, id, context, refusal) }
    }

    /// The same for a command without a structure.
    func run(_ step: String, _ id: SEVCommandID, _ context: String = "") throws(VMMError) {
        if let refusal = issue(KVMSEVCommand(id: id, sevHandle: sev)) { throw Self.failure(step, id, context, refusal) }
    }

    private static func failure(
        _ step: String, _ id: SEVCommandID, _ context: String, _ refusal: (errno: Errno, firmwareStatus: FirmwareStatus)
    ) -> VMMError {
        // Only EIO is the firmware speaking, and ENOTTY of SNP's START when it made no context; elsewhere the field holds what
        // was there before.
        let spoke =
            refusal.errno == .EIO
            || id == .snpLaunchStart && refusal.errno == .ENOTTY && refusal.firmwareStatus != .success
        return VMMError(
            step: step, request: "\(id)", context: context, errno: refusal.errno,
            firmwareStatus: spoke ? refusal.firmwareStatus : nil)
    }
}
