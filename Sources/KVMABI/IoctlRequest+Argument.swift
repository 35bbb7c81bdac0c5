// What a request word tells of its argument: a number or an address, how many bytes are there, and who writes them.

extension IoctlRequest {
    /// Direction bits: the argument is a structure. `_IO` requests take a number.
    public var takesAddress: Bool { rawValue >> 30 != 0 }

    /// The kernel writes to the structure, as the word has it; some old words say so and are not meant so.
    public var isAnswered: Bool { rawValue >> 31 != 0 && !Self.onlyRead.contains(self) }

    /// The structure's length in the word. Lists are longer.
    public var encodedByteCount: Int { takesAddress ? Int(rawValue >> 16 & 0x3fff) : 0 }

    /// How many bytes the kernel may touch behind the argument: the encoded length, or header and entries of a list.
    ///
    /// - Parameter header: The argument's first bytes, at most 8.
    public func argumentByteCount(header: [UInt8]) -> Int {
        let (first, entry) = Self.lists[self] ?? (encodedByteCount, 0)
        guard entry > 0, let count = UInt32(kernelBytes: header) else { return first }
        // Safe: 2^32 entries of 48 bytes fit in 64 bits.
        return first + entry * Int(count)
    }

    private static let lists: [IoctlRequest: (header: Int, entry: Int)] = [
        .getSupportedCPUID: (8, 40), .getCPUID2: (8, 40), .setCPUID2: (8, 40), .getMSRs: (8, 16), .setMSRs: (8, 16),
        .getMSRIndexList: (4, 4), .getMSRFeatureIndexList: (4, 4), .setGSIRouting: (8, 48), .setSignalMask: (4, 1),
        // Encoded as an address, and a structure all the same.
        .memoryEncryptOp: (24, 0),
    ]
    private static let onlyRead: Set<IoctlRequest> = [
        .setIRQChip, .memoryEncryptRegisterRegion, .memoryEncryptUnregisterRegion,
    ]
}
