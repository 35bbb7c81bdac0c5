# Several vCPUs of a plain or SEV guest: INIT and SIPI, fixed interrupts to one and to all others, NMIs and their masking
# until IRET, TLB shoot-down, cross-modified code, atomic operations [APM2 16.5, 7.3, 8.2.3]. Needs two vCPUs at least.

.include "runtime.inc"
.include "privilege.inc"
.include "apic.inc"
.globl guest_main

.set PLACE, 0x70000                 # where the others begin, in real mode
.set PING, 0x50
.set FLUSH, 0x51
.set ROUNDS, 20000
.set QUIET, 20                      # looks in a row

.set TO_OTHERS, 3 << 18
.set NMI, 4 << 8
.set INIT, 5 << 8 | 1 << 14
.set STARTUP, 6 << 8 | 1 << 14

# SEND what: low half of ICR, to all others.
.macro SEND what
    WRITE X2APIC_ICR, \what
.endm
# ALL count: until every other vCPU has added to it.
.macro ALL count
1:  pause
    mov eax, [others]
    cmp [\count], eax
    jb 1b
    mov dword ptr [\count], 0
.endm

.text
guest_main:
    test byte ptr [sev_status], SEV_STATUS_ES
    jz 1f
    PRINT "ok  INIT and SIPI do not reach guests with encrypted state"
    ret
1:  lea rsi, [idt]
    lea rdi, [interrupt_table]
    mov ecx, 32 * 2
    rep movsq
    HANDLER 2, non_maskable
    HANDLER PING, ping_interrupt
    HANDLER FLUSH, flush_interrupt
    lidt [interrupt_table_pointer]
    call enable_apic

    # How many there are: leaf 1 EBX 23:16.
    mov eax, 1
    xor ecx, ecx
    cpuid
    shr ebx, 16
    movzx eax, bl
    cmp eax, 1
    ja 1f
    mov eax, 1
1:  mov [expected], eax
    mov eax, 1
    cmp dword ptr [expected], 2
    setae al
    EXPECT "two vCPUs at least", 1

    lea rsi, [trampoline]
    mov edi, PLACE
    mov ecx, offset trampoline_size
    rep movsb
    mov rax, cr3
    mov [PLACE + trampoline_cr3], rax
    SEND TO_OTHERS | INIT
    SEND TO_OTHERS | STARTUP | PLACE >> 12
    mov r12d, [expected]
    dec r12d
1:  pause
    cmp [arrived], r12d
    jb 1b
    mov [others], r12d
    mov eax, [arrived]
    sub eax, r12d
    EXPECT "INIT, SIPI: all have come", 0
    SEND TO_OTHERS | STARTUP | PLACE >> 12
    mov eax, [real_mode_flags]
    EXPECT "at PLACE:0000, interrupts off, protection off", 0

    # Fixed interrupts.
    mov dword ptr [phase], 1
    SEND TO_OTHERS | PING
    ALL pings
    mov rax, (1 << 32) | PING       # to APIC id 1
    mov rsi, rax
    mov edi, X2APIC_ICR
    call write_msr
1:  pause
    cmp dword ptr [pings], 1
    jb 1b
    mov eax, [last_ping]
    EXPECT "to one: its APIC id", 1
    mov eax, [pings]
    EXPECT "to one: nobody else", 1
    mov dword ptr [pings], 0
    WRITE X2APIC_SELF_IPI, PING
    sti
    nop
    nop
    cli
    mov eax, [pings]
    EXPECT "to itself", 1
    mov eax, [last_ping]
    EXPECT "its own APIC id", 0
    mov dword ptr [pings], 0
    SEND TO_OTHERS | PING           # they have slept in HLT, and do so again
    ALL pings

    # NMI: not masked by IF, masked by itself until IRET.
    SEND TO_OTHERS | NMI
    ALL nmis
    mov eax, [nmi_depth_seen]
    EXPECT "NMI, with another one sent within its handler: depth", 1
    mov eax, [nmi_total]
    sub eax, [others]
    sub eax, [others]
    EXPECT "and that one came after IRET", 0

    # TLB shoot-down: the others read a page until it is taken away. A processor may forget a translation at any time, so
    # #PF may come before FLUSH does; behind FLUSH it has to come.
    HANDLER 14, page_fault
    mov dword ptr [phase], 2
    SEND TO_OTHERS | PING           # out of HLT
    ALL pings
    ALL reading
    lea rdi, [victim]
    call pte_of
    and dword ptr [rax], ~1
    invlpg [victim]
    SEND TO_OTHERS | FLUSH
    ALL flushed
    ALL faulted
    mov eax, [fault_codes]
    EXPECT "each read the page until #PF 0", 0
    lea rdi, [victim]
    call pte_of
    or dword ptr [rax], 1

    # Cross-modified code.
    mov dword ptr [phase], 3
    ALL executed
    mov eax, [executed_value]
    EXPECT "code before the change", 0x1111
    mov dword ptr [changed + 1], 0x2222
    mov dword ptr [phase], 4
    ALL executed
    mov eax, [executed_value]
    EXPECT "and behind it, with a serializing instruction", 0x2222

    # All at once.
    mov dword ptr [phase], 5
    call work
    ALL worked
    mov eax, [others]
    inc eax
    imul rax, rax, ROUNDS
    mov r12, rax
    mov rax, [counter]
    sub rax, r12
    EXPECT "LOCK INC by all", 0
    mov rax, [guarded]
    sub rax, r12
    EXPECT "INC behind a spin lock, by all", 0
    mov rax, [exchanged]
    sub rax, r12
    EXPECT "LOCK CMPXCHG by all", 0
    mov rax, [pair]
    sub rax, r12
    EXPECT "LOCK CMPXCHG16B by all", 0
    mov rax, [pair + 8]
    sub rax, r12
    EXPECT "both halves", 0

    # INIT stops them; one that the host does not run at the moment notices later, so they have to be quiet for a while.
    SEND TO_OTHERS | INIT
    mov r12d, QUIET
    mov r14d, 1000
1:  mov r13, [heartbeat]
    mov ecx, 100000
2:  pause
    loop 2b
    dec r12d
    cmp r13, [heartbeat]
    je 3f
    mov r12d, QUIET
    dec r14d
    jz 4f
3:  test r12d, r12d
    jnz 1b
4:  mov rax, r12
    EXPECT "INIT: they do nothing more", 0
    lidt [idt_pointer]
    ret

enable_apic:
    READ APIC_BASE
    mov rsi, rax
    or esi, 0xC00
    mov edi, APIC_BASE
    call write_msr
    WRITE X2APIC_SPURIOUS, 0x1FF
    WRITE X2APIC_TPR, 0
    ret

work:
    mov ecx, ROUNDS
1:  lock inc qword ptr [counter]
2:  mov eax, 1
    xchg [spinlock], eax
    test eax, eax
    jz 3f
    pause
    jmp 2b
3:  inc qword ptr [guarded]
    mov dword ptr [spinlock], 0
    mov rax, [exchanged]
4:  lea rdx, [rax + 1]
    lock cmpxchg [exchanged], rdx
    jnz 4b
    push rcx
    mov rax, [pair]
    mov rdx, [pair + 8]
5:  lea rbx, [rax + 1]
    lea rcx, [rdx + 1]
    lock cmpxchg16b [pair]
    jnz 5b
    pop rcx
    loop 1b
    ret

# The others, in 64-bit code with a stack of their own.
others_begin:
    lidt [interrupt_table_pointer]
    call enable_apic
    lock inc dword ptr [arrived]
1:  sti
    hlt
    cli
    cmp dword ptr [phase], 2
    jb 1b
    # An interrupt ends each sleep; from phase 2 on they are awake.
    mov rsi, offset victim
    lock inc dword ptr [reading]
    sti
2:  mov eax, [rsi]
    jmp 2b
victim_is_gone:                     # by the handler of #PF; interrupts stay on for FLUSH
    lock inc dword ptr [faulted]
3:  pause
    cmp dword ptr [phase], 3
    jb 3b
    cli
    call changed
    mov [executed_value], eax
    lock inc dword ptr [executed]
4:  pause
    cmp dword ptr [phase], 4
    jb 4b
    xor eax, eax
    cpuid
    call changed
    mov [executed_value], eax
    lock inc dword ptr [executed]
5:  pause
    cmp dword ptr [phase], 5
    jb 5b
    call work
    lock inc dword ptr [worked]
6:  inc qword ptr [heartbeat]
    pause
    jmp 6b

ping_interrupt:
    push rax
    push rcx
    push rdx
    push rdi
    push rsi
    READ X2APIC_ID
    mov [last_ping], eax
    lock inc dword ptr [pings]
interrupt_ends:
    WRITE X2APIC_EOI, 0
    pop rsi
    pop rdi
    pop rdx
    pop rcx
    pop rax
    iretq
flush_interrupt:
    push rax
    push rcx
    push rdx
    push rdi
    push rsi
    mov rax, cr3
    mov cr3, rax
    lock inc dword ptr [flushed]
    jmp interrupt_ends
page_fault:
    pop rax
    lock or [fault_codes], eax
    mov qword ptr [rsp], offset victim_is_gone
    iretq

# Sends itself one more, the first time; that one must not come before this one's IRET.
non_maskable:
    push rax
    push rbx
    push rcx
    push rdx
    push rdi
    push rsi
    READ X2APIC_ID
    mov ebx, eax
    inc dword ptr [nmi_depth + rbx * 4]
    lock inc dword ptr [nmi_total]
    mov eax, [nmi_depth + rbx * 4]
    lock or [nmi_depth_seen], eax   # 1, or more than 1 when they nested
    lock bts dword ptr [nmi_again], ebx
    jc 2f
    mov rsi, rbx
    shl rsi, 32
    or rsi, NMI
    mov edi, X2APIC_ICR
    call write_msr
    mov ecx, 1000
3:  pause
    loop 3b
    jmp 4f
2:  lock inc dword ptr [nmis]
4:  dec dword ptr [nmi_depth + rbx * 4]
    pop rsi
    pop rdi
    pop rdx
    pop rcx
    pop rbx
    pop rax
    iretq

.align 4096
changed:
    mov eax, 0x1111
    ret
.align 4096

# Real mode, at PLACE:0000.
.section .rodata
.align 16
trampoline:
.code16
    mov ax, cs
    mov ds, ax
    mov eax, cr0
    and eax, 1
    mov [seen_offset], eax
    lgdt [gdt_offset]
    mov eax, cr4
    or eax, 0x20
    mov cr4, eax
    mov eax, [trampoline_cr3]
    mov cr3, eax
    mov ecx, 0xC0000080
    rdmsr
    or eax, 0x100
    wrmsr
    mov eax, 0x80010031
    mov cr0, eax
    .byte 0x66, 0xEA                # JMP FAR CODE64:in_long_mode
    .long PLACE + in_long_mode - trampoline
    .word 8
.code64
in_long_mode:
    mov eax, 16
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov eax, 1
    xor ecx, ecx
    cpuid
    shr ebx, 24                     # the initial APIC id
    inc ebx
    shl ebx, 12
    lea rsp, [stacks + rbx]
    mov eax, [PLACE + seen_offset]
    lock or [real_mode_flags], eax
    lea rax, [others_begin]
    jmp rax
.align 8
trampoline_gdt:
    .quad 0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF
trampoline_gdt_pointer:
    .word 23
    .long PLACE + trampoline_gdt - trampoline
.align 8
.set trampoline_cr3, . - trampoline
    .quad 0
trampoline_seen:
    .long 0
.set trampoline_size, . - trampoline
.set seen_offset, trampoline_seen - trampoline
.set gdt_offset, trampoline_gdt_pointer - trampoline

.data
interrupt_table_pointer:
    .word 256 * 16 - 1
    .quad interrupt_table

.bss
expected:   .skip 4
arrived:    .skip 4
others:     .skip 4
phase:      .skip 4
real_mode_flags: .skip 4
pings:      .skip 4
last_ping:  .skip 4
nmis:       .skip 4
nmi_total:  .skip 4
nmi_again:  .skip 4
nmi_depth:  .skip 32 * 4
nmi_depth_seen: .skip 4
reading:    .skip 4
flushed:    .skip 4
faulted:    .skip 4
fault_codes: .skip 4
executed:   .skip 4
executed_value: .skip 4
worked:     .skip 4
spinlock:   .skip 4
.align 16
counter:    .skip 8
guarded:    .skip 8
exchanged:  .skip 8
heartbeat:  .skip 8
pair:       .skip 16
interrupt_table: .skip 256 * 16
.align 4096
victim:     .skip 4096
stacks:     .skip 9 * 4096
