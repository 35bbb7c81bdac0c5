# An exception without an interrupt table: a triple fault, which the VMM sees as SHUTDOWN.

.include "runtime.inc"
.globl guest_main

.text
guest_main:
    PRINT "triple fault next"
    lidt [empty]
    int3

.section .rodata
empty: .word 0
       .quad 0
