# Debug registers: breakpoints on instructions, data and ports, DR6, DR7 and their fixed bits, general detect, RF
# [APM2 13.1, 3.1.6]. For guests whose DR7 is not intercepted.

.include "runtime.inc"
.include "privilege.inc"
.globl guest_main

.set EXECUTE, 0
.set WRITE, 1
.set PORT, 2
.set ACCESS, 3
.set RF, 1 << 16

# ARM number, place, kind, bytes − 1 (8 bytes: 2)
.macro ARM number, place, kind, length
    lea rax, [\place]
    mov dr\number, rax
    mov rax, dr7
    mov ecx, (3 << (\number * 2)) | (15 << (16 + \number * 4))
    not rcx
    and rax, rcx
    mov ecx, (2 << (\number * 2)) | ((\kind | \length << 2) << (16 + \number * 4))
    or rax, rcx
    mov dr7, rax
.endm
.macro DISARM
    mov eax, 0x400
    mov dr7, rax
.endm

# HITS "name", B bits, "code": these breakpoints, one #DB; none: 0.
.macro HITS name, hits, code
    mov eax, 0xFFFF0FF0
    mov dr6, rax
    call begin
    \code
    nop
.Lhit\@:
    mov eax, [trap_dr6s]
    and eax, 0xE00F
    EXPECT "\name: DR6", \hits
    mov eax, [trap_count]
    .if \hits
    EXPECT "\name: exceptions", 1
    .else
    EXPECT "\name: exceptions", 0
    .endif
.endm

.text
guest_main:
    call privilege_setup
    lea rax, [trap]
    mov [idt + 16], ax
    shr rax, 16
    mov [idt + 16 + 6], ax

    # Fixed bits.
    xor eax, eax
    mov dr6, rax
    mov rax, dr6
    mov edx, 0xFFFF0FF0
    xor rax, rdx
    EXPECT "DR6 written with 0", 0
    xor eax, eax
    mov dr7, rax
    mov rax, dr7
    EXPECT "DR7 written with 0", 0x400
    FAULTS "DR6, bit 32", VECTOR_GP, 0, "mov rax, 1 << 32; mov dr6, rax"
    FAULTS "DR7, bit 32", VECTOR_GP, 0, "mov rax, 1 << 32; mov dr7, rax"
    FAULTS "DR0, bit 63", -1, -1, "mov rax, 1 << 63; mov dr0, rax"
    mov rax, dr0
    shr rax, 63
    EXPECT "DR0 keeps it", 1
    mov eax, 0x12345678
    mov dr3, rax
    mov rax, dr3
    EXPECT "DR3", 0x12345678
    mov rax, cr4
    and eax, ~8
    mov cr4, rax
    xor eax, eax
    mov dr6, rax
    .byte 0x0F, 0x21, 0xE0          # MOV RAX, DR4
    mov edx, 0xFFFF0FF0
    xor rax, rdx
    EXPECT "DR4 is DR6 without CR4.DE", 0
    .byte 0x0F, 0x21, 0xE8          # MOV RAX, DR5
    EXPECT "DR5 is DR7 without CR4.DE", 0x400
    mov rax, cr4
    or eax, 8
    mov cr4, rax
    FAULTS "DR4 with CR4.DE", VECTOR_UD, 0, ".byte 0x0F, 0x21, 0xE0"
    FAULTS "DR5 with CR4.DE", VECTOR_UD, 0, ".byte 0x0F, 0x23, 0xE8"
    USER "MOV from DR6 at CPL 3", VECTOR_GP, 0, "mov rax, dr6"

    # Data.
    ARM 0, watched + 16, WRITE, 3
    HITS "a store", 1, "mov [watched + 16], eax; at_store:"
    mov rax, [trap_rips]
    EXPECT_AT "RIP is behind the store", at_store
    mov rax, [trap_frame_flags]
    and eax, RF
    EXPECT "a trap's frame has no RF", 0
    HITS "a load of what is watched for stores", 0, "mov eax, [watched + 16]"
    HITS "the byte before", 0, "mov [watched + 15], al"
    HITS "the byte behind", 0, "mov [watched + 20], al"
    HITS "a byte within", 1, "mov [watched + 19], al"
    HITS "8 bytes over it", 1, "mov [watched + 12], rax"
    HITS "16 bytes over it", 1, "mov rax, cr4; or eax, 0x200; mov cr4, rax; movups [watched + 8], xmm0"
    HITS "4 bytes that end before it", 0, "mov [watched + 12], eax"
    HITS "a read-modify-write", 1, "lock inc byte ptr [watched + 17]"
    HITS "PUSH", 1, "mov r12, rsp; lea rsp, [watched + 24]; push rax; mov rsp, r12"
    HITS "a string instruction", 1, "lea rdi, [watched + 12]; mov ecx, 2; rep stosd"
    mov rax, [trap_rips]
    HITS "one that compares and does not write", 1, "mov eax, 1; mov ecx, 2; cmpxchg [watched + 16], ecx"
    ARM 0, watched + 16, ACCESS, 3
    HITS "a load", 1, "mov eax, [watched + 16]; at_load:"
    mov rax, [trap_rips]
    EXPECT_AT "RIP is behind the load", at_load
    HITS "an instruction fetch is no access", 0, "ARM 0, no_code, ACCESS, 0; call no_code"
    ARM 0, watched + 16, ACCESS, 3
    HITS "a load of the word over its beginning", 1, "mov ax, [watched + 15]"
    ARM 0, watched + 16, WRITE, 2
    HITS "8 bytes: the last", 1, "mov [watched + 23], al"
    HITS "8 bytes: behind", 0, "mov [watched + 24], al"
    ARM 0, watched + 19, WRITE, 3   # low address bits below the length do not count
    HITS "an address off its boundary: before", 1, "mov [watched + 16], al"
    ARM 0, watched + 16, WRITE, 0
    ARM 1, watched + 17, WRITE, 0
    ARM 2, watched + 32, WRITE, 3
    HITS "two at once", 3, "mov [watched + 16], eax"
    HITS "the third", 4, "mov [watched + 32], eax"
    ARM 3, page_end - 4, WRITE, 3
    HITS "over a page's end", 8, "mov [page_end - 2], eax"
    HITS "the next page alone", 0, "mov [page_end], eax"
    ARM 0, watched + 16, ACCESS, 3
    lea r12, [watched + 16]
    mov dword ptr [watched + 16], DATA
    HITS "MOV SS puts it off", 1, "mov ss, [r12]; nop; put_off:"
    mov rax, [trap_rips]
    EXPECT_AT "by one instruction", put_off
    call begin
    mov qword ptr [recovery], offset after_fault
    mov eax, [watched + 16]
    nop
after_fault:
    mov qword ptr [recovery], 0
    USER "at CPL 3", VECTOR_PF, 5, "mov eax, [watched + 16]"
    DISARM
    HITS "disarmed", 0, "mov [watched + 16], eax"

    # Instructions.
    ARM 0, at_instruction, EXECUTE, 0
    HITS "an instruction", 1, "mov eax, 5; at_instruction: mov eax, 6"
    mov rax, [trap_rips]
    EXPECT_AT "RIP is the instruction", at_instruction
    mov rax, [trap_frame_flags]
    and eax, RF
    EXPECT "the frame has no RF: the handler must set it", 0
    HITS "a jump to it", 0, "nop"
    call begin
    call executed_function
    ARM 1, executed_function, EXECUTE, 0
    mov eax, 0xFFFF0FF0
    mov dr6, rax
    call begin
    call executed_function
    call executed_function
    mov eax, [trap_count]
    EXPECT "a function called twice", 2
    call begin                      # IRET with RF: once not
    lea rax, [after_return]
    push rax
    mov r12, rsp
    push DATA
    push r12
    push 2 | RF
    push CODE64
    lea rax, [executed_function]
    push rax
    iretq
after_return:
    mov eax, [trap_count]
    EXPECT "IRET with RF", 0
    call begin
    call executed_function
    mov eax, [trap_count]
    EXPECT "and RF is gone behind the instruction", 1
    DISARM

    # A fault sets RF in its frame, so that the breakpoint is not met twice.
    FAULTS "#UD", VECTOR_UD, 0, "ud2"
    mov rax, [fault_flags]
    and eax, RF
    EXPECT "has RF in its frame", RF
    FAULTS "INT3", VECTOR_BP, 0, "int3"
    mov rax, [fault_flags]
    and eax, RF
    EXPECT "has not", 0

    # Ports, with CR4.DE.
    ARM 0, 0x80, PORT, 1
    HITS "OUT", 1, "out 0x80, al"
    HITS "IN", 1, "in al, 0x81"
    HITS "another port", 0, "in al, 0x82"
    DISARM

    # DR7.GD.
    mov eax, 0x2400
    mov dr7, rax
    call begin
general_detect:
    mov rax, dr0
    mov eax, [trap_count]
    EXPECT "general detect: exceptions", 1
    mov rax, [trap_rips]
    EXPECT_AT "RIP is the access", general_detect
    mov eax, [trap_dr6s]
    and eax, 0xE00F
    EXPECT "DR6: BD", 1 << 13
    mov rax, dr7
    EXPECT "and GD is off", 0x400
    ret

executed_function:
    nop
    ret

begin:
    mov dword ptr [trap_count], 0
    mov qword ptr [trap_dr6s], 0
    ret

# Notes where it is; RF gets the processor past an instruction breakpoint.
trap:
    push rax
    push rcx
    mov ecx, [trap_count]
    cmp ecx, 15
    ja 1f
    mov rax, [rsp + 16]
    mov [trap_rips + rcx * 8], rax
    mov rax, dr6
    mov [trap_dr6s + rcx * 8], rax
1:  mov rax, [rsp + 32]
    mov [trap_frame_flags], rax
    inc dword ptr [trap_count]
    or dword ptr [rsp + 32], RF
    mov eax, 0xFFFF0FF0
    mov dr6, rax
    pop rcx
    pop rax
    iretq

.bss
trap_count: .skip 8
trap_frame_flags: .skip 8
trap_rips:  .skip 16 * 8
trap_dr6s:  .skip 16 * 8
.align 4096
watched:    .skip 4096
page_end:   .skip 4096
.data
no_code:    .byte 0xC3
