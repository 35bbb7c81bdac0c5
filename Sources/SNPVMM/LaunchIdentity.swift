// What a guest owner adds to a launch beside the pages: HOST_DATA, the ID block and its authentication.

import SEVABI

/// The input of SNP_LAUNCH_FINISH [SNP 8.18].
public struct LaunchIdentity: Sendable {
    /// HOST_DATA: 32 bytes that appear in reports, unmeasured.
    public var hostData: [32 of UInt8]
    /// The ID block and its signatures; nil for a launch that nobody has signed for.
    public var identityBlock: (block: IDBlock, authentication: IDAuthentication)?
    /// VCEK_DIS: reports may then be signed with a VLEK only.
    public var disablesVCEK: Bool

    public init(
        hostData: [32 of UInt8] = .init(repeating: 0),
        identityBlock: (block: IDBlock, authentication: IDAuthentication)? = nil, disablesVCEK: Bool = false
    ) {
        self.hostData = hostData
        self.identityBlock = identityBlock
        self.disablesVCEK = disablesVCEK
    }

    /// AUTHOR_KEY_EN: there is an author key when its field is not empty.
    var hasAuthorKey: Bool {
        identityBlock.map { $0.authentication.authorKey.bytes.contains { $0 != 0 } } ?? false
    }
}
