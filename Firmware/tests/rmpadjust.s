# RMPADJUST [APM3 RMPADJUST]: permissions of lower VMPLs, the VMSA attribute, and its refusals.

.include "runtime.inc"
.globl guest_main

# ADJUST "name", address, size, attributes, wanted code
.macro ADJUST name, address, size, attributes, code
    lea rax, [\address]
    mov ecx, \size
    mov edx, \attributes
    rmpadjust_
    EXPECT "\name", \code
.endm

.text
guest_main:
    ADJUST "VMPL 1, no permissions", page, 0, 0x0001, 0
    ADJUST "VMPL 1, all permissions", page, 0, 0x0F01, 0
    ADJUST "VMPL 3, read and write", page, 0, 0x0303, 0
    ADJUST "VMPL 0 is not below the caller: permission", page, 0, 0x0F00, 2
    ADJUST "2 MiB on a 4 KiB page: size mismatch", 0x400000, 1, 0x0F01, 6

    mov rax, 0x1234
    mov [page], rax
    ADJUST "make it a VMSA", page, 0, 0x10001, 0
    mov rax, [page]
    EXPECT "a VMSA page can still be read", 0x1234
    ADJUST "make it an ordinary page", page, 0, 0x00001, 0
    mov qword ptr [page], 0x5678
    mov rax, [page]
    EXPECT "and written", 0x5678
    ret

.bss
.align 4096
page: .skip 4096
