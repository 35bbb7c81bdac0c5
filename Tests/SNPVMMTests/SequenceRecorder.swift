// A host kernel that writes down every request with its bytes, so that two runs can be compared: descriptors and
// addresses are replaced by what they are of.
//
//     vm KVM_SET_USER_MEMORY_REGION2
//         0x00  00000000 04000000 00000000 00000000  00000001 00000000 <memory2+0x0>
//
// Sixteen bytes a line, zero lines left out, pointers by name. What a command of the secure processor points to follows
// as a block of its own.

import KVMABI
import SEVABI
import Synchronization

/// The requests of one run, as text.
final class SequenceRecorder: HostKernel {
    private struct State: Sendable {
        var lines: [String] = []
        var names: [Int32: String] = [:]
        var counts: [String: Int] = [:]
        var mappings: [(name: String, range: Range<UInt64>)] = []
    }
    private let base: any HostKernel
    private let state = Mutex(State())

    init(_ base: any HostKernel) { self.base = base }

    var text: String { state.withLock { $0.lines.joined(separator: "\n") + "\n" } }

    func open(_ node: DeviceNode) throws(Errno) -> KernelHandle {
        let handle = try base.open(node)
        let name = name(node == .kvm ? "kvm" : node == .sev ? "sev" : "mem", of: handle.rawValue)
        write("open \(node.rawValue) = \(name)")
        return handle
    }

    func punchHole(_ handle: KernelHandle, offset: Int64, byteCount: Int64) throws(Errno) {
        write("fallocate \(named(handle.rawValue)) \(hex(UInt64(offset))) \(byteCount)")
        try base.punchHole(handle, offset: offset, byteCount: byteCount)
    }

    func close(_ handle: KernelHandle) { base.close(handle) }

    func map(_ handle: KernelHandle, offset: Int64, byteCount: Int) throws(Errno) -> KernelMapping {
        let mapping = try base.map(handle, offset: offset, byteCount: byteCount)
        let owner = handle == .anonymous ? nil : named(handle.rawValue)
        let range = mapping.address..<mapping.address + UInt64(byteCount)
        let name = state.withLock { state in
            state.counts["memory", default: 0] += 1
            let name = owner.map { "\($0).run" } ?? "memory\(state.counts["memory"]!)"
            state.mappings.append((name, range))
            return name
        }
        write("mmap \(owner ?? "anonymous") offset \(offset) length \(hex(UInt64(byteCount))) = \(name)")
        return mapping
    }

    func ioctl(_ handle: KernelHandle, _ request: IoctlRequest, _ argument: IoctlArgument) throws(Errno) -> Int32 {
        var line = "\(named(handle.rawValue)) \(request)"
        var blocks: [String] = []
        switch argument {
        case .none: break
        case .value(let value): line += " \(hex(value))"
        case .bytes:
            if request.isAnswer { break }
            blocks = dump(bytes(of: argument, request), request)
            if request == .memoryEncryptOp { (line, blocks) = command(argument, line) }
        }
        let result: Int32
        do { result = try base.ioctl(handle, request, argument) } catch {
            write(([line + " = \(error)"] + blocks).joined(separator: "\n"))
            throw error
        }
        switch request {
        case .createVM: line += " = " + name("vm", of: result)
        case .createVCPU: line += " = " + name("vcpu", of: result)
        case .createGuestMemfd: line += " = " + name("memfd", of: result)
        default: break
        }
        write(([line] + blocks).joined(separator: "\n"))
        return result
    }

    // MARK: Bytes

    private func bytes(of argument: IoctlArgument, _ request: IoctlRequest) -> [UInt8] {
        // The room for an answer is no part of a question.
        let count = request == .getSupportedCPUID || request == .getMSRs ? 8 : argument.byteCount
        return (0..<count).map { (try? argument.load(UInt8.self, at: $0)) ?? 0 }
    }

    /// KVM_MEMORY_ENCRYPT_OP: the envelope, then what it points to, then what that points to, by digest.
    private func command(_ argument: IoctlArgument, _ line: String) -> (String, [String]) {
        guard let envelope = try? argument.load(KVMSEVCommand.self) else { return (line, []) }
        let id = SEVCommandID(rawValue: envelope.id)
        let head = line + " \(id) sev_fd \(named(Int32(truncatingIfNeeded: envelope.sevHandle)))"
        guard let byteCount = Self.lengths[id], envelope.data != 0 else { return (head, []) }
        let contents = peekBytes(envelope.data, byteCount)
        var blocks = words(contents)
        for (what, address, byteCount) in Self.contents(id, envelope.data) where byteCount > 0 {
            blocks.append(summary(what, peekBytes(address, Int(byteCount))))
        }
        return (head, blocks)
    }

    private static let lengths: [SEVCommandID: Int] = [
        .initialize2: 48, .launchStart: 40, .launchUpdateData: 16, .launchMeasure: 16, .launchSecret: 48,
        .snpLaunchStart: 64, .snpLaunchUpdate: 64, .snpLaunchFinish: 88,
    ]

    /// What the command's structure points to: name, address and length.
    private static func contents(_ id: SEVCommandID, _ data: UInt64) -> [(String, UInt64, UInt64)] {
        switch id {
        case .snpLaunchUpdate:
            let value: KVMSNPLaunchUpdate = peek(data)
            return value.type == PageType.zero.rawValue ? [] : [("pages", value.userAddress, value.byteCount)]
        case .launchUpdateData:
            let value: KVMSEVLaunchUpdateData = peek(data)
            return [("data", value.userAddress, UInt64(value.byteCount))]
        case .launchStart:
            let value: KVMSEVLaunchStart = peek(data)
            return [
                ("certificate", value.certificateAddress, UInt64(value.certificateByteCount)),
                ("session", value.sessionAddress, UInt64(value.sessionByteCount)),
            ]
        case .launchSecret:
            let value: KVMSEVLaunchSecret = peek(data)
            return [
                ("header", value.headerAddress, UInt64(value.headerByteCount)),
                ("payload", value.transportAddress, UInt64(value.transportByteCount)),
            ]
        case .snpLaunchFinish:
            let value: KVMSNPLaunchFinish = peek(data)
            return value.idBlockEnabled == 0
                ? [] : [("id_block", value.idBlockAddress, 96), ("id_auth", value.idAuthAddress, 4096)]
        default: return []
        }
    }

    private func dump(_ bytes: [UInt8], _ request: IoctlRequest) -> [String] {
        var bytes = bytes
        switch request {
        case .setUserMemoryRegion2 where bytes.count >= 44:
            let descriptor = bytes[40..<44].reversed().reduce(Int32(0)) { $0 << 8 | Int32($1) }
            for index in 40..<44 { bytes[index] = 0 }
            return words(bytes) + ["    guest_memfd \(named(descriptor))"]
        case .sevIssueCommand where bytes.count >= 12:
            // Packed: its pointer is not where words() looks.
            for index in 4..<12 { bytes[index] = 0 }
            return words(bytes) + ["    data <buffer>"]
        default: return words(bytes)
        }
    }

    /// Lines of sixteen bytes; eight bytes that are an address of this process by name.
    private func words(_ bytes: [UInt8]) -> [String] {
        stride(from: 0, to: bytes.count, by: 16).compactMap { start in
            let line = bytes[start..<min(start + 16, bytes.count)]
            guard line.contains(where: { $0 != 0 }) else { return nil }
            let halves = stride(from: start, to: line.endIndex, by: 8).map { half in
                let part = bytes[half..<min(half + 8, bytes.count)]
                if part.count == 8, let name = pointer(part.reversed().reduce(0) { $0 << 8 | UInt64($1) }) {
                    return name
                }
                return part.map { byte in (byte < 16 ? "0" : "") + String(byte, radix: 16) }.joined()
            }
            return "    \(hex(UInt64(start))): " + halves.joined(separator: " ")
        }
    }

    /// The name of an address in mapped memory, or in memory of the VMM's own.
    private func pointer(_ value: UInt64) -> String? {
        let mapping = state.withLock { $0.mappings.last { $0.range.contains(value) } }
        if let mapping { return "<\(mapping.name)+\(hex(value - mapping.range.lowerBound))>" }
        // Where Linux places stacks and heaps; no guest address and no register of these launches is there.
        return 0x5000_0000_0000..<0x7fff_ffff_f000 ~= value ? "<buffer>" : nil
    }

    /// A content too long to be read: its length and a FNV-1a hash.
    private func summary(_ what: String, _ bytes: [UInt8]) -> String {
        let hash = bytes.reduce(0xcbf2_9ce4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
        return "    \(what): \(bytes.count) bytes, fnv1a \(hex(hash))"
    }

    // MARK: Names

    private func name(_ kind: String, of descriptor: Int32) -> String {
        state.withLock { state in
            state.counts[kind, default: 0] += 1
            let count = state.counts[kind]!
            let name = kind == "vcpu" || kind == "memfd" || count > 1 ? "\(kind)\(count - 1)" : kind
            state.names[descriptor] = name
            return name
        }
    }

    private func named(_ descriptor: Int32) -> String {
        state.withLock { $0.names[descriptor] } ?? (descriptor == 0 ? "none" : "unknown")
    }

    private func write(_ line: String) { state.withLock { $0.lines.append(line) } }
    private func hex(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }
}

extension IoctlRequest {
    /// The kernel writes the whole structure and reads nothing of it.
    fileprivate var isAnswer: Bool {
        rawValue >> 30 == 2 && self != .memoryEncryptRegisterRegion && self != .memoryEncryptUnregisterRegion
    }
}
