# Prints a line by port I/O through the GHCB and powers off.

.include "runtime.inc"
.globl guest_main

.text
guest_main:
    PRINT "Hello from a flat guest."
    cmp qword ptr [c_mask], 0
    je 1f
    mov ecx, MSR_SEV_STATUS         # never intercepted
    rdmsr
    and eax, 7
    cmp eax, 7
    je 2f
    cmp eax, 3
    je 3f
    EXPECT "SEV_STATUS: SEV", 1
    ret
2:  EXPECT "SEV_STATUS: SEV, SEV-ES, SNP", 7
    ret
3:  EXPECT "SEV_STATUS: SEV, SEV-ES", 3
    ret
1:  PRINT "This is not an encrypted guest."
    ret
