# Fills the whole GHCB with pseudo-random bytes, again and again, and calls the hypervisor with it. Nothing is promised
# to such a guest: it may be ended, or come to its last line. The hypervisor must survive it.
#
# Odd rounds choose a real event and mark everything as valid, so that the noise reaches its handler. The fuzz driver
# finds the parameters by the seed below and gives others.

.include "runtime.inc"
.globl guest_main

.text
guest_main:
    PRINT "noise begins"
    mov rbx, [seed]
    mov r12, [rounds]
1:  lea rdi, [ghcb]
    mov ecx, 512
2:  call random
    mov [rdi], rax
    add rdi, 8
    dec ecx
    jnz 2b

    test r12d, 1
    jz 4f
    call random
    and rax, [event_mask]
    mov eax, [events + rax * 4]
    mov [ghcb + GHCB_CODE], rax
    mov qword ptr [ghcb + GHCB_BITMAP], -1
    mov qword ptr [ghcb + GHCB_BITMAP + 8], -1
    mov dword ptr [ghcb + GHCB_USAGE], 0
    test r12d, 2
    jz 3f
    lea rax, [ghcb + GHCB_BUFFER]   # a scratch area that will be accepted
    mov [ghcb + GHCB_SCRATCH], rax
3:  and dword ptr [ghcb + GHCB_INFO2 + 4], 0
    and dword ptr [ghcb + GHCB_INFO2], 0x7FFFFFFF

4:  lea rax, [ghcb]
    xor edx, edx
    mov ecx, MSR_GHCB
    wrmsr
    vmgexit_
    dec r12d
    jnz 1b
    PRINT "noise survived"
    ret

# xorshift64*
random:
    mov rax, rbx
    shr rax, 12
    xor rbx, rax
    mov rax, rbx
    shl rax, 25
    xor rbx, rax
    mov rax, rbx
    shr rax, 27
    xor rbx, rax
    mov rax, 0x2545F4914F6CDD1D
    imul rax, rbx
    ret

.section .rodata
# The first half. A page-state change, AP creation or termination would end this guest early, lawfully: second half.
# The AP reset hold (0x80000004) is missing: this guest would sleep for ever.
.align 4
events:
    .long EXIT_IOIO, EXIT_IOIO, EXIT_IOIO, EXIT_MSR, EXIT_MSR, EXIT_CPUID, EXIT_MMIO_READ, EXIT_MMIO_READ
    .long EXIT_MMIO_WRITE, EXIT_MMIO_WRITE, 0x89, 0x6E, 0x6F, 0x81, 0x37, EXIT_FEATURES
    .long EXIT_PSC, EXIT_PSC, EXIT_PSC, EXIT_PSC, 0x80000011, 0x80000012, 0x80000013, 0x80000003
    .long 0x80000002, 0x80000005, 0x80000018, EXIT_TERMINATE, 0x8000FFFF, 0x76, 0x8A, 0x8B

.data
.align 8
seed:       .quad 0x9E3779B97F4A7C15
rounds:     .quad 4000
event_mask: .quad 15                # 31: the second half too
