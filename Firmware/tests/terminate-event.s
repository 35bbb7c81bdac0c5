# Asks for termination by a GHCB event: reason set 0, code 2 (SNP features not supported), the offending bits in info 2.

.include "runtime.inc"
.globl guest_main

.text
guest_main:
    PRINT "asking for termination 0/2 by event"
    call ghcb_begin
    mov edi, EXIT_TERMINATE
    mov esi, 2 << 4
    mov edx, 0x800
    call ghcb_call
    PRINT "BAD still here"
    mov rax, 1
    EXPECT "the termination event returns", 0
    ret
