# Code that changes: in the same block, in a loop, across pages, through another mapping, and under a new translation.

.include "runtime.inc"
.globl guest_main

.set FAR_OFFSET, 64               # of far_code in its page

.text
guest_main:
    # The instruction right after the store. No branch between: x86 promises that it is seen.
    mov dword ptr [.Lnext + 1], 0x2222
    nop
.Lnext:
    mov eax, 0x1111
    EXPECT "the next instruction but one", 0x2222

    # The same code, hot, then changed.
    mov r12d, 1000
    xor r13d, r13d
2:  call constant
    add r13d, eax
    dec r12d
    jnz 2b
    mov rax, r13
    EXPECT "1000 calls before the change", 1000
    mov dword ptr [constant + 1], 3
    mov r12d, 1000
    xor r13d, r13d
3:  call constant
    add r13d, eax
    dec r12d
    jnz 3b
    mov rax, r13
    EXPECT "1000 calls after it", 3000

    # A loop that rewrites itself each time round: 0 first, then 100, 99, … 2.
    mov r12d, 100
    xor r13d, r13d
.Lself:
    mov eax, 0
    add r13d, eax
    mov [.Lself + 1], r12d
    dec r12d
    jnz .Lself
    mov rax, r13
    EXPECT "a loop that rewrites itself", 5049

    # An instruction that lies on two pages; both halves change in turn.
    call crossing
    EXPECT "across pages, before", 0x44332211
    mov byte ptr [crossing_code + 1], 0x99
    call crossing
    EXPECT "across pages, first half changed", 0x44332299
    mov byte ptr [crossing_code + 4], 0x88
    call crossing
    EXPECT "across pages, second half changed", 0x88332299

    # Through another mapping of the same page.
    call far_code
    EXPECT "alias, before", 0x11
    lea rdi, [alias]
    call pte_of
    mov r12, rax
    lea rdi, [far_code]
    call pte_of
    mov rdx, [rax]
    mov rcx, [r12]
    mov [r12], rdx                  # alias → the page of far_code
    invlpg [alias]
    mov byte ptr [alias + FAR_OFFSET + 1], 0x22
    mov [r12], rcx
    invlpg [alias]
    call far_code
    EXPECT "changed through an alias", 0x22

    # The same address, another page behind it.
    lea rsi, [far_page]
    lea rdi, [alias]
    mov ecx, 4096
    rep movsb
    mov byte ptr [alias + FAR_OFFSET + 1], 0x33
    lea rdi, [far_page]
    call pte_of
    mov rdx, [r12]
    mov rcx, [rax]
    mov [rax], rdx
    invlpg [far_page]
    mov r14, rax
    mov r15, rcx
    call far_code
    EXPECT "another page at the same address", 0x33
    mov [r14], r15
    invlpg [far_page]
    call far_code
    EXPECT "and the first one again", 0x22
    ret

constant:
    mov eax, 1
    ret

crossing:
    jmp crossing_code

.section .text.crossing, "ax"
.align 4096
    .skip 4096 - 3
crossing_code:
    mov eax, 0x44332211
    ret

.section .text.far, "ax"
.align 4096
far_page:
    .skip FAR_OFFSET
far_code:
    mov eax, 0x11
    ret
.align 4096

.bss
.align 4096
alias: .skip 4096
