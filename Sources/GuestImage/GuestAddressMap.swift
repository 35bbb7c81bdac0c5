// The guest physical address map of a direct boot: one line per constant.

/// Where things lie in guest physical memory. The low ranges are those that Linux 6.1 reads before it looks at e820.
public enum GuestAddressMap {
    /// PML4, PDPT and four page directories.
    public static let pageTables: UInt64 = 0x2000
    /// End of the page tables.
    public static let pageTablesEnd: UInt64 = 0x8000
    /// The setup_data node whose data is the owner's secret table: SEV, SEV-ES and plain guests. In e820 RAM, as every node.
    public static let secretNode: UInt64 = 0x8000
    /// The data of that node: where LAUNCH_SECRET puts the table.
    public static let secretArea: UInt64 = secretNode + 16
    /// Bytes of the secret area: to the end of its page.
    public static let secretAreaByteCount: UInt64 = 0x1000 - 16
    /// boot_params, the "zero page".
    public static let bootParameters: UInt64 = 0x9000
    /// The command line with its NUL: one page.
    public static let commandLine: UInt64 = 0xa000
    /// The setup_data node that points to the CC blob (SNP). In e820 RAM, or Linux maps it shared later.
    public static let setupData: UInt64 = 0xb000
    /// The confidential computing blob (SNP). From here to ``reservedLowEnd``: e820 reserved in an SNP guest.
    public static let confidentialComputingBlob: UInt64 = 0xc000
    /// The AP jump table and the code that uses it (SEV-ES with several vCPUs). From here to ``jumpTableEnd``: e820 reserved.
    public static let jumpTable: UInt64 = 0xc000
    /// The page that the boot processor shares to leave the table's address with the hypervisor.
    public static let startupGHCB: UInt64 = 0xd000
    /// End of the pages of a SEV-ES guest's start.
    public static let jumpTableEnd: UInt64 = 0xe000
    /// The secrets page (SNP).
    public static let secretsPage: UInt64 = 0xd000
    /// The CPUID page (SNP).
    public static let cpuidPage: UInt64 = 0xe000
    /// End of the e820 reserved pages of an SNP guest.
    public static let reservedLowEnd: UInt64 = 0xf000
    /// The RSDP, then all other ACPI tables. e820 ACPI data: in reserved memory Linux would map them shared.
    public static let acpiTables: UInt64 = 0x10000
    /// End of the ACPI tables.
    public static let acpiTablesEnd: UInt64 = 0x20000
    /// The page where a PC keeps its extended BIOS data area: e820 reserved.
    public static let extendedBIOSData: UInt64 = 0x9f000
    /// End of low memory in e820; RAM goes on (zero, private) but is not listed before ``highMemory``.
    public static let lowMemoryEnd: UInt64 = 0xa0000
    /// Where a PC's option ROMs begin: Linux scans from here to ``highMemory``. The display memory below is not touched.
    public static let optionROMs: UInt64 = 0xc0000
    /// Where e820 RAM goes on.
    public static let highMemory: UInt64 = 0x100000
    /// Where a relocatable bzImage is loaded.
    public static let kernel: UInt64 = 0x1000000
    /// RAM below 4 GiB ends here at the latest.
    public static let lowRAMLimit: UInt64 = 0xc000_0000
    /// RAM that does not fit below ``lowRAMLimit`` starts here.
    public static let highRAM: UInt64 = 0x1_0000_0000
    /// The first byte no guest RAM reaches: 46 bits, below every C-bit position.
    public static let ramLimit: UInt64 = 1 << 46
    /// The I/O APIC, 24 pins, GSI 0 first.
    public static let ioAPIC: UInt64 = 0xfec0_0000
    /// The power block: three byte registers in a page of their own.
    public static let powerBlock: UInt64 = 0xfed1_0000
    /// SLEEP_CONTROL_REG: SLP_TYP in 4:2, SLP_EN bit 5.
    public static let sleepControl: UInt64 = powerBlock
    /// SLEEP_STATUS_REG: WAK_STS bit 7, write one to clear.
    public static let sleepStatus: UInt64 = powerBlock + 4
    /// RESET_REG: ``resetValue`` resets.
    public static let reset: UInt64 = powerBlock + 8
    /// One byte, read-only: bit n is set when virtio-mmio slot n has a device. Beside the power block's registers and not in
    /// the slots, because ACPI maps what it reads as cached memory, which a driver then cannot map as device memory.
    public static let virtioPresence: UInt64 = powerBlock + 0x10
    /// The power button: a global system interrupt of its own, edge triggered.
    public static let powerButtonInterrupt: UInt32 = 9
    /// Bytes of the power block.
    public static let powerBlockByteCount: UInt64 = 0x1000
    /// What is written to ``reset``.
    public static let resetValue: UInt8 = 1
    /// SLP_TYP of S5 (soft off), from `\_S5`.
    public static let softOffSleepType: UInt8 = 5
    /// The first virtio-mmio slot; the others follow, a page each. They are there whatever devices a machine has.
    public static let virtioSlots: UInt64 = 0xfed2_0000
    /// From one virtio-mmio slot to the next.
    public static let virtioSlotStride: UInt64 = 0x1000
    /// Bytes of a slot's registers and configuration space.
    public static let virtioSlotByteCount: UInt64 = 0x200
    /// virtio-mmio slots.
    public static let virtioSlotCount = 8
    /// The first slot's global system interrupt, level triggered; the others' follow.
    public static let virtioInterrupt: UInt32 = 16
    /// The local APICs.
    public static let localAPIC: UInt64 = 0xfee0_0000
    /// COM1: first I/O port.
    public static let serialPort: UInt16 = 0x3f8
    /// COM1: I/O ports.
    public static let serialPortCount: UInt8 = 8
    /// COM1: global system interrupt, edge triggered.
    public static let serialInterrupt: UInt32 = 4

    /// The guest's RAM: below ``lowRAMLimit`` first, the rest from ``highRAM`` on.
    public static func ramRanges(memoryByteCount: UInt64) -> [Range<UInt64>] {
        guard memoryByteCount > lowRAMLimit else { return [0..<memoryByteCount] }
        return [0..<lowRAMLimit, highRAM..<(highRAM &+ (memoryByteCount &- lowRAMLimit))]
    }
}
