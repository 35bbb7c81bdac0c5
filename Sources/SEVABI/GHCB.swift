// The GHCB page: how a guest with encrypted state hands registers to the hypervisor and gets them back.
//
// The page is shared with the guest and changes under the reader. So this type is a copy: copy once, check the copy,
// use the copy, write the copy back.

/// The guest-hypervisor communication block [GHCB 2.6], a 4096-byte page.
///
/// ```
/// 0x000 save area, a subset of the VMSA's layout   0x3F0 valid bitmap: bit n covers the quadword at 8·n
/// 0x800 shared buffer, 2032 bytes                  0xFFA protocol version u16   0xFFC usage u32
/// ```
public struct GHCB: Equatable, Sendable {
    public static let byteCount = 4096
    /// Where event data is exchanged: page state changes, string I/O, MMIO.
    public static let sharedBuffer = 0x800..<0xff0
    static let validBitmap = 0x3f0

    /// Exactly 4096 bytes.
    public private(set) var bytes: [UInt8]

    /// All zero.
    public init() { bytes = [UInt8](repeating: 0, count: Self.byteCount) }

    /// A copy of a page. Returns nil unless there are exactly 4096 bytes.
    public init?(bytes: [UInt8]) {
        guard bytes.count == Self.byteCount else { return nil }
        self.bytes = bytes
    }

    /// A field of the save area with a bit in the valid bitmap. All are read and written as 64-bit values; CPL is the
    /// one-byte field at 0xCB.
    public struct Field: Hashable, Sendable {
        public let offset: Int
        /// Bit number in the valid bitmap.
        public var validBit: Int { offset / 8 }
        init(_ offset: Int) { self.offset = offset }

        public static let cpl = Field(0x0cb)
        public static let xss = Field(0x140)
        public static let dr7 = Field(0x160)
        public static let rip = Field(0x178)
        public static let rsp = Field(0x1d8)
        public static let rax = Field(0x1f8)
        public static let rcx = Field(0x308)
        public static let rdx = Field(0x310)
        public static let rbx = Field(0x318)
        public static let rbp = Field(0x328)
        public static let rsi = Field(0x330)
        public static let rdi = Field(0x338)
        public static let r8 = Field(0x340)
        public static let r9 = Field(0x348)
        public static let r10 = Field(0x350)
        public static let r11 = Field(0x358)
        public static let r12 = Field(0x360)
        public static let r13 = Field(0x368)
        public static let r14 = Field(0x370)
        public static let r15 = Field(0x378)
        /// SW_EXITCODE.
        public static let exitCode = Field(0x390)
        /// SW_EXITINFO1.
        public static let exitInfo1 = Field(0x398)
        /// SW_EXITINFO2.
        public static let exitInfo2 = Field(0x3a0)
        /// SW_SCRATCH.
        public static let scratch = Field(0x3a8)
        public static let xcr0 = Field(0x3e8)
    }

    /// A field's value, or nil when its valid bit is clear. Setting a value sets the bit; setting nil clears the bit
    /// and leaves the bytes.
    public subscript(field: Field) -> UInt64? {
        get {
            guard isValid(field) else { return nil }
            return field == .cpl ? UInt64(bytes[field.offset]) : bytes.field(field.offset)
        }
        set {
            let byte = Self.validBitmap &+ field.validBit / 8
            let bit = UInt8(1) &<< UInt8(truncatingIfNeeded: field.validBit & 7)
            guard let newValue else {
                bytes[byte] &= ~bit
                return
            }
            bytes[byte] |= bit
            if field == .cpl {
                bytes[field.offset] = UInt8(truncatingIfNeeded: newValue)
            } else {
                bytes.setField(field.offset, newValue)
            }
        }
    }

    /// True when the other side has filled the field.
    public func isValid(_ field: Field) -> Bool {
        bytes[Self.validBitmap &+ field.validBit / 8] &>> UInt8(truncatingIfNeeded: field.validBit & 7) & 1 != 0
    }

    /// Clears the whole bitmap, as both sides do before they fill the page.
    public mutating func clearValidBitmap() {
        for index in 0..<16 { bytes[Self.validBitmap &+ index] = 0 }
    }

    /// Protocol version that the guest negotiated.
    public var protocolVersion: UInt16 {
        get { bytes.field(0xffa) }
        set { bytes.setField(0xffa, newValue) }
    }

    /// GHCB usage: 0 is the standard layout; anything else is a layout of the hypervisor's own.
    public var usage: UInt32 {
        get { bytes.field(0xffc) }
        set { bytes.setField(0xffc, newValue) }
    }

    /// Where `byteCount` bytes at the guest physical address `scratch` lie in this page's shared buffer.
    /// Returns nil when they are not wholly inside it.
    public static func pageOffset(ofScratch scratch: UInt64, byteCount: Int, ghcbGPA: UInt64) -> Int? {
        let (distance, borrow) = scratch.subtractingReportingOverflow(ghcbGPA)
        guard !borrow, byteCount >= 0, distance >= UInt64(sharedBuffer.lowerBound),
            distance <= UInt64(sharedBuffer.upperBound),
            byteCount <= sharedBuffer.upperBound - Int(truncatingIfNeeded: distance)
        else { return nil }
        return Int(truncatingIfNeeded: distance)
    }

    /// Bytes of the page. The range is the caller's own: inside the page.
    public subscript(range: Range<Int>) -> [UInt8] {
        get { Array(bytes[range]) }
        set {
            precondition(newValue.count == range.count, "a range of the GHCB keeps its length")
            bytes.setBytes(range.lowerBound, newValue)
        }
    }
}

/// SW_EXITCODE values that are not intercept codes of the processor [GHCB 4.1].
public struct GHCBEvent: RawRepresentable, Hashable, Sendable {
    public var rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    public static let readDR7 = GHCBEvent(rawValue: 0x27)
    public static let writeDR7 = GHCBEvent(rawValue: 0x37)
    public static let rdtsc = GHCBEvent(rawValue: 0x6e)
    public static let rdpmc = GHCBEvent(rawValue: 0x6f)
    public static let cpuid = GHCBEvent(rawValue: 0x72)
    public static let invd = GHCBEvent(rawValue: 0x76)
    public static let ioio = GHCBEvent(rawValue: 0x7b)
    public static let msr = GHCBEvent(rawValue: 0x7c)
    public static let vmmcall = GHCBEvent(rawValue: 0x81)
    public static let rdtscp = GHCBEvent(rawValue: 0x87)
    public static let wbinvd = GHCBEvent(rawValue: 0x89)
    public static let monitor = GHCBEvent(rawValue: 0x8a)
    public static let mwait = GHCBEvent(rawValue: 0x8b)
    public static let mmioRead = GHCBEvent(rawValue: 0x8000_0001)
    public static let mmioWrite = GHCBEvent(rawValue: 0x8000_0002)
    public static let nmiComplete = GHCBEvent(rawValue: 0x8000_0003)
    public static let apResetHold = GHCBEvent(rawValue: 0x8000_0004)
    public static let apJumpTable = GHCBEvent(rawValue: 0x8000_0005)
    public static let pageStateChange = GHCBEvent(rawValue: 0x8000_0010)
    public static let guestRequest = GHCBEvent(rawValue: 0x8000_0011)
    public static let extendedGuestRequest = GHCBEvent(rawValue: 0x8000_0012)
    public static let apCreation = GHCBEvent(rawValue: 0x8000_0013)
    public static let runVMPL = GHCBEvent(rawValue: 0x8000_0018)
    public static let hypervisorFeatures = GHCBEvent(rawValue: 0x8000_fffd)
    public static let termination = GHCBEvent(rawValue: 0x8000_fffe)
    public static let unsupported = GHCBEvent(rawValue: 0x8000_ffff)
}

/// The reason in SW_EXITINFO2 when SW_EXITINFO1 is 2, "malformed input" [GHCB 4.1].
public struct GHCBMalformedInput: RawRepresentable, Hashable, Sendable {
    public var rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    public static let notRegistered = GHCBMalformedInput(rawValue: 1)
    public static let invalidUsage = GHCBMalformedInput(rawValue: 2)
    public static let invalidScratchArea = GHCBMalformedInput(rawValue: 3)
    public static let missingInput = GHCBMalformedInput(rawValue: 4)
    public static let invalidInput = GHCBMalformedInput(rawValue: 5)
    public static let invalidEvent = GHCBMalformedInput(rawValue: 6)
}
