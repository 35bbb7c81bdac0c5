# An SNP guest uses a GHCB that it has not registered: the hypervisor ends it [GHCB 2.3.2].

.include "runtime.inc"
.globl guest_main

.text
guest_main:
    lea rdi, [other]
    xor esi, esi
    call validate
    lea rdi, [other]
    mov esi, PAGE_SHARED
    call page_state
    EXPECT "another page is shared", 0
    lea rax, [other]
    xor edx, edx
    mov ecx, MSR_GHCB
    wrmsr
    vmgexit_
    PRINT "BAD it was taken"
    ret

.bss
.balign 4096
other: .skip 4096
