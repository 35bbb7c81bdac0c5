// The ACPI tables of the machine: hardware-reduced, so that there is no PIC, no PIT and no fixed hardware to emulate.

/// RSDP, XSDT, FADT, MADT and DSDT, laid out for ``GuestAddressMap/acpiTables`` [ACPI 5.2].
public struct ACPITables: Sendable {
    /// The RSDP first, then the tables, each on a 16-byte boundary; a multiple of 4096 bytes.
    public let bytes: [UInt8]

    /// Makes the tables for a number of processors with APIC ids from 0 on.
    public init(processorCount: Int) {
        precondition(processorCount >= 1 && processorCount <= MachineDescription.maximumProcessorCount)
        let base = GuestAddressMap.acpiTables
        var image = [UInt8](repeating: 0, count: 64)

        func place(_ table: [UInt8]) -> UInt64 {
            while image.count & 15 != 0 { image.append(0) }
            defer { image += table }
            return base + UInt64(image.count)
        }
        let dsdt = place(Self.dsdt())
        let fadt = place(Self.fadt(dsdt: dsdt))
        let madt = place(Self.madt(processorCount: processorCount))
        let xsdt = place(Self.xsdt([fadt, madt]))
        image.store(Self.rsdp(xsdt: xsdt), at: 0)
        bytes = image.paddedToPage()
        precondition(base + UInt64(bytes.count) <= GuestAddressMap.acpiTablesEnd, "the tables have a fixed place")
    }

    private static let oemID = Array("SNPVMM".utf8)
    private static let oemTableID = Array("SNPVMM  ".utf8)

    /// The byte that makes a sum of bytes zero.
    private static func checksum(_ bytes: some Sequence<UInt8>) -> UInt8 { 0 &- bytes.reduce(0, &+) }

    /// Header [ACPI 5.2.6] and body, with the checksum in place.
    private static func table(_ signature: String, revision: UInt8, _ body: [UInt8]) -> [UInt8] {
        var bytes = Array(signature.utf8)
        bytes.append(littleEndian: UInt32(36 + body.count))
        bytes += [revision, 0] + oemID + oemTableID
        bytes.append(littleEndian: UInt32(1))
        bytes += Array("SNPV".utf8)
        bytes.append(littleEndian: UInt32(1))
        bytes += body
        bytes[9] = checksum(bytes)
        return bytes
    }

    /// RSDP revision 2 [ACPI 5.2.5.3]. RsdtAddress is zero: there is only the XSDT.
    private static func rsdp(xsdt: UInt64) -> [UInt8] {
        var bytes = Array("RSD PTR ".utf8) + [0] + oemID + [2]
        bytes.append(littleEndian: UInt32(0))
        bytes.append(littleEndian: UInt32(36))
        bytes.append(littleEndian: xsdt)
        bytes += [0, 0, 0, 0]
        bytes[8] = checksum(bytes[..<20])
        bytes[32] = checksum(bytes)
        return bytes
    }

    /// XSDT [ACPI 5.2.8].
    private static func xsdt(_ tables: [UInt64]) -> [UInt8] {
        var body: [UInt8] = []
        for address in tables { body.append(littleEndian: address) }
        return table("XSDT", revision: 1, body)
    }

    /// A byte register in memory as a Generic Address Structure [ACPI 5.2.3.2].
    private static func byteRegister(_ address: UInt64) -> [UInt8] {
        var bytes: [UInt8] = [0, 8, 0, 1]
        bytes.append(littleEndian: address)
        return bytes
    }

    /// FADT revision 6 [ACPI 5.2.9]. Offsets below count from the start of the table.
    private static func fadt(dsdt: UInt64) -> [UInt8] {
        var body = [UInt8](repeating: 0, count: 276 - 36)
        func put(_ offset: Int, _ bytes: [UInt8]) { body.store(bytes, at: offset - 36) }
        // DSDT (32 bit): the same table as X_DSDT.
        body.store(UInt32(truncatingIfNeeded: dsdt), at: 40 - 36)
        // IAPC_BOOT_ARCH: no VGA to probe (bit 2), no CMOS RTC (bit 5); 8042 (bit 1) is absent.
        body.store(UInt16(0x24), at: 109 - 36)
        // Flags: RESET_REG_SUP (bit 10), HW_REDUCED_ACPI (bit 20).
        body.store(UInt32(1 << 10 | 1 << 20), at: 112 - 36)
        put(116, byteRegister(GuestAddressMap.reset))
        put(128, [GuestAddressMap.resetValue])
        body.store(dsdt, at: 140 - 36)
        put(244, byteRegister(GuestAddressMap.sleepControl))
        put(256, byteRegister(GuestAddressMap.sleepStatus))
        return table("FACP", revision: 6, body)
    }

    /// MADT [ACPI 5.2.12] without PIC and without overrides.
    private static func madt(processorCount: Int) -> [UInt8] {
        var body: [UInt8] = []
        body.append(littleEndian: UInt32(truncatingIfNeeded: GuestAddressMap.localAPIC))
        // Flags: PCAT_COMPAT (bit 0) clear, there is no 8259.
        body.append(littleEndian: UInt32(0))
        for index in 0..<processorCount {
            // Processor local APIC: ACPI id, APIC id, enabled.
            body += [0, 8, UInt8(index), UInt8(index)]
            body.append(littleEndian: UInt32(1))
        }
        // I/O APIC: its id is a number space of its own; GSI base 0.
        body += [1, 12, 0, 0]
        body.append(littleEndian: UInt32(truncatingIfNeeded: GuestAddressMap.ioAPIC))
        body.append(littleEndian: UInt32(0))
        return table("APIC", revision: 5, body)
    }

    /// One virtio-mmio slot. The tables are measured, so they do not say what is in it, but how to find out: the slot is
    /// present when its bit in ``GuestAddressMap/virtioPresence`` is set.
    private static func virtioSlot(_ index: Int) -> [UInt8] {
        let base = UInt32(
            truncatingIfNeeded: GuestAddressMap.virtioSlots + UInt64(index) * GuestAddressMap.virtioSlotStride)
        let byteCount = UInt32(truncatingIfNeeded: GuestAddressMap.virtioSlotByteCount)
        return AML.device(
            "VIO\(index)",
            AML.named("_HID", AML.string("LNRO0005")) + AML.named("_UID", AML.integer(UInt32(index)))
                // Coherent: a device here is another thread of the host.
                + AML.named("_CCA", AML.integer(1))
                + AML.named(
                    "_CRS",
                    AML.resources([
                        AML.memory(base, byteCount: byteCount),
                        AML.levelInterrupt(GuestAddressMap.virtioInterrupt + UInt32(index)),
                    ]))
                // Present, enabled, shown, functioning [ACPI 6.3.7].
                + AML.method(
                    "_STA",
                    AML.when(AML.name("VP0\(index)"), AML.result(AML.integer(0x0f))) + AML.result(AML.integer(0))))
    }

    /// The power button: a control method button [ACPI 4.8.3.2.2] that a generic event device [ACPI 5.6.9] speaks for. Its
    /// interrupt can have one cause only, so nobody needs to be asked for it.
    private static func powerButton() -> [UInt8] {
        AML.device("PWRB", AML.named("_HID", AML.eisaID("PNP0C0C")) + AML.named("_UID", AML.integer(0)))
            + AML.device(
                "GED0",
                AML.named("_HID", AML.string("ACPI0013")) + AML.named("_UID", AML.integer(0))
                    + AML.named(
                        "_CRS", AML.resources([AML.edgeInterrupt(GuestAddressMap.powerButtonInterrupt)]))
                    // 0x80: pressed [ACPI 5.6.6].
                    + AML.method("_EVT", argumentCount: 1, AML.notify("PWRB", 0x80)))
    }

    /// DSDT: `\_S5`, COM1, the power button and the virtio-mmio slots. Everything else Linux finds by itself or does not need.
    private static func dsdt() -> [UInt8] {
        let softOff = UInt32(GuestAddressMap.softOffSleepType)
        let com1 = AML.device(
            "COM1",
            AML.named("_HID", AML.eisaID("PNP0501")) + AML.named("_UID", AML.integer(1))
                + AML.named(
                    "_CRS",
                    AML.resources([
                        AML.ioPorts(GuestAddressMap.serialPort, count: GuestAddressMap.serialPortCount),
                        AML.edgeInterrupt(GuestAddressMap.serialInterrupt),
                    ])))
        let indices = 0..<GuestAddressMap.virtioSlotCount
        let presence = AML.bits(
            indices.map { "VP0\($0)" }, in: "VPRS", at: UInt32(truncatingIfNeeded: GuestAddressMap.virtioPresence))
        let slots = indices.flatMap { virtioSlot($0) }
        return table(
            "DSDT", revision: 2,
            AML.named("\\_S5", AML.integers([softOff, 0, 0, 0]))
                + AML.scope("\\_SB", com1 + powerButton() + presence + slots))
    }
}
