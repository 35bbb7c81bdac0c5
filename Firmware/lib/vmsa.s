# The register state of a further vCPU, for guests that create one.

.include "runtime.inc"
.include "vmsa.inc"

.globl prepare_vmsa, creation_answer

.text
# prepare_vmsa(page, RIP, RSP) → SEV_FEATURES: a 64-bit vCPU at CPL 0 and VMPL 0 with the caller's tables. What is not set
# is zero; the page becomes a VMSA by RMPADJUST.
prepare_vmsa:
    mov [rdi + VMSA_RIP], rsi
    mov [rdi + VMSA_RSP], rdx
    mov dword ptr [rdi + VMSA_CS], 0x0A9B0008       # selector 8; 64-bit code
    mov dword ptr [rdi + VMSA_CS + 4], -1
    .irp segment, VMSA_ES, VMSA_SS, VMSA_DS
    mov dword ptr [rdi + \segment], 0x0C930010      # selector 16; data
    mov dword ptr [rdi + \segment + 4], -1
    .endr
    mov dword ptr [rdi + VMSA_LDTR], 0x00820000
    mov dword ptr [rdi + VMSA_TR], 0x008B0000
    mov dword ptr [rdi + VMSA_TR + 4], 0x67
    sgdt [table]
    mov ax, [table]
    mov [rdi + VMSA_GDTR + 4], ax
    mov rax, [table + 2]
    mov [rdi + VMSA_GDTR + 8], rax
    sidt [table]
    mov ax, [table]
    mov [rdi + VMSA_IDTR + 4], ax
    mov rax, [table + 2]
    mov [rdi + VMSA_IDTR + 8], rax
    mov qword ptr [rdi + VMSA_EFER], 0x1500         # SVME, LMA, LME
    mov rax, cr4
    mov [rdi + VMSA_CR4], rax
    mov rax, cr3
    mov [rdi + VMSA_CR3], rax
    mov rax, cr0
    mov [rdi + VMSA_CR0], rax
    mov dword ptr [rdi + VMSA_DR6], 0xFFFF0FF0
    mov qword ptr [rdi + VMSA_DR7], 0x400
    mov qword ptr [rdi + VMSA_RFLAGS], 2
    mov rax, 0x0007040600070406
    mov [rdi + VMSA_PAT], rax
    mov qword ptr [rdi + VMSA_XCR0], 1
    mov dword ptr [rdi + VMSA_MXCSR], 0x1F80
    mov word ptr [rdi + VMSA_FCW], 0x37F
    mov eax, [sev_status]
    shr eax, 2
    mov [rdi + VMSA_FEATURES], rax
    ret

.bss
creation_answer: .skip 8
table:           .skip 16
