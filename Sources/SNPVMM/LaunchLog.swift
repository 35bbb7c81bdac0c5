// A host kernel that writes down what passes: one JSON object per request, with the launch digest so far.
//
// It stands between the VMM and any other host kernel, sees the same bytes as that kernel, and changes none. It follows
// pointers only into memory that was mapped through it, which is where the VMM keeps everything that a SEV command
// points to. Of certificates, sessions and secret packets it writes lengths only.
//
//     {"sequence":7,"request":"KVM_SEV_SNP_LAUNCH_UPDATE","handle":5,"arguments":{…},"result":0,
//      "nanoseconds":81250,"launchDigest":"…"}

import JSONText
import KVMABI
import SEVABI
import Synchronization

/// The log of one run.
public final class LaunchLog: HostKernel {
    /// What a launch added to the digest.
    public enum Measured: Sendable {
        /// Pages that `KVM_SEV_SNP_LAUNCH_UPDATE` took; `contents` is empty where they are not measured.
        case pages(type: PageType, gpa: UInt64, byteCount: UInt64, contents: [UInt8])
        /// What `KVM_SEV_LAUNCH_UPDATE_DATA` encrypted, as it was before.
        case data(contents: [UInt8])
        /// The vCPUs' VMSAs, which the kernel makes itself during `KVM_SEV_LAUNCH_UPDATE_VMSA` or
        /// `KVM_SEV_SNP_LAUNCH_FINISH`.
        case processors
    }

    private final class WeakMapping {
        weak let mapping: KernelMapping?
        init(_ mapping: KernelMapping) { self.mapping = mapping }
    }

    private struct State {
        var sequence: UInt64 = 0
        var mappings: [WeakMapping] = []
        /// Run pages by vCPU handle, for the reason of an exit.
        var runPages: [KernelHandle: WeakMapping] = [:]
        /// Memory slots, to find guest physical addresses; those of all VMs of this process together.
        var slots: [KVMUserspaceMemoryRegion] = []
    }

    private let base: any HostKernel
    private let write: @Sendable (String) -> Void
    private let digest: @Sendable (Measured) -> String?
    private let details: @Sendable (Measured) -> JSONObject
    private let state = Mutex(State())

    /// - Parameters:
    ///   - base: The kernel that does the work.
    ///   - digest: Extends the launch digest and gives it in hex; nil when it cannot be known.
    ///   - details: More to say of what was measured; asked after `digest`.
    ///   - write: Takes one line at a time, without a line end.
    public init(
        _ base: any HostKernel, digest: @escaping @Sendable (Measured) -> String? = { _ in nil },
        details: @escaping @Sendable (Measured) -> JSONObject = { _ in JSONObject() },
        write: @escaping @Sendable (String) -> Void
    ) {
        self.base = base
        self.digest = digest
        self.details = details
        self.write = write
    }

    public func open(_ node: DeviceNode) throws(Errno) -> KernelHandle {
        var arguments = JSONObject()
        arguments.add("node", node.rawValue)
        return KernelHandle(
            rawValue: try record("open", nil, arguments) { () throws(Errno) -> Int32 in try base.open(node).rawValue })
    }

    public func punchHole(_ handle: KernelHandle, offset: Int64, byteCount: Int64) throws(Errno) {
        var arguments = JSONObject()
        arguments.add("offset", offset)
        arguments.add("byteCount", byteCount)
        try record("fallocate", handle, arguments) { () throws(Errno) -> Int32 in
            try base.punchHole(handle, offset: offset, byteCount: byteCount)
            return 0
        }
    }

    public func map(_ handle: KernelHandle, offset: Int64, byteCount: Int) throws(Errno) -> KernelMapping {
        var arguments = JSONObject()
        arguments.add("offset", offset)
        arguments.add("byteCount", byteCount)
        var mapping: KernelMapping?
        try record("mmap", handle, arguments) { () throws(Errno) -> Int32 in
            mapping = try base.map(handle, offset: offset, byteCount: byteCount)
            return 0
        }
        // Safe: the call above either set it or threw.
        let result = mapping!
        state.withLock { state in
            state.mappings.removeAll { $0.mapping == nil }
            state.mappings.append(WeakMapping(result))
            if handle != .anonymous { state.runPages[handle] = WeakMapping(result) }
        }
        return result
    }

    public func close(_ handle: KernelHandle) {
        _ = try? record("close", handle, JSONObject()) { () throws(Errno) -> Int32 in
            base.close(handle)
            return 0
        }
    }

    public func ioctl(
        _ handle: KernelHandle, _ request: IoctlRequest, _ argument: IoctlArgument
    ) throws(Errno) -> Int32 {
        let command = request == .memoryEncryptOp ? SEVCommandView(argument, find: find, gpa: guestAddress) : nil
        let platform = request == .sevIssueCommand ? try? argument.load(SEVIssueCommand.self) : nil
        let name =
            command.map { "\($0.id)" } ?? platform.map { "\(SEVDeviceCommand(rawValue: $0.command))" } ?? "\(request)"
        let arguments =
            command?.arguments ?? (platform == nil ? RequestArguments.describe(request, argument) : JSONObject())
        if request == .setUserMemoryRegion, let slot = try? argument.load(KVMUserspaceMemoryRegion.self) {
            state.withLock { $0.slots.append(slot) }
        }
        return try record(name, handle, arguments) { () throws(Errno) -> Int32 in
            try base.ioctl(handle, request, argument)
        } results: { succeeded in
            var results = JSONObject()
            if let command {
                command.results(&results, argument, succeeded: succeeded, find: find, follow: follow)
            } else if platform != nil, !succeeded, let answer = try? argument.load(SEVIssueCommand.self) {
                results.add("firmwareStatus", "\(FirmwareStatus(rawValue: answer.error))")
            } else if request == .run, let page = state.withLock({ $0.runPages[handle]?.mapping }) {
                if page.byteCount >= RunPage.byteCount { results.add("exit", "\(RunPage(page).exitReason)") }
            }
            return results
        }
    }

    /// What the log says of something measured.
    private func follow(_ measured: Measured) -> JSONObject {
        var result = JSONObject()
        if let text = digest(measured) { result.add("launchDigest", text) }
        result.merge(details(measured))
        return result
    }

    /// The mapping that holds `byteCount` bytes at `address`, and where.
    private func find(_ address: UInt64, _ byteCount: Int) -> (mapping: KernelMapping, offset: Int)? {
        state.withLock { state in
            for candidate in state.mappings {
                guard let mapping = candidate.mapping, address >= mapping.address,
                    let offset = Int(exactly: address - mapping.address), mapping.contains(offset, byteCount)
                else { continue }
                return (mapping, offset)
            }
            return nil
        }
    }

    /// Where memory of this process lies in a guest, by the slots so far; the newest slot wins.
    private func guestAddress(_ address: UInt64) -> UInt64? {
        state.withLock { state in
            let slot = state.slots.last {
                $0.userspaceAddress <= address && address - $0.userspaceAddress < $0.memoryByteCount
            }
            return slot.map { $0.guestPhysicalAddress &+ (address - $0.userspaceAddress) }
        }
    }

    @discardableResult
    private func record(
        _ name: String, _ handle: KernelHandle?, _ arguments: JSONObject, _ body: () throws(Errno) -> Int32,
        results: (Bool) -> JSONObject = { _ in JSONObject() }
    ) throws(Errno) -> Int32 {
        let start = ContinuousClock.now
        let outcome: Result<Int32, Errno>
        do { outcome = .success(try body()) } catch { outcome = .failure(error) }
        let duration = start.duration(to: .now)
        var line = JSONObject()
        line.add(
            "sequence",
            state.withLock { state in
                state.sequence &+= 1
                return state.sequence
            })
        line.add("request", name)
        if let handle { line.add("handle", handle.rawValue) }
        line.add("arguments", arguments)
        switch outcome {
        case .success(let value): line.add("result", value)
        case .failure(let error): line.add("errno", error.name ?? "\(error.rawValue)")
        }
        let (seconds, attoseconds) = duration.components
        line.add("nanoseconds", seconds &* 1_000_000_000 &+ attoseconds / 1_000_000_000)
        if case .success = outcome { line.merge(results(true)) } else { line.merge(results(false)) }
        write(line.text)
        return try outcome.get()
    }
}

/// A SEV command on its way through, seen through its envelope.
private struct SEVCommandView {
    typealias Find = (UInt64, Int) -> (mapping: KernelMapping, offset: Int)?
    let id: SEVCommandID
    private let data: UInt64
    private let update: KVMSNPLaunchUpdate?
    /// What UPDATE_DATA is about to encrypt in place.
    private let plaintext: [UInt8]
    let arguments: JSONObject

    init?(_ argument: IoctlArgument, find: Find, gpa: (UInt64) -> UInt64?) {
        guard let envelope = try? argument.load(KVMSEVCommand.self) else { return nil }
        id = SEVCommandID(rawValue: envelope.id)
        data = envelope.data
        var arguments = JSONObject()
        var update: KVMSNPLaunchUpdate?
        var plaintext: [UInt8] = []
        func structure<Structure: KernelStructure>(_ type: Structure.Type) -> Structure? {
            find(envelope.data, MemoryLayout<Structure>.size).map { $0.mapping.load(structureAt: $0.offset, as: type) }
        }
        switch id {
        case .initialize2:
            if let value = structure(KVMSEVInit.self) {
                arguments.add("vmsaFeatures", hex: value.vmsaFeatures)
                arguments.add("flags", value.flags)
                arguments.add("ghcbVersion", value.ghcbVersion)
            }
        case .snpLaunchStart:
            if let value = structure(KVMSNPLaunchStart.self) { arguments.add("policy", hex: value.policy) }
        case .snpLaunchUpdate:
            if let value = structure(KVMSNPLaunchUpdate.self) {
                arguments.add("gfn", hex: value.gfnStart)
                arguments.add("byteCount", value.byteCount)
                arguments.add("pageType", "\(PageType(rawValue: value.type))")
                update = value
            }
        case .snpLaunchFinish:
            if let value = structure(KVMSNPLaunchFinish.self) {
                arguments.add("idBlock", value.idBlockEnabled != 0)
                arguments.add("authorKey", value.authorKeyEnabled != 0)
                arguments.add("hostData", hexString(value.hostData))
            }
        case .launchStart:
            if let value = structure(KVMSEVLaunchStart.self) {
                arguments.add("policy", hex: value.policy)
                arguments.add("certificateByteCount", value.certificateByteCount)
                arguments.add("sessionByteCount", value.sessionByteCount)
            }
        case .launchUpdateData:
            if let value = structure(KVMSEVLaunchUpdateData.self) {
                if let gpa = gpa(value.userAddress) { arguments.add("gpa", hex: gpa) }
                arguments.add("byteCount", value.byteCount)
                if let source = find(value.userAddress, Int(value.byteCount)) {
                    plaintext = source.mapping.copyBytes(at: source.offset, count: Int(value.byteCount))
                }
            }
        case .launchMeasure:
            if let value = structure(KVMSEVLaunchMeasure.self) { arguments.add("byteCount", value.byteCount) }
        case .launchSecret:
            if let value = structure(KVMSEVLaunchSecret.self) {
                if let gpa = gpa(value.guestAddress) { arguments.add("gpa", hex: gpa) }
                arguments.add("byteCount", value.guestByteCount)
                arguments.add("headerByteCount", value.headerByteCount)
                arguments.add("payloadByteCount", value.transportByteCount)
            }
        default: break
        }
        self.arguments = arguments
        self.update = update
        self.plaintext = plaintext
    }

    /// What came back, and how it changed the digest.
    func results(
        _ results: inout JSONObject, _ argument: IoctlArgument, succeeded: Bool, find: Find,
        follow: (LaunchLog.Measured) -> JSONObject
    ) {
        if !succeeded, let envelope = try? argument.load(KVMSEVCommand.self) {
            results.add("firmwareStatus", "\(FirmwareStatus(rawValue: envelope.error))")
        }
        var measured: LaunchLog.Measured?
        if let update, let place = find(data, MemoryLayout<KVMSNPLaunchUpdate>.size) {
            let after = place.mapping.load(structureAt: place.offset, as: KVMSNPLaunchUpdate.self)
            results.add("bytesLeft", after.byteCount)
            let type = PageType(rawValue: update.type)
            let done = update.byteCount >= after.byteCount ? update.byteCount - after.byteCount : 0
            var contents: [UInt8] = []
            if type.measuresContents, let count = Int(exactly: done), let source = find(update.userAddress, count) {
                contents = source.mapping.copyBytes(at: source.offset, count: count)
            }
            if done > 0, done % UInt64(KVM.pageByteCount) == 0, !type.measuresContents || !contents.isEmpty {
                measured = .pages(
                    type: type, gpa: update.gfnStart &* UInt64(KVM.pageByteCount), byteCount: done, contents: contents)
            }
        }
        switch id {
        case .snpLaunchFinish, .launchUpdateVMSA:
            if succeeded { measured = .processors }
        case .launchUpdateData:
            if succeeded, !plaintext.isEmpty { measured = .data(contents: plaintext) }
        case .launchStart:
            if succeeded, let place = find(data, MemoryLayout<KVMSEVLaunchStart>.size) {
                results.add(
                    "handle", place.mapping.load(structureAt: place.offset, as: KVMSEVLaunchStart.self).handle)
            }
        case .launchMeasure:
            if succeeded, let place = find(data, MemoryLayout<KVMSEVLaunchMeasure>.size) {
                let answer = place.mapping.load(structureAt: place.offset, as: KVMSEVLaunchMeasure.self)
                if let source = find(answer.userAddress, SEVMeasurement.byteCount) {
                    results.add(
                        "measurement",
                        hexDigits(source.mapping.copyBytes(at: source.offset, count: SEVMeasurement.byteCount)))
                }
            }
        default: break
        }
        if let measured { results.merge(follow(measured)) }
    }
}

/// The arguments of a request, decoded as far as a reader needs them.
enum RequestArguments {
    /// Bytes of a structure that are shown in hex when nobody knows it better.
    static let maximumShownByteCount = 64

    static func describe(_ request: IoctlRequest, _ argument: IoctlArgument) -> JSONObject {
        var result = JSONObject()
        switch argument {
        case .none: return result
        case .value(let value):
            result.add(request == .checkExtension ? "capability" : "value", name(of: value, request))
            return result
        case .bytes: break
        }
        switch request {
        case .enableCapability:
            if let value = try? argument.load(KVMEnableCapability.self) {
                result.add("capability", "\(Capability(rawValue: value.capability))")
                result.add("argument", hex: value.arguments[0])
            }
        case .setUserMemoryRegion:
            if let value = try? argument.load(KVMUserspaceMemoryRegion.self) {
                result.add("slot", value.slot)
                result.add("gpa", hex: value.guestPhysicalAddress)
                result.add("byteCount", value.memoryByteCount)
            }
        case .setUserMemoryRegion2:
            if let value = try? argument.load(KVMUserspaceMemoryRegion2.self) {
                result.add("slot", value.slot)
                result.add("flags", value.flags)
                result.add("gpa", hex: value.guestPhysicalAddress)
                result.add("byteCount", value.memoryByteCount)
                result.add("guestMemfd", value.guestMemfd)
            }
        case .memoryEncryptRegisterRegion, .memoryEncryptUnregisterRegion:
            if let value = try? argument.load(KVMEncryptedRegion.self) { result.add("byteCount", value.byteCount) }
        case .createGuestMemfd:
            if let value = try? argument.load(KVMCreateGuestMemfd.self) { result.add("byteCount", value.byteCount) }
        case .setMemoryAttributes:
            if let value = try? argument.load(KVMMemoryAttributes.self) {
                result.add("gpa", hex: value.address)
                result.add("byteCount", value.byteCount)
                result.add("private", value.attributes & KVMMemoryAttributes.privateAttribute != 0)
            }
        case .irqLine:
            if let value = try? argument.load(KVMIRQLevel.self) {
                result.add("irq", value.irq)
                result.add("level", value.level)
            }
        case .setRegisters:
            if let value = try? argument.load(KVMRegisters.self) {
                result.add("rip", hex: value.rip)
                result.add("rsi", hex: value.rsi)
                result.add("rdx", hex: value.rdx)
                result.add("rflags", hex: value.rflags)
            }
        case .setSpecialRegisters:
            if let value = try? argument.load(KVMSpecialRegisters.self) {
                result.add("cr0", hex: value.cr0)
                result.add("cr3", hex: value.cr3)
                result.add("cr4", hex: value.cr4)
                result.add("efer", hex: value.efer)
            }
        default:
            result.add("byteCount", argument.byteCount)
            result.add("bytes", hexString(argument, min(argument.byteCount, maximumShownByteCount)))
        }
        return result
    }

    private static func name(of value: UInt64, _ request: IoctlRequest) -> String {
        guard request == .checkExtension, let number = UInt32(exactly: value) else { return "\(value)" }
        return "\(Capability(rawValue: number))"
    }

    private static func hexString(_ argument: IoctlArgument, _ byteCount: Int) -> String {
        var text = ""
        for offset in 0..<byteCount {
            guard let byte = try? argument.load(UInt8.self, at: offset) else { break }
            text += twoDigits(byte)
        }
        return text
    }
}

private func twoDigits(_ byte: UInt8) -> String { (byte < 16 ? "0" : "") + String(byte, radix: 16) }

/// Bytes as hex digits.
func hexDigits(_ bytes: some Sequence<UInt8>) -> String { bytes.reduce(into: "") { $0 += twoDigits($1) } }

private func hexString(_ bytes: [32 of UInt8]) -> String {
    var text = ""
    for index in bytes.indices { text += twoDigits(bytes[index]) }
    return text
}
