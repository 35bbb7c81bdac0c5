// How a guest without EFI finds its secrets and CPUID pages: a setup_data node that points to a blob.

/// cc_blob_sev_info and the setup_data node of type 7 (SETUP_CC_BLOB) that leads to it.
public enum ConfidentialComputingBlob {
    /// cc_blob_sev_info, padded to a page.
    public static func blobPage(secrets: UInt64, cpuid: UInt64) -> [UInt8] {
        var page = [UInt8](repeating: 0, count: 4096)
        page.store(Array("AMDE".utf8), at: 0x00)
        // version 0x04 and reserved 0x06 are zero.
        page.store(secrets, at: 0x08)
        page.store(UInt32(4096), at: 0x10)
        page.store(cpuid, at: 0x18)
        page.store(UInt32(4096), at: 0x20)
        return page
    }

    /// The node, padded to a page. It must lie in e820 RAM: in reserved memory Linux maps it shared when it shows it in
    /// /sys/kernel/boot_params.
    public static func setupDataPage(blob: UInt64) -> [UInt8] {
        var page = [UInt8](repeating: 0, count: 4096)
        // next 0x00 is zero: the only node.
        page.store(UInt32(7), at: 0x08)
        page.store(UInt32(4), at: 0x0c)
        page.store(UInt32(truncatingIfNeeded: blob), at: 0x10)
        return page
    }
}
