# Bytes that are no instruction raise #UD, and only that.

.include "runtime.inc"
.globl guest_main

# UNDEFINED "name", bytes…
.macro UNDEFINED name, bytes:vararg
    FAULTS "\name", VECTOR_UD, 0, ".byte \bytes"
.endm

.text
guest_main:
    UNDEFINED "UD2", 0x0F, 0x0B
    UNDEFINED "UD1", 0x0F, 0xB9, 0xC0
    UNDEFINED "UD0", 0x0F, 0xFF, 0xC0
    UNDEFINED "06: PUSH ES, not in 64-bit mode", 0x06
    UNDEFINED "27: DAA", 0x27
    UNDEFINED "37: AAA", 0x37
    UNDEFINED "60: PUSHA", 0x60
    UNDEFINED "82: alias of 80", 0x82, 0xC0, 0x00
    UNDEFINED "9A: far CALL", 0x9A, 0, 0, 0, 0, 0, 0
    UNDEFINED "CE: INTO", 0xCE
    UNDEFINED "D4: AAM", 0xD4, 0x0A
    UNDEFINED "D6: SALC", 0xD6
    UNDEFINED "EA: far JMP", 0xEA, 0, 0, 0, 0, 0, 0
    UNDEFINED "0F 04", 0x0F, 0x04
    UNDEFINED "0F 24: MOV from test register", 0x0F, 0x24, 0xC0
    UNDEFINED "8E /1: MOV CS", 0x8E, 0xC8
    UNDEFINED "8D with a register: LEA", 0x8D, 0xC0
    UNDEFINED "C6 /1", 0xC6, 0xC8, 0x00
    UNDEFINED "FE /2", 0xFE, 0xD0
    UNDEFINED "FF /7", 0xFF, 0xF8
    UNDEFINED "LOCK MOV", 0xF0, 0x89, 0x07
    UNDEFINED "LOCK ADD to a register", 0xF0, 0x01, 0xC0
    UNDEFINED "LOCK NOP", 0xF0, 0x90
    UNDEFINED "MOV CR1", 0x0F, 0x20, 0xC8
    FAULTS "sixteen prefixes: too long", VECTOR_GP, 0, ".byte 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90"
    ret
