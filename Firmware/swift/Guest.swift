// A guest in Embedded Swift: reads what the launch plan prepared for a Linux kernel (boot parameters, memory map,
// command line, CC blob with the CPUID page) and prints it. No heap, no String.

import CGuest

/// Bytes of the guest's own memory, mapped one to one.
struct PhysicalMemory {
    func load<T: FixedWidthInteger>(_ address: UInt, as type: T.Type) -> T {
        // SAFETY: the whole first GiB is mapped and private; addresses come from the measured boot parameters.
        unsafe UnsafePointer<T>(bitPattern: address)?.pointee ?? 0
    }
}

func write(_ text: StaticString) {
    for index in 0..<text.utf8CodeUnitCount {
        // SAFETY: index is below the count.
        write(byte: unsafe text.utf8Start[index])
    }
}

func write(byte: UInt8) {
    if byte == 10 { serial_byte(13) }
    serial_byte(byte)
}

func write(hex value: UInt64) {
    write("0x")
    var shift: UInt64 = 60
    while shift > 0 && value >> shift == 0 { shift -= 4 }
    while true {
        let digit = UInt8(truncatingIfNeeded: value >> shift & 15)
        write(byte: digit < 10 ? 48 + digit : 87 + digit)
        if shift == 0 { return }
        shift -= 4
    }
}

func check(_ name: StaticString, _ got: UInt, _ wanted: UInt) {
    // SAFETY: static strings end in a zero byte; `expect` only reads up to it.
    unsafe UnsafeRawPointer(name.utf8Start).withMemoryRebound(to: CChar.self, capacity: 1) { text in
        unsafe expect(text, got, wanted)
    }
}

@_cdecl("guest_main")
public func guestMain() {
    let memory = PhysicalMemory()
    let parameters = boot_params

    write("Embedded Swift, boot parameters at ")
    write(hex: UInt64(parameters))
    write("\n")
    check("setup header: magic", UInt(memory.load(parameters + 0x202, as: UInt32.self)), 0x5372_6448)

    // The memory map: 20-byte entries [Linux boot protocol, e820].
    let count = UInt(memory.load(parameters + 0x1E8, as: UInt8.self))
    var ram: UInt64 = 0
    var previousEnd: UInt64 = 0
    var ordered: UInt = 1
    for index in 0..<count {
        let entry = parameters + 0x2D0 + 20 * index
        let base = memory.load(entry, as: UInt32.self).value | memory.load(entry + 4, as: UInt32.self).value << 32
        let length =
            memory.load(entry + 8, as: UInt32.self).value | memory.load(entry + 12, as: UInt32.self).value << 32
        let kind = memory.load(entry + 16, as: UInt32.self)
        write("  ")
        write(hex: base)
        write(" + ")
        write(hex: length)
        write(" type ")
        write(hex: UInt64(kind))
        write("\n")
        if base < previousEnd { ordered = 0 }
        previousEnd = base &+ length
        if kind == 1 { ram &+= length }
    }
    check("memory map: in order, no overlap", ordered, 1)
    check("memory map: at least 16 MiB of RAM", ram >= 16 << 20 ? 1 : 0, 1)

    write("command line: ")
    var address = UInt(memory.load(parameters + 0x228, as: UInt32.self))
    while address != 0 {
        let byte = memory.load(address, as: UInt8.self)
        if byte == 0 { break }
        write(byte: byte)
        address += 1
    }
    write("\n")

    guard c_mask != 0 else {
        write("not an encrypted guest\n")
        return
    }

    // setup_data: a list of next u64, type u32, length u32; type 7 holds the CC blob's address.
    var node = UInt(memory.load(parameters + 0x250, as: UInt32.self))
    var blob: UInt = 0
    while node != 0 && blob == 0 {
        if memory.load(node + 8, as: UInt32.self) == 7 { blob = UInt(memory.load(node + 16, as: UInt32.self)) }
        node = UInt(memory.load(node, as: UInt32.self))
    }
    check("CC blob: magic", UInt(memory.load(blob, as: UInt32.self)), 0x4544_4D41)
    check("CC blob: secrets length", UInt(memory.load(blob + 0x10, as: UInt32.self)), 4096)
    let cpuid = UInt(memory.load(blob + 0x18, as: UInt32.self))
    let entries = UInt(memory.load(cpuid, as: UInt32.self))
    check("CPUID page: 1 to 64 entries", entries >= 1 && entries <= 64 ? 1 : 0, 1)
    for index in 0..<entries where index < 64 {
        let entry = cpuid + 16 + 48 * index
        if memory.load(entry, as: UInt32.self) == 0x8000_001F {
            let position = UInt(memory.load(entry + 28, as: UInt32.self)) & 63
            check("CPUID page: C-bit position against CR3", 1 << position, c_mask)
        }
    }
}

extension UInt32 {
    var value: UInt64 { UInt64(self) }
}
