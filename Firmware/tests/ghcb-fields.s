# Malformed GHCBs, one fault at a time: each must be answered with "malformed" and its reason, and the guest goes on.

.include "runtime.inc"
.globl guest_main

# MALFORMED "name", reason: the last call's answer was 2 with this reason [GHCB 4.1].
.macro MALFORMED name, reason
    mov r14, rdx
    EXPECT "\name: malformed", 2
    mov rax, r14
    EXPECT "\name: reason", \reason
.endm

.text
guest_main:
    # A usage that is not 0.
    call ghcb_begin
    mov dword ptr [ghcb + GHCB_USAGE], 0x12345678
    mov edi, EXIT_CPUID
    call ghcb_call
    MALFORMED "usage", 2

    # An event nobody knows.
    call ghcb_begin
    mov edi, 0x80001234
    call ghcb_call
    MALFORMED "event", 6

    # Inputs that are not marked as valid.
    call ghcb_begin
    mov edi, EXIT_CPUID
    call ghcb_call
    MALFORMED "CPUID without RAX and RCX", 4

    call ghcb_begin
    mov edi, EXIT_MSR
    call ghcb_call
    MALFORMED "MSR without RCX", 4

    call ghcb_begin
    mov edi, EXIT_MMIO_READ
    mov esi, 0xFEC00000
    mov edx, 4
    call ghcb_call
    MALFORMED "MMIO without scratch", 4

    # Scratch areas that leave the shared buffer.
    call ghcb_begin
    lea rax, [ghcb + 0xFEE]
    mov [ghcb + GHCB_SCRATCH], rax
    GHCB_VALID GHCB_SCRATCH
    mov edi, EXIT_MMIO_READ
    mov esi, 0xFEC00000
    mov edx, 8
    call ghcb_call
    MALFORMED "scratch over the end of the buffer", 3

    call ghcb_begin
    mov qword ptr [ghcb + GHCB_SCRATCH], -8
    GHCB_VALID GHCB_SCRATCH
    mov edi, EXIT_MMIO_READ
    mov esi, 0xFEC00000
    mov edx, 8
    call ghcb_call
    MALFORMED "scratch at the end of all addresses", 3

    # Every field at its extremes, in an event that ignores it: a byte to an unused port.
    mov r12d, 0
1:  call ghcb_begin
    mov qword ptr [ghcb + GHCB_RAX], 0
    GHCB_VALID GHCB_RAX
    cmp r12d, GHCB_RAX
    je 2f
    cmp r12d, GHCB_BITMAP
    je 2f
    cmp r12d, GHCB_BITMAP + 8
    je 2f
    cmp r12d, 0xFF8                 # version and usage
    je 2f
    mov qword ptr [ghcb + r12], -1
2:  mov edi, EXIT_IOIO
    mov esi, (0x80 << 16) | (1 << 9) | (1 << 4)
    xor edx, edx
    call ghcb_call
    or [answers], eax
    mov qword ptr [ghcb + r12], 0
    add r12d, 8
    cmp r12d, 4096
    jb 1b
    mov eax, [answers]
    EXPECT "512 fields at all ones: done", 0
    ret

.bss
answers: .skip 8
