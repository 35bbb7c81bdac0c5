# Delivery of exceptions and software interrupts in long mode: the frame, gates, privilege, interrupt stacks (IST), and
# what becomes of an exception during the delivery of another one: both in turn, or a double fault [APM2 8.2.9, 8.9].

.include "runtime.inc"
.include "privilege.inc"
.globl guest_main

.set SEG, SPARE

# GATE vector, selector, access byte, IST: a gate of the test's table, to the usual handler.
.macro GATE vector, selector, access, ist=0
    mov edi, \vector
    mov esi, \selector
    mov edx, \access
    mov ecx, \ist
    call set_gate
.endm

# BREAK vector, how: what the delivery of this vector will meet.
.set GOOD, 0
.set ABSENT, 1                      # gate not present: #NP
.set WRONG, 2                       # no gate: #GP
.set NULL, 3                        # null code selector: #GP(0)
.set NO_STACK, 4                    # stack pointer in a page that is not present: #PF
.set BAD_STACK, 5                   # stack pointer that is not canonical: #SS
.set DATA_CODE, 6                   # the code selector is a data segment's: #GP(selector)
.set GONE_CODE, 7                   # code segment not present: #NP(selector)
.macro BREAK vector, how
    .if \how == GOOD
    GATE \vector, CODE64, 0x8E
    .elseif \how == ABSENT
    GATE \vector, CODE64, 0x0E
    .elseif \how == WRONG
    GATE \vector, CODE64, 0x82
    .elseif \how == NULL
    GATE \vector, 0, 0x8E
    .elseif \how == NO_STACK
    GATE \vector, CODE64, 0x8E, 2
    .elseif \how == BAD_STACK
    GATE \vector, CODE64, 0x8E, 3
    .elseif \how == DATA_CODE
    GATE \vector, DATA, 0x8E
    .else
    GATE \vector, SEG, 0x8E
    .endif
.endm

# CHAIN "name", first vector, how, "code", wanted vector, wanted error: the code's exception meets this on its way.
.macro CHAIN name, first, how, code, vector, error
    BREAK \first, \how
    FAULTS "\name", \vector, \error, "\code"
    BREAK \first, GOOD
.endm

.text
guest_main:
    call privilege_setup
    # The test's interrupt table is the usual one at first.
    lea rsi, [idt]
    lea rdi, [test_idt]
    mov ecx, 32 * 2
    rep movsq
    lidt [test_idt_pointer]
    lea rax, [ist1_top]
    mov [test_tss + 0x24], rax
    lea rax, [gone_stack + 2048]
    mov [test_tss + 0x2C], rax
    mov rax, 0x8000000000000000
    mov [test_tss + 0x34], rax
    lea rax, [ist4_top + 5]         # not aligned
    mov [test_tss + 0x3C], rax
    lea rdi, [gone_stack]
    call pte_of
    and dword ptr [rax], ~1
    invlpg [gone_stack]
    lea rdi, [gone]
    call pte_of
    and dword ptr [rax], ~1
    invlpg [gone]
    mov rax, [test_gdt + CODE64]
    btr rax, 47
    mov [test_gdt + SEG], rax
    mov rax, cr0                    # CR0.NE
    or eax, 0x20
    mov cr0, rax

    # Which exception, and its error code.
    FAULTS "#DE: by zero", VECTOR_DE, 0, "xor ecx, ecx; mov eax, 1; xor edx, edx; div ecx"
    FAULTS "#DE: too large", VECTOR_DE, 0, "mov ecx, 1; xor eax, eax; mov edx, 1; div ecx"
    FAULTS "#DE: the smallest number by -1", VECTOR_DE, 0, "mov eax, 0x80000000; cdq; mov ecx, -1; idiv ecx"
    FAULTS "#BP", VECTOR_BP, 0, "int3"
    FAULTS "#UD: UD2", VECTOR_UD, 0, "ud2"
    FAULTS "#UD: LOCK that is not allowed", VECTOR_UD, 0, ".byte 0xF0, 0x90"
    FAULTS "#UD: LOCK and no memory operand", VECTOR_UD, 0, ".byte 0xF0, 0x01, 0xC0"
    FAULTS "#UD: MOV CS", VECTOR_UD, 0, "xor eax, eax; .byte 0x8E, 0xC8"
    FAULTS "#UD: PUSH ES in 64-bit code", VECTOR_UD, 0, ".byte 0x06"
    FAULTS "#UD: SYSENTER in long mode", VECTOR_UD, 0, "sysenter"
    FAULTS "#UD: SYSEXIT in long mode", VECTOR_UD, 0, "sysexit"
    FAULTS "#UD: SYSCALL without EFER.SCE", VECTOR_UD, 0, "mov ecx, 0xC0000080; rdmsr; and eax, ~1; wrmsr; syscall"
    FAULTS "#UD: RSM", VECTOR_UD, 0, "rsm"
    FAULTS "#GP: 16 bytes", VECTOR_GP, 0, ".rept 15; .byte 0x66; .endr; nop"
    mov rax, cr0
    or eax, 8
    mov cr0, rax
    FAULTS "#NM", 7, 0, "fnop"
    FAULTS "#NM: WAIT needs MP too", 7, 0, "mov rax, cr0; or eax, 2; mov cr0, rax; fwait"
    mov rax, cr0
    and eax, ~0xA
    mov cr0, rax
    FAULTS "WAIT without MP", -1, -1, "mov rax, cr0; or eax, 8; mov cr0, rax; fwait; clts"
    FAULTS "#MF", 16, 0, "fninit; push 0x37B; fldcw [rsp]; pop rax; fld1; fldz; fdivp; fwait"
    fninit
    mov rax, cr0
    or eax, 1 << 18
    mov cr0, rax
    mov qword ptr [user_flags], 2 | 1 << 18
    USER "#AC", VECTOR_AC, 0, "mov eax, [user_stack + 1]"
    USER "#AC: aligned", NONE, 0, "mov eax, [user_stack + 4]"
    USER "#AC: a word in the middle of a dword", NONE, 0, "mov ax, [user_stack + 2]"
    mov qword ptr [user_flags], 2
    USER "#AC needs RFLAGS.AC", NONE, 0, "mov eax, [user_stack + 1]"
    FAULTS "#AC needs CPL 3", -1, -1, "pushfq; or dword ptr [rsp], 1 << 18; popfq; mov eax, [user_stack + 1]"
    pushfq
    and dword ptr [rsp], ~(1 << 18)
    popfq
    mov rax, cr0
    and eax, ~(1 << 18)
    mov cr0, rax

    # The frame.
    FAULTS "a fault", VECTOR_UD, 0, "frame_fault: ud2"
    mov rax, [fault_rip]
    EXPECT_AT "a fault's RIP is the instruction", frame_fault
    mov rax, [fault_flags]
    shr eax, 16
    and eax, 1
    EXPECT "and RF is set", 1
    FAULTS "a trap", VECTOR_BP, 0, "int3; frame_trap: nop"
    mov rax, [fault_rip]
    EXPECT_AT "a trap's RIP is the next instruction", frame_trap
    mov rax, [fault_flags]
    shr eax, 16
    and eax, 1
    EXPECT "and RF is clear", 0
    mov rax, [fault_cs]
    EXPECT "CS in the frame", CODE64
    GATE 0x40, CODE64, 0x8E
    lea rax, [look_at_flags]
    mov [test_idt + 0x40 * 16], ax
    shr rax, 16
    mov [test_idt + 0x40 * 16 + 6], ax
    sti
    pushfq
    or dword ptr [rsp], 1 << 14 | 1 << 18       # NT, AC
    popfq
    int 0x40
    cli
    EXPECT "an interrupt gate clears IF, TF, NT, not AC", 1 << 18 | 2
    mov byte ptr [test_idt + 0x40 * 16 + 5], 0x8F
    pushfq
    and dword ptr [rsp], ~(1 << 14 | 1 << 18)
    popfq
    sti
    int 0x40
    cli
    EXPECT "a trap gate leaves IF", 1 << 9 | 2
    mov r12, rsp
    lea rsp, [rsp - 72]
    and rsp, ~15
    sub rsp, 3                      # RSP is aligned to 16 for the frame
    int 0x40
    mov rsp, r12
    mov rax, [seen_rsp]
    and eax, 15
    EXPECT "the frame of five quadwords lies below a multiple of 16", 8

    # Software interrupts: privilege of the gate, EXT = 0, RIP of the instruction.
    mov byte ptr [test_idt + 0x40 * 16 + 5], 0x8E
    USER "INT through a gate of DPL 0", VECTOR_GP, 0x40 * 8 + 2, "int 0x40"
    mov rax, [fault_rip]
    EXPECT_AT "RIP is the INT", user_code
    USER "INT3 through a gate of DPL 3", VECTOR_BP, 0, "int3"
    and byte ptr [test_idt + 3 * 16 + 5], 0x9F
    USER "INT3 through a gate of DPL 0", VECTOR_GP, 3 * 8 + 2, "int3"
    or byte ptr [test_idt + 3 * 16 + 5], 0x60
    FAULTS "INT beyond the table", VECTOR_GP, 0x41 * 8 + 2, "int 0x41"
    mov byte ptr [test_idt + 0x40 * 16 + 5], 0x0E
    FAULTS "INT through a gate that is not present", VECTOR_NP, 0x40 * 8 + 2, "int 0x40"
    mov byte ptr [test_idt + 0x40 * 16 + 5], 0x85
    FAULTS "INT through a task gate", VECTOR_GP, 0x40 * 8 + 2, "int 0x40"
    mov byte ptr [test_idt + 0x40 * 16 + 5], 0x86
    FAULTS "INT through a 16-bit gate", VECTOR_GP, 0x40 * 8 + 2, "int 0x40"
    mov byte ptr [test_idt + 0x40 * 16 + 5], 0x8E
    mov word ptr [test_idt + 0x40 * 16 + 2], 0
    FAULTS "INT to a null selector", VECTOR_GP, 0, "int 0x40"
    mov word ptr [test_idt + 0x40 * 16 + 2], 0x7F8
    FAULTS "INT to a selector beyond the table", VECTOR_GP, 0x7F8, "int 0x40"
    mov word ptr [test_idt + 0x40 * 16 + 2], DATA
    FAULTS "INT to a data segment", VECTOR_GP, DATA, "int 0x40"
    mov word ptr [test_idt + 0x40 * 16 + 2], CODE32
    FAULTS "INT to a 32-bit code segment", VECTOR_GP, CODE32, "int 0x40"
    mov word ptr [test_idt + 0x40 * 16 + 2], USER64 & ~3
    FAULTS "INT to a less privileged code segment", VECTOR_GP, USER64 & ~3, "int 0x40"
    mov word ptr [test_idt + 0x40 * 16 + 2], SEG
    FAULTS "INT to a code segment that is not present", VECTOR_NP, SEG, "int 0x40"
    mov word ptr [test_idt + 0x40 * 16 + 2], CODE64
    or dword ptr [test_idt + 0x40 * 16 + 8], -1
    FAULTS "INT to an address that is not canonical", VECTOR_GP, CODE64, "and dword ptr [test_idt + 0x40 * 16 + 8], 0x7FFFFFFF; int 0x40"
    mov dword ptr [test_idt + 0x40 * 16 + 8], 0

    # Stacks.
    mov byte ptr [test_idt + 0x40 * 16 + 4], 1
    int 0x40
    mov rax, [seen_rsp]
    EXPECT_AT "IST 1", ist1_top - 40
    int 0x40
    mov rax, [seen_rsp]
    EXPECT_AT "IST 1 once more, from its top again", ist1_top - 40
    mov byte ptr [test_idt + 0x40 * 16 + 4], 4
    int 0x40
    mov rax, [seen_rsp]
    EXPECT_AT "an IST that is not aligned", ist4_top - 40
    mov byte ptr [test_idt + 0x40 * 16 + 4], 0
    GATE VECTOR_UD, CODE64, 0x8E, 1
    FAULTS "#UD on an IST", VECTOR_UD, 0, "ud2"
    GATE VECTOR_UD, CODE64, 0x8E
    USER "from CPL 3", VECTOR_UD, 0, "ud2"
    mov rax, [fault_rsp]
    EXPECT_AT "the frame has the user's RSP", user_stack_top
    or byte ptr [test_idt + 0x40 * 16 + 5], 0x60
    USER "INT from CPL 3 and back", NONE, 0, "int 0x40"
    mov rax, [seen_rsp]
    EXPECT_AT "goes by RSP0", kernel_stack_top - 40
    mov word ptr [test_gdt + TSS], 10
    and byte ptr [test_gdt + TSS + 5], 0xFD
    mov eax, TSS
    ltr ax
    GATE VECTOR_TS, CODE64, 0x8E
    mov byte ptr [test_idt + 0x40 * 16 + 4], 1
    FAULTS "an IST beyond the TSS", VECTOR_TS, TSS, "int 0x40"
    mov byte ptr [test_idt + 0x40 * 16 + 4], 0
    mov word ptr [test_gdt + TSS], 0x67
    and byte ptr [test_gdt + TSS + 5], 0xFD
    mov eax, TSS
    ltr ax

    # One exception during another one. Benign first: in turn.
    CHAIN "#UD, gate not present", VECTOR_UD, ABSENT, "ud2", VECTOR_NP, 6 * 8 + 3
    CHAIN "#UD, no gate", VECTOR_UD, WRONG, "ud2", VECTOR_GP, 6 * 8 + 3
    CHAIN "#UD, null selector", VECTOR_UD, NULL, "ud2", VECTOR_GP, 1
    CHAIN "#UD, data segment", VECTOR_UD, DATA_CODE, "ud2", VECTOR_GP, DATA + 1
    CHAIN "#UD, code segment not present", VECTOR_UD, GONE_CODE, "ud2", VECTOR_NP, SEG + 1
    CHAIN "#UD, stack not present", VECTOR_UD, NO_STACK, "ud2", VECTOR_PF, 2
    mov rax, [fault_address]
    EXPECT_AT "CR2 is on the stack", gone_stack + 2048 - 8
    CHAIN "#UD, stack not canonical", VECTOR_UD, BAD_STACK, "ud2", VECTOR_SS, 0
    CHAIN "INT3, gate not present: no EXT", VECTOR_BP, ABSENT, "int3", VECTOR_NP, 3 * 8 + 2
    or byte ptr [test_idt + 3 * 16 + 5], 0x60
    # Contributory first.
    CHAIN "#DE, #NP", VECTOR_DE, ABSENT, "xor ecx, ecx; div ecx", VECTOR_DF, 0
    CHAIN "#DE, #GP", VECTOR_DE, WRONG, "xor ecx, ecx; div ecx", VECTOR_DF, 0
    CHAIN "#DE, #SS", VECTOR_DE, BAD_STACK, "xor ecx, ecx; div ecx", VECTOR_DF, 0
    CHAIN "#DE, #PF", VECTOR_DE, NO_STACK, "xor ecx, ecx; div ecx", VECTOR_PF, 2
    CHAIN "#NP, #GP", VECTOR_NP, WRONG, "mov eax, SEG; mov fs, eax", VECTOR_DF, 0
    CHAIN "#SS, #NP", VECTOR_SS, ABSENT, "mov rbp, 1 << 63; mov al, [rbp]", VECTOR_DF, 0
    CHAIN "#GP, #NP", VECTOR_GP, ABSENT, "mov rax, 1 << 63; mov al, [rax]", VECTOR_DF, 0
    CHAIN "#GP, #PF", VECTOR_GP, NO_STACK, "mov rax, 1 << 63; mov al, [rax]", VECTOR_PF, 2
    CHAIN "#GP, #SS", VECTOR_GP, BAD_STACK, "mov rax, 1 << 63; mov al, [rax]", VECTOR_DF, 0
    # #PF first.
    CHAIN "#PF, #NP", VECTOR_PF, ABSENT, "mov al, [gone]", VECTOR_DF, 0
    mov rax, [fault_address]
    EXPECT_AT "CR2 of the first", gone
    CHAIN "#PF, #GP", VECTOR_PF, WRONG, "mov al, [gone]", VECTOR_DF, 0
    CHAIN "#PF, #SS", VECTOR_PF, BAD_STACK, "mov al, [gone]", VECTOR_DF, 0
    CHAIN "#PF, #PF", VECTOR_PF, NO_STACK, "mov al, [gone]", VECTOR_DF, 0
    mov rax, [fault_address]
    EXPECT_AT "CR2 of the second", gone_stack + 2048 - 8
    FAULTS "a double fault", VECTOR_DF, 0, "BREAK VECTOR_PF, ABSENT; double_fault: mov al, [gone]"
    BREAK VECTOR_PF, GOOD
    mov rax, [fault_rip]
    EXPECT_AT "names the instruction", double_fault
    # Three in a row that are no double fault: #UD meets #PF, whose gate is fine.
    BREAK VECTOR_DF, NO_STACK
    CHAIN "#UD, #PF with an unusable double-fault gate", VECTOR_UD, NO_STACK, "ud2", VECTOR_PF, 2
    BREAK VECTOR_DF, GOOD

    # IRET.
    FAULTS "IRET with NT in long mode", VECTOR_GP, 0, "pushfq; or dword ptr [rsp], 1 << 14; popfq; iretq"
    pushfq
    and dword ptr [rsp], ~(1 << 14)
    popfq
    mov r12, rsp
    FAULTS "IRET to null", VECTOR_GP, 0, "push DATA; push r12; push 2; push 0; push offset back; iretq"
    mov rsp, r12
    FAULTS "IRET to a data segment", VECTOR_GP, DATA, "push DATA; push r12; push 2; push DATA; push offset back; iretq"
    mov rsp, r12
    FAULTS "IRET to a code segment that is not present", VECTOR_NP, SEG, "push DATA; push r12; push 2; push SEG; push offset back; iretq"
    mov rsp, r12
    FAULTS "IRET to an address that is not canonical", VECTOR_GP, 0, "push DATA; push r12; push 2; push CODE64; mov rax, 1 << 63; push rax; iretq"
    mov rsp, r12
    FAULTS "IRET with a null stack at CPL 3", VECTOR_GP, 0, "push 3; push r12; push 2; push USER64; push offset back; iretq"
    mov rsp, r12
    FAULTS "IRET with a null stack at CPL 0", -1, -1, "push 0; push r12; push 2; push CODE64; push offset back; iretq; back: nop"
    mov rsp, r12
    mov eax, DATA
    mov ss, eax
    FAULTS "IRET with the stack of another level", VECTOR_GP, DATA, "push DATA; push r12; push 2; push USER64; push offset back; iretq"
    mov rsp, r12
    USER "IRET to a more privileged level", VECTOR_GP, CODE64, "mov rax, rsp; push USER_DATA; push rax; push 2; push CODE64; push 0; iretq"
    mov qword ptr [user_flags], 2
    USER "IRET at CPL 3 changes neither IF nor IOPL", NONE, 0, "mov rax, rsp; push USER_DATA; push rax; push 0x3202; push USER64; lea rcx, [rip + 1f]; push rcx; iretq; 1: pushfq; pop [user_result]"
    mov rax, [user_result]
    EXPECT "its flags", 2
    USER "POPF at CPL 3", NONE, 0, "push 0x3202; popfq; pushfq; pop [user_result]"
    mov rax, [user_result]
    EXPECT "changes neither, either", 2
    USER "CLI at CPL 3", VECTOR_GP, 0, "cli"
    USER "STI at CPL 3", VECTOR_GP, 0, "sti"
    USER "HLT at CPL 3", VECTOR_GP, 0, "hlt"
    mov qword ptr [user_flags], 0x3002
    USER "CLI at CPL 3 with IOPL 3", NONE, 0, "cli; sti; cli"
    mov qword ptr [user_flags], 2
    lidt [idt_pointer]
    ret

# set_gate(vector, selector, access, IST)
set_gate:
    shl edi, 4
    mov [test_idt + rdi + 2], si
    mov [test_idt + rdi + 4], cl
    mov [test_idt + rdi + 5], dl
    ret

# Handler of vector 0x40: AX… of the flags it runs with, and its stack pointer.
look_at_flags:
    mov [seen_rsp], rsp
    pushfq
    pop rax
    and eax, 0x4F702                # IF TF NT IOPL AC and bit 1
    iretq

.data
test_idt_pointer:
    .word 0x41 * 16 - 1
    .quad test_idt

.bss
seen_rsp:   .skip 8
.align 16
test_idt:   .skip 0x42 * 16
.align 4096
ist1:       .skip 4096
ist1_top:
ist4:       .skip 4096
ist4_top:   .skip 64
.align 4096
gone_stack: .skip 4096
gone:       .skip 4096
