// The launch of SEV and SEV-ES guests, command by command, and the firmware's debugging commands [KVM-SEV].

import GuestImage
import KVMABI
import SEVABI

extension VictimMachine {
    /// LAUNCH_START, with the owner's session if there is one; binds the key to the VM's ASID.
    func startSEV(policy: SEVPolicy? = nil, session: SEVLaunchSession? = nil) -> CommandOutcome {
        var data = KVMSEVLaunchStart()
        data.policy = policy?.rawValue ?? session?.policy.rawValue ?? UInt32(truncatingIfNeeded: image.policy)
        let certificate = session?.ownerCertificate ?? []
        let blob = session?.session ?? []
        return withKernelAddress(of: certificate) { certificateAddress in
            withKernelAddress(of: blob) { sessionAddress in
                data.certificateAddress = certificateAddress
                data.certificateByteCount = UInt32(certificate.count)
                data.sessionAddress = sessionAddress
                data.sessionByteCount = UInt32(blob.count)
                return command(.launchStart, &data)
            }
        }
    }

    /// REG_REGION, then LAUNCH_UPDATE_DATA of every region of the plan, then the VMSAs of SEV-ES.
    func fillSEV() throws(Interruption) {
        try step("pin the guest's memory") { () throws(Errno) in try registerMemory() }
        let plan = plan
        load(plan)
        for region in plan.regions {
            var data = KVMSEVLaunchUpdateData(
                userAddress: ram.address + region.gpa, byteCount: UInt32(region.byteCount))
            try require(command(.launchUpdateData, &data), "KVM_SEV_LAUNCH_UPDATE_DATA of \(region.label)")
        }
        if subject == .sevES { try require(command(.launchUpdateVMSA), "KVM_SEV_LAUNCH_UPDATE_VMSA") }
    }

    /// LAUNCH_MEASURE: what the owner compares.
    func measure() throws(Interruption) -> SEVMeasurement {
        var bytes = [UInt8](repeating: 0, count: SEVMeasurement.byteCount)
        let outcome = withKernelAddress(ofMutable: &bytes) { (address: UInt64) in
            var data = KVMSEVLaunchMeasure(userAddress: address, byteCount: UInt32(SEVMeasurement.byteCount))
            return command(.launchMeasure, &data)
        }
        try require(outcome, "KVM_SEV_LAUNCH_MEASURE")
        guard let measurement = SEVMeasurement(bytes: bytes) else {
            throw .broken("LAUNCH_MEASURE gave no measurement")
        }
        return measurement
    }

    /// LAUNCH_SECRET of a packet, to an address of the guest.
    func inject(_ packet: SEVSecretPacket, at gpa: UInt64) -> CommandOutcome {
        var data = KVMSEVLaunchSecret()
        return withKernelAddress(of: packet.header) { header in
            withKernelAddress(of: packet.payload) { payload in
                data.headerAddress = header
                data.headerByteCount = UInt32(packet.header.count)
                data.guestAddress = ram.address + gpa
                data.guestByteCount = UInt32(packet.payload.count)
                data.transportAddress = payload
                data.transportByteCount = UInt32(packet.payload.count)
                return command(.launchSecret, &data)
            }
        }
    }

    /// DBG_DECRYPT of a page, as a host tries it.
    func debugDecrypt(page: Int) throws(Interruption) -> (CommandOutcome, [UInt8]) {
        var bytes = [UInt8](repeating: 0, count: VictimLayout.pageByteCount)
        let outcome = withKernelAddress(ofMutable: &bytes) { (address: UInt64) in
            var data = KVMSEVDebug(
                sourceAddress: ram.address + VictimLayout.page(page), destinationAddress: address,
                byteCount: UInt32(VictimLayout.pageByteCount))
            return command(.debugDecrypt, &data)
        }
        return (outcome, bytes)
    }
}
