# Single-stepping: RFLAGS.TF over ordinary instructions, and over those that change it or put the trap off: POPF, IRET, MOV
# SS, INT, SYSCALL and SYSRET, repeated string instructions, faults [APM2 13.1.4, 8.2.2; APM3 SYSCALL, SYSRET].

.include "runtime.inc"
.include "privilege.inc"
.globl guest_main

.set TF, 1 << 8
.set DR6_BS, 1 << 14

# STEP "name", traps, "code": steps through the code. How many traps it has, where they are: trap_rips. The three
# instructions that end stepping have one each, too.
.macro STEP name, traps, code
    call begin_steps
    pushfq
    or dword ptr [rsp], TF
    popfq
    \code
    pushfq
    and dword ptr [rsp], ~TF
    popfq
.Lstepped\@:
    mov eax, [trap_count]
    EXPECT "\name: traps", \traps + 3
    mov eax, [trap_count]
    mov rax, [trap_rips + rax * 8 - 8]
    EXPECT_AT "\name: the last one is behind POPF", .Lstepped\@
.endm

.macro TRAP_AT name, number, place
    mov rax, [trap_rips + \number * 8]
    EXPECT_AT "\name", \place
.endm

.text
guest_main:
    call privilege_setup
    lea rax, [trap]
    mov [idt + 16], ax
    shr rax, 16
    mov [idt + 16 + 6], ax
    lea rsi, [idt]
    lea rdi, [test_idt]
    mov ecx, 32 * 2
    rep movsq
    mov qword ptr [test_idt + 0x40 * 16], CODE64 << 16
    mov byte ptr [test_idt + 0x40 * 16 + 5], 0xEE
    lea rax, [software_interrupt]
    mov [test_idt + 0x40 * 16], ax
    shr rax, 16
    mov [test_idt + 0x40 * 16 + 6], ax
    lidt [test_idt_pointer]

    STEP "two instructions", 2, "nop; first: nop; second:"
    TRAP_AT "the first trap is behind the instruction after POPF", 0, first
    TRAP_AT "the second", 1, second
    mov eax, [trap_dr6s]
    and eax, 0xE00F
    EXPECT "DR6: BS alone", DR6_BS
    STEP "a branch", 2, "xor eax, eax; jz 1f; nop; nop; 1:"
    STEP "a call and a return", 3, "call just_return; nop"
    STEP "PUSHF", 2, "pushfq; pop r12"
    mov eax, r12d
    and eax, TF
    EXPECT "shows TF", TF

    mov ecx, DATA
    STEP "MOV SS", 2, "mov ss, ecx; nop; behind_shadow: nop"
    TRAP_AT "puts the trap off by one instruction", 0, behind_shadow
    mov ecx, DATA
    STEP "MOV DS", 2, "mov ds, ecx; behind_ds: nop"
    TRAP_AT "does not", 0, behind_ds
    STEP "STI", 3, "sti; behind_sti: nop; cli"
    TRAP_AT "does not, either", 0, behind_sti

    lea rsi, [source]
    lea rdi, [target]
    mov ecx, 3
    STEP "REP MOVSB", 3, "repeated: rep movsb; behind_rep:"
    TRAP_AT "its first trap is at the instruction", 0, repeated
    TRAP_AT "its second too", 1, repeated
    TRAP_AT "its last one is behind it", 2, behind_rep
    xor ecx, ecx
    STEP "REP MOVSB of nothing", 1, "rep movsb"

    # INT clears TF without a trap; the IRET of its handler restores it, and the next instruction is stepped.
    STEP "INT", 2, "int 0x40; nop; behind_int: nop"
    TRAP_AT "the first trap is one instruction behind", 0, behind_int
    mov eax, [seen_flags]
    and eax, TF
    EXPECT "its handler runs without TF", 0
    mov eax, [trap_flags]
    and eax, TF
    EXPECT "and so does the handler of #DB", 0

    # IRET.
    call begin_steps
    mov r12, rsp
    push DATA
    push r12
    push 2 | TF
    push CODE64
    lea rax, [returned]
    push rax
    iretq
returned:
    nop
behind_returned:
    pushfq
    and dword ptr [rsp], ~TF
    popfq
    mov eax, [trap_count]
    EXPECT "IRET that sets TF: traps", 4
    TRAP_AT "the first one is behind the next instruction", 0, behind_returned
    call begin_steps
    pushfq
    or dword ptr [rsp], TF
    popfq
    lea rax, [not_stepped]
    mov r12, rsp
    push DATA
    push r12
    push 2
    push CODE64
    push rax
    iretq
not_stepped:
    nop
    mov eax, [trap_count]
    EXPECT "IRET that clears TF: traps", 8
    TRAP_AT "the last one is behind it", 7, not_stepped

    # A fault: TF is in its frame, and it takes the trap's place.
    call begin_steps
    mov qword ptr [recovery], offset faulted
    pushfq
    or dword ptr [rsp], TF
    popfq
    nop
    ud2
faulted:
    nop
    pushfq
    and dword ptr [rsp], ~TF
    popfq
    mov qword ptr [recovery], 0
    mov eax, [trap_count]
    EXPECT "a fault: traps", 5
    mov eax, [fault_flags]
    and eax, TF
    EXPECT "its frame has TF", TF
    mov rax, [fault_vector]
    EXPECT "vector", VECTOR_UD

    # SYSCALL and SYSRET.
    mov ecx, 0xC0000080
    rdmsr
    or eax, 1
    wrmsr
    mov ecx, 0xC0000081             # STAR
    xor eax, eax
    mov edx, (0x20 << 16) | CODE64
    wrmsr
    mov ecx, 0xC0000082             # LSTAR
    lea rax, [system_call]
    xor edx, edx
    wrmsr
    mov ecx, 0xC0000084             # SFMASK
    mov eax, TF | 1 << 9
    xor edx, edx
    wrmsr
    call begin_steps
    mov qword ptr [user_flags], 2 | TF
    USER "SYSCALL that masks TF", NONE, 0, "nop; syscall; nop"
    mov eax, [trap_count]
    EXPECT "traps", 3
    TRAP_AT "behind the first instruction", 0, user_code + 1
    TRAP_AT "behind SYSRET, which restores TF, at once", 1, user_code + 3
    TRAP_AT "behind the next instruction", 2, user_code + 4
    mov eax, [seen_flags]
    and eax, TF
    EXPECT "the kernel runs without TF", 0
    mov rax, [seen_r11]
    and eax, TF
    EXPECT "R11 has it", TF
    mov ecx, 0xC0000084
    mov eax, 1 << 9
    xor edx, edx
    wrmsr
    call begin_steps
    USER "SYSCALL that does not mask TF", NONE, 0, "nop; syscall; nop"
    TRAP_AT "traps at its target", 1, system_call
    mov qword ptr [user_flags], 2

    # #DB by its own instruction says nothing in DR6.
    mov eax, 0xFFFF0FF0
    mov dr6, rax
    call begin_steps
    .byte 0xF1
behind_int1:
    mov eax, [trap_count]
    EXPECT "INT1: traps", 1
    TRAP_AT "behind it", 0, behind_int1
    mov eax, [trap_dr6s]
    and eax, 0xE00F
    EXPECT "DR6", 0

    test byte ptr [sev_status], SEV_STATUS_ES
    jnz 1f
    STEP "CPUID, which leaves the processor", 2, "cpuid; behind_cpuid: nop"
    TRAP_AT "is stepped like others", 0, behind_cpuid
    STEP "IN", 2, "in al, 0x80; behind_in: nop"
    TRAP_AT "too", 0, behind_in
1:  lidt [idt_pointer]
    ret

just_return:
    ret

begin_steps:
    mov dword ptr [trap_count], 0
    mov qword ptr [fault_count], 0
    ret

# Notes where the trap is and goes on.
trap:
    push rax
    push rcx
    mov ecx, [trap_count]
    cmp ecx, 31
    ja 1f
    mov rax, [rsp + 16]
    mov [trap_rips + rcx * 8], rax
    mov rax, dr6
    mov [trap_dr6s + rcx * 8], rax
1:  inc dword ptr [trap_count]
    pushfq
    pop [trap_flags]
    mov eax, 0xFFFF0FF0
    mov dr6, rax
    pop rcx
    pop rax
    iretq

software_interrupt:
    pushfq
    pop [seen_flags]
    iretq

system_call:
    pushfq
    pop [seen_flags]
    mov [seen_r11], r11
    sysretq

.data
test_idt_pointer:
    .word 0x41 * 16 - 1
    .quad test_idt

.bss
trap_count: .skip 8
trap_flags: .skip 8
seen_flags: .skip 8
seen_r11:   .skip 8
trap_rips:  .skip 32 * 8
trap_dr6s:  .skip 32 * 8
source:     .skip 16
target:     .skip 16
.align 16
test_idt:   .skip 0x42 * 16
