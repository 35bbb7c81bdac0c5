import Crypto
import MemoryController
import SEVABI

/// A small memory with two guests' keys in their slots.
struct Machine {
    static let guestA: UInt32 = 5
    static let guestB: UInt32 = 6
    static let gpa: UInt64 = 0x7000
    static let keyA = Array(1...32 as ClosedRange<UInt8>)
    static let keyB = Array(101...132 as ClosedRange<UInt8>)

    let memory: SystemMemory

    init() throws {
        memory = try SystemMemory(byteCount: 16 << 20)
        precondition(memory.firmwareInstallKey(asid: Self.guestA, Self.keyA))
        precondition(memory.firmwareInstallKey(asid: Self.guestB, Self.keyB))
    }

    /// A fresh page, assigned to a guest and validated.
    func guestPage(_ asid: UInt32 = guestA, gpa: UInt64 = gpa, contents: [UInt8]? = nil) throws -> SPA {
        let spa = memory.allocatePages()!
        if let contents { try memory.hostWrite(spa, contents) }
        precondition(memory.rmpUpdate(spa, RMPUpdate(gpa: gpa, assigned: true, asid: asid)) == .success)
        precondition(
            memory.pvalidate(spa, gpa: gpa, asid: asid, is2MiB: false, validate: true)
                == .result(.success, unchanged: false))
        return spa
    }

    /// A guest's load: nil when it faults.
    func load(_ spa: SPA, asid: UInt32 = guestA, gpa: UInt64 = gpa, _ range: Range<Int> = 0..<4096) -> [UInt8]? {
        guard case .page(let pointer, _) = memory.guestPage(spa, gpa: gpa, asid: asid) else { return nil }
        return range.map { unsafe pointer.load(fromByteOffset: $0, as: UInt8.self) }
    }

    /// A guest's store of one byte. Returns false when it faults.
    func store(_ spa: SPA, asid: UInt32 = guestA, gpa: UInt64 = gpa, _ offset: Int, _ value: UInt8) -> Bool {
        guard case .page(let pointer, true) = memory.guestPage(spa, gpa: gpa, asid: asid, access: .write) else {
            return false
        }
        unsafe pointer.storeBytes(of: value, toByteOffset: offset, as: UInt8.self)
        return true
    }

    /// Why a guest's access does not get a page; nil when it does.
    func refusal(
        _ spa: SPA, asid: UInt32 = guestA, gpa: UInt64 = gpa, vmpl: Int = 0, _ access: GuestAccess = .read
    ) -> String? {
        switch memory.guestPage(spa, gpa: gpa, asid: asid, vmpl: vmpl, access: access) {
        case .page: nil
        case .notValidated: "notValidated"
        case .fault(let fault): "\(fault)"
        }
    }
}
