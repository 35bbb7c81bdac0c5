# PVALIDATE and RMPADJUST: what each combination of size, address, state, level and permissions gives [APM3 PVALIDATE,
# RMPADJUST]. The memory of a launch has RMP entries of 4 KiB.

.include "runtime.inc"
.include "privilege.inc"
.globl guest_main

.set SUCCESS, 0
.set BAD_INPUT, 1
.set NO_PERMISSION, 2
.set SIZE_MISMATCH, 6

# VALIDATE "name", address, size, validate, code, carry
.macro VALIDATE name, address, size, validate, code, carry
    lea rax, [\address]
    mov ecx, \size
    mov edx, \validate
    pvalidate_
    setc bl
    EXPECT "PVALIDATE \name", \code
    movzx eax, bl
    EXPECT "PVALIDATE \name: CF", \carry
.endm

# ADJUST "name", address, size, attributes, code
.macro ADJUST name, address, size, attributes, code
    lea rax, [\address]
    mov ecx, \size
    mov edx, \attributes
    rmpadjust_
    EXPECT "RMPADJUST \name", \code
.endm

.text
guest_main:
    call privilege_setup

    VALIDATE "of a validated page", page, 0, 1, SUCCESS, 1
    VALIDATE "rescinds", page, 0, 0, SUCCESS, 0
    VALIDATE "rescinds again", page, 0, 0, SUCCESS, 1
    VALIDATE "validates", page, 0, 1, SUCCESS, 0
    VALIDATE "any byte of the page", page+0x7FF, 0, 1, SUCCESS, 1
    VALIDATE "2 MiB over entries of 4 KiB", 0x400000, 1, 1, SIZE_MISMATCH, 0
    VALIDATE "rescinding 2 MiB over them", 0x400000, 1, 0, SIZE_MISMATCH, 0
    mov qword ptr [page], 0x1234
    VALIDATE "takes no contents: rescinds", page, 0, 0, SUCCESS, 0
    FAULTS "a load", VECTOR_VC, 0x404, "mov rax, [page]"
    FAULTS "a store", VECTOR_VC, 0x404, "mov [page], rax"
    FAULTS "a locked read-modify-write", VECTOR_VC, 0x404, "lock inc dword ptr [page]"
    FAULTS "a fetch", VECTOR_VC, 0x404, "lea rax, [page]; call rax"
    add rsp, 8
    FAULTS "a load that crosses into it", VECTOR_VC, 0x404, "mov rax, [page - 4]"
    FAULTS "RMPADJUST", VECTOR_VC, 0x404, "lea rax, [page]; xor ecx, ecx; mov edx, 0xF01; rmpadjust_"
    VALIDATE "and back", page, 0, 1, SUCCESS, 0
    mov rax, [page]
    EXPECT "its contents are still there", 0x1234
    FAULTS "PVALIDATE of an address that is not canonical", VECTOR_GP, 0, "mov rax, 1 << 63; xor ecx, ecx; mov edx, 1; pvalidate_"
    FAULTS "PVALIDATE of an address that is not mapped", VECTOR_PF, 0, "mov rax, 1 << 39; xor ecx, ecx; mov edx, 1; pvalidate_"
    USER "PVALIDATE at CPL 3", VECTOR_GP, 0, "lea rax, [user_stack]; mov edx, 1; pvalidate_"

    # Every level and every set of permissions, from level 0.
    .irp level, 1, 2, 3
    .irp permissions, 0x0, 0x1, 0x3, 0x5, 0x8, 0xF
    ADJUST "level \level, permissions \permissions", page, 0, (\permissions << 8) | \level, SUCCESS
    .endr
    .endr
    mov rax, [page]
    EXPECT "level 0 keeps its own", 0x1234
    ADJUST "level 0: not below the caller", page, 0, 0x0F00, NO_PERMISSION
    ADJUST "level 4", page, 0, 0x0F04, BAD_INPUT
    ADJUST "level 255", page, 0, 0x0FFF, BAD_INPUT
    ADJUST "permission bit 7", page, 0, 0x8001, BAD_INPUT
    ADJUST "2 MiB over entries of 4 KiB", 0x400000, 1, 0x0F01, SIZE_MISMATCH
    ADJUST "a VMSA", page, 0, 0x10001, SUCCESS
    FAULTS "its page can be read", -1, -1, "mov rax, [page]"
    ADJUST "an ordinary page again", page, 0, 0x00001, SUCCESS
    FAULTS "RMPADJUST of an address that is not canonical", VECTOR_GP, 0, "mov rax, 1 << 63; xor ecx, ecx; mov edx, 1; rmpadjust_"
    FAULTS "RMPADJUST of an address that is not mapped", VECTOR_PF, 0, "mov rax, 1 << 39; xor ecx, ecx; mov edx, 1; rmpadjust_"
    USER "RMPADJUST at CPL 3", VECTOR_GP, 0, "lea rax, [user_stack]; mov edx, 1; rmpadjust_"
    LEGACY "PVALIDATE outside 64-bit code", NONE, 0, CODE32, 32, "mov eax, offset user_alias; xor ecx, ecx; mov edx, 1; .byte 0xF2, 0x0F, 0x01, 0xFF"
    LEGACY "RMPADJUST outside 64-bit code", VECTOR_UD, 0, CODE32, 32, "mov eax, offset user_alias; xor ecx, ecx; mov edx, 1; .byte 0xF3, 0x0F, 0x01, 0xFE"
    ret

.bss
.align 4096
before: .skip 4096
page:   .skip 4096
