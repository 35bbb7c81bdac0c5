# Segments: limits, types, directions, rights and presence, in 32-bit and 16-bit code of compatibility mode, and what is
# left of them in 64-bit mode; LAR, LSL, VERR, VERW, ARPL; the local descriptor table [APM2 4.7 to 4.12, APM3].

.include "runtime.inc"
.include "privilege.inc"
.globl guest_main

.set SEG, SPARE                     # the segment that a check is about
.set SEG2, SPARE + 8
.set SEG_LDT, SPARE + 16            # 16 bytes

# Access bytes, present and DPL 0.
.set RW, 0x93
.set RO, 0x91
.set RW_DOWN, 0x97
.set CODE_ONLY, 0x99
.set CODE_READ, 0x9B
.set CONFORMING, 0x9F
# Flags above them.
.set BYTES_16, 0x000
.set BYTES_32, 0x400
.set PAGES_32, 0xC00

# SEGMENT selector, base, limit, access byte | flags
.macro SEGMENT selector, base, limit, attributes
    mov edi, \selector
    lea rsi, [\base]
    mov edx, \limit
    mov ecx, \attributes
    call set_descriptor
.endm

# With DS (or another register) = SEG.
.macro WITH name, vector, error, code, register=ds
    LEGACY "\name", \vector, \error, CODE32, 32, "mov eax, SEG; mov \register, eax; \code"
.endm
.macro WITH16 name, vector, error, code, register=ds
    LEGACY "\name", \vector, \error, CODE16, 16, "mov ax, SEG; mov \register, ax; \code"
.endm

.text
guest_main:
    call privilege_setup
    # Whatever the stack segment is about, exceptions are delivered on a stack of their own.
    lea rax, [double_fault_stack_top]
    mov [test_tss + 0x24], rax
    lea rax, [idt + 4]
    mov ecx, 32
1:  mov byte ptr [rax], 1
    add rax, 16
    loop 1b

    SEGMENT SEG, area, 0xFFF, RW | BYTES_32
    WITH "dword at the end", NONE, 0, "mov eax, [0xFFC]"
    WITH "dword over the end", VECTOR_GP, 0, "mov eax, [0xFFD]"
    WITH "byte at the end", NONE, 0, "mov al, [0xFFF]"
    WITH "byte behind it", VECTOR_GP, 0, "mov al, [0x1000]"
    WITH "word over the end", VECTOR_GP, 0, "mov ax, [0xFFF]"
    WITH "store over the end", VECTOR_GP, 0, "mov [0xFFD], eax"
    WITH "read-modify-write over the end", VECTOR_GP, 0, "inc dword ptr [0xFFE]"
    WITH "8 bytes over the end", VECTOR_GP, 0, "fild qword ptr [0xFF9]"
    WITH "16 bytes at the end", NONE, 0, "fninit; fxsave [0xE00]"
    WITH "512 bytes over the end", VECTOR_GP, 0, "fxsave [0xE10]"
    WITH "address wraps at 4 GiB", NONE, 0, "mov ebx, 0xFFFFFFF0; mov eax, [ebx + 0x20]"
    WITH "offset -1", VECTOR_GP, 0, "mov eax, [-1]"
    WITH "string source over the end", VECTOR_GP, 0, "mov esi, 0xFFE; mov ecx, 3; rep lodsb"
    WITH "string source up to the end", NONE, 0, "mov esi, 0xFFD; mov ecx, 3; rep lodsb"
    WITH "MOV with an offset", VECTOR_GP, 0, ".byte 0xA1; .long 0x1000"
    WITH "ES over the end", VECTOR_GP, 0, "mov edi, 0xFFE; mov ecx, 2; cld; rep stosw", es
    WITH "FS over the end", VECTOR_GP, 0, "mov eax, fs:[0x1000]", fs
    WITH "GS over the end", VECTOR_GP, 0, "mov eax, gs:[0x1000]", gs
    WITH "PREFETCH and LEA do not care", NONE, 0, "prefetcht0 [0x1000]; lea eax, [0x1000]"
    WITH "a bit far away", VECTOR_GP, 0, "mov eax, 0x8000; bt [0], eax"
    mov byte ptr [area], 0
    WITH "base", NONE, 0, "mov byte ptr [0], 0x77"
    movzx eax, byte ptr [area]
    EXPECT "the byte at offset 0", 0x77

    SEGMENT SEG, area, 0, RW | PAGES_32
    WITH "limit 0 in pages: dword at the end", NONE, 0, "mov eax, [0xFFC]"
    WITH "limit 0 in pages: behind it", VECTOR_GP, 0, "mov al, [0x1000]"
    SEGMENT SEG, area, 0, RW | BYTES_32
    WITH "limit 0 in bytes: one byte", NONE, 0, "mov al, [0]"
    WITH "limit 0 in bytes: a word", VECTOR_GP, 0, "mov ax, [0]"

    SEGMENT SEG, area, 0x7FF, RW_DOWN | BYTES_32
    WITH "expand-down: above the limit", NONE, 0, "mov eax, [0x800]"
    WITH "expand-down: at the limit", VECTOR_GP, 0, "mov al, [0x7FF]"
    WITH "expand-down: below it", VECTOR_GP, 0, "mov eax, [0]"
    WITH "expand-down: over the lower end", VECTOR_GP, 0, "mov eax, [0x7FD]"
    SEGMENT SEG, area, 0x7FF, RW_DOWN | BYTES_16
    WITH "expand-down of 64 KiB: its last dword", NONE, 0, "mov eax, [0xFFFC]"
    WITH "expand-down of 64 KiB: over the end", VECTOR_GP, 0, "mov eax, [0xFFFD]"
    WITH "expand-down of 64 KiB: behind it", VECTOR_GP, 0, "mov al, [0x10000]"

    SEGMENT SEG, area, 0xFFF, RO | BYTES_32
    WITH "read-only data: load", NONE, 0, "mov eax, [0]"
    WITH "read-only data: store", VECTOR_GP, 0, "mov [0], eax"
    WITH "read-only data: locked", VECTOR_GP, 0, "lock inc dword ptr [0]"
    WITH "read-only data is no stack", VECTOR_GP, SEG, "nop", ss
    SEGMENT SEG, area, 0xFFF, CODE_READ | BYTES_32
    WITH "readable code: load", NONE, 0, "mov eax, [0]"
    WITH "readable code: store", VECTOR_GP, 0, "mov [0], eax"
    WITH "readable code is no stack", VECTOR_GP, SEG, "nop", ss
    SEGMENT SEG, area, 0xFFF, CODE_ONLY | BYTES_32
    WITH "code that cannot be read", VECTOR_GP, SEG, "nop"
    LEGACY "its own code segment: load", VECTOR_GP, 0, CODE32, 32, "mov dword ptr [esp - 8], 0; push SEG; push 0; mov word ptr cs:[0], 1"

    # Null, out of the table, not present, privilege.
    LEGACY "null in DS: loading it", NONE, 0, CODE32, 32, "xor eax, eax; mov ds, eax"
    LEGACY "null in DS: using it", VECTOR_GP, 0, CODE32, 32, "xor eax, eax; mov ds, eax; mov al, [0]"
    LEGACY "null 3 in ES: using it", VECTOR_GP, 0, CODE32, 32, "mov eax, 3; mov es, eax; xor edi, edi; stosb"
    LEGACY "null in SS", VECTOR_GP, 0, CODE32, 32, "xor eax, eax; mov ss, eax"
    LEGACY "beyond the table", VECTOR_GP, 0x7F8, CODE32, 32, "mov eax, 0x7FB; mov ds, eax"
    LEGACY "the local table, which is not there", VECTOR_GP, 0xC, CODE32, 32, "mov eax, 0xC; mov ds, eax"
    LEGACY "a TSS is no data", VECTOR_GP, TSS, CODE32, 32, "mov eax, TSS; mov ds, eax"
    LEGACY "MOV CS", VECTOR_UD, 0, CODE32, 32, "mov eax, CODE32; .byte 0x8E, 0xC8"
    SEGMENT SEG, area, 0xFFF, RW & ~0x80 | BYTES_32
    WITH "not present in DS", VECTOR_NP, SEG, "nop"
    WITH "not present in SS", VECTOR_SS, SEG, "nop", ss
    WITH "POP of one that is not present", VECTOR_NP, SEG, "nop", fs
    SEGMENT SEG, area, 0xFFF, RW | BYTES_32
    LEGACY "RPL 3 for a segment of DPL 0", VECTOR_GP, SEG, CODE32, 32, "mov eax, SEG | 3; mov ds, eax"
    LEGACY "SS with RPL 3 at CPL 0", VECTOR_GP, SEG, CODE32, 32, "mov eax, SEG | 3; mov ss, eax"
    LEGACY "SS with DPL 3 at CPL 0", VECTOR_GP, USER_DATA & ~3, CODE32, 32, "mov eax, USER_DATA & ~3; mov ss, eax"
    LEGACY "DPL 3 at CPL 0", NONE, 0, CODE32, 32, "mov eax, USER_DATA & ~3; mov ds, eax"
    LEGACY "DPL 0 at CPL 3", VECTOR_GP, SEG, USER32, 32, "mov eax, SEG; mov ds, eax"
    LEGACY "32-bit code at CPL 3", NONE, 0, USER32, 32, "push eax; pop ebx"
    SEGMENT SEG, area, 0xFFF, CONFORMING | BYTES_32
    LEGACY "conforming code of DPL 0 at CPL 3", NONE, 0, USER32, 32, "mov eax, SEG | 3; mov ds, eax"
    SEGMENT SEG, area, 0xFFF, (RW & ~1) | BYTES_32
    movzx eax, byte ptr [test_gdt + SEG + 5]
    EXPECT "accessed, before", RW & ~1
    WITH "loading it", NONE, 0, "nop"
    movzx eax, byte ptr [test_gdt + SEG + 5]
    EXPECT "accessed, after", RW

    # Stacks.
    SEGMENT SEG, area, 0xFFF, RW | BYTES_32
    WITH "PUSH at the end", NONE, 0, "mov esp, 0x1000; push eax", ss
    WITH "PUSH over the end", VECTOR_SS, 0, "mov esp, 0x1001; push eax", ss
    WITH "PUSH below 0", VECTOR_SS, 0, "mov esp, 2; push eax", ss
    WITH "POP over the end", VECTOR_SS, 0, "mov esp, 0xFFD; pop eax", ss
    WITH "EBP beyond the end", VECTOR_SS, 0, "mov ebp, 0xFFD; mov eax, [ebp]", ss
    WITH "ESP beyond the end", VECTOR_SS, 0, "mov esp, 0xFFD; mov eax, [esp]", ss
    WITH "DS with EBP", NONE, 0, "mov ebp, 0xFFD; mov eax, ds:[ebp]", ss
    WITH "SS by prefix", VECTOR_SS, 0, "mov ebx, 0xFFD; mov eax, ss:[ebx]", ss
    WITH "CALL over the end", VECTOR_SS, 0, "mov esp, 3; .byte 0xE8, 0, 0, 0, 0", ss
    WITH "ENTER over the end", VECTOR_SS, 0, "mov esp, 0x20; enter 0x40, 0", ss
    WITH "PUSHAD below 0", VECTOR_SS, 0, "mov esp, 0x1C; pushad", ss
    SEGMENT SEG, area, 0x7FF, RW_DOWN | BYTES_32
    WITH "expand-down: PUSH onto the limit", VECTOR_SS, 0, "mov esp, 0x803; push eax", ss
    WITH "expand-down: PUSH above it", NONE, 0, "mov esp, 0x804; push eax", ss
    # SP of 16 bits wraps within its segment.
    SEGMENT SEG, area, 0xFFFF, RW | BYTES_16
    mov dword ptr [area + 0xFFFC], 0
    WITH "PUSH with SP = 0", NONE, 0, "mov esp, 0xABCD0000; mov eax, 0x11223344; push eax; mov [user_result], esp", ss
    mov eax, [area + 0xFFFC]
    EXPECT "wraps to the segment's end", 0x11223344
    mov eax, [user_result]
    xor eax, 0xABCDFFFC
    EXPECT "and keeps the rest of ESP", 0
    WITH "PUSH over the wrap", VECTOR_SS, 0, "mov esp, 2; push eax", ss

    # 16-bit code.
    SEGMENT SEG, area, 0xFFFF, RW | BYTES_16
    WITH16 "16-bit: word at the end", NONE, 0, "mov bx, 0xFFFE; mov ax, [bx]"
    WITH16 "16-bit: word over the end", VECTOR_GP, 0, "mov bx, 0xFFFF; mov ax, [bx]"
    mov word ptr [area + 0x10], 0x5678
    WITH16 "16-bit: the offset wraps", NONE, 0, "mov bx, 0xFFF0; mov si, 0x20; mov ax, [bx + si]; mov cx, DATA; mov ds, cx; mov ebx, offset user_result; mov [ebx], ax"
    movzx eax, word ptr [user_result]
    EXPECT "to the segment's beginning", 0x5678
    WITH16 "16-bit code, 32-bit address beyond 64 KiB", VECTOR_GP, 0, "mov ebx, 0x10000; mov al, [ebx]"
    WITH16 "16-bit code, BP beyond the end", VECTOR_SS, 0, "mov bp, 0xFFFF; mov ax, [bp]", ss
    WITH16 "16-bit string source wraps", NONE, 0, "mov si, 0xFFFE; mov cx, 2; rep lodsw"
    LEGACY "16-bit code runs into its limit", VECTOR_GP, 0, CODE16, 16, "mov bx, 0xFFFF; jmp bx"
    mov word ptr [test_gdt + CODE16], 0x20
    LEGACY "jump to the limit", NONE, 0, CODE16, 16, "jmp 1f; .skip 0x1E, 0x90; 1:"
    LEGACY "near jump beyond the limit", VECTOR_GP, 0, CODE16, 16, "mov ax, 0x21; jmp ax"
    mov word ptr [test_gdt + CODE16], 0x02
    LEGACY "an instruction over the limit", VECTOR_GP, 0, CODE16, 16, "nop; mov ax, 0x1234"
    mov rax, [fault_rip]
    EXPECT "which begins here", 1
    mov word ptr [test_gdt + CODE16], 0xFFFF

    # What is left in 64-bit mode.
    SEGMENT SEG, area, 0, RO | BYTES_32
    FAULTS "64-bit: limits and types of DS, ES, SS do not count", -1, -1, "mov eax, SEG; mov ds, eax; mov es, eax; mov [scratch], al; lea rdi, [scratch]; stosd"
    mov eax, DATA
    mov ds, eax
    mov es, eax
    FAULTS "64-bit: null in DS", -1, -1, "xor eax, eax; mov ds, eax; mov al, [scratch]"
    FAULTS "64-bit: null in SS at CPL 0", -1, -1, "xor eax, eax; mov ss, eax; push rax; pop rax"
    mov eax, DATA
    mov ss, eax
    USER "64-bit: null in SS at CPL 3", VECTOR_GP, 0, "xor eax, eax; mov ss, eax"
    FAULTS "64-bit: address that is not canonical", VECTOR_GP, 0, "mov rax, 0x8000000000000000; mov al, [rax]"
    mov [saved_rsp], rbp
    FAULTS "64-bit: RBP that is not canonical", VECTOR_SS, 0, "mov rbp, 0x8000000000000000; mov al, [rbp]"
    mov rbp, [saved_rsp]
    SEGMENT SEG, area, 0, RW | BYTES_32
    mov byte ptr [area + 5], 0x5A
    FAULTS "64-bit: the base of FS counts, not its limit", -1, -1, "mov eax, SEG; mov fs, eax; mov al, fs:[5]; mov [scratch], al"
    movzx eax, byte ptr [scratch]
    EXPECT "and leads there", 0x5A
    FAULTS "64-bit: not present in FS", VECTOR_NP, SEG, "and byte ptr [test_gdt + SEG + 5], 0x7F; mov eax, SEG; mov fs, eax"
    or byte ptr [test_gdt + SEG + 5], 0x80

    # LSL, LAR, VERR, VERW: ZF says whether the selector may be seen.
    SEGMENT SEG, area, 0xABCDE, RW | PAGES_32
    mov ecx, SEG
    lsl rax, ecx
    setz bl
    mov edx, 0xABCDEFFF
    xor rax, rdx
    EXPECT "LSL of a limit in pages", 0
    movzx eax, bl
    EXPECT "LSL: ZF", 1
    mov ecx, SEG
    lar rax, ecx
    and eax, ~0xF0000               # AMD's gives the limit's part, too
    EXPECT "LAR", 0x00C09300
    call verify
    EXPECT "writable data: LAR LSL VERR VERW", 0xF
    SEGMENT SEG, area, 0xFFF, RO | BYTES_32
    call verify
    EXPECT "read-only data", 7
    SEGMENT SEG, area, 0xFFF, CODE_ONLY | BYTES_32
    call verify
    EXPECT "code that cannot be read", 3
    SEGMENT SEG, area, 0xFFF, CODE_READ | BYTES_32
    call verify
    EXPECT "readable code", 7
    SEGMENT SEG, area, 0xFFF, (RW & ~0x80) | BYTES_32
    call verify
    EXPECT "not present is no matter", 0xF
    SEGMENT SEG2, area, 0, 0
    .set system, 1
    .rept 15
    SEGMENT SEG, area, 0xFFF, 0x80 | system
    call verify
    .if system == 2 || system == 9 || system == 11
    EXPECT "a system descriptor of 64 bits with a limit", 3
    .elseif system == 12
    EXPECT "a call gate", 1
    .else
    EXPECT "another system type", 0
    .endif
    .set system, system + 1
    .endr
    xor ecx, ecx
    call verify_ecx
    EXPECT "null", 0
    mov ecx, 0x7F8
    call verify_ecx
    EXPECT "beyond the table", 0
    SEGMENT SEG, area, 0xFFF, RW | BYTES_32
    mov ecx, SEG | 3
    call verify_ecx
    EXPECT "RPL 3, DPL 0", 0
    SEGMENT SEG, area, 0xFFF, CONFORMING | BYTES_32
    mov ecx, SEG | 3
    call verify_ecx
    EXPECT "RPL 3, conforming code", 7
    LEGACY "ARPL raises", NONE, 0, CODE32, 32, "mov eax, 0x10; mov ecx, 3; arpl ax, cx; setz cl; mov [user_result], eax; mov [user_result + 4], cl"
    mov eax, [user_result]
    EXPECT "ARPL: the selector", 0x13
    movzx eax, byte ptr [user_result + 4]
    EXPECT "ARPL: ZF", 1

    # The local descriptor table.
    FAULTS "LLDT of a data segment", VECTOR_GP, SEG, "mov eax, SEG; lldt ax"
    SEGMENT SEG_LDT, ldt, 15, 0x02
    mov qword ptr [test_gdt + SEG_LDT + 8], 0
    FAULTS "LLDT, not present", VECTOR_NP, SEG_LDT, "mov eax, SEG_LDT; lldt ax"
    SEGMENT SEG_LDT, ldt, 15, 0x82
    FAULTS "LLDT with the local bit", VECTOR_GP, 0xC, "mov eax, 0xC; lldt ax"
    FAULTS "LLDT beyond the table", VECTOR_GP, 0x7F8, "mov eax, 0x7F8; lldt ax"
    USER "LLDT at CPL 3", VECTOR_GP, 0, "xor eax, eax; lldt ax"
    FAULTS "LLDT", -1, -1, "mov eax, SEG_LDT; lldt ax"
    sldt eax
    EXPECT "SLDT", SEG_LDT
    mov rax, [test_gdt + DATA]
    mov [ldt + 8], rax
    LEGACY "a segment of the local table", NONE, 0, CODE32, 32, "mov eax, 0xC; mov ds, eax; mov al, [scratch]"
    LEGACY "beyond the local table", VECTOR_GP, 0x14, CODE32, 32, "mov eax, 0x14; mov ds, eax"
    FAULTS "LLDT of null", -1, -1, "xor eax, eax; lldt ax"
    LEGACY "and it is gone", VECTOR_GP, 0xC, CODE32, 32, "mov eax, 0xC; mov ds, eax"
    SEGMENT SEG_LDT, ldt, 15, 0x82
    mov dword ptr [test_gdt + SEG_LDT + 8], 0x00008000
    FAULTS "LLDT of a base that is not canonical", VECTOR_GP, SEG_LDT, "mov eax, SEG_LDT; lldt ax"

    # The task register.
    str eax
    EXPECT "STR", TSS
    movzx eax, byte ptr [test_gdt + TSS + 5]
    EXPECT "LTR has marked the TSS as busy", 0x8B
    FAULTS "LTR of a busy TSS", VECTOR_GP, TSS, "mov eax, TSS; ltr ax"
    FAULTS "LTR of null", VECTOR_GP, 0, "xor eax, eax; ltr ax"
    and byte ptr [test_gdt + TSS + 5], 0x7D
    FAULTS "LTR, not present", VECTOR_NP, TSS, "mov eax, TSS; ltr ax"
    or byte ptr [test_gdt + TSS + 5], 0x80
    USER "LTR at CPL 3", VECTOR_GP, 0, "mov eax, TSS; ltr ax"
    FAULTS "LTR", -1, -1, "mov eax, TSS; ltr ax"
    ret

# set_descriptor(selector, base, limit, attributes)
set_descriptor:
    lea rax, [test_gdt + rdi]
    mov [rax], dx
    mov [rax + 2], si
    shr edx, 16
    shr rsi, 16
    mov [rax + 4], sil
    shr rsi, 8
    mov [rax + 7], sil
    mov [rax + 5], cl
    shr ecx, 4
    and ecx, 0xF0
    or ecx, edx
    mov [rax + 6], cl
    ret

# verify(): bit 0 LAR, 1 LSL, 2 VERR, 3 VERW of SEG.
verify:
    mov ecx, SEG
verify_ecx:
    xor edi, edi
    lar eax, ecx
    jnz 1f
    or edi, 1
1:  lsl eax, ecx
    jnz 2f
    or edi, 2
2:  verr cx
    jnz 3f
    or edi, 4
3:  verw cx
    jnz 4f
    or edi, 8
4:  mov eax, edi
    ret

.bss
saved_rsp: .skip 8
.align 16
scratch: .skip 16
ldt:    .skip 16
.align 4096
area:   .skip 65536
after:  .skip 4096
