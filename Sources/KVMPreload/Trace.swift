// What a request was and what came of it, one line each, on standard error.

import CPreload
import KVMABI
import SoftwareKVM
import Synchronization

enum Trace {
    static let isOn = preload_setting(3) > 0

    private static let runPages = Mutex<[KernelHandle: RunPage]>([:])

    static func show(
        _ kernel: SoftwareKVM, _ handle: KernelHandle, _ request: IoctlRequest, _ argument: UInt64, _ answer: Int32
    ) {
        var text = answer < 0 ? "\(Errno(rawValue: 0 &- answer))" : "\(answer)"
        if request == .run, answer >= 0, let page = page(kernel, handle) { text += " " + describe(page) }
        var name = "\(request)"
        // The words are those that the request has just been answered from.
        if request == .memoryEncryptOp, answer != 0 &- Errno.EFAULT.rawValue {
            name += " \(SEVCommandID(rawValue: preload_word(argument)))"
            if answer < 0 { text += ", firmware \(FirmwareStatus(rawValue: preload_word(argument &+ 16)))" }
        }
        Settings.complain("\(handle.rawValue) \(name) 0x\(hex(argument)) = \(text)")
    }

    private static func page(_ kernel: SoftwareKVM, _ handle: KernelHandle) -> RunPage? {
        runPages.withLock { pages in
            if let page = pages[handle] { return page }
            guard let mapping = try? kernel.map(handle, offset: 0, byteCount: 8192) else { return nil }
            pages[handle] = RunPage(mapping)
            return pages[handle]
        }
    }

    /// A vCPU's number may become another's.
    static func forget(_ handle: KernelHandle) { _ = runPages.withLock { $0.removeValue(forKey: handle) } }

    private static func describe(_ page: RunPage) -> String {
        let reason = page.exitReason
        switch reason {
        case .io:
            let io = page.portIO
            let data = io.isWrite ? " 0x" + hex(page.portData(io)?.prefix(16) ?? []) : ""
            return "\(reason) \(io.isWrite ? "out" : "in") 0x\(hex(io.port)) \(io.count)×\(io.size)\(data)"
        case .mmio:
            let mmio = page.mmio
            let data = mmio.isWrite ? " 0x\(hex(mmio.data))" : ""
            return
                "\(reason) \(mmio.isWrite ? "write" : "read") 0x\(hex(mmio.physicalAddress)) \(mmio.byteCount)\(data)"
        case .internalError:
            return "\(reason) \(page.internalError.kind) " + page.internalError.data.map(hex).joined(separator: " ")
        case .systemEvent:
            return "\(reason) \(page.systemEvent.type) " + page.systemEvent.data.map(hex).joined(separator: " ")
        default: return "\(reason)"
        }
    }

    private static func hex(_ value: some BinaryInteger) -> String { String(value, radix: 16) }
    /// Little-endian bytes as one number.
    private static func hex(_ bytes: some Sequence<UInt8>) -> String {
        bytes.reversed().map { ($0 < 16 ? "0" : "") + hex($0) }.joined()
    }
}
