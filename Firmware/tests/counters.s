# Counters that programs may read: RDTSC and RDTSCP under CR4.TSD, RDPMC under CR4.PCE and for counters that do not exist,
# TSC_AUX [APM2 3.1.3, 13.2.3; APM3 RDTSC, RDTSCP, RDPMC]. Of encrypted state RDPMC is an intercept.

.include "runtime.inc"
.include "privilege.inc"
.globl guest_main

.set CR4_TSD, 1 << 2
.set CR4_PCE, 1 << 8
.set TSC_AUX, 0xC0000103

# UNLESS_RDTSCP label: where CPUID does not announce it.
.macro UNLESS_RDTSCP label:req
    cmp dword ptr [has_rdtscp], 0
    je \label
.endm

.macro CR4_BITS clear, set
    mov rax, cr4
    and rax, ~(\clear)
    or rax, \set
    mov cr4, rax
.endm

.text
guest_main:
    call privilege_setup
    mov edi, 0x80000001
    mov esi, 3
    mov edx, 27
    call has_feature
    mov [has_rdtscp], eax
    CR4_BITS CR4_TSD | CR4_PCE, 0
    FAULTS "RDTSC", -1, -1, "rdtsc"
    USER "RDTSC at CPL 3", NONE, 0, "rdtsc"
    UNLESS_RDTSCP 1f
    FAULTS "RDTSCP", -1, -1, "rdtscp"
    USER "RDTSCP at CPL 3", NONE, 0, "rdtscp"
1:
    LEGACY "RDTSC in compatibility mode at CPL 3", NONE, 0, USER32, 32, "rdtsc"
    CR4_BITS 0, CR4_TSD
    FAULTS "RDTSC with CR4.TSD", -1, -1, "rdtsc"
    USER "RDTSC at CPL 3 with CR4.TSD", VECTOR_GP, 0, "rdtsc"
    UNLESS_RDTSCP 1f
    FAULTS "RDTSCP with CR4.TSD", -1, -1, "rdtscp"
    USER "RDTSCP at CPL 3 with CR4.TSD", VECTOR_GP, 0, "rdtscp"
1:
    LEGACY "RDTSC in compatibility mode at CPL 3 with CR4.TSD", VECTOR_GP, 0, USER32, 32, "rdtsc"
    LEGACY "RDTSC in compatibility mode at CPL 0 with CR4.TSD", NONE, 0, CODE32, 32, "rdtsc"
    CR4_BITS CR4_TSD, 0

    # It never goes back, and its halves belong together.
    xor r12d, r12d
    mov r13d, 10000
1:  rdtsc
    shl rdx, 32
    or rax, rdx
    cmp rax, r12
    jb 2f
    mov r12, rax
    dec r13d
    jnz 1b
2:  mov eax, r13d
    EXPECT "10,000 readings, none before the last", 0

    UNLESS_RDTSCP 3f
    mov ecx, TSC_AUX
    mov eax, 0x12345678
    xor edx, edx
    wrmsr
    rdtscp
    mov eax, ecx
    EXPECT "RDTSCP gives TSC_AUX", 0x12345678
    mov edi, 7
    mov esi, 2
    mov edx, 22
    call has_feature
    test eax, eax
    jz 3f
    rdpid rax
    EXPECT "so does RDPID", 0x12345678
    CR4_BITS 0, CR4_TSD
    USER "RDPID at CPL 3 with CR4.TSD", NONE, 0, "rdpid rax"
    CR4_BITS CR4_TSD, 0
3:
    USER "RDPMC at CPL 3", VECTOR_GP, 0, "xor ecx, ecx; rdpmc"
    CR4_BITS 0, CR4_PCE
    test byte ptr [sev_status], SEV_STATUS_ES
    jnz 4f
    .irp counter, 0, 3
    FAULTS "RDPMC of counter \counter", -1, -1, "mov ecx, \counter; rdpmc"
    .endr
    USER "RDPMC at CPL 3 with CR4.PCE", NONE, 0, "xor ecx, ecx; rdpmc"
    FAULTS "RDPMC of counter 99", VECTOR_GP, 0, "mov ecx, 99; rdpmc"
    USER "RDPMC of counter 99 at CPL 3 with CR4.PCE", VECTOR_GP, 0, "mov ecx, 99; rdpmc"
    ret
4:  USER "RDPMC at CPL 3 with CR4.PCE: #VC", VECTOR_VC, 0x6F, "xor ecx, ecx; rdpmc"
    ret

.bss
has_rdtscp: .skip 4
