# VMGEXIT (SEV-ES and SNP): what each event needs before the hypervisor looks at it, what it answers, and which GHCBs it
# does not look at [GHCB 2.3, 2.6, 4.1].

.include "runtime.inc"
.globl guest_main

.set GHCB_CPL, 0x0C8                # the quadword of CPL

.set MISSING, 4
.set INVALID, 5
.set NO_EVENT, 6

# GIVE fields: values 0, marked as valid.
.macro GIVE fields:vararg
    .irp field, \fields
    mov qword ptr [ghcb + \field], 0
    GHCB_VALID \field
    .endr
.endm

# EVENT code, info 1, info 2, fields that are valid
.macro EVENT code:req, info1:req, info2:req, fields:vararg
    call ghcb_begin
    .ifnb \fields
    GIVE \fields
    .endif
    mov edi, \code
    mov rsi, \info1
    mov rdx, \info2
    call ghcb_call
    mov [answer], rdx
.endm

# REFUSED "name", reason: the last event was malformed.
.macro REFUSED name:req, reason:req
    EXPECT "\name: malformed", 2
    mov rax, [answer]
    EXPECT "\name: reason", \reason
.endm

.macro SERVED name:req
    EXPECT "\name: done", 0
.endm

# RAW valid: an event whose code, information 1 and 2 are valid as these bits of the bitmap's byte 14 say.
.macro RAW valid
    call ghcb_begin
    mov qword ptr [ghcb + GHCB_CODE], 0x89
    mov qword ptr [ghcb + GHCB_INFO1], 0
    mov qword ptr [ghcb + GHCB_INFO2], 0
    mov byte ptr [ghcb + GHCB_BITMAP + GHCB_CODE / 64], \valid
    call exit_with_ghcb
    mov [answer], rdx
.endm

# A GHCB MSR that leads nowhere: the guest goes on, and nothing has changed.
.macro NOWHERE name:req, high:req, low:req
    mov eax, \low
    mov edx, \high
    mov ecx, MSR_GHCB
    wrmsr
    vmgexit_
    rdmsr
    xor eax, \low
    xor edx, \high
    or eax, edx
    EXPECT "\name: the MSR stays as it is", 0
.endm

.text
guest_main:
    # What every event has.
    RAW 0x1C
    SERVED "code and information are valid"
    RAW 0x18
    REFUSED "no code", MISSING
    RAW 0x14
    REFUSED "no information 1", MISSING
    RAW 0x0C
    REFUSED "no information 2", MISSING

    # What each event needs beyond that, with one input missing.
    EVENT 0x37, 0, 0
    REFUSED "write to DR7 without RAX", MISSING
    EVENT 0x6F, 0, 0
    REFUSED "RDPMC without RCX", MISSING
    EVENT EXIT_CPUID, 0, 0, GHCB_RAX
    REFUSED "CPUID without RCX", MISSING
    EVENT EXIT_CPUID, 0, 0, GHCB_RCX
    REFUSED "CPUID without RAX", MISSING
    call ghcb_begin
    GIVE GHCB_RAX, GHCB_RCX
    mov qword ptr [ghcb + GHCB_RAX], 0xD
    mov edi, EXIT_CPUID
    xor esi, esi
    xor edx, edx
    call ghcb_call
    mov [answer], rdx
    REFUSED "CPUID 0xD without XCR0", MISSING
    EVENT EXIT_IOIO, (0x80 << 16) | 0x210, 0
    REFUSED "OUT without RAX", MISSING
    EVENT EXIT_IOIO, (0x80 << 16) | 0x214, 1, GHCB_RAX
    REFUSED "OUTS without scratch", MISSING
    EVENT EXIT_MSR, 0, 0
    REFUSED "RDMSR without RCX", MISSING
    EVENT EXIT_MSR, 1, 0, GHCB_RCX, GHCB_RAX
    REFUSED "WRMSR without RDX", MISSING
    EVENT EXIT_MSR, 1, 0, GHCB_RCX, GHCB_RDX
    REFUSED "WRMSR without RAX", MISSING
    EVENT 0x81, 0, 0, GHCB_RAX
    REFUSED "VMMCALL without CPL", MISSING
    EVENT 0x81, 0, 0, GHCB_CPL
    REFUSED "VMMCALL without RAX", MISSING
    EVENT 0x8A, 0, 0, GHCB_RAX, GHCB_RCX
    REFUSED "MONITOR without RDX", MISSING
    EVENT 0x8B, 0, 0, GHCB_RAX
    REFUSED "MWAIT without RCX", MISSING
    EVENT EXIT_MMIO_WRITE, 0xFEC00000, 4
    REFUSED "MMIO without scratch", MISSING

    # Events that need nothing, or have it.
    EVENT 0x27, 0, 0
    SERVED "read of DR7"
    EVENT 0x37, 0, 0, GHCB_RAX
    SERVED "write to DR7"
    EVENT 0x6E, 0, 0
    SERVED "RDTSC"
    EVENT 0x76, 0, 0
    SERVED "INVD"
    EVENT 0x87, 0, 0
    SERVED "RDTSCP"
    EVENT 0x89, 0, 0
    SERVED "WBINVD"
    EVENT 0x8A, 0, 0, GHCB_RAX, GHCB_RCX, GHCB_RDX
    SERVED "MONITOR"
    EVENT 0x8B, 0, 0, GHCB_RAX, GHCB_RCX
    SERVED "MWAIT"
    EVENT 0x80000003, 0, 0
    SERVED "NMI complete"
    EVENT 0x6F, 0, 0, GHCB_RCX
    SERVED "RDPMC"

    # What comes back: four registers, and the bitmap says so.
    EVENT EXIT_CPUID, 0, 0, GHCB_RAX, GHCB_RCX
    movzx r12d, byte ptr [ghcb + GHCB_BITMAP + GHCB_RAX / 64]
    movzx r13d, byte ptr [ghcb + GHCB_BITMAP + GHCB_RCX / 64]
    movzx r14d, byte ptr [ghcb + GHCB_BITMAP + GHCB_CODE / 64]
    mov eax, r12d
    EXPECT "bitmap: RAX", 0x80
    mov eax, r13d
    EXPECT "bitmap: RCX, RDX, RBX", 0x0E
    mov eax, r14d
    EXPECT "bitmap: information 1 and 2, no code", 0x18

    # Hypercalls: unknown, and not from CPL 3.
    call ghcb_begin
    GIVE GHCB_RAX, GHCB_CPL
    mov qword ptr [ghcb + GHCB_RAX], 0x7777
    mov edi, 0x81
    xor esi, esi
    xor edx, edx
    call ghcb_call
    mov rax, [ghcb + GHCB_RAX]
    EXPECT "a hypercall that nobody knows", -1000
    call ghcb_begin
    GIVE GHCB_RAX, GHCB_CPL
    mov byte ptr [ghcb + 0xCB], 3
    mov edi, 0x81
    xor esi, esi
    xor edx, edx
    call ghcb_call
    mov rax, [ghcb + GHCB_RAX]
    mov byte ptr [ghcb + 0xCB], 0
    EXPECT "a hypercall from CPL 3", -1

    # The AP jump table's address is kept for whoever asks.
    EVENT 0x80000005, 0, 0x12345000
    SERVED "jump table set"
    EVENT 0x80000005, 1, 0
    SERVED "jump table asked for"
    mov rax, [answer]
    EXPECT "its address", 0x12345000
    EVENT 0x80000005, 2, 0
    REFUSED "any other request for it", INVALID
    EVENT 0x80000005, 0, 0
    SERVED "no jump table"

    # Levels below VMPL 0 are nobody's here.
    EVENT EXIT_FEATURES, 0, 0
    mov rax, [answer]
    EXPECT "features: SNP, AP creation", 3
    EVENT 0x80000018, 1, 0
    REFUSED "run VMPL", NO_EVENT
    mov rdi, (1 << 32) | 0x016
    call msr_protocol
    mov rdx, (1 << 32) | 0x016
    xor rax, rdx
    EXPECT "run VMPL by the MSR comes back", 0
    EVENT 0x8000001A, 0, 0
    REFUSED "Secure AVIC", NO_EVENT
    EVENT 0x40, 0, 0
    REFUSED "an intercept that is no event", NO_EVENT

    # The protocol version in the page is not looked at.
    call ghcb_begin
    mov word ptr [ghcb + GHCB_VERSION], 0
    mov edi, 0x89
    xor esi, esi
    xor edx, edx
    call ghcb_call
    SERVED "version 0"
    call ghcb_begin
    mov word ptr [ghcb + GHCB_VERSION], 0x99
    mov edi, 0x89
    xor esi, esi
    xor edx, edx
    call ghcb_call
    SERVED "version 0x99"

    # GHCBs that are not there.
    NOWHERE "address 0", 0, 0
    NOWHERE "no memory there", 0x0000FFFF, 0xFFFFF000
    NOWHERE "a request that nobody knows", 0x12345678, 0x9ABCDFFE

    test byte ptr [sev_status], SEV_STATUS_SNP
    jz 1f
    mov edi, 0x010                  # preferred GHCB address: none
    call msr_protocol
    mov rdx, 0xFFFFFFFFFFFFF011
    xor rax, rdx
    EXPECT "no preferred address", 0
    EVENT 0x80000011, 0x1000, 0x1000
    REFUSED "a guest request in one page", MISSING
    EVENT 0x80000011, 0x1001, 0x2000
    REFUSED "a guest request that is not page-aligned", MISSING
    EVENT 0x80000012, 0x1000, 0x1000, GHCB_RAX, GHCB_RBX
    REFUSED "an extended guest request in one page", MISSING
    EVENT EXIT_PSC, 0, 0
    REFUSED "page states without scratch", MISSING
    EVENT 0x80000013, 1, 0x1000
    REFUSED "AP creation without RAX", MISSING
1:  ret

exit_with_ghcb:
    lea rax, [ghcb]
    xor edx, edx
    mov ecx, MSR_GHCB
    wrmsr
    vmgexit_
    mov eax, [ghcb + GHCB_INFO1]
    mov rdx, [ghcb + GHCB_INFO2]
    ret

.bss
answer: .skip 8
