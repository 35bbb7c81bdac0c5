# Opens the power button's line and never looks at it: a guest that was asked to power off, and does not. A plain one only.

.include "runtime.inc"
.globl guest_main

.set IOAPIC, 0xfec00000
.set BUTTON_PIN, 9

.text
guest_main:
    mov ebx, IOAPIC
    mov dword ptr [rbx], 0x10 + 2 * BUTTON_PIN
    mov dword ptr [rbx + 0x10], 0x41    # vector 0x41, fixed, edge, not masked; interrupts stay off
    PRINT "deaf"
1:  pause
    jmp 1b
