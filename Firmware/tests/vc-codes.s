# Instructions that a hypervisor intercepts raise #VC in an SNP guest, with the exit code as error code [APM2 15.35.5];
# those that it leaves alone do not.

.include "runtime.inc"
.globl guest_main

.text
guest_main:
    FAULTS "CPUID", VECTOR_VC, 0x72, "mov eax, 0; cpuid"
    FAULTS "IN AL, imm", VECTOR_VC, 0x7B, "in al, 0x61"
    FAULTS "IN EAX, DX", VECTOR_VC, 0x7B, "mov edx, 0xCFC; in eax, dx"
    FAULTS "OUT imm, AL", VECTOR_VC, 0x7B, "out 0x80, al"
    FAULTS "OUT DX, AX", VECTOR_VC, 0x7B, "mov edx, 0x3F8; out dx, ax"
    FAULTS "REP OUTSB", VECTOR_VC, 0x7B, "mov edx, 0x3F8; mov ecx, 4; lea rsi, [scratch]; rep outsb"
    FAULTS "INSB", VECTOR_VC, 0x7B, "mov edx, 0x3F8; lea rdi, [scratch]; insb"
    FAULTS "RDMSR of APIC_BASE", VECTOR_VC, 0x7C, "mov ecx, 0x1B; rdmsr"
    FAULTS "WRMSR of MTRRdefType", VECTOR_VC, 0x7C, "mov ecx, 0x2FF; mov eax, 0x806; xor edx, edx; wrmsr"
    FAULTS "RDMSR of an unknown MSR", VECTOR_VC, 0x7C, "mov ecx, 0x12345678; rdmsr"
    FAULTS "WBINVD", VECTOR_VC, 0x89, "wbinvd"
    FAULTS "INVD", VECTOR_VC, 0x76, "invd"
    FAULTS "RDPMC", VECTOR_VC, 0x6F, "xor ecx, ecx; rdpmc"
    FAULTS "VMMCALL", VECTOR_VC, 0x81, "vmmcall"
    FAULTS "MOV DR7, RAX", VECTOR_VC, 0x37, "mov eax, 0x400; mov dr7, rax"
    FAULTS "MOV RAX, DR7", VECTOR_VC, 0x27, "mov rax, dr7"
    FAULTS "load from a device", VECTOR_VC, 0x400, "mov edx, 0xFEC00000; mov eax, [rdx]"
    FAULTS "store to a device", VECTOR_VC, 0x400, "mov edx, 0xFEC00000; mov [rdx], eax"

    FAULTS "RDMSR of EFER", -1, -1, "mov ecx, 0xC0000080; rdmsr"
    FAULTS "RDMSR of SEV_STATUS", -1, -1, "mov ecx, MSR_SEV_STATUS; rdmsr"
    FAULTS "WRMSR of GS base", -1, -1, "mov ecx, 0xC0000101; xor eax, eax; xor edx, edx; wrmsr"
    FAULTS "WRMSR of PAT", -1, -1, "mov ecx, 0x277; mov eax, 0x00070406; mov edx, 0x00070406; wrmsr"
    FAULTS "RDTSC", -1, -1, "rdtsc"
    FAULTS "PAUSE", -1, -1, "pause"
    FAULTS "MOV CR4, RAX", -1, -1, "mov rax, cr4; mov cr4, rax"
    FAULTS "MOV CR8, RAX", -1, -1, "xor eax, eax; mov cr8, rax"

    # The same through the GHCB: CPUID by its NAE event, whose registers come back marked as valid.
    call ghcb_begin
    mov qword ptr [ghcb + GHCB_RAX], 0
    mov qword ptr [ghcb + GHCB_RCX], 0
    GHCB_VALID GHCB_RAX
    GHCB_VALID GHCB_RCX
    mov edi, EXIT_CPUID
    xor esi, esi
    xor edx, edx
    call ghcb_call
    movzx r14d, byte ptr [ghcb + GHCB_BITMAP + 7]
    EXPECT "CPUID event: done", 0
    mov eax, r14d
    shr eax, 7
    EXPECT "CPUID event: RAX is valid", 1

    # An MSR that nobody has: done with 0, or #GP to be raised, in the format of EVENTINJ. KVM leaves the bit that says
    # "with an error code" clear, others set it.
    call ghcb_begin
    mov qword ptr [ghcb + GHCB_RCX], 0x12345678
    GHCB_VALID GHCB_RCX
    mov edi, EXIT_MSR
    xor esi, esi
    xor edx, edx
    call ghcb_call
    mov r14d, edx
    test eax, eax
    jz 1f
    EXPECT "unknown MSR event: an exception", 1
    mov eax, r14d
    and eax, 0xFFFFF7FF
    xor eax, 0x8000030D
1:  EXPECT "unknown MSR event: #GP or nothing", 0
    ret

.bss
scratch: .skip 64
