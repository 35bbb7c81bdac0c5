// The hashes of kernel, initrd and command line that a measured firmware compares with what it is given.

/// What a firmware is to boot, as files.
public struct HashedKernel: Sendable {
    /// The whole kernel file.
    public var kernel: [UInt8]
    /// Empty when there is none.
    public var initrd: [UInt8]
    /// UTF-8 without a NUL; empty when there is none.
    public var commandLine: [UInt8]

    public init(kernel: [UInt8], initrd: [UInt8] = [], commandLine: [UInt8] = []) {
        self.kernel = kernel
        self.initrd = initrd
        self.commandLine = commandLine
    }
}

/// The SEV hashes table: 168 bytes, padded to 176.
public struct KernelHashesTable: Equatable, Sendable {
    public static let byteCount = 176

    /// What a table in a page of memory says.
    public struct Hashes: Equatable, Sendable {
        /// SHA-256 each.
        public var commandLine: [UInt8]
        public var initrd: [UInt8]
        public var kernel: [UInt8]
    }

    /// Looks for a table in a page, at a multiple of 16; nil when there is none.
    public static func find(in page: [UInt8]) -> Hashes? {
        let file = ImageBytes(page, as: "page")
        for offset in stride(from: UInt64(0), to: file.count, by: 16)
        where file.has(GUID.hashesTableHeader.bytes, at: offset) {
            func hash(_ index: UInt64) -> [UInt8]? {
                try? file.copy(at: offset + 18 + 50 * index + 18, byteCount: 32, "hash")
            }
            guard let commandLine = hash(0), let initrd = hash(1), let kernel = hash(2) else { return nil }
            return Hashes(commandLine: commandLine, initrd: initrd, kernel: kernel)
        }
        return nil
    }

    /// Exactly ``byteCount`` bytes.
    public let bytes: [UInt8]

    /// Hashes the three parts. The command line is hashed with a terminating NUL, so an absent one is one zero byte.
    public init(of files: HashedKernel) {
        var table = GUID.hashesTableHeader.bytes
        table.append(littleEndian: UInt16(168))
        func entry(_ guid: GUID, _ hash: [UInt8]) {
            table += guid.bytes
            table.append(littleEndian: UInt16(50))
            table += hash
        }
        entry(.commandLineHash, sha256(files.commandLine + [0]))
        entry(.initrdHash, sha256(files.initrd))
        entry(.kernelHash, sha256(files.kernel))
        table += [UInt8](repeating: 0, count: Self.byteCount - table.count)
        bytes = table
    }
}
