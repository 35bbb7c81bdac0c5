# PVALIDATE and page-state changes: one page to shared and back, by the MSR protocol and by the GHCB.

.include "runtime.inc"
.globl guest_main

.macro CARRY_TO_RAX
    setc al
    movzx eax, al
.endm

# VALIDATE "name", 1 or 0, wanted code, wanted CF: on `page`.
.macro VALIDATE name, on, code, carry
    lea rdi, [page]
    mov esi, \on
    call validate
    setc bl
    EXPECT "\name: code", \code
    movzx eax, bl
    EXPECT "\name: nothing changed", \carry
.endm

.text
guest_main:
    mov rax, 0x1122334455667788
    mov [page], rax
    mov [page + 4088], rax

    VALIDATE "validate a page of the launch", 1, 0, 1
    VALIDATE "rescind", 0, 0, 0
    VALIDATE "rescind again", 0, 0, 1
    FAULTS "read a page that is not validated", VECTOR_VC, 0x404, "mov rax, [page]"
    FAULTS "write it", VECTOR_VC, 0x404, "mov [page], rax"
    VALIDATE "validate", 1, 0, 0
    mov rax, [page]
    mov rdx, 0x1122334455667788
    xor rax, rdx
    EXPECT "its contents are still there", 0

    # A 2 MiB request on memory that the launch added in 4 KiB pages, and one that is not aligned.
    mov eax, 0x400000
    mov ecx, 1
    mov edx, 1
    pvalidate_
    EXPECT "2 MiB on 4 KiB pages: size mismatch", 6

    # To shared: rescind, ask, map without C.
    VALIDATE "rescind before sharing", 0, 0, 0
    lea rdi, [page]
    mov esi, PAGE_SHARED
    call page_state
    EXPECT "MSR protocol: to shared", 0
    lea rdi, [page]
    xor esi, esi
    call set_encrypted
    mov rax, 0x55AA55AA55AA55AA
    mov [page], rax
    mov rax, [page]
    mov rdx, 0x55AA55AA55AA55AA
    xor rax, rdx
    EXPECT "a shared page holds what is written", 0

    # And back: ask, map with C, validate. What the hypervisor saw must not appear as plaintext.
    lea rdi, [page]
    mov esi, PAGE_PRIVATE
    call page_state
    EXPECT "MSR protocol: to private", 0
    lea rdi, [page]
    mov esi, 1
    call set_encrypted
    FAULTS "private again, but not validated", VECTOR_VC, 0x404, "mov rax, [page]"
    VALIDATE "validate it", 1, 0, 0
    mov rax, [page]
    mov rdx, 0x55AA55AA55AA55AA
    xor rax, rdx
    setz al
    movzx eax, al
    EXPECT "shared contents do not survive", 0
    mov qword ptr [page], 42
    mov rax, [page]
    EXPECT "a private page holds what is written", 42

    # Two pages in one request through the GHCB [GHCB 4.1.6].
    VALIDATE "rescind before sharing by GHCB", 0, 0, 0
    lea rdi, [page + 4096]
    xor esi, esi
    call validate
    mov edi, PAGE_SHARED
    call change_two_pages
    mov r14, rdx
    movzx r15d, word ptr [ghcb + GHCB_BUFFER]
    EXPECT "GHCB: to shared, info 1", 0
    mov rax, r14
    EXPECT "GHCB: to shared, info 2", 0
    mov eax, r15d
    EXPECT "GHCB: the current entry is past the last", 2
    lea rdi, [page + 4096]
    xor esi, esi
    call set_encrypted
    mov qword ptr [page + 4096], 7
    mov rax, [page + 4096]
    EXPECT "the second page is shared", 7
    mov edi, PAGE_PRIVATE
    call change_two_pages
    mov rax, rdx
    EXPECT "GHCB: to private, info 2", 0
    lea rdi, [page + 4096]
    mov esi, 1
    call set_encrypted
    VALIDATE "validate the first", 1, 0, 0
    lea rdi, [page + 4096]
    mov esi, 1
    call validate
    CARRY_TO_RAX
    EXPECT "validate the second: nothing changed", 0

    # A header that points beyond the buffer.
    call ghcb_begin
    mov rax, 0x0000000000FE0000     # current 0, end 254
    mov [ghcb + GHCB_BUFFER], rax
    call page_state_change
    mov rax, rdx
    mov rdx, 0x100000001
    xor rax, rdx
    EXPECT "GHCB: header with too many entries", 0
    ret

# change_two_pages(operation)
change_two_pages:
    mov r12, rdi
    call ghcb_begin
    mov qword ptr [ghcb + GHCB_BUFFER], 0x10000     # current 0, end 1
    shl r12, 52
    lea rax, [page]
    or rax, r12
    mov [ghcb + GHCB_BUFFER + 8], rax
    add rax, 4096
    mov [ghcb + GHCB_BUFFER + 16], rax
    # falls through
page_state_change:
    lea rax, [ghcb + GHCB_BUFFER]
    mov [ghcb + GHCB_SCRATCH], rax
    GHCB_VALID GHCB_SCRATCH
    mov edi, EXIT_PSC
    xor esi, esi
    xor edx, edx
    jmp ghcb_call

.bss
.align 4096
page: .skip 8192
