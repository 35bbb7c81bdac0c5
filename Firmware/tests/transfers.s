# Far jumps, calls and returns, call gates, SYSCALL and SYSRET, MONITOR and MWAIT privileges, RDTSC, RDPMC: between 64-bit
# code, compatibility mode and privilege levels [APM2 4.11, 4.12, 6.1; APM3].

.include "runtime.inc"
.include "privilege.inc"
.globl guest_main

.set GATE, SPARE                    # 16 bytes
.set SEG, SPARE + 16

# CALL_GATE dpl, selector, place
.macro CALL_GATE access, selector, place
    lea rax, [\place]
    mov [test_gdt + GATE], ax
    mov word ptr [test_gdt + GATE + 2], \selector
    mov word ptr [test_gdt + GATE + 4], \access << 8
    shr rax, 16
    mov [test_gdt + GATE + 6], ax
    mov qword ptr [test_gdt + GATE + 8], 0
.endm

# FAR "name", vector, error, selector, place, "instruction": through `pointer`, a far pointer of 32 bits.
.macro FAR name, vector, error, selector, place, instruction
    lea rax, [\place]
    mov [pointer], eax
    mov word ptr [pointer + 4], \selector
    mov r12, rsp
    FAULTS "\name", \vector, \error, "\instruction fword ptr [pointer]"
    mov rsp, r12
.endm

# RETURNS "name", vector, error, selector, place: RETF to it.
.macro RETURNS name, vector, error, selector, place
    mov r12, rsp
    lea rax, [\place]
    FAULTS "\name", \vector, \error, "push \selector; push rax; retfq"
    mov rsp, r12
.endm

.macro WRMSR number, high, low
    mov ecx, \number
    mov eax, \low
    mov edx, \high
    wrmsr
.endm

.text
guest_main:
    call privilege_setup
    mov rax, [test_gdt + CODE64]
    btr rax, 47
    mov [test_gdt + SEG], rax

    # Far jumps and calls through memory.
    lea rax, [arrive]
    mov [pointer], eax
    mov word ptr [pointer + 4], CODE64
    mov r13, 0
    call fword ptr [pointer]
    mov rax, r13
    EXPECT "far call to the same code segment", 1
    FAR "jump to null", VECTOR_GP, 0, 0, arrive, jmp
    FAR "jump to a data segment", VECTOR_GP, DATA, DATA, arrive, jmp
    FAR "jump beyond the table", VECTOR_GP, 0x7F8, 0x7F8, arrive, jmp
    FAR "jump to a code segment that is not present", VECTOR_NP, SEG, SEG, arrive, jmp
    FAR "jump to code of DPL 3", VECTOR_GP, USER64 & ~3, USER64 & ~3, arrive, jmp
    FAR "jump with RPL 3", VECTOR_GP, CODE64, CODE64 | 3, arrive, jmp
    FAR "call to a data segment", VECTOR_GP, DATA, DATA, arrive, call
    FAR "jump to a TSS: no task switches in long mode", VECTOR_GP, TSS, TSS, arrive, jmp
    mov rax, [test_gdt + CODE64]
    bts rax, 54
    mov [test_gdt + SEG], rax
    FAR "code segment with L and D", VECTOR_GP, SEG, SEG, arrive, jmp
    mov rax, [test_gdt + CODE64]
    btr rax, 47
    mov [test_gdt + SEG], rax
    FAULTS "direct far jump in 64-bit code", VECTOR_UD, 0, ".byte 0xEA, 0, 0, 0, 0, 8, 0"
    FAULTS "direct far call in 64-bit code", VECTOR_UD, 0, ".byte 0x9A, 0, 0, 0, 0, 8, 0"
    LEGACY "32-bit code: direct far jump", NONE, 0, CODE32, 32, ".byte 0xEA; .long user_alias + 8; .word CODE32; hlt"

    # Returns.
    RETURNS "RETF to null", VECTOR_GP, 0, 0, arrive
    RETURNS "RETF to a data segment", VECTOR_GP, DATA, DATA, arrive
    RETURNS "RETF to a code segment that is not present", VECTOR_NP, SEG, SEG, arrive
    RETURNS "RETF to code of DPL 3 with RPL 0", VECTOR_GP, USER64 & ~3, USER64 & ~3, arrive
    mov r12, rsp
    FAULTS "RETF to an address that is not canonical", VECTOR_GP, 0, "push CODE64; mov rax, 1 << 63; push rax; retfq"
    mov rsp, r12
    USER "RETF to a more privileged level", VECTOR_GP, CODE64, "push CODE64; push 0; retfq"

    # Call gates.
    CALL_GATE 0x8C, CODE64, gate_target
    mov r13, 0
    mov dword ptr [pointer], 0
    mov word ptr [pointer + 4], GATE
    call fword ptr [pointer]
    mov rax, r13
    EXPECT "call gate of the same level", 1
    CALL_GATE 0x0C, CODE64, gate_target
    FAR "call gate that is not present", VECTOR_NP, GATE, GATE, arrive, call
    CALL_GATE 0x8C, DATA, gate_target
    FAR "call gate to a data segment", VECTOR_GP, DATA, GATE, arrive, call
    CALL_GATE 0x8C, 0, gate_target
    FAR "call gate to null", VECTOR_GP, 0, GATE, arrive, call
    CALL_GATE 0x8C, CODE32, gate_target
    FAR "call gate to 32-bit code", VECTOR_GP, CODE32, GATE, arrive, call
    CALL_GATE 0x8C, SEG, gate_target
    FAR "call gate to a code segment that is not present", VECTOR_NP, SEG, GATE, arrive, call
    CALL_GATE 0x8C, CODE64, gate_target
    mov dword ptr [test_gdt + GATE + 12], 0x0100
    FAR "call gate whose second half has a type", VECTOR_GP, GATE, GATE, arrive, call
    CALL_GATE 0x8C, CODE64, gate_target
    mov dword ptr [test_gdt + GATE + 8], 0x8000
    FAR "call gate to an address that is not canonical", VECTOR_GP, 0, GATE, arrive, call
    CALL_GATE 0x8C, CODE64, gate_target
    FAR "call gate with RPL 3 and DPL 0", VECTOR_GP, GATE, GATE | 3, arrive, call
    FAR "call gate of 16 bits", VECTOR_GP, GATE, GATE, arrive, "mov byte ptr [test_gdt + GATE + 5], 0x84; call"
    CALL_GATE 0x8C, CODE64, gate_target
    mov dword ptr [user_result], 0
    mov word ptr [user_result + 4], GATE | 3
    USER "call gate of DPL 0 from CPL 3", VECTOR_GP, GATE, "call fword ptr [user_result]"
    CALL_GATE 0xEC, CODE64, gate_from_user
    USER "call gate of DPL 3 from CPL 3, and back", NONE, 0, "mov rbx, 7; call fword ptr [user_result]"
    mov rax, [gate_cs]
    EXPECT "the target's CPL", CODE64
    mov rax, [gate_ss]
    EXPECT "its stack segment is null", 0
    mov rax, [gate_rsp]
    EXPECT_AT "its stack is RSP0", kernel_stack_top - 32
    mov rax, [gate_frame + 24]
    EXPECT "frame: SS", USER_DATA
    mov rax, [gate_frame + 16]
    EXPECT_AT "frame: RSP", user_stack_top
    mov rax, [gate_frame + 8]
    EXPECT "frame: CS", USER64
    mov rax, [fault_cs]
    EXPECT "back at CPL 3", USER64

    # SYSCALL and SYSRET.
    mov ecx, 0xC0000080
    rdmsr
    or eax, 1
    wrmsr
    WRMSR 0xC0000081, (0x20 << 16) | CODE64, 0
    lea rax, [system_call]
    mov ecx, 0xC0000082
    xor edx, edx
    wrmsr
    lea rax, [system_call_32]
    mov ecx, 0xC0000083
    wrmsr
    WRMSR 0xC0000084, 0, 0x600
    mov qword ptr [user_flags], 0x602
    USER "SYSCALL and SYSRET", NONE, 0, "syscall; pushfq; pop [user_result]"
    mov qword ptr [user_flags], 2
    mov rax, [seen_flags]
    and eax, 0x602
    EXPECT "SFMASK clears its flags", 2
    mov rax, [seen_rcx]
    EXPECT_AT "RCX is the next instruction", user_code + 2
    mov rax, [seen_r11]
    and eax, 0x602
    EXPECT "R11 has the flags", 0x602
    mov rax, [seen_cs]
    EXPECT "CS", CODE64
    mov rax, [seen_ss]
    EXPECT "SS", DATA
    mov rax, [user_result]
    and eax, 0x602
    EXPECT "SYSRET restores them", 0x602
    mov rax, [fault_cs]
    EXPECT "CS at CPL 3", USER64
    LEGACY "SYSCALL from compatibility mode", NONE, 0, USER32, 32, "mov ebx, esp; syscall; mov esp, ebx"
    mov rax, [fault_cs]
    EXPECT "and back there", USER32
    mov rax, [seen_rcx]
    EXPECT_AT "its RCX", user_code + 4
    USER "SYSRET at CPL 3", VECTOR_GP, 0, "sysretq"
    # AMD's SYSRET takes any RCX; the address is looked at by the fetch, at CPL 3.
    mov qword ptr [back_to], 1
    USER "SYSRET to an address that is not canonical", VECTOR_GP, 0, "syscall"
    mov rax, [fault_cs]
    EXPECT "faults at CPL 3", USER64
    mov rax, [fault_rip]
    shr rax, 63
    EXPECT "at that address", 1
    mov qword ptr [back_to], 0
    FAULTS "LSTAR that is not canonical", VECTOR_GP, 0, "mov ecx, 0xC0000082; mov edx, 0x80000000; wrmsr"
    FAULTS "CSTAR that is not canonical", VECTOR_GP, 0, "mov ecx, 0xC0000083; mov edx, 0x80000000; wrmsr"
    FAULTS "FS base that is not canonical", VECTOR_GP, 0, "mov ecx, 0xC0000100; mov edx, 0x80000000; wrmsr"
    FAULTS "kernel GS base that is not canonical", VECTOR_GP, 0, "mov ecx, 0xC0000102; mov edx, 0x80000000; wrmsr"

    # SWAPGS.
    WRMSR 0xC0000101, 0, 0x1111
    WRMSR 0xC0000102, 0, 0x2222
    swapgs
    mov ecx, 0xC0000101
    rdmsr
    EXPECT "SWAPGS", 0x2222
    mov ecx, 0xC0000102
    rdmsr
    EXPECT "the other one", 0x1111
    USER "SWAPGS at CPL 3", VECTOR_GP, 0, "swapgs"
    LEGACY "SWAPGS outside 64-bit code", VECTOR_UD, 0, CODE32, 32, ".byte 0x0F, 0x01, 0xF8"

    # Time and performance counters.
    USER "RDTSC at CPL 3", NONE, 0, "rdtsc"
    mov rax, cr4
    or eax, 4
    mov cr4, rax
    USER "RDTSC at CPL 3 with CR4.TSD", VECTOR_GP, 0, "rdtsc"
    USER "RDTSCP at CPL 3 with CR4.TSD", VECTOR_GP, 0, "rdtscp"
    FAULTS "RDTSC at CPL 0 with CR4.TSD", -1, -1, "rdtsc"
    mov rax, cr4
    and eax, ~4
    mov cr4, rax
    WRMSR 0xC0000103, 0, 0x5A5A
    rdtscp
    mov eax, ecx
    EXPECT "RDTSCP: TSC_AUX", 0x5A5A
    rdpid rax
    EXPECT "RDPID", 0x5A5A
    USER "RDPMC at CPL 3 without CR4.PCE", VECTOR_GP, 0, "xor ecx, ecx; rdpmc"
    USER "RDMSR at CPL 3", VECTOR_GP, 0, "mov ecx, 0xC0000080; rdmsr"
    USER "WRMSR at CPL 3", VECTOR_GP, 0, "mov ecx, 0xC0000103; wrmsr"
    USER "WBINVD at CPL 3", VECTOR_GP, 0, "wbinvd"
    USER "INVD at CPL 3", VECTOR_GP, 0, "invd"
    USER "LGDT at CPL 3", VECTOR_GP, 0, "lgdt [user_result]"
    USER "LMSW at CPL 3", VECTOR_GP, 0, "lmsw ax"
    USER "MONITOR at CPL 3", VECTOR_UD, 0, "xor ecx, ecx; lea rax, [user_result]; monitor"
    USER "MWAIT at CPL 3", VECTOR_UD, 0, "xor ecx, ecx; mwait"
    USER "XSETBV at CPL 3", VECTOR_UD, 0, "xor ecx, ecx; xsetbv"
    mov rax, cr4
    or eax, 1 << 18
    mov cr4, rax
    USER "XSETBV at CPL 3 with OSXSAVE", VECTOR_GP, 0, "xor ecx, ecx; mov eax, 1; xor edx, edx; xsetbv"
    FAULTS "XSETBV without x87", VECTOR_GP, 0, "xor ecx, ecx; mov eax, 2; xor edx, edx; xsetbv"
    FAULTS "XSETBV: AVX without SSE", VECTOR_GP, 0, "xor ecx, ecx; mov eax, 5; xor edx, edx; xsetbv"
    FAULTS "XSETBV of register 1", VECTOR_GP, 0, "mov ecx, 1; mov eax, 1; xor edx, edx; xsetbv"
    FAULTS "XGETBV of register 2", VECTOR_GP, 0, "mov ecx, 2; xgetbv"
    # FSGSBASE.
    FAULTS "RDFSBASE without CR4.FSGSBASE", VECTOR_UD, 0, "rdfsbase rax"
    mov rax, cr4
    or eax, 1 << 16
    mov cr4, rax
    FAULTS "WRGSBASE", -1, -1, "mov eax, 0x3333; wrgsbase rax"
    rdgsbase rax
    EXPECT "RDGSBASE", 0x3333
    FAULTS "WRFSBASE that is not canonical", VECTOR_GP, 0, "mov rax, 1 << 63; wrfsbase rax"
    USER "WRFSBASE at CPL 3", NONE, 0, "mov eax, 5; wrfsbase rax"

    # Last, because KVM's own emulator goes Intel's way here and the guest ends with it.
    lea rax, [arrive]
    mov [pointer], eax
    mov word ptr [pointer + 4], CODE64
    mov r13, 1
    .byte 0x48                      # REX.W: AMD's processors have no far pointers of 64 bits; the frame is of quadwords
    call fword ptr [pointer]
    mov rax, r13
    EXPECT "far call with REX.W: the same pointer, the frame twice as large", 2
    ret

arrive:
    inc r13
    cmp qword ptr [rsp + 8], CODE64
    je 1f
    retf                            # a frame of 32 bits
1:  retfq

gate_target:
    inc r13
    retfq

gate_from_user:
    mov rax, cs
    mov [gate_cs], rax
    mov rax, ss
    mov [gate_ss], rax
    mov [gate_rsp], rsp
    .irp place, 0, 8, 16, 24
    mov rax, [rsp + \place]
    mov [gate_frame + \place], rax
    .endr
    retfq

system_call:
    pushfq
    pop [seen_flags]
    mov [seen_rcx], rcx
    mov [seen_r11], r11
    mov rax, cs
    mov [seen_cs], rax
    mov rax, ss
    mov [seen_ss], rax
    cmp qword ptr [back_to], 0
    je 1f
    mov rcx, 0x8000000000000000
1:  sysretq

system_call_32:
    mov [seen_rcx], rcx
    .byte 0x0F, 0x07                # SYSRET to 32-bit code

.bss
pointer:    .skip 16
seen_flags: .skip 8
seen_rcx:   .skip 8
seen_r11:   .skip 8
seen_cs:    .skip 8
seen_ss:    .skip 8
back_to:    .skip 8
gate_cs:    .skip 8
gate_ss:    .skip 8
gate_rsp:   .skip 8
gate_frame: .skip 32
