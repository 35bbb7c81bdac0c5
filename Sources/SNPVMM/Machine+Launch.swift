// The steps of a launch, for each technology: from KVM_CREATE_VM to LAUNCH_FINISH.

import GuestImage
import KVMABI
import SEVABI

/// A VM after `KVM_SEV_INIT2`, on one of the two ways to launch.
enum InitializedVM: ~Copyable {
    case sev(SEVInitialized)
    case snp(SNPInitialized)

    init(_ channel: SEVChannel, _ technology: GuestTechnology, guestFeatures: UInt64) throws(VMMError) {
        self =
            switch technology {
            case .snp: .snp(try SNPLaunch.initialize(channel, guestFeatures: guestFeatures))
            case .sev, .sevES:
                .sev(try SEVLaunch.initialize(channel, technology, guestFeatures: guestFeatures))
            }
    }
}

extension Machine {
    /// What can be refused before a kernel is asked.
    static func contradiction(_ configuration: MachineConfiguration, owner: (any LaunchOwner)?) -> VMMError? {
        let technology = configuration.technology
        if owner != nil, technology != .sev, technology != .sevES {
            return VMMError(
                .usage, step: "launch with a guest owner", request: "\(SEVCommandID.launchSecret)",
                finding: "\(technology.map { "a \($0.displayName)" } ?? "a plain") guest",
                likelyCause: technology == .snp
                    ? "an SNP launch has no session and no secret: the owner gives secrets after the running guest has "
                        + "shown an attestation report"
                    : "a plain guest has nothing that an owner could check",
                nextStep: "launch with SEV or SEV-ES, or without an owner")
        }
        if technology == .sev || technology == .sevES, configuration.plan.policy > UInt64(UInt32.max) {
            return VMMError(
                .badInput, step: "start the launch", request: "\(SEVCommandID.launchStart)",
                finding: "policy \(hex(configuration.plan.policy)), expected 32 bits",
                likelyCause: "an SNP guest policy", nextStep: "pass a SEV policy with --policy, for example 0x1")
        }
        if technology == .snp, configuration.memoryPlacement.pages == .reservedHuge {
            return VMMError(
                .usage, step: "give the guest its memory", request: "MAP_HUGETLB", finding: "an SNP guest",
                likelyCause: "its pages change sides one by one, which reserved huge pages cannot",
                nextStep: "leave reserved huge pages out: its private memory would not be in them")
        }
        return nil
    }

    static func createVM(_ host: Host, _ technology: GuestTechnology?) throws(VMMError) -> KernelHandle {
        let kernel = host.kernel
        let step = "create the VM"
        let type = VMType(technology)
        let descriptor = try request(step, "KVM_CREATE_VM", "type \(type.rawValue)") { () throws(Errno) in
            try kernel.call(host.system, .createVM, value: UInt64(type.rawValue))
        }
        let vm = KernelHandle(rawValue: descriptor)
        guard technology == .snp else { return vm }
        do {
            // Without this every page state change of the guest fails.
            try request(step, "KVM_ENABLE_CAP", "KVM_CAP_EXIT_HYPERCALL") { () throws(Errno) in
                try kernel.call(
                    vm, .enableCapability,
                    reading: KVMEnableCapability(.exitHypercall, argument: KVM.exitHypercallMapGPARange))
            }
        } catch {
            kernel.close(vm)
            throw error
        }
        return vm
    }

    /// RAM, and the pages of the plan that lie outside it: a firmware image below 4 GiB.
    static func memoryRanges(_ configuration: MachineConfiguration) -> [Range<UInt64>] {
        let ram = RangeSet(GuestAddressMap.ramRanges(memoryByteCount: configuration.memoryByteCount))
        var rest = RangeSet<UInt64>()
        // Slots are whole pages; regions of SEV and SEV-ES need not be.
        let pageMask = UInt64(KVM.pageByteCount) - 1
        for region in configuration.plan.regions {
            let (end, overflow) = region.gpa.addingReportingOverflow(region.byteCount)
            let (padded, overflow2) = end.addingReportingOverflow(pageMask)
            guard !overflow, !overflow2, region.byteCount > 0 else { continue }
            rest.insert(contentsOf: (region.gpa & ~pageMask)..<(padded & ~pageMask))
        }
        rest.subtract(ram)
        return ram.ranges.map { $0 } + rest.ranges.map { $0 }
    }

    // MARK: SNP

    static func launch(
        _ plan: LaunchPlan, _ initialized: consuming SNPInitialized, _ configuration: MachineConfiguration,
        _ steps: StepRecorder
    ) throws(VMMError) -> [String] {
        var corrections: [String] = []
        let begin = steps.begin(.start, "SNP_LAUNCH_START")
        var launching = try initialized.start(policy: plan.policy)
        steps.end(begin, detail: "policy \(hex(plan.policy))")
        for region in plan.regions {
            let pages = region.byteCount / UInt64(KVM.pageByteCount)
            let begin = steps.begin(.update, "\(region.pageType) \(region.label)", pageCount: pages)
            launching = try launching.update(
                region, takesCorrection: configuration.takesCorrectedCPUID, corrected: { corrections += $0 },
                progress: { steps.progress($0 / UInt64(KVM.pageByteCount)) })
            steps.end(begin, detail: "\(pages) \(pages == 1 ? "page" : "pages") at \(hex(region.gpa))")
        }
        let last = steps.begin(.finish, "SNP_LAUNCH_FINISH")
        try launching.finish(configuration.identity)
        steps.end(last, detail: "\(plan.processors.count) VMSA")
        return corrections
    }

    // MARK: SEV and SEV-ES

    static func launch(
        _ plan: LaunchPlan, _ initialized: consuming SEVInitialized, in memory: GuestMemory, of kernel: any HostKernel,
        owner: (any LaunchOwner)?, _ steps: StepRecorder
    ) throws(VMMError) -> (measurement: SEVMeasurement, secretArea: Range<UInt64>?) {
        let technology = initialized.technology
        // Safe: `contradiction` has checked it.
        var policy = SEVPolicy(rawValue: UInt32(truncatingIfNeeded: plan.policy))
        var session: SEVLaunchSession?
        var version: FirmwareVersion?
        if let owner {
            let export = steps.begin(.exportCertificates, "SEV_PDH_CERT_EXPORT")
            let platform = try SEVPlatform(kernel)
            let firmware = try platform.version()
            let request = SessionRequest(
                technology: technology, policy: policy, platform: try platform.certificates(), version: firmware)
            version = firmware
            steps.end(export, detail: "\(firmware)")
            let answer = steps.begin(.session, "owner's session")
            session = try owner.session(for: request)
            steps.end(answer, detail: session == nil ? "none" : "policy \(hex(session!.policy.rawValue))")
            if let session { policy = session.policy }
        }

        if let session,
            session.ownerCertificate.count != SEVCertificate.byteCount
                || session.session.count != SEVLaunchSessionBlob.byteCount
        {
            throw VMMError(
                .badInput, step: "start the launch", request: "\(SEVCommandID.launchStart)",
                finding: "a certificate of \(session.ownerCertificate.count) bytes and a session of "
                    + "\(session.session.count), expected \(SEVCertificate.byteCount) and \(SEVLaunchSessionBlob.byteCount)",
                likelyCause: "a file that is cut off, or the two files exchanged", nextStep: "make the session anew")
        }

        let start = steps.begin(.start, "LAUNCH_START")
        var launching = try initialized.start(policy: policy, session: session)
        steps.end(start, detail: "\(policy)")

        let registration = steps.begin(.registerMemory, "register the memory")
        try memory.registerEncrypted()
        steps.end(registration, detail: "\(memory.slots.count) \(memory.slots.count == 1 ? "slot" : "slots")")

        for region in plan.regions {
            let pages = region.byteCount / UInt64(KVM.pageByteCount)
            let begin = steps.begin(.update, "LAUNCH_UPDATE_DATA \(region.label)", pageCount: pages)
            launching = try launching.update(region, of: memory) { steps.progress($0 / UInt64(KVM.pageByteCount)) }
            steps.end(begin, detail: "\(readable(byteCount: region.byteCount)) at \(hex(region.gpa))")
        }
        if technology.encryptsState {
            let begin = steps.begin(.updateVMSA, "LAUNCH_UPDATE_VMSA")
            launching = try launching.updateVMSA()
            steps.end(begin, detail: "\(plan.processors.count) VMSA")
        }
        let measure = steps.begin(.measure, "LAUNCH_MEASURE")
        var measured = try launching.measure()
        let measurement = measured.measurement
        steps.end(measure, detail: "measurement \(hexDigits(measurement.bytes))")

        var secretArea: Range<UInt64>?
        if let owner, let version {
            let verdict = steps.begin(.verdict, "owner's verdict")
            let packets = try owner.secrets(
                after: SecretRequest(
                    technology: technology, policy: policy, measurement: measurement, version: version,
                    area: plan.secretArea))
            steps.end(verdict, detail: packets.isEmpty ? "no secret" : "\(packets.count) secret")
            let places = try secretPlaces(packets, plan.secretArea, in: memory)
            for (packet, place) in zip(packets, places) {
                let begin = steps.begin(.secret, "LAUNCH_SECRET")
                measured = try measured.inject(packet, at: place.gpa, address: place.address)
                steps.end(begin, detail: "\(packet.payload.count) bytes at \(hex(place.gpa))")
                secretArea = (secretArea?.lowerBound ?? place.gpa)..<(place.gpa + UInt64(packet.payload.count))
            }
        }
        let finish = steps.begin(.finish, "LAUNCH_FINISH")
        try measured.finish()
        steps.end(finish)
        return (measurement, secretArea)
    }

    /// Where each packet goes: behind each other from the area's start. Checked here, because the firmware sees addresses
    /// and no areas.
    private static func secretPlaces(
        _ packets: [SEVSecretPacket], _ area: LaunchPlan.SecretArea?, in memory: GuestMemory
    ) throws(VMMError) -> [(gpa: UInt64, address: UInt64)] {
        func refusal(_ finding: String, _ cause: String, _ next: String) -> VMMError {
            VMMError(
                .badInput, step: "inject the owner's secret", request: "\(SEVCommandID.launchSecret)",
                finding: finding, likelyCause: cause, nextStep: next)
        }
        guard !packets.isEmpty else { return [] }
        guard let area else {
            throw refusal(
                "the image has no place for a secret", "a firmware image without a secret area in its metadata",
                "use an image with one, or boot a kernel directly")
        }
        var places: [(gpa: UInt64, address: UInt64)] = []
        var used: UInt64 = 0
        for packet in packets {
            let byteCount = UInt64(packet.payload.count)
            guard packet.header.count == SEVSecretHeader.byteCount, byteCount > 0, byteCount % 16 == 0 else {
                throw refusal(
                    "a header of \(packet.header.count) bytes and a payload of \(byteCount), expected "
                        + "\(SEVSecretHeader.byteCount) and a multiple of 16",
                    "a packet file that is cut off, or another file in its place", "make the packet anew")
            }
            guard byteCount <= area.byteCount - used,
                let address = memory.userAddress(of: area.gpa &+ used, byteCount: byteCount)
            else {
                throw refusal(
                    "\(used + byteCount) bytes of secrets, the area at \(hex(area.gpa)) has \(area.byteCount)",
                    "secrets that are too long for this image", "put less into the secret table")
            }
            places.append((area.gpa &+ used, address))
            used += byteCount
        }
        return places
    }

    // MARK: Plain

    /// The plain form of a launch: the plan's pages are copied, the rest of the memory is zero already.
    static func copy(_ plan: LaunchPlan, into memory: GuestMemory, _ steps: StepRecorder) throws(VMMError) {
        for region in plan.regions where !region.contents.isEmpty {
            let begin = steps.begin(.copy, "copy \(region.label)")
            guard memory.writeShared(region.contents[...], at: region.gpa) else {
                throw VMMError(
                    .badInput, step: "copy \(region.label)", request: "a write to the guest's memory",
                    context: "\(readable(byteCount: region.byteCount)) at \(hex(region.gpa))",
                    finding: "no memory there", likelyCause: "--memory is too small for the image",
                    nextStep: "use a larger --memory")
            }
            steps.end(begin, detail: "\(readable(byteCount: region.byteCount)) at \(hex(region.gpa))")
        }
    }
}
