// SNP_LAUNCH_UPDATE: a page becomes the guest's, encrypted and measured.
//
// KVM calls this for every 4 KiB page, hundreds of thousands of times for a guest whose memory is launched as zeroes.
// Such a page costs one hash of 112 bytes and is not touched.

import Crypto
import MemoryController
import SEVABI

extension Firmware {
    /// SNP_LAUNCH_UPDATE [SNP 8.17].
    ///
    /// - Returns: INVALID_GUEST_STATE outside the launch; INACTIVE without an ASID; INVALID_PARAM for reserved bits, an
    ///   unknown page type, a 2 MiB page of a type that is one page, or a CPUID page the processor does not allow (the
    ///   page then holds what it would allow); INVALID_ADDRESS; INVALID_PAGE_SIZE; INVALID_PAGE_STATE unless
    ///   pre-guest; INVALID_PAGE_OWNER for another guest's page. LD changes only on success.
    mutating func launchUpdate(_ buffer: SNPLaunchUpdate) -> SEVStatus {
        withContext(at: buffer.context) { firmware, context in firmware.launchUpdate(buffer, context) }
    }

    private func launchUpdate(_ buffer: SNPLaunchUpdate, _ context: GuestContext) -> SEVStatus {
        guard context.state == .launch else { return .invalidGuestState }
        guard context.asid != 0 else { return .inactive }
        guard buffer.hasValidReservedBits, !buffer.isIMIPage, isValid(buffer.permissions) else {
            return .invalidParameter
        }
        switch buffer.pageType {
        case .normal, .zero, .unmeasured: break
        case .vmsa, .secrets, .cpuid:
            if buffer.is2MiB { return .invalidParameter }
        default: return .invalidParameter
        }
        guard buffer.is2MiB ? buffer.address.isLargePageAligned : buffer.address.isPageAligned,
            var entry = memory.rmpEntry(buffer.address)
        else { return .invalidAddress }
        guard entry.is2MiB == buffer.is2MiB else { return .invalidPageSize }
        guard entry.pageState == .preGuest else { return .invalidPageState }
        guard entry.asid == context.asid else { return .invalidPageOwner }

        var contents = SealedContents.asIs
        switch buffer.pageType {
        case .zero: contents = .zeroes
        case .secrets: contents = .bytes(secretsPage(of: context).bytes)
        case .cpuid:
            if let status = refuseCPUIDPage(at: buffer.address) { return status }
        case .vmsa: if hasSecureTSC(buffer.address) { context.usesSecureTSC = true }
        default: break
        }

        entry.validated = true
        entry.immutable = false
        entry.isVMSA = buffer.pageType == .vmsa
        entry.setPermissions(vmpl: 0, VMPLPermissions.all)
        entry.setPermissions(vmpl: 1, buffer.permissions.vmpl1)
        entry.setPermissions(vmpl: 2, buffer.permissions.vmpl2)
        entry.setPermissions(vmpl: 3, buffer.permissions.vmpl3)
        context.pageInfo.pageType = buffer.pageType
        context.pageInfo.permissions = buffer.permissions
        let pageCount: UInt64 = buffer.is2MiB ? 512 : 1
        for page in 0..<pageCount {
            let spa = buffer.address + page &* SPA.pageByteCount
            measure(spa, gpa: entry.gpa &+ page &* SPA.pageByteCount, buffer.pageType, context)
            if buffer.is2MiB { memory.firmwareSealContents(spa, contents, asid: entry.asid) }
        }
        if buffer.is2MiB {
            memory.firmwareSetEntry(buffer.address, entry)
        } else {
            memory.firmwareSeal(buffer.address, contents, entry: entry)
        }
        return .success
    }

    /// SEV_FEATURES bit 9 of a VMSA that is still plaintext.
    private func hasSecureTSC(_ spa: SPA) -> Bool {
        memory.firmwareRead(spa + 0x3b0, byteCount: 2).map { $0[1] & 2 != 0 } ?? false
    }

    /// LD = SHA-384(PAGE_INFO).
    private func measure(_ spa: SPA, gpa: UInt64, _ type: PageType, _ context: GuestContext) {
        if type.measuresContents {
            context.pageInfo.contents = LaunchDigest(memory.firmwareDigest(spa, hasher))
        } else {
            context.pageInfo.contents = LaunchDigest()
        }
        context.pageInfo.gpa = gpa
        context.pageInfo.currentDigest = LaunchDigest(hasher.hash384(context.pageInfo.bytes.span))
    }

    private func isValid(_ permissions: VMPLPermissions) -> Bool {
        (permissions.vmpl1 | permissions.vmpl2 | permissions.vmpl3) & ~VMPLPermissions.all == 0
    }

    /// The secrets page as the firmware writes it [SNP 8.17.2.5].
    private func secretsPage(of context: GuestContext) -> SecretsPage {
        var page = SecretsPage()
        page.fms = profile.fms
        page.gosvw = context.gosvw
        page.tscFactor = profile.tscFactor
        for (index, key) in context.messageKeys.enumerated() { page.setVMPCK(index, key) }
        return page
    }

    /// Checks a CPUID page [SNP 8.17.2.6]. Returns nil when the processor allows every entry; otherwise the page holds
    /// the values it would allow.
    private func refuseCPUIDPage(at spa: SPA) -> SEVStatus? {
        guard let bytes = memory.firmwareRead(spa, byteCount: CPUIDTable.byteCount) else { return .invalidAddress }
        guard let table = CPUIDTable(bytes: bytes) else { return .invalidParameter }
        let corrected = CPUIDTable(entries: table.entries.map { profile.cpuid.corrected($0) })
        guard corrected != table else { return nil }
        _ = memory.firmwareWrite(spa, corrected.bytes)
        return .invalidParameter
    }
}
