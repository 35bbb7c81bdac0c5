// The ACPI tables as a reader finds them: from the RSDP on, checksums included.

import GuestImage
import TestSupport
import Testing

struct ACPITablesTests {
    /// The tables by signature, found the way an operating system does.
    private func tables(processorCount: Int) throws -> [String: [UInt8]] {
        let bytes = ACPITables(processorCount: processorCount).bytes
        let base = GuestAddressMap.acpiTables
        func table(_ address: UInt64) throws -> (String, [UInt8]) {
            let start = Int(address - base)
            let length = Int(bytes.number(start + 4, width: 4))
            let table = Array(bytes[start..<(start + length)])
            #expect(address & 15 == 0)
            #expect(table.reduce(0, &+) == 0, "checksum")
            return (String(decoding: table[..<4], as: UTF8.self), table)
        }
        #expect(Array(bytes[..<8]) == Array("RSD PTR ".utf8) && bytes[15] == 2)
        #expect(bytes[..<20].reduce(0, &+) == 0 && bytes[..<36].reduce(0, &+) == 0)
        let (name, xsdt) = try table(bytes.number(24, width: 8))
        var found = [name: xsdt]
        for offset in stride(from: 36, to: xsdt.count, by: 8) {
            let (name, entry) = try table(xsdt.number(offset, width: 8))
            found[name] = entry
            if name == "FACP" {
                #expect(entry.number(40, width: 4) == entry.number(140, width: 8))
                let (name, dsdt) = try table(entry.number(140, width: 8))
                found[name] = dsdt
            }
        }
        return found
    }

    @Test(arguments: [1, 2, 255])
    func allTables(_ processorCount: Int) throws {
        let tables = try tables(processorCount: processorCount)
        #expect(Set(tables.keys) == ["XSDT", "FACP", "APIC", "DSDT"])
        let madt = try #require(tables["APIC"])
        #expect(madt.count == 44 + 8 * processorCount + 12)
        #expect(madt.number(36, width: 4) == 0xfee0_0000 && madt.number(40, width: 4) == 0)
        let last = 44 + 8 * (processorCount - 1)
        #expect(madt.number(last, width: 8) == UInt64(processorCount - 1) * 0x1010000 | 0x800 | 1 << 32)
        #expect(Array(madt.suffix(12)).hex == "010c0000" + "0000c0fe" + "00000000")
    }

    @Test func fixedDescription() throws {
        let fadt = try #require(try tables(processorCount: 1)["FACP"])
        #expect(fadt.count == 276 && fadt[8] == 6)
        #expect(fadt.number(109, width: 2) == 0x24)
        #expect(fadt.number(112, width: 4) == 1 << 10 | 1 << 20)
        #expect(Array(fadt[116..<129]).hex == "00080001" + "0800d1fe00000000" + "01")
        #expect(Array(fadt[244..<256]).hex == "00080001" + "0000d1fe00000000")
        #expect(Array(fadt[256..<268]).hex == "00080001" + "0400d1fe00000000")
        // No fixed hardware: every PM block is absent.
        #expect(fadt[46..<109].allSatisfy { $0 == 0 } && fadt[148..<244].allSatisfy { $0 == 0 })
    }

    /// The DSDT byte by byte, as the terms of [ACPI 20.2] spell it.
    @Test func differentiatedDescription() throws {
        let dsdt = try #require(try tables(processorCount: 1)["DSDT"])
        let name = { (text: String) in Array(text.utf8).hex }
        // Device (VIOn) { Name (_HID, "LNRO0005") Name (_UID, n) Name (_CCA, One) Name (_CRS, ResourceTemplate () {
        // Memory32Fixed (ReadWrite, 0xFED2n000, 0x200) Interrupt (ResourceConsumer, Level, ActiveHigh, Exclusive) { 16 + n } })
        let slot = { (index: Int) -> String in
            let uid = index < 2 ? "0\(index)" : "0a0\(index)"
            let head = name("VIO\(index)") + "08" + name("_HID") + "0d" + name("LNRO0005") + "00"
            let crs =
                "08" + name("_CRS") + "11" + "1a" + "0a17" + "86090001" + "00\(index)0d2fe"
                + "00020000" + "8906000101" + "1\(index)000000" + "7900"
            // Method (_STA) { If (VP0n) { Return (0x0F) } Return (Zero) } }
            let status =
                "14" + "11" + name("_STA") + "00" + "a0" + "08" + name("VP0\(index)") + "a40a0f" + "a400"
            let body = head + "08" + name("_UID") + uid + "08" + name("_CCA") + "01" + crs + status
            let byteCount = body.count / 2 + 2
            return "5b82" + [UInt8(0x40 | byteCount & 15), UInt8(byteCount >> 4)].hex + body
        }
        let com1 =
            // Device (COM1) { Name (_HID, EisaId ("PNP0501")) Name (_UID, One)
            "5b82" + "31" + name("COM1") + "08" + name("_HID") + "0c41d00501" + "08" + name("_UID") + "01"
            // Name (_CRS, ResourceTemplate () { IO (Decode16, 0x3F8, 0x3F8, 1, 8) Interrupt (…, Edge, ActiveHigh) { 4 } })
            + "08" + name("_CRS") + "11" + "16" + "0a13" + "4701f803f8030108" + "890600030104000000" + "7900"
        // Device (PWRB) { Name (_HID, EisaId ("PNP0C0C")) Name (_UID, Zero) }
        let button =
            "5b82" + "15" + name("PWRB") + "08" + name("_HID") + "0c41d00c0c" + "08" + name("_UID") + "00"
        // Device (GED0) { Name (_HID, "ACPI0013") Name (_UID, Zero) Name (_CRS, ResourceTemplate () { Interrupt (…, Edge,
        // ActiveHigh) { 9 } }) Method (_EVT, 1) { Notify (PWRB, 0x80) } }
        let events =
            "5b82" + "3c" + name("GED0") + "08" + name("_HID") + "0d" + name("ACPI0013") + "00" + "08" + name("_UID")
            + "00" + "08" + name("_CRS") + "11" + "0e" + "0a0b" + "890600030109000000" + "7900"
            + "14" + "0d" + name("_EVT") + "01" + "86" + name("PWRB") + "0a80"
        // OperationRegion (VPRS, SystemMemory, 0xFED10010, One) Field (VPRS, ByteAcc, NoLock, Preserve) { VP00, 1, … VP07, 1 }
        let presence =
            "5b80" + name("VPRS") + "00" + "0c1000d1fe" + "01" + "5b81" + "2e" + name("VPRS") + "01"
            + (0..<8).map { name("VP0\($0)") + "01" }.joined()
        let bus = "5c" + name("_SB_") + com1 + button + events + presence + (0..<8).map(slot).joined()
        let byteCount = bus.count / 2 + 2
        let expected =
            // Name (\_S5, Package (4) { 5, 0, 0, 0 })
            "085c" + name("_S5_") + "12" + "07" + "04" + "0a05" + "000000"
            // Scope (\_SB) { … }
            + "10" + [UInt8(0x40 | byteCount & 15), UInt8(byteCount >> 4)].hex + bus
        #expect(Array(dsdt.dropFirst(36)).hex == expected)
    }
}
