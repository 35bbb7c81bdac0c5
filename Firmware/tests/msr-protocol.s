# The GHCB MSR protocol [GHCB 2.3.1]: versions, CPUID, features, GHCB registration, an unknown request.

.include "runtime.inc"
.globl guest_main

# MSR_CPUID "name", leaf, register: RAX = the 32-bit value; checks the response code.
.macro MSR_CPUID name, leaf, register
    mov rdi, (\leaf << 32) | (\register << 30) | MSR_CPUID_REQUEST
    call msr_protocol
    mov r12, rax
    and eax, 0xFFF
    EXPECT "CPUID \name: response code", 5
    mov rax, r12
    shr rax, 32
.endm

.text
guest_main:
    mov edi, MSR_INFO_REQUEST
    call msr_protocol
    mov r12, rax
    and eax, 0xFFF
    EXPECT "SEV info: response code", 1
    mov rax, r12
    shr rax, 48
    EXPECT "SEV info: highest version", 2
    mov rax, r12
    shr rax, 32
    and eax, 0xFFFF
    EXPECT "SEV info: lowest version", 1
    mov rax, r12                    # the C-bit position it names is the one we run with
    shr rax, 24
    and eax, 0xFF
    mov ecx, eax
    mov eax, 1
    shl rax, cl
    xor rax, [c_mask]
    EXPECT "SEV info: C-bit position against CR3", 0

    MSR_CPUID "0x80000000 EAX", 0x80000000, 0
    cmp eax, 0x8000001F
    setae al
    movzx eax, al
    EXPECT "CPUID 0x80000000 EAX reaches 0x8000001F", 1
    MSR_CPUID "0x8000001F EAX", 0x8000001F, 0
    and eax, 2
    EXPECT "CPUID 0x8000001F EAX: SEV", 2
    MSR_CPUID "0x8000001F EBX", 0x8000001F, 1
    and eax, 63
    mov ecx, eax
    mov eax, 1
    shl rax, cl
    xor rax, [c_mask]
    EXPECT "CPUID 0x8000001F EBX: C-bit position against CR3", 0
    MSR_CPUID "0x0 EBX", 0, 1
    MSR_CPUID "0x0 ECX", 0, 2
    MSR_CPUID "0x0 EDX", 0, 3

    mov edi, MSR_FEATURES_REQUEST
    call msr_protocol
    mov r12, rax
    and eax, 0xFFF
    EXPECT "features: response code", 0x81
    mov rax, r12
    shr rax, 12
    and eax, 1
    EXPECT "features: SNP", 1

    lea rdi, [ghcb + MSR_REGISTER_GHCB]
    call msr_protocol
    lea rdx, [ghcb + MSR_REGISTER_GHCB + 1]
    xor rax, rdx
    EXPECT "registration repeats the GFN", 0

    mov edi, 0xABC                  # no such request: the MSR stays as it is
    call msr_protocol
    EXPECT "unknown request comes back", 0xABC
    ret
