// The order of a SEV or SEV-ES launch, in types: INIT2, START, any number of UPDATE_DATAs, UPDATE_VMSA (SEV-ES), MEASURE,
// any number of SECRETs, FINISH [SEV 6, KVM KVM_MEMORY_ENCRYPT_OP].
//
//     SEVLaunch.initialize ──► SEVInitialized ── start ──► SEVLaunching ── measure ──► SEVMeasured ── finish ──► (runs)
//                                                           │      ▲                    │     ▲
//                                                           └update┘                    └secret┘
//
// Every step consumes the state before it: a launch that was refused somewhere cannot go on. Between MEASURE and FINISH
// the guest owner decides; the firmware takes no more updates there, so what was measured is what runs.

import GuestImage
import KVMABI
import SEVABI

/// Entry into the launch states.
enum SEVLaunch {
    /// `KVM_SEV_INIT2`. Must come before the first vCPU.
    ///
    /// - Parameter guestFeatures: SEV_FEATURES of every VMSA of a SEV-ES guest; a SEV guest has none.
    static func initialize(
        _ channel: SEVChannel, _ technology: GuestTechnology, guestFeatures: UInt64
    ) throws(VMMError) -> SEVInitialized {
        precondition(technology != .snp, "an SNP guest has a launch of its own")
        var initialization = KVMSEVInit()
        // Bit 0 is SNP's; a plan for SNP that was asked to run as SEV-ES must not ask for it.
        initialization.vmsaFeatures = technology.encryptsState ? guestFeatures & ~1 : 0
        try channel.run(
            "initialise the VM for \(technology.displayName)", .initialize2,
            technology.encryptsState ? "SEV_FEATURES \(hex(initialization.vmsaFeatures))" : "", &initialization)
        return SEVInitialized(channel: channel, technology: technology)
    }
}

/// A VM that is a SEV or SEV-ES VM, without a key yet.
struct SEVInitialized: ~Copyable {
    fileprivate let channel: SEVChannel
    let technology: GuestTechnology

    /// `KVM_SEV_LAUNCH_START` [SEV 6.2].
    ///
    /// - Parameter session: The owner's certificate and session; nil for a launch that nobody can check.
    consuming func start(policy: SEVPolicy, session: SEVLaunchSession?) throws(VMMError) -> SEVLaunching {
        var start = KVMSEVLaunchStart()
        start.policy = policy.rawValue
        if let session {
            channel.store(session.ownerCertificate[...])
            channel.store(session.session[...], at: KVM.pageByteCount)
            start.certificateAddress = channel.dataAddress
            start.certificateByteCount = UInt32(session.ownerCertificate.count)
            start.sessionAddress = channel.dataAddress + UInt64(KVM.pageByteCount)
            start.sessionByteCount = UInt32(session.session.count)
        }
        try channel.run(
            "start the launch", .launchStart,
            "policy \(hex(policy.rawValue)), \(session == nil ? "no session" : "with the owner's session")", &start)
        return SEVLaunching(channel: channel, technology: technology)
    }
}

/// A launch that takes memory.
struct SEVLaunching: ~Copyable {
    fileprivate let channel: SEVChannel
    let technology: GuestTechnology

    /// Bytes per request: how often progress is shown. The firmware measures a stream, so pieces make no difference.
    static let maximumByteCount: UInt64 = 4 << 20

    /// Puts a region into the guest's memory and encrypts it there: `KVM_SEV_LAUNCH_UPDATE_DATA` [SEV 6.3].
    ///
    /// - Parameter progress: Called with the bytes done so far.
    consuming func update(
        _ region: LaunchPlan.Region, of memory: GuestMemory, progress: (UInt64) -> Void
    ) throws(VMMError) -> SEVLaunching {
        let step = "launch \(region.label)"
        func unusable(_ finding: String, _ cause: String, _ next: String) -> VMMError {
            VMMError(
                .badInput, step: step, request: "\(SEVCommandID.launchUpdateData)",
                context: "\(readable(byteCount: region.byteCount)) at \(hex(region.gpa))", finding: finding,
                likelyCause: cause, nextStep: next)
        }
        // Firmware would say the same; here the region's name is known.
        guard region.pageType == .normal, region.gpa % 16 == 0, region.byteCount % 16 == 0 else {
            throw unusable(
                "\(region.pageType), not NORMAL bytes in whole blocks of 16", "a plan that was made for an SNP guest",
                "plan the image for \(technology.displayName)")
        }
        var done: UInt64 = 0
        while done < region.byteCount {
            let part = min(Self.maximumByteCount, region.byteCount - done)
            let gpa = region.gpa &+ done
            let contents = region.contents.isEmpty ? nil : region.contents[Int(done)..<Int(done + part)]
            guard let address = memory.userAddress(of: gpa, byteCount: part),
                contents.map({ memory.writeShared($0, at: gpa) }) ?? true
            else {
                throw unusable("no memory there", "--memory is too small for the image", "use a larger --memory")
            }
            var update = KVMSEVLaunchUpdateData(userAddress: address, byteCount: UInt32(part))
            try channel.run(
                step, .launchUpdateData, "\(readable(byteCount: part)) at \(hex(gpa))", &update)
            done += part
            progress(done)
        }
        return SEVLaunching(channel: channel, technology: technology)
    }

    /// `KVM_SEV_LAUNCH_UPDATE_VMSA` [SEV 6.4]: encrypts every vCPU's registers, in creation order.
    consuming func updateVMSA() throws(VMMError) -> SEVLaunching {
        precondition(technology.encryptsState, "a SEV guest has no VMSA")
        try channel.run("encrypt the vCPUs' registers", .launchUpdateVMSA)
        return SEVLaunching(channel: channel, technology: technology)
    }

    /// `KVM_SEV_LAUNCH_MEASURE` [SEV 6.5].
    consuming func measure() throws(VMMError) -> SEVMeasured {
        let byteCount = SEVMeasurement.byteCount
        var measure = KVMSEVLaunchMeasure(userAddress: channel.dataAddress, byteCount: UInt32(byteCount))
        try channel.run("measure the launch", .launchMeasure, "", &measure)
        guard Int(measure.byteCount) == byteCount,
            let measurement = SEVMeasurement(bytes: channel.data(byteCount: byteCount))
        else {
            throw VMMError(
                .launchRefused, step: "measure the launch", request: "\(SEVCommandID.launchMeasure)",
                finding: "\(measure.byteCount) bytes, expected \(byteCount)",
                likelyCause: "a firmware with another form of measurement", nextStep: "report the firmware's version")
        }
        return SEVMeasured(channel: channel, measurement: measurement)
    }
}

/// A launch whose contents are final.
struct SEVMeasured: ~Copyable {
    fileprivate let channel: SEVChannel
    let measurement: SEVMeasurement

    /// `KVM_SEV_LAUNCH_SECRET` [SEV 6.6]: the firmware decrypts a packet of the owner's into the guest's memory.
    ///
    /// - Parameters:
    ///   - gpa: Where, for messages.
    ///   - address: The same place in this process.
    consuming func inject(_ packet: SEVSecretPacket, at gpa: UInt64, address: UInt64) throws(VMMError) -> SEVMeasured {
        channel.store(packet.header[...])
        channel.store(packet.payload[...], at: KVM.pageByteCount)
        var secret = KVMSEVLaunchSecret()
        secret.headerAddress = channel.dataAddress
        secret.headerByteCount = UInt32(packet.header.count)
        secret.guestAddress = address
        secret.guestByteCount = UInt32(packet.payload.count)
        secret.transportAddress = channel.dataAddress + UInt64(KVM.pageByteCount)
        secret.transportByteCount = UInt32(packet.payload.count)
        let channel = channel
        // Ciphertext, but nothing that anybody needs again.
        defer { channel.clearData(byteCount: KVM.pageByteCount + packet.payload.count) }
        try channel.run(
            "inject the owner's secret", .launchSecret, "\(packet.payload.count) bytes at \(hex(gpa))", &secret)
        return SEVMeasured(channel: channel, measurement: measurement)
    }

    /// `KVM_SEV_LAUNCH_FINISH` [SEV 6.7].
    consuming func finish() throws(VMMError) {
        try channel.run("finish the launch", .launchFinish)
    }
}
