// The launch digest, one page after the other.

import Crypto
import GuestImage
import SEVABI
import X86Defs

/// Computes LD as the firmware does: LD = SHA-384(PAGE_INFO) for every page [SNP 8.17.2].
public struct RunningLaunchDigest: Sendable {
    /// LD after the pages so far; zero before the first.
    public private(set) var digest = LaunchDigest()

    /// The GPA that KVM measures every VMSA with: all ones, cut to the page and to 48 bits.
    public static let vmsaGPA: UInt64 = 0xffff_ffff_f000

    /// PAGE_INFO of the next page. DIGEST_CUR is kept up to date; IMI_PAGE and the VMPL permissions are 0 with KVM.
    private var info = [UInt8](repeating: 0, count: 0x70)

    public init() { info[0x60] = 0x70 }

    /// Goes on from a digest that is known.
    public init(from digest: LaunchDigest) {
        self.init()
        self.digest = digest
        for index in 0..<48 { info[index] = digest.bytes[index] }
    }

    /// Measures a run of pages of one type.
    ///
    /// - Parameter region: Page aligned; NORMAL pages need their contents (a region without them is a programmer's error).
    public mutating func extend(_ region: LaunchPlan.Region) {
        precondition(region.gpa & 0xfff == 0 && region.byteCount & 0xfff == 0, "launch regions are whole pages")
        let measuresContents = region.pageType == .normal || region.pageType == .vmsa
        precondition(
            !measuresContents || UInt64(region.contents.count) == region.byteCount, "measured pages have contents")
        let bytes = region.contents.span
        let hasher = SHA2Hasher(.sha384)
        setContents(nil)
        for page in 0..<(region.byteCount >> 12) {
            if measuresContents {
                let start = Int(page << 12)
                setContents(hasher.hash384(bytes.extracting(start..<(start + 4096))))
            }
            measure(type: region.pageType, gpa: region.gpa &+ page << 12, with: hasher)
        }
    }

    /// Measures the sealed state of one processor; KVM does so during SNP_LAUNCH_FINISH, in vCPU creation order.
    ///
    /// - Returns: SHA-384 of the VMSA page.
    @discardableResult
    public mutating func extend(_ state: SealedState) -> LaunchDigest {
        let hash = LaunchDigest(SHA2Hasher(.sha384).hash384(state.page.span))
        extend(stateDigest: hash)
        return hash
    }

    /// Measures the sealed state of one processor whose page has this SHA-384.
    public mutating func extend(stateDigest: LaunchDigest) {
        setContents(stateDigest.bytes)
        measure(type: .vmsa, gpa: Self.vmsaGPA, with: SHA2Hasher(.sha384))
    }

    private mutating func setContents(_ hash: [48 of UInt8]?) {
        for index in 0..<48 { info[0x30 + index] = hash.map { $0[index] } ?? 0 }
    }

    private mutating func measure(type: PageType, gpa: UInt64, with hasher: SHA2Hasher) {
        info[0x62] = type.rawValue
        for index in 0..<8 { info[0x68 + index] = UInt8(truncatingIfNeeded: gpa &>> UInt64(8 * index)) }
        digest.bytes = hasher.hash384(info.span)
        for index in 0..<48 { info[index] = digest.bytes[index] }
    }
}
