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
