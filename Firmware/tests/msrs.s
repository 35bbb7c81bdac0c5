# MSRs of a plain or SEV guest: memory types (MTRRs, PAT), machine check, time, segment bases: what they hold and what they
# refuse [APM2 7.7, 7.8, 9.3, A]; RDPMC.

.include "runtime.inc"
.include "privilege.inc"
.globl guest_main

# HOLDS "name", MSR, high half, low half: this value can be written and is read back.
.macro HOLDS name, number, high, low
    mov ecx, \number
    mov eax, \low
    mov edx, \high
    wrmsr
    xor eax, eax
    xor edx, edx
    rdmsr
    mov r13d, edx
    mov eax, eax
    mov edx, \low
    xor rax, rdx
    EXPECT "\name: low half", 0
    mov eax, r13d
    mov edx, \high
    xor rax, rdx
    EXPECT "\name: high half", 0
.endm
.macro REFUSES name, number, high, low
    FAULTS "\name", VECTOR_GP, 0, "mov ecx, \number; mov eax, \low; mov edx, \high; wrmsr"
.endm

.text
guest_main:
    # PAT: eight types, of which 2 and 3 are none.
    HOLDS "PAT", 0x277, 0x00070406, 0x00070406
    HOLDS "PAT, all types", 0x277, 0x00010405, 0x06070106
    .irp wrong, 2, 3, 8, 0x80
    REFUSES "PAT, type \wrong", 0x277, 0x00070406, 0x00070400 | \wrong
    REFUSES "PAT, type \wrong in the last place", 0x277, 0x00070406 | \wrong << 24, 0x00070406
    .endr
    HOLDS "PAT as it was", 0x277, 0x00070406, 0x00070406

    # MTRRs.
    mov ecx, 0xFE
    rdmsr
    and eax, 0x5FF
    EXPECT "MTRRcap: eight ranges, fixed ranges, write combining", 0x508
    FAULTS "MTRRcap is read-only", VECTOR_GP, 0, "mov ecx, 0xFE; rdmsr; wrmsr"
    HOLDS "MTRRdefType", 0x2FF, 0, 0xC06
    REFUSES "MTRRdefType, type 2", 0x2FF, 0, 0xC02
    REFUSES "MTRRdefType, reserved bit", 0x2FF, 0, 0x1C06
    HOLDS "variable base", 0x200, 0, 0x80000006
    REFUSES "variable base, type 3", 0x200, 0, 0x80000003
    REFUSES "variable base, reserved bit", 0x200, 0, 0x80000106
    HOLDS "variable mask", 0x201, 0x0000FFFF, 0x80000800
    REFUSES "variable mask, reserved bit", 0x201, 0, 0x80000C00
    HOLDS "variable base 7", 0x20E, 0, 0xC0000000
    HOLDS "fixed, 64 KiB", 0x250, 0x06060606, 0x06060606
    HOLDS "fixed, 16 KiB", 0x258, 0x06060606, 0x05040100
    HOLDS "fixed, 4 KiB", 0x26F, 0x05050505, 0x05050505
    REFUSES "fixed, type 2", 0x250, 0x06060602, 0x06060606
    FAULTS "no fixed MTRR at 0x251", VECTOR_GP, 0, "mov ecx, 0x251; rdmsr"

    # Machine check [KVM]: banks without MCG_CTL. A guest switches all of a bank on or off, and clears its status, unless
    # HWCR lets it write one.
    mov ecx, 0x179
    rdmsr
    mov r12d, eax
    and eax, 0xFF
    neg eax
    sbb eax, eax
    neg eax
    EXPECT "MCG_CAP: there are banks", 1
    bt r12d, 8
    jc 1f
    FAULTS "no MCG_CTL: RDMSR", VECTOR_GP, 0, "mov ecx, 0x17B; rdmsr"
    REFUSES "no MCG_CTL: WRMSR", 0x17B, 0, 0
1:  FAULTS "MCG_CAP is read-only", VECTOR_GP, 0, "mov ecx, 0x179; rdmsr; wrmsr"
    HOLDS "MCG_STATUS", 0x17A, 0, 5
    HOLDS "MCG_STATUS 0", 0x17A, 0, 0
    HOLDS "bank 0: off", 0x400, 0, 0
    HOLDS "bank 0: on", 0x400, -1, -1
    HOLDS "bank 0: on but for bit 10", 0x400, -1, ~0x400
    REFUSES "bank 0: half on", 0x400, 0, -1
    HOLDS "bank 0: status cleared", 0x401, 0, 0
    REFUSES "bank 0: a status", 0x401, 0x80000000, 1
    HOLDS "HWCR.McStatusWrEn", 0xC0010015, 0, 1 << 18
    HOLDS "bank 0: a status with it", 0x401, 0x80000000, 1
    HOLDS "bank 0: address", 0x402, 0x1234, 0x5678
    HOLDS "bank 0: miscellaneous", 0x403, 0x8765, 0x4321
    HOLDS "bank 0: status cleared again", 0x401, 0, 0
    HOLDS "HWCR as it was", 0xC0010015, 0, 0
    REFUSES "HWCR, another bit", 0xC0010015, 0, 1 << 20
    and r12d, 0xFF
    lea ecx, [r12 * 4 + 0x400]
    mov [behind_banks], ecx
    FAULTS "no further bank", VECTOR_GP, 0, "mov ecx, [behind_banks]; rdmsr"
    FAULTS "P5_MC_ADDR reads as 0", -1, -1, "xor ecx, ecx; rdmsr"

    # The rest that every kernel touches.
    HOLDS "SYSENTER_CS", 0x174, 0, 8
    HOLDS "SYSENTER_EIP", 0x176, 0, 0x12345678
    HOLDS "STAR", 0xC0000081, 0x00200008, 0
    mov edi, 0x80000001             # RDTSCP
    mov esi, 3
    mov edx, 27
    call has_feature
    test eax, eax
    jz 1f
    HOLDS "TSC_AUX", 0xC0000103, 0, 0x12345678
1:
    HOLDS "FS base", 0xC0000100, 0xFFFF8000, 0x1000
    HOLDS "FS base 0", 0xC0000100, 0, 0
    REFUSES "GS base that is not canonical", 0xC0000101, 0x8000, 0
    REFUSES "EFER, reserved bit", 0xC0000080, 0, 0xD03
    REFUSES "EFER, bit above 31", 0xC0000080, 1, 0xD01
    FAULTS "an MSR that nobody has: RDMSR", VECTOR_GP, 0, "mov ecx, 0x12345678; rdmsr"
    REFUSES "an MSR that nobody has: WRMSR", 0x12345678, 0, 0
    mov ecx, 0x10
    rdmsr
    mov r12d, eax
    rdmsr
    sub eax, r12d
    mov ecx, eax
    mov eax, 0
    cmp ecx, 0
    setg al
    EXPECT "the TSC counts", 1
    ret

.bss
behind_banks: .skip 4
