# The guest tells of an event that it cannot handle, 0x8000FFFF: the hypervisor ends it [GHCB 4.1.12].

.include "runtime.inc"
.globl guest_main

.text
guest_main:
    PRINT "an event that is not supported"
    call ghcb_begin
    mov edi, 0x8000FFFF
    mov esi, 0x42
    xor edx, edx
    call ghcb_call
    PRINT "BAD it was taken"
    ret
