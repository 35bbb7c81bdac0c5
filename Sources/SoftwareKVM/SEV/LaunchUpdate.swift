// KVM_SEV_SNP_LAUNCH_UPDATE: pages of guest_memfd filled, given to the guest and measured [SNP 8.17 SNP_LAUNCH_UPDATE].
//
// Page by page, up to the end of the slot. Progress counts: the call succeeds if one page went in, and says how far it
// came; what stopped it shows on the next call.

import KVMABI
import MemoryController
import SEVABI

extension VirtualMachine {
    func launchUpdate(_ command: KVMSEVCommand) throws(EncryptFailure) {
        guard let snp, let context = snp.context else { throw EncryptFailure(.EINVAL) }
        var argument = try commandData(KVMSNPLaunchUpdate.self, command)
        let pageType = PageType(rawValue: argument.type)
        guard argument.byteCount != 0, argument.byteCount & 4095 == 0, argument.flags == 0 else {
            throw EncryptFailure(.EINVAL)
        }
        switch pageType {
        case .normal, .unmeasured, .secrets, .cpuid:
            if argument.userAddress & 4095 != 0 { throw EncryptFailure(.EINVAL) }
        case .zero: break
        default: throw EncryptFailure(.EINVAL)
        }
        let hasSource = pageType != .zero

        guard let slot = memory.slot(frame: argument.gfnStart), let memfd = slot.memfd else {
            throw EncryptFailure(.EINVAL)
        }
        var count = min(argument.byteCount >> 12, slot.frames.upperBound - argument.gfnStart)
        if let limit = kernel.shortProgress(below: count) { count = limit }

        var done: UInt64 = 0
        var refusal = SEVStatus.success
        while done < count {
            let frame = argument.gfnStart &+ done
            guard memory.isPrivate(frame: frame), case .sev? = kernel.handleFile(command.sevHandle),
                let page = memfd.populate(slot.memfdPage &+ (frame - slot.frames.lowerBound), run: count - done)
            else { break }
            refusal = loadPage(
                page.spa, gpa: frame << 12, type: pageType, context: context, asid: snp.asid,
                source: hasSource ? argument.userAddress &+ done << 12 : nil)
            if refusal != .success { break }
            done += 1
        }
        if done == 0 {
            throw EncryptFailure(.EIO, refusal == .noFirmwareCall ? .success : refusal)
        }
        argument.gfnStart = argument.gfnStart &+ done
        argument.byteCount = argument.byteCount &- done << 12
        if hasSource { argument.userAddress = argument.userAddress &+ done << 12 }
        try copyBack(argument, command)
    }

    /// One page: copy in, RMPUPDATE to pre-guest, firmware. `noFirmwareCall` means that the kernel itself refused.
    private func loadPage(_ spa: SPA, gpa: UInt64, type: PageType, context: SPA, asid: UInt32, source: UInt64?)
        -> SEVStatus
    {
        let driver = kernel.secureProcessor
        guard let entry = driver.memory.rmpEntry(spa), !entry.assigned else { return .noFirmwareCall }
        if let source {
            do { try kernel.user.copyPage(from: source, to: spa, of: driver.memory) } catch { return .noFirmwareCall }
        }
        guard driver.memory.rmpUpdate(spa, .preGuest(gpa: gpa, asid: asid)) == .success else { return .noFirmwareCall }
        let status = driver.processor.launchUpdate(context: context, page: spa, type: type)
        if status == .success { return status }
        // The page comes back to the host, so that the same GPA can be tried again.
        if driver.takeBack(spa), type == .cpuid, status == .invalidParameter, let source,
            let corrected = driver.memory.hostSnapshot(spa: spa, byteCount: 4096)
        {
            // With the values that the firmware would accept.
            do { try kernel.user.write(corrected, to: source) } catch { return status }
        }
        return status
    }
}
