# Bytes that are no instruction, in a guest without an interrupt table: a triple fault.

.include "runtime.inc"
.globl guest_main

.text
guest_main:
    PRINT "bytes that are no instruction next"
    lidt [empty]
    .byte 0x0F, 0x04, 0x06, 0xD6

.section .rodata
empty: .word 0
       .quad 0
