// Every status of the firmware [SNP 6.1], whatever was asked: one row each. Rows of a request say more.

import KVMABI

extension ErrorCatalogue {
    static let firmwareEntries: [Entry] = [
        status(
            .noFirmwareCall, .hostCannot, "the driver did not reach the firmware", check: "dmesg | grep -i ccp",
            "load ccp, and reboot if the secure processor stopped answering"),
        status(
            .success, .launchRefused, "the kernel refused by itself, before it asked the firmware",
            check: "dmesg", "look at the host kernel's log; run again with --launch-log"),
        status(
            .invalidPlatformState, .hostCannot, "the platform is not initialised for this command",
            check: "swift-snp-vmm platform show", "look at the ccp lines of dmesg; load kvm_amd again"),
        status(.invalidGuestState, .launchRefused, "the command came out of order for this guest", launchAnew),
        status(
            .invalidConfig, .hostCannot, "the processors or the platform are not set up as the command needs",
            check: "rdmsr -a 0xc0010010", "look at the SEV and SNP settings of the BIOS"),
        status(
            .invalidLength, .launchRefused, "a buffer of the wrong length", "run again with --launch-log and report it"),
        status(
            .alreadyOwned, .hostCannot, "an owner is set where none may be",
            "reset the platform (SEV_FACTORY_RESET) if its owner is not needed"),
        status(
            .invalidCertificate, .launchRefused, "a certificate that the firmware cannot use",
            "make the certificate anew for this platform"),
        status(
            .policyFailure, .launchRefused, "the guest policy forbids it", check: "swift-snp-vmm platform show",
            "look at --policy"),
        status(.inactive, .launchRefused, "the guest has no ASID: it was not activated", launchAnew),
        status(
            .invalidAddress, .launchRefused, "an address that the firmware does not accept",
            "run again with --launch-log: it is not aligned, not memory, or not covered by the RMP"),
        status(
            .badSignature, .launchRefused, "a signature that does not fit what it signs", "make what was signed anew"),
        status(
            .badMeasurement, .launchRefused,
            "a measurement that is not the expected one: other contents, or a changed packet",
            check: "swift-snp-vmm measure --explain", "compare what was measured with what was expected"),
        status(.asidOwned, .hostCannot, "the ASID is another guest's", "end that guest and try again"),
        status(
            .invalidASID, .hostCannot, "an ASID outside the range for this kind of guest",
            check: "cat /sys/fs/cgroup/misc.capacity", "look at the minimum SEV ASID in the firmware set-up"),
        status(
            .wbinvdRequired, .hostCannot, "the caches were not written back on every core",
            "try again; if it stays, load kvm_amd anew"),
        status(
            .dfFlushRequired, .hostCannot, "an ASID is used again without a flush of the data fabric",
            "try again; if it keeps coming, load kvm_amd anew"),
        status(.invalidGuest, .launchRefused, "the firmware does not know this guest", launchAnew),
        status(
            .invalidCommand, .hostCannot, "this firmware does not know the command",
            check: "swift-snp-vmm platform show",
            "update the SEV firmware"),
        status(.active, .hostCannot, "the guest is still active", "end the guest first"),
        status(
            .hardwarePlatform, .hostCannot, "the hardware reported a platform failure",
            check: "dmesg | grep -i -e mce -e ccp",
            "start the host from cold"),
        status(
            .hardwareUnsafe, .hostCannot, "the hardware reported a condition that is not safe",
            check: "dmesg | grep -i -e mce -e ccp", "start the host from cold; if it comes back, ask the vendor"),
        status(
            .unsupported, .hostCannot, "this firmware does not know the feature", check: "swift-snp-vmm platform show",
            "update the SEV firmware"),
        status(
            .invalidParameter, .launchRefused, "a parameter that the firmware does not accept",
            "run again with --launch-log and compare it with the specification"),
        status(
            .resourceLimit, .hostCannot, "the firmware's tables of guests are full", "end other confidential guests"),
        status(
            .secureDataInvalid, .hostCannot, "the platform's stored keys do not verify", check: "dmesg | grep -i ccp",
            "reset the platform (SEV_FACTORY_RESET); if it stays, update the BIOS"),
        status(
            .invalidPageSize, .launchRefused, "a page of the wrong size in the RMP", check: "dmesg | grep -i RMP",
            "use a newer kernel, or try without huge pages"),
        status(
            .invalidPageState, .launchRefused, "a page in the wrong state in the RMP", check: "dmesg | grep -i RMP",
            "try again; reboot the host if it stays"),
        status(
            .invalidMetadataEntry, .launchRefused, "a metadata entry of a swapped page that does not fit",
            "the page was changed or put back twice: throw the guest away"),
        status(
            .invalidPageOwner, .launchRefused, "a page of another owner in the RMP", check: "dmesg | grep -i RMP",
            "end the other guest; reboot the host if it stays"),
        status(
            .aeadOverflow, .launchRefused, "the message counter of the guest or of the metadata is used up",
            "end the guest: it cannot be answered any more"),
        status(
            .exitRingBuffer, .hostCannot, "the mailbox left ring-buffer mode before the command ran",
            check: "dmesg | grep -i ccp", "try again"),
        status(
            .rmpInitRequired, .hostCannot, "the RMP is not initialised", check: "dmesg | grep -i RMP",
            "boot the host with SNP enabled in the firmware set-up"),
        status(
            .badSVN, .hostCannot, "a firmware image, or a guest's, with a lower security version than is allowed",
            check: "swift-snp-vmm platform show", "use the newest firmware: it cannot go back behind what was committed"
        ),
        status(
            .badVersion, .launchRefused, "a structure or an image of a version that the firmware does not know",
            "make it anew in the version that the firmware takes"),
        status(
            .shutdownRequired, .hostCannot, "the firmware wants a shutdown before it goes on",
            "load the ccp and kvm_amd modules anew, or reboot the host"),
        status(
            .updateFailed, .hostCannot, "a firmware update failed", check: "dmesg | grep -i ccp",
            "install the firmware image again and reboot"),
        status(
            .restoreRequired, .hostCannot, "the firmware wants its committed image back before it goes on",
            "reboot the host: the committed firmware loads again"),
        status(
            .rmpInitializationFailed, .hostCannot, "the firmware could not make the RMP",
            check: "dmesg | grep -i -e RMP -e SEV-SNP", "start the host from cold; if it stays, update the BIOS"),
        status(
            .invalidKey, .hostCannot, "a key that is not there, or that may not be asked for",
            check: "swift-snp-vmm platform show", "load the VLEK (platform load-vlek), or ask for the VCEK"),
        status(
            .shutdownIncomplete, .hostCannot, "the firmware's last shutdown did not finish",
            check: "dmesg | grep -i ccp",
            "reboot the host"),
        status(.incorrectBufferLength, .hostCannot, "trusted I/O: a buffer of the wrong length", trustedIO),
        status(.expandBufferLengthRequest, .hostCannot, "trusted I/O: the firmware needs a longer buffer", trustedIO),
        status(.spdmRequest, .hostCannot, "trusted I/O: a message for the device has to be sent first", trustedIO),
        status(.spdmError, .hostCannot, "trusted I/O: the device's answer was an error", trustedIO),
        status(.deviceConnectionError, .hostCannot, "trusted I/O: the device is not connected", trustedIO),
        status(.invalidDeviceContext, .hostCannot, "trusted I/O: no context of such a device", trustedIO),
        status(.invalidTDIContext, .hostCannot, "trusted I/O: no context of such an interface", trustedIO),
        status(.invalidTDI, .hostCannot, "trusted I/O: no such interface", trustedIO),
        status(.reclaimRequired, .hostCannot, "trusted I/O: pages have to be reclaimed first", trustedIO),
        status(.inUse, .hostCannot, "trusted I/O: the resource is in use", trustedIO),
        status(.invalidDeviceState, .hostCannot, "trusted I/O: the device is in another state", trustedIO),
        status(.invalidTDIState, .hostCannot, "trusted I/O: the interface is in another state", trustedIO),
        status(
            .deviceCertificateChanged, .hostCannot, "trusted I/O: the device has another certificate now", trustedIO),
        status(.resyncRequest, .hostCannot, "trusted I/O: firmware and device have to agree anew", trustedIO),
        status(.responseTooLarge, .hostCannot, "trusted I/O: an answer that has no room", trustedIO),
        row(
            nil, .EIO, .launchRefused, "the firmware refused", "look up the firmware status; see dmesg on the host"),
    ]

    private static func status(
        _ status: FirmwareStatus, _ outcome: Outcome, _ cause: String, check: String? = nil, _ next: String
    ) -> Entry { row(nil, .EIO, status, outcome, cause, check: check, next) }

    /// This VMM asks for none of it.
    private static let trustedIO = "not a matter of this VMM: look at the program that assigns the device"
}
