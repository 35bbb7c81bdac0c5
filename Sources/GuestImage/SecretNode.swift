// Where a direct boot keeps the owner's secret: a setup_data node that a stock kernel shows to its user space.

/// The setup_data node [Linux x86/boot.rst] whose data is the area for LAUNCH_SECRET.
///
/// ```
/// 0x000  next    8 bytes   0: the only node
/// 0x008  type    4 bytes   0x53564553, "SEVS"
/// 0x00C  len     4 bytes   0xFF0
/// 0x010  data              launched as zeroes; then what LAUNCH_SECRET puts there
/// 0x1000
/// ```
///
/// The kernel skips nodes of types that it does not know, but reserves every node early and shows it as
/// `/sys/kernel/boot_params/setup_data/<n>/{type,data}`. So the secret needs no driver, and the page is never given away.
/// The area is part of a measured page: before the secret there can be nothing in it but zeroes.
public enum SecretNode {
    /// `type`. Linux counts its own types up from 0 and uses bit 31 for indirect nodes.
    public static let type: UInt32 = 0x5356_4553

    /// The page.
    public static var page: [UInt8] {
        var page = [UInt8](repeating: 0, count: 4096)
        page.store(type, at: 0x08)
        page.store(UInt32(truncatingIfNeeded: GuestAddressMap.secretAreaByteCount), at: 0x0c)
        return page
    }
}
