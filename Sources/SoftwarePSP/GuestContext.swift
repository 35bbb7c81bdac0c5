// What the firmware remembers of one guest: the contents of a context page.

import Crypto
import SEVABI

/// GCTX [SNP 4.2]. Only used under the secure processor's lock.
final class GuestContext {
    var state = SNPGuestState.initial
    var policy = GuestPolicy(rawValue: 0)
    /// 0 while no ASID is bound.
    var asid: UInt32 = 0
    /// VEK: the memory encryption key, 32 bytes or 64 as the policy asks.
    var memoryKey: [UInt8] = []
    /// VMPCK0 to VMPCK3.
    var messageKeys: [[UInt8]] = []
    /// MSG_COUNT0 to MSG_COUNT3: the last sequence number that each key has sealed with.
    var messageCounts: [UInt64] = [0, 0, 0, 0]
    /// VMRK: without a migration agent a random key of this guest, 32 bytes.
    var migrationRootKey: [UInt8] = []
    /// REPORT_ID: random, the same in all reports of this guest.
    var reportID: [UInt8] = []
    var gosvw = [UInt8](repeating: 0, count: 16)
    var desiredTSCKHz: UInt32 = 0
    /// The PAGE_INFO of the next page; its DIGEST_CUR is LD.
    var pageInfo = PageInfo(pageType: .normal, gpa: 0)

    // What LAUNCH_FINISH leaves for reports.
    var hostData = [UInt8](repeating: 0, count: 32)
    var idBlock: IDBlock?
    var idKeyDigest = LaunchDigest()
    var authorKeyDigest = LaunchDigest()
    var hasAuthorKey = false
    var disablesVCEK = false
    var launchTCB = TCBVersion(rawValue: 0)
    var launchMitigationVector: UInt64 = 0
    /// A VMSA of the launch has Secure TSC in its SEV_FEATURES.
    var usesSecureTSC = false

    deinit {
        wipe(&memoryKey)
        wipe(&migrationRootKey)
        for index in messageKeys.indices { wipe(&messageKeys[index]) }
    }
}
