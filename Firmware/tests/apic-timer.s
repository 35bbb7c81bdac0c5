# The local APIC in x2APIC mode: its timer (one-shot, periodic, TSC deadline), masks, the task priority, priorities among
# vectors, end of interrupt [APM2 16.4, 16.6, 16.11; SDM3 for the deadline]. In guests with encrypted state by the GHCB.

.include "runtime.inc"
.include "privilege.inc"
.include "apic.inc"
.globl guest_main

.set TIMER, 0x50
.set OTHER, 0x51
.set HIGHER, 0x61

# UNTIL count, number: sleeps until so many interrupts have come. Interrupts are on in HLT alone.
.macro UNTIL count, number
1:  cmp qword ptr [\count], \number
    jae 2f
    sti
    hlt
    cli
    jmp 1b
2:
.endm

# Lets through what is pending.
.macro WINDOW
    sti
    nop
    nop
    cli
.endm

.text
guest_main:
    lea rsi, [idt]
    lea rdi, [interrupt_table]
    mov ecx, 32 * 2
    rep movsq
    HANDLER TIMER, timer_interrupt
    HANDLER OTHER, other_interrupt
    HANDLER HIGHER, higher_interrupt
    HANDLER 0xFF, spurious_interrupt
    lidt [interrupt_table_pointer]

    READ APIC_BASE
    mov rsi, rax
    or esi, 0xC00                   # enabled, x2APIC
    mov edi, APIC_BASE
    call write_msr
    WRITE X2APIC_SPURIOUS, 0x1FF
    WRITE X2APIC_TPR, 0
    READ X2APIC_ID
    EXPECT "x2APIC id", 0
    WRITE X2APIC_DIVIDE, 0xB        # by 1

    # One-shot.
    WRITE X2APIC_TIMER, TIMER
    READ X2APIC_CURRENT
    EXPECT "current count before", 0
    WRITE X2APIC_INITIAL, 20000
    READ X2APIC_INITIAL
    EXPECT "initial count", 20000
    UNTIL timer_count, 1
    READ X2APIC_CURRENT
    EXPECT "one-shot: current count behind it", 0
    WRITE X2APIC_TIMER, OTHER
    WRITE X2APIC_INITIAL, 20000
    UNTIL other_count, 1
    mov rax, [timer_count]
    EXPECT "one-shot: once", 1

    # Periodic.
    WRITE X2APIC_TIMER, TIMER | TIMER_PERIODIC
    WRITE X2APIC_INITIAL, 20000
    UNTIL timer_count, 5
    READ X2APIC_INITIAL
    EXPECT "periodic: initial count", 20000
    WRITE X2APIC_INITIAL, 0
    WINDOW
    mov r12, [timer_count]
    WRITE X2APIC_TIMER, OTHER
    WRITE X2APIC_INITIAL, 50000
    UNTIL other_count, 2
    mov rax, [timer_count]
    sub rax, r12
    EXPECT "periodic: initial count 0 stops it", 0
    mov eax, 1
    cmp r12, 5
    setae al
    EXPECT "periodic: at least five times", 1

    # Masked: it counts, but nothing comes and nothing is kept.
    mov r12, [timer_count]
    WRITE X2APIC_TIMER, TIMER | TIMER_MASKED
    WRITE X2APIC_INITIAL, 5000
1:  READ X2APIC_CURRENT
    test eax, eax
    jnz 1b
    WINDOW
    WRITE X2APIC_TIMER, TIMER
    WINDOW
    mov rax, [timer_count]
    sub rax, r12
    EXPECT "masked: lost", 0

    # Interrupts off: kept in IRR.
    WRITE X2APIC_INITIAL, 5000
1:  READ X2APIC_IRR + 2
    test eax, 1 << (TIMER - 0x40)
    jz 1b
    READ X2APIC_CURRENT
    EXPECT "IRR: the count is over", 0
    mov rax, [timer_count]
    sub rax, r12
    EXPECT "IRR: not delivered with IF = 0", 0
    WRITE X2APIC_TPR, 0x50
    WINDOW
    mov rax, [timer_count]
    sub rax, r12
    EXPECT "IRR: not delivered with TPR of its class", 0
    WRITE X2APIC_TPR, 0x4F
    WINDOW
    mov rax, [timer_count]
    sub rax, r12
    EXPECT "IRR: delivered with TPR of the class below", 1
    READ X2APIC_IRR + 2
    EXPECT "IRR is empty", 0

    # CR8 is the class of TPR.
    mov eax, 6
    mov cr8, rax
    READ X2APIC_TPR
    EXPECT "TPR after CR8 = 6", 0x60
    WRITE X2APIC_TPR, 0x30
    mov rax, cr8
    EXPECT "CR8 after TPR = 0x30", 3
    WRITE X2APIC_TPR, 0

    # Two pending: the higher first; the lower waits for the end of the higher.
    mov qword ptr [order], 0
    WRITE X2APIC_SELF_IPI, OTHER
    WRITE X2APIC_SELF_IPI, HIGHER
    sti
    nop
    nop
    nop
    cli
    mov rax, [order]
    EXPECT "the higher vector alone", HIGHER
    READ X2APIC_ISR + 3
    EXPECT "ISR", 1 << (HIGHER - 0x60)
    READ X2APIC_IRR + 2
    EXPECT "IRR", 1 << (OTHER - 0x40)
    WRITE X2APIC_EOI, 0
    WINDOW
    mov rax, [order]
    EXPECT "then the lower", HIGHER << 8 | OTHER
    READ X2APIC_ISR + 3
    EXPECT "ISR is empty", 0

    # STI protects one instruction.
    WRITE X2APIC_SELF_IPI, OTHER
    mov qword ptr [order], 0
    sti
    mov rax, [order]
    nop
    cli
    EXPECT "no interrupt between STI and the next instruction", 0
    mov rax, [order]
    EXPECT "but behind it", OTHER

    # A vector that is sent twice before it is taken comes once.
    mov r12, [other_count]
    WRITE X2APIC_SELF_IPI, OTHER
    WRITE X2APIC_SELF_IPI, OTHER
    WINDOW
    WINDOW
    mov rax, [other_count]
    sub rax, r12
    EXPECT "sent twice", 1

    # TSC deadline, where CPUID has it.
    mov edi, 1
    mov esi, 2
    mov edx, 24
    call has_feature
    test eax, eax
    jz no_deadline
    mov r12, [timer_count]
    WRITE X2APIC_TIMER, TIMER | TIMER_DEADLINE
    rdtsc
    shl rdx, 32
    lea rsi, [rax + rdx + 30000]
    mov edi, TSC_DEADLINE
    call write_msr
    lea r13, [r12 + 1]
    UNTIL timer_count, r13
    READ TSC_DEADLINE
    EXPECT "deadline: 0 behind it", 0
    WRITE TSC_DEADLINE, 1
    lea r13, [r12 + 2]
    UNTIL timer_count, r13
    READ X2APIC_CURRENT
    EXPECT "deadline: no current count", 0
    mov rsi, 0x7FFFFFFFFFFFFFFF
    mov edi, TSC_DEADLINE
    call write_msr
    WRITE TSC_DEADLINE, 0
    WINDOW
    mov rax, [timer_count]
    sub rax, r12
    EXPECT "deadline: two in all", 2

no_deadline:
    # The APIC switched off by software masks the timer.
    WRITE X2APIC_TIMER, TIMER
    WRITE X2APIC_SPURIOUS, 0xFF
    READ X2APIC_TIMER
    and eax, TIMER_MASKED
    EXPECT "APIC off by software: timer masked", TIMER_MASKED
    WRITE X2APIC_SPURIOUS, 0x1FF
    mov rax, [spurious_count]
    EXPECT "spurious interrupts", 0
    lidt [idt_pointer]
    ret

timer_interrupt:
    inc qword ptr [timer_count]
    jmp end_of_interrupt
other_interrupt:
    inc qword ptr [other_count]
    shl qword ptr [order], 8
    or qword ptr [order], OTHER
end_of_interrupt:
    push rax
    push rcx
    push rdx
    push rdi
    push rsi
    mov edi, X2APIC_EOI
    xor esi, esi
    call write_msr
    pop rsi
    pop rdi
    pop rdx
    pop rcx
    pop rax
    iretq
higher_interrupt:                   # without its end
    shl qword ptr [order], 8
    or qword ptr [order], HIGHER
    iretq
spurious_interrupt:
    inc qword ptr [spurious_count]
    iretq

.data
interrupt_table_pointer:
    .word 256 * 16 - 1
    .quad interrupt_table

.bss
timer_count: .skip 8
other_count: .skip 8
spurious_count: .skip 8
order:      .skip 8
.align 16
interrupt_table: .skip 256 * 16
