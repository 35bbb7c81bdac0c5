// What a platform is beside its keys, and keeps when it is switched off: product, firmware, security versions, and what the
// host has configured. The rules of the commands that change it are here, so that they hold whoever asks.
//
//     REPORTED ≤ COMMITTED ≤ CURRENT, component by component
//
//     a new firmware      moves CURRENT, not below COMMITTED
//     SNP_COMMIT          moves COMMITTED and REPORTED up to CURRENT, for ever
//     SNP_CONFIG          moves REPORTED, not above COMMITTED

import SEVABI

/// Product, versions and configuration of a platform [SNP 2.2, 3.3].
public struct PlatformSettings: Sendable, Equatable {
    public let product: ProcessorProduct
    /// Firmware ABI version.
    public var apiMajor: UInt8
    public var apiMinor: UInt8
    public var build: UInt8
    /// Version of attestation reports: 2, 3 or 5.
    public var reportVersion: UInt32
    /// What runs, in the product's layout.
    public internal(set) var currentTCB: TCBVersion
    /// What cannot be rolled back any more.
    public internal(set) var committedTCB: TCBVersion
    /// What reports are signed for.
    public internal(set) var reportedTCB: TCBVersion
    /// MASK_CHIP_ID: reports have no chip ID.
    public internal(set) var masksChipID = false
    /// MASK_CHIP_KEY: reports are not signed with the VCEK.
    public internal(set) var masksChipKey = false
    /// SNP_VLEK_LOAD.
    var vlek: LoadedVLEK?

    /// What a platform of that profile starts with.
    public init(_ profile: PlatformProfile) {
        product = profile.product
        apiMajor = profile.apiMajor
        apiMinor = profile.apiMinor
        build = profile.build
        reportVersion = profile.reportVersion
        currentTCB = profile.currentTCB
        committedTCB = profile.committedTCB ?? profile.currentTCB
        reportedTCB = committedTCB
    }

    /// A platform of a product with usual versions.
    ///
    /// - Parameter reportVersion: 2, 3 or 5; nil for what the product's usual firmware makes. Others are a programmer error.
    public init(of product: ProcessorProduct, reportVersion: UInt32? = nil) {
        self.init(.machine(of: product, reportVersion: reportVersion, cpuid: CPUIDProfile(supported: [])))
    }

    /// From storage, where everything has been read but nothing compared.
    init(
        product: ProcessorProduct, api: (major: UInt8, minor: UInt8, build: UInt8), reportVersion: UInt32,
        current: TCBVersion, committed: TCBVersion, reported: TCBVersion
    ) {
        self.product = product
        (apiMajor, apiMinor, build) = api
        self.reportVersion = reportVersion
        (currentTCB, committedTCB, reportedTCB) = (current, committed, reported)
    }

    /// A VLEK is loaded, for reported versions up to this one.
    public var vlekTCB: TCBVersion? { vlek?.tcb }

    /// The loaded VLEK, if it can sign for the reported version: what a certificate is issued for.
    public var vlekHashstick: VLEKHashstick? {
        vlek.flatMap { reportedTCB.isAtMost($0.tcb) ? $0.hashstick : nil }
    }

    /// Whether reports can be made of it: a known version, TCB versions in the product's layout and in order.
    var isConsistent: Bool {
        let versions = [currentTCB, committedTCB, reportedTCB] + (vlek.map { [$0.tcb] } ?? [])
        return AttestationReportBody.versions.contains(reportVersion)
            && versions.allSatisfy { $0.hasValidReservedBytes(in: product.tcbLayout) }
            && reportedTCB.isAtMost(committedTCB) && committedTCB.isAtMost(currentTCB)
    }

    // MARK: Changes

    /// Another firmware: what DOWNLOAD_FIRMWARE_EX and a new boot image do to the current version [SNP 8.4]. The current version
    /// may also go down.
    ///
    /// - Returns: INVALID_PARAM for bytes that are reserved in the product's layout; BAD_SVN below the committed version.
    public mutating func install(_ tcb: TCBVersion) -> SEVStatus {
        guard tcb.hasValidReservedBytes(in: product.tcbLayout) else { return .invalidParameter }
        guard committedTCB.isAtMost(tcb) else { return .badSVN }
        currentTCB = tcb
        return .success
    }

    /// Commits up to a version: SNP_COMMIT, which commits the current one, of a firmware that was older then. What is
    /// reported stays.
    ///
    /// - Returns: INVALID_PARAM for reserved bytes or a version above the current one; BAD_SVN below the committed version.
    public mutating func commit(upTo tcb: TCBVersion) -> SEVStatus {
        guard tcb.hasValidReservedBytes(in: product.tcbLayout), tcb.isAtMost(currentTCB) else {
            return .invalidParameter
        }
        guard committedTCB.isAtMost(tcb) else { return .badSVN }
        committedTCB = tcb
        return .success
    }

    /// SNP_COMMIT [SNP 8.5].
    mutating func commit() {
        committedTCB = currentTCB
        reportedTCB = currentTCB
    }

    /// A restart of the machine, as far as the VLEK goes.
    public mutating func removeVLEK() { vlek = nil }

    /// SNP_CONFIG [SNP 8.6].
    ///
    /// - Returns: INVALID_PARAM for reserved bits or a reported version above the committed one.
    mutating func configure(_ config: SNPConfig) -> SEVStatus {
        guard config.hasValidReservedBits, config.reportedTCB.hasValidReservedBytes(in: product.tcbLayout),
            config.reportedTCB.isAtMost(committedTCB)
        else { return .invalidParameter }
        reportedTCB = config.reportedTCB.rawValue == 0 ? committedTCB : config.reportedTCB
        masksChipID = config.masksChipID
        masksChipKey = config.masksChipKey
        return .success
    }

    /// What somebody else has kept meanwhile, with the changes from `base` to `new` on top.
    static func merged(_ kept: PlatformSettings, from base: PlatformSettings, to new: PlatformSettings)
        -> PlatformSettings
    {
        var result = kept
        func take<Value: Equatable>(_ path: WritableKeyPath<PlatformSettings, Value>) {
            if new[keyPath: path] != base[keyPath: path] { result[keyPath: path] = new[keyPath: path] }
        }
        take(\.apiMajor)
        take(\.apiMinor)
        take(\.build)
        take(\.reportVersion)
        take(\.currentTCB)
        take(\.committedTCB)
        take(\.reportedTCB)
        take(\.masksChipID)
        take(\.masksChipKey)
        take(\.vlek)
        return result
    }
}
