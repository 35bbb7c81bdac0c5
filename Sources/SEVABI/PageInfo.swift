// PAGE_INFO: the record that SNP_LAUNCH_UPDATE hashes for every page.

/// PAGE_INFO [SNP 8.17.2], 0x70 bytes, kept as bytes so that a launch can change the few fields that differ from page
/// to page and hash the record in place.
///
/// ```
/// 0x00 DIGEST_CUR 48   0x60 LENGTH 2 = 0x70   0x62 PAGE_TYPE 1   0x63 IMI_PAGE bit 0
/// 0x30 CONTENTS   48   0x64 reserved 1        0x65 VMPL1…3 permissions, 1 each   0x68 GPA 8
/// ```
public struct PageInfo: Sendable {
    public static let byteCount = 0x70
    /// The GPA that KVM's VMSA pages are measured with: all ones, cut to a page and to 48 bits.
    public static let vmsaGPA: UInt64 = 0xffff_ffff_f000

    public private(set) var bytes: [0x70 of UInt8]

    public init(
        currentDigest: LaunchDigest = LaunchDigest(), contents: LaunchDigest = LaunchDigest(), pageType: PageType,
        isIMIPage: Bool = false, permissions: VMPLPermissions = VMPLPermissions(), gpa: UInt64
    ) {
        bytes = .init(repeating: 0)
        bytes[0x60] = 0x70
        self.currentDigest = currentDigest
        self.contents = contents
        self.pageType = pageType
        self.isIMIPage = isIMIPage
        self.permissions = permissions
        self.gpa = gpa
    }

    /// DIGEST_CUR: LD before this page.
    public var currentDigest: LaunchDigest {
        get { LaunchDigest(.init { bytes[$0] }) }
        set { for index in 0..<48 { bytes[index] = newValue.bytes[index] } }
    }

    /// CONTENTS: SHA-384 of the plaintext for NORMAL and VMSA, else zeroes.
    public var contents: LaunchDigest {
        get { LaunchDigest(.init { bytes[0x30 &+ $0] }) }
        set { for index in 0..<48 { bytes[0x30 &+ index] = newValue.bytes[index] } }
    }

    /// PAGE_TYPE.
    public var pageType: PageType {
        get { PageType(rawValue: bytes[0x62]) }
        set { bytes[0x62] = newValue.rawValue }
    }

    /// IMI_PAGE: belongs to the initial migration image. KVM cannot ask for it.
    public var isIMIPage: Bool {
        get { bytes[0x63] & 1 != 0 }
        set { bytes[0x63] = newValue ? 1 : 0 }
    }

    /// VMPL1_PERMS to VMPL3_PERMS.
    public var permissions: VMPLPermissions {
        get { VMPLPermissions(vmpl1: bytes[0x65], vmpl2: bytes[0x66], vmpl3: bytes[0x67]) }
        set {
            bytes[0x65] = newValue.vmpl1
            bytes[0x66] = newValue.vmpl2
            bytes[0x67] = newValue.vmpl3
        }
    }

    /// GPA of the page; bits 11:0 are zero.
    public var gpa: UInt64 {
        get {
            var value: UInt64 = 0
            for index in 0..<8 { value |= UInt64(bytes[0x68 &+ index]) &<< UInt64(8 &* index) }
            return value
        }
        set { for index in 0..<8 { bytes[0x68 &+ index] = UInt8(truncatingIfNeeded: newValue &>> UInt64(8 &* index)) } }
    }
}

/// What VMPL1 to VMPL3 may do with a page [APM2 15.36.7]: bit 0 read, 1 write, 2 execute at CPL 3, 3 execute at
/// CPL 0 to 2. VMPL0 may always do everything.
public struct VMPLPermissions: Equatable, Hashable, Sendable {
    public static let read: UInt8 = 1
    public static let write: UInt8 = 2
    public static let userExecute: UInt8 = 4
    public static let supervisorExecute: UInt8 = 8
    /// Every permission there is; bits 7:4 of a permission byte are zero.
    public static let all: UInt8 = 0xf

    public var vmpl1: UInt8
    public var vmpl2: UInt8
    public var vmpl3: UInt8

    public init(vmpl1: UInt8 = 0, vmpl2: UInt8 = 0, vmpl3: UInt8 = 0) {
        self.vmpl1 = vmpl1
        self.vmpl2 = vmpl2
        self.vmpl3 = vmpl3
    }
}
