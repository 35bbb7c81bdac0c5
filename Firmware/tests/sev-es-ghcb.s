# The GHCB of a SEV-ES guest: no registration, no page states; what only SNP has is refused [GHCB 2.3, 4.1].

.include "runtime.inc"
.globl guest_main

# REFUSED "name", exit code, reason: the event comes back as malformed (2) for this reason.
.macro REFUSED name:req, code:req, reason:req
    call ghcb_begin
    mov qword ptr [ghcb + GHCB_RAX], 0
    mov qword ptr [ghcb + GHCB_RBX], 0
    lea rax, [ghcb + GHCB_BUFFER]
    mov [ghcb + GHCB_SCRATCH], rax
    GHCB_VALID GHCB_RAX
    GHCB_VALID GHCB_RBX
    GHCB_VALID GHCB_SCRATCH
    mov edi, \code
    mov esi, 0x1000
    mov edx, 0x2000
    call ghcb_call
    mov r14, rdx
    EXPECT "\name: malformed", 2
    mov rax, r14
    EXPECT "\name: reason", \reason
.endm

.text
guest_main:
    mov eax, [sev_status]
    and eax, 7
    EXPECT "SEV_STATUS: SEV, SEV-ES", 3

    mov edi, MSR_INFO_REQUEST
    call msr_protocol
    mov r12, rax
    and eax, 0xFFF
    EXPECT "SEV info: response code", 1
    mov rax, r12
    shr rax, 48
    EXPECT "SEV info: highest version", 2
    mov rax, r12
    shr rax, 24
    and eax, 0xFF
    mov ecx, eax
    mov eax, 1
    shl rax, cl
    xor rax, [c_mask]
    EXPECT "SEV info: C-bit position against CR3", 0

    mov rdi, (0x8000001F << 32) | MSR_CPUID_REQUEST
    call msr_protocol
    mov r12, rax
    and eax, 0xFFF
    EXPECT "CPUID request: response code", 5
    mov rax, r12
    shr rax, 32
    and eax, 2
    EXPECT "CPUID 0x8000001F EAX: SEV", 2

    mov edi, MSR_FEATURES_REQUEST
    call msr_protocol
    and eax, 0xFFF
    EXPECT "features: response code", 0x81
    mov edi, 0xABC
    call msr_protocol
    EXPECT "unknown request comes back", 0xABC

    REFUSED "page state change", 0x80000010, 4
    REFUSED "guest request", 0x80000011, 4
    REFUSED "extended guest request", 0x80000012, 4
    REFUSED "AP creation", 0x80000013, 4
    REFUSED "run VMPL", 0x80000018, 6

    # Any page mapped with C=0 will do, from one exit to the next.
    lea rdi, [other]
    xor esi, esi
    call set_encrypted
    lea rdi, [other]
    mov ecx, 512
    xor eax, eax
    rep stosq
    mov eax, EXIT_FEATURES
    mov [other + GHCB_CODE], rax
    or byte ptr [other + GHCB_BITMAP + (GHCB_CODE / 64)], 0x1C      # code, info 1, info 2
    lea rax, [other]
    xor edx, edx
    mov ecx, MSR_GHCB
    wrmsr
    vmgexit_
    mov eax, [other + GHCB_INFO1]
    EXPECT "an event in another page: done", 0
    mov eax, [other + GHCB_INFO2]
    and eax, 1
    EXPECT "its answer", 1

    # PVALIDATE and RMPADJUST do not exist.
    FAULTS "PVALIDATE", VECTOR_UD, 0, "xor eax, eax; xor ecx, ecx; xor edx, edx; pvalidate_"
    FAULTS "RMPADJUST", VECTOR_UD, 0, "xor eax, eax; xor ecx, ecx; xor edx, edx; rmpadjust_"
    ret

.bss
.balign 4096
other: .skip 4096
