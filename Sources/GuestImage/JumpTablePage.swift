// Several vCPUs without firmware in a SEV-ES guest [GHCB 4.3.1]: nobody outside can set a vCPU's registers, so a SIPI lets
// it go on with the state that was measured. Linux leaves the address where its other processors shall begin in the AP
// jump table, a page that firmware reserves and whose own address firmware has left with the hypervisor. Here two pieces of
// code in one measured page do what firmware would: the boot processor leaves the address before it enters the kernel, and
// each other processor jumps through the table.

import X86Defs

/// The page at ``GuestAddressMap/jumpTable``.
///
///     0x00   AP jump table: IP, CS; zero until the kernel has written it
///     0x10   the other processors' start, 16-bit code with a CS base of 0
///     0x40   the boot processor's start, 64-bit code; its GHCB is the page at ``GuestAddressMap/startupGHCB``
enum JumpTablePage {
    /// Where the other processors start.
    static let othersEntry = UInt32(GuestAddressMap.jumpTable) + 0x10
    /// Where the boot processor starts.
    static let bootEntry = GuestAddressMap.jumpTable + 0x40

    /// Through the table, or as long as it is empty to an AP reset hold, until the next SIPI.
    private static let others: [UInt8] = [
        0x2e, 0x66, 0x83, 0x3e, 0x00, 0xc0, 0x00,  // again: cmp dword ptr cs:[0xc000], 0
        0x74, 0x05,  // je hold
        0x2e, 0xff, 0x2e, 0x00, 0xc0,  // jmp far cs:[0xc000]
        0x66, 0xb9, 0x30, 0x01, 0x01, 0xc0,  // hold: mov ecx, GHCB MSR
        0x66, 0xb8, 0x06, 0x00, 0x00, 0x00,  // mov eax, AP reset hold
        0x66, 0x31, 0xd2,  // xor edx, edx
        0x0f, 0x30,  // wrmsr
        0xf3, 0x0f, 0x01, 0xd9,  // vmgexit
        0xeb, 0xdb,  // jmp again
    ]

    /// Maps the GHCB without C by the last entry of the first page directory, and takes that back. A hypervisor that does
    /// not keep the address is told that the guest ends. RSI and the stack are left alone.
    private static let boot: [UInt8] = [
        0xb8, 0xf8, 0x4f, 0x00, 0x00,  // mov eax, 0x4ff8
        0x48, 0x8b, 0x18,  // mov rbx, [rax]
        0x48, 0xc7, 0x00, 0xe3, 0x00, 0x00, 0x00,  // mov qword ptr [rax], large, present, writable; GPA 0
        0x0f, 0x20, 0xda, 0x0f, 0x22, 0xda,  // mov rdx, cr3; mov cr3, rdx
        0xbf, 0x00, 0xd0, 0xe0, 0x3f,  // mov edi, 0x3fe00000 + 0xd000
        0xb9, 0x00, 0x02, 0x00, 0x00,  // mov ecx, 512
        0x31, 0xc0,  // xor eax, eax
        0xf3, 0x48, 0xab,  // rep stosq
        0x66, 0xc7, 0x47, 0xfa, 0x01, 0x00,  // protocol version: mov word ptr [rdi - 6], 1
        0xb8, 0x05, 0x00, 0x00, 0x80,  // SW_EXITCODE: AP jump table
        0x48, 0x89, 0x87, 0x90, 0xf3, 0xff, 0xff,
        0xc7, 0x87, 0xa0, 0xf3, 0xff, 0xff, 0x00, 0xc0, 0x00, 0x00,  // SW_EXITINFO2: its address; INFO1 0: set
        0xc6, 0x87, 0xfe, 0xf3, 0xff, 0xff, 0x1c,  // VALID_BITMAP: these three
        0xb8, 0x00, 0xd0, 0x00, 0x00,  // mov eax, 0xd000
        0x31, 0xd2,  // exit: xor edx, edx
        0xb9, 0x30, 0x01, 0x01, 0xc0,  // mov ecx, GHCB MSR
        0x0f, 0x30,  // wrmsr
        0xf3, 0x0f, 0x01, 0xd9,  // vmgexit
        0xb8, 0x00, 0x01, 0x00, 0x00,  // mov eax, termination request
        0x83, 0xbf, 0x98, 0xf3, 0xff, 0xff, 0x00,  // cmp dword ptr SW_EXITINFO1, 0
        0x75, 0xe5,  // jne exit
        0x48, 0x89, 0x1c, 0x25, 0xf8, 0x4f, 0x00, 0x00,  // mov [0x4ff8], rbx
        0x0f, 0x20, 0xda, 0x0f, 0x22, 0xda,  // mov rdx, cr3; mov cr3, rdx
        0x48, 0xb8,  // mov rax, the kernel's entry
    ]
    private static let jump: [UInt8] = [0xff, 0xe0]  // jmp rax

    /// The page's contents for a kernel that is entered here.
    static func bytes(kernelEntry: UInt64) -> [UInt8] {
        var page = [UInt8](repeating: 0, count: 4096)
        page.replaceSubrange(0x10..<(0x10 + others.count), with: others)
        let start = boot + (0..<8).map { UInt8(truncatingIfNeeded: kernelEntry >> UInt64(8 * $0)) } + jump
        page.replaceSubrange(0x40..<(0x40 + start.count), with: start)
        return page
    }
}

extension MachineDescription {
    /// Does a direct boot need an AP jump table? Linux asks for none with one vCPU.
    var needsJumpTable: Bool { technology == .sevES && processorCount > 1 }
}
