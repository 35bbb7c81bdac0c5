# Sleeps for ever: HLT with interrupts off. Only the user or a signal ends it.

.include "runtime.inc"
.globl guest_main

.text
guest_main:
    PRINT "sleeping"
1:  hlt
    jmp 1b
