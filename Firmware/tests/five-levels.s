# Paging with five levels [APM2 5.3, 3.1.3]: from four levels by way of protected mode without paging, linear addresses of 57
# bits, rights and marks of the fifth level, and back. Needs `run --la57` and a processor that has it; elsewhere only that
# the feature is not there.

.include "runtime.inc"
.include "privilege.inc"
.globl guest_main

.set CR4_LA57, 1 << 12

# Entries of the fifth level that lead to the tables of the first four, and where the image is seen through them.
.set LOWER, 0x34
.set LOWER_ALIAS, 0x0034000000000000
.set UPPER, 0x100
.set UPPER_ALIAS, 0xFF00000000000000

# TOP clear, set: bits of the fifth-level entry of the lower alias.
.macro TOP clear, set
    mov rax, [pml5 + LOWER * 8]
    mov rcx, \clear
    not rcx
    and rax, rcx
    mov rcx, \set
    or rax, rcx
    mov [pml5 + LOWER * 8], rax
    mov rax, cr3
    mov cr3, rax
.endm

# AT address: RAX = an address, plus where `page` is.
.macro AT address
    mov rax, \address
    lea rdx, [page]
    add rax, rdx
.endm

.text
guest_main:
    call privilege_setup
    FAULTS "CR4.LA57 cannot be set in long mode", VECTOR_GP, 0, "mov rax, cr4; or eax, CR4_LA57; mov cr4, rax"
    FAULTS "bit 47 alone makes no address", VECTOR_GP, 0, "mov rax, 1 << 47; mov al, [rax]"
    mov edi, 7
    mov esi, 2
    mov edx, 16
    call has_feature
    test eax, eax
    jnz 1f
    PRINT "no LA57"
    ret

1:  PRINT "LA57"
    mov ecx, 0xC0000080             # EFER.NXE
    rdmsr
    or eax, 1 << 11
    wrmsr
    mov rax, cr3
    mov [four_levels], rax
    or eax, 7
    mov [pml5], rax
    mov [pml5 + LOWER * 8], rax
    mov [pml5 + UPPER * 8], rax
    lea rdi, [pml5]
    mov esi, CR4_LA57
    call switch_levels
    mov rax, cr4
    and eax, CR4_LA57
    EXPECT "CR4.LA57", CR4_LA57
    FAULTS "CR4.LA57 cannot be cleared in long mode", VECTOR_GP, 0, "mov rax, cr4; and eax, ~CR4_LA57; mov cr4, rax"

    # Addresses.
    mov qword ptr [page], 0x1111
    AT LOWER_ALIAS
    mov rax, [rax]
    EXPECT "a load through the fifth level", 0x1111
    AT UPPER_ALIAS
    mov rbx, rax
    mov rax, [rbx]
    EXPECT "a load in the upper half", 0x1111
    mov qword ptr [rbx], 0x2222
    mov rax, [page]
    EXPECT "a store in the upper half", 0x2222
    FAULTS "bit 47 alone: no page", VECTOR_PF, 0, "mov rax, 1 << 47; mov al, [rax]"
    mov rax, [fault_address]
    mov rdx, 1 << 47
    xor rax, rdx
    EXPECT "CR2", 0
    FAULTS "bit 55 alone: no page", VECTOR_PF, 0, "mov rax, 1 << 55; mov al, [rax]"
    FAULTS "bit 56 alone: not canonical", VECTOR_GP, 0, "mov rax, 1 << 56; mov al, [rax]"
    FAULTS "bits 63 to 57: not canonical", VECTOR_GP, 0, "mov rax, 0xFE00000000000000; mov al, [rax]"
    FAULTS "across the end of the lower half", VECTOR_GP, 0, "mov rax, 0x00FFFFFFFFFFFFFC; mov rax, [rax]"
    FAULTS "by way of RBP: a stack fault", VECTOR_SS, 0, "mov rbp, 1 << 56; mov rax, [rbp]"
    FAULTS "a GS base of 57 bits", -1, -1, "mov ecx, 0xC0000101; xor eax, eax; mov edx, 0x00340000; wrmsr"
    AT 0
    mov rax, gs:[rax]
    EXPECT "a load by it", 0x2222
    FAULTS "a GS base of 58", VECTOR_GP, 0, "mov ecx, 0xC0000101; xor eax, eax; mov edx, 0x01000000; wrmsr"
    xor eax, eax
    xor edx, edx
    mov ecx, 0xC0000101
    wrmsr
    FAULTS "INVLPG of any address", -1, -1, "mov rax, 1 << 56; invlpg [rax]"

    # Code.
    mov byte ptr [page], 0xC3
    FAULTS "a call there", -1, -1, "AT UPPER_ALIAS; call rax"
    mov byte ptr [page], 0xCC
    FAULTS "an exception there", VECTOR_BP, 0, "AT UPPER_ALIAS; call rax"
    add rsp, 8
    AT UPPER_ALIAS
    inc rax
    xor rax, [fault_rip]
    EXPECT "its frame", 0
    FAULTS "a jump to an address that is not canonical", VECTOR_GP, 0, "mov rax, 1 << 56; jmp rax"
    FAULTS "an IRET to one", VECTOR_GP, 0, "mov rdx, rsp; push 16; push rdx; push 2; push 8; mov rax, 1 << 56; push rax; iretq"
    add rsp, 40

    # The fifth level's entries.
    mov rbx, LOWER_ALIAS
    lea rax, [page]
    add rbx, rax
    TOP 0x20, 0
    mov rax, [rbx]
    mov rax, [pml5 + LOWER * 8]
    and eax, 0x20
    EXPECT "a walk sets its accessed bit", 0x20
    TOP 2, 0
    FAULTS "read-only", VECTOR_PF, 3, "mov [rbx], rax"
    TOP 0, 2
    FAULTS "writable", -1, -1, "mov [rbx], rax"
    TOP 0, 0x80
    FAULTS "bit 7 is reserved", VECTOR_PF, 9, "mov rax, [rbx]"
    TOP 0x80, 0
    TOP 0, (1 << 63)
    mov byte ptr [page], 0xC3
    FAULTS "no execution", VECTOR_PF, 0x11, "call rbx"
    add rsp, 8
    FAULTS "but loads", -1, -1, "mov rax, [rbx]"
    TOP (1 << 63), 0
    FAULTS "execution", -1, -1, "call rbx"
    TOP 1, 0
    FAULTS "not present", VECTOR_PF, 0, "mov rax, [rbx]"
    mov rax, [fault_address]
    xor rax, rbx
    EXPECT "not present: CR2", 0
    TOP 0, 1

    # CPL 3.
    USER "CPL 3 loads through the fifth level", NONE, 0, "mov rax, LOWER_ALIAS; lea rdx, [user_stack]; mov eax, [rax + rdx]"
    TOP 4, 0
    USER "CPL 3, without U", VECTOR_PF, 5, "mov rax, LOWER_ALIAS; lea rdx, [user_stack]; mov eax, [rax + rdx]"
    TOP 0, 4

    # And back.
    mov rdi, [four_levels]
    xor esi, esi
    call switch_levels
    FAULTS "four levels: the lower alias is no address", VECTOR_GP, 0, "mov rax, [rbx]"
    FAULTS "four levels: bit 47 alone makes no address", VECTOR_GP, 0, "mov rax, 1 << 47; mov al, [rax]"
    ret

# switch_levels(root, CR4.LA57 or 0): compatibility mode, paging off, the other depth, and on. Page tables are encrypted
# whatever CR3 says, as is every access without paging [APM2 15.34.5].
switch_levels:
    push rbx
    mov rbx, rsp
    push CODE32
    lea rax, [1f]
    push rax
    retfq
.code32
1:  mov eax, cr0
    and eax, 0x7FFFFFFF
    mov cr0, eax
    mov eax, cr4
    and eax, ~CR4_LA57
    or eax, esi
    mov cr4, eax
    mov cr3, edi
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    .byte 0xEA                      # far jump to 64-bit code
    .long 2f
    .word CODE64
.code64
2:  mov rsp, rbx
    mov eax, edi
    or rax, [c_mask]
    mov cr3, rax
    pop rbx
    ret

.bss
.align 4096
pml5:       .skip 4096
page:       .skip 4096
four_levels: .skip 8
