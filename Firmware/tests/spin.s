# Computes for ever: only the user or a signal ends it.

.include "runtime.inc"
.globl guest_main

.text
guest_main:
    PRINT "spinning"
1:  pause
    jmp 1b
