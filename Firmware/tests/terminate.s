# Asks for termination by the GHCB MSR protocol: reason set 1, code 2 (Linux: PVALIDATE failed).

.include "runtime.inc"
.globl guest_main

.text
guest_main:
    PRINT "asking for termination 1/2"
    mov edi, 1
    mov esi, 2
    jmp terminate
