// GUIDs as firmware images store them.

/// A GUID in its 16 stored bytes: the first three fields little-endian, the rest as written.
struct GUID: Hashable, Sendable {
    let bytes: [UInt8]

    /// Parses the usual text form. A wrong text is a programmer's error.
    init(_ text: StaticString) {
        let digits = "\(text)".filter { $0 != "-" }
        precondition(digits.utf8.count == 32, "a GUID has 32 digits")
        var plain: [UInt8] = []
        var rest = Substring(digits)
        while !rest.isEmpty {
            guard let byte = UInt8(rest.prefix(2), radix: 16) else { preconditionFailure("a GUID is hexadecimal") }
            plain.append(byte)
            rest = rest.dropFirst(2)
        }
        bytes = [3, 2, 1, 0, 5, 4, 7, 6].map { plain[$0] } + plain[8...]
    }

    init(stored bytes: [UInt8]) { self.bytes = bytes }

    static let tableFooter = GUID("96b582de-1fb2-45f7-baea-a366c55a082d")
    static let sevESResetBlock = GUID("00f771de-1a7e-4fcb-890e-68c77e2fb44e")
    static let sevHashesTable = GUID("7255371f-3a3b-4b04-927b-1da6efa8d454")
    static let sevMetadata = GUID("dc886566-984a-4798-a75e-5585a7bf67cc")
    static let hashesTableHeader = GUID("9438d606-4f22-4cc9-b479-a793d411fd21")
    static let commandLineHash = GUID("97d02dd8-bd20-4c94-aa78-e7714d36ab2a")
    static let initrdHash = GUID("44baf731-3a2f-4bd7-9af1-41e29169781d")
    static let kernelHash = GUID("4de79437-abd2-427f-b835-d5b172d2045b")
}
