// The order of an SNP launch, in types: INIT2, START, any number of UPDATEs, FINISH [KVM KVM_MEMORY_ENCRYPT_OP].
//
//     SNPLaunch.initialize ──► SNPInitialized ── start ──► SNPLaunching ── finish ──► (sealed)
//                                                           │      ▲
//                                                           └update┘
//
// Every step consumes the state before it, so a launch that failed cannot go on: the kernel seals VMSAs before it asks
// the firmware, and a second FINISH would only get a misleading answer.

import GuestImage
import KVMABI
import SEVABI

/// Entry into the launch states.
enum SNPLaunch {
    /// `KVM_SEV_INIT2`. Must come before the first vCPU.
    ///
    /// - Parameter guestFeatures: SEV_FEATURES of every VMSA; bit 0 (SNP active) is the kernel's to set.
    static func initialize(_ channel: SEVChannel, guestFeatures: UInt64) throws(VMMError) -> SNPInitialized {
        var initialization = KVMSEVInit()
        initialization.vmsaFeatures = guestFeatures & ~1
        try channel.run(
            "initialise the VM for SNP", .initialize2, "SEV_FEATURES \(hex(guestFeatures))", &initialization)
        return SNPInitialized(channel: channel)
    }
}

/// A VM that is an SNP VM, with nothing measured yet.
struct SNPInitialized: ~Copyable {
    fileprivate let channel: SEVChannel

    /// `KVM_SEV_SNP_LAUNCH_START` [SNP 8.16].
    consuming func start(policy: UInt64) throws(VMMError) -> SNPLaunching {
        var start = KVMSNPLaunchStart()
        start.policy = policy
        try channel.run("start the launch", .snpLaunchStart, "policy \(hex(policy))", &start)
        return SNPLaunching(channel: channel)
    }
}

/// A launch that takes pages.
struct SNPLaunching: ~Copyable {
    fileprivate let channel: SEVChannel

    /// Refusals without progress that are answered by trying again, before the launch is given up.
    static let maximumIdleAttempts = 1000
    /// The same for a refusal by the kernel itself, which may be a signal and may be a plan that it will never take.
    static let maximumKernelRefusals = 2
    /// Pages per request. Contents are bounded by the staging area; for the rest this sets how often progress is shown.
    static let maximumZeroByteCount: UInt64 = 64 << 20

    /// Adds pages and extends the launch digest: `KVM_SEV_SNP_LAUNCH_UPDATE` [SNP 8.17], as often as it takes.
    ///
    /// The kernel works page by page and may stop early, at the end of a slot or at a signal, and still succeed: what is
    /// left is asked for again.
    /// - Parameters:
    ///   - takesCorrection: A CPUID page that the firmware refuses is given to it once more with the values that it accepts.
    ///   - corrected: Called with what differs, when that was done.
    ///   - progress: Called with the bytes done so far.
    consuming func update(
        _ region: LaunchPlan.Region, takesCorrection: Bool = false, corrected: ([String]) -> Void = { _ in },
        progress: (UInt64) -> Void
    ) throws(VMMError) -> SNPLaunching {
        let isZero = region.pageType == .zero
        let limit = isZero ? Self.maximumZeroByteCount : UInt64(SEVChannel.dataByteCount)
        var done: UInt64 = 0
        while done < region.byteCount {
            let part = min(limit, region.byteCount - done)
            if !isZero {
                if region.contents.isEmpty {
                    // The firmware writes the page (SECRETS), but the kernel copies a source all the same.
                    channel.clearData(byteCount: Int(part))
                } else {
                    channel.store(region.contents[Int(done)..<Int(done + part)])
                }
            }
            let correction = try updatePart(
                region, gpa: region.gpa &+ done, byteCount: part, takesCorrection: takesCorrection)
            if let correction { corrected(correction.differences) }
            done += part
            progress(done)
        }
        return SNPLaunching(channel: channel)
    }

    /// - Returns: What the firmware took away from a CPUID page, when it was given its own.
    private borrowing func updatePart(
        _ region: LaunchPlan.Region, gpa: UInt64, byteCount: UInt64, takesCorrection: Bool
    ) throws(VMMError) -> CPUIDCorrection? {
        let pageByteCount = UInt64(KVM.pageByteCount)
        var update = KVMSNPLaunchUpdate()
        update.gfnStart = gpa / pageByteCount
        update.userAddress = region.pageType == .zero ? 0 : channel.dataAddress
        update.byteCount = byteCount
        update.type = region.pageType.rawValue
        var idleAttempts = 0
        var correction: CPUIDCorrection?
        while update.byteCount > 0 {
            let before = update
            let refusal = channel.issue(.snpLaunchUpdate, &update)
            let done = before.byteCount &- update.byteCount
            guard update.byteCount <= before.byteCount, done % pageByteCount == 0,
                update.gfnStart == before.gfnStart &+ done / pageByteCount
            else {
                throw failure(
                    region, before, refusal?.errno, nil, finding: "progress that does not add up: \(done) bytes")
            }
            if done > 0 { idleAttempts = 0 }
            guard let refusal else {
                idleAttempts += done > 0 ? 0 : 1
                guard idleAttempts < Self.maximumIdleAttempts else {
                    throw failure(region, before, nil, nil, finding: "success without progress, again and again")
                }
                continue
            }
            idleAttempts += 1
            if takesCorrection, correction == nil, region.pageType == .cpuid, refusal.errno == .EIO,
                refusal.firmwareStatus == .invalidParameter
            {
                // The kernel has put the page that the firmware accepts where the source is.
                correction = CPUIDCorrection(
                    offered: region.contents, corrected: channel.data(byteCount: KVM.pageByteCount))
                continue
            }
            let mayRetry =
                switch refusal.errno {
                case .EAGAIN, .EINTR: idleAttempts < Self.maximumIdleAttempts
                case .EIO: refusal.firmwareStatus == .success && idleAttempts < Self.maximumKernelRefusals
                default: false
                }
            guard mayRetry else {
                throw failure(
                    region, update, refusal.errno, refusal.errno == .EIO ? refusal.firmwareStatus : nil, finding: nil)
            }
        }
        return correction
    }

    private borrowing func failure(
        _ region: LaunchPlan.Region, _ update: KVMSNPLaunchUpdate, _ errno: Errno?, _ firmwareStatus: FirmwareStatus?,
        finding: String?
    ) -> VMMError {
        let request = "\(SEVCommandID.snpLaunchUpdate)"
        let step = "launch \(region.label)"
        let context =
            "\(region.pageType), \(update.byteCount / UInt64(KVM.pageByteCount)) pages at "
            + hex(update.gfnStart &* UInt64(KVM.pageByteCount))
        guard let errno else {
            return VMMError(
                .launchRefused, step: step, request: request, context: context, finding: finding,
                likelyCause: "a kernel that counts differently", nextStep: "run again with --launch-log and report it")
        }
        var error = VMMError(
            step: step, request: request, context: context, errno: errno, firmwareStatus: firmwareStatus)
        error.finding = finding
        if region.pageType == .cpuid, firmwareStatus == .invalidParameter {
            let correction = CPUIDCorrection(
                offered: region.contents, corrected: channel.data(byteCount: KVM.pageByteCount))
            error.finding = correction.differences.joined(separator: "; ")
            error.likelyCause = "CPUID values that the firmware does not vouch for on this processor"
            error.nextStep = "launch without these features: run --accept-cpuid-correction"
        }
        return error
    }

    /// `KVM_SEV_SNP_LAUNCH_FINISH` [SNP 8.18]: seals every vCPU in creation order, then the launch.
    consuming func finish(_ identity: LaunchIdentity) throws(VMMError) {
        var finish = KVMSNPLaunchFinish()
        finish.hostData = identity.hostData
        finish.vcekDisabled = identity.disablesVCEK ? 1 : 0
        if let (block, authentication) = identity.identityBlock {
            channel.store(block.bytes[...])
            channel.store(authentication.bytes[...], at: KVM.pageByteCount)
            finish.idBlockAddress = channel.dataAddress
            finish.idAuthAddress = channel.dataAddress + UInt64(KVM.pageByteCount)
            finish.idBlockEnabled = 1
            finish.authorKeyEnabled = identity.hasAuthorKey ? 1 : 0
        }
        try channel.run(
            "finish the launch", .snpLaunchFinish,
            identity.identityBlock == nil ? "no ID block" : "with an ID block", &finish)
    }
}
