# A Multiboot image that goes through every mode of the processor and uses the bare machine's parts: real mode and its
# vector table, 32-bit code with PAE paging, long mode, compatibility mode and back, an interrupt of the timer through the
# PIC, memory that is a device, the configuration interface. Prints "ok NAME" or "BAD NAME", the command line and the
# first module; exit status 1 when all is well, 3 when not.

.set BASE, 0x100000
.set CODE32, 0x08
.set DATA32, 0x10
.set CODE64, 0x18
.set CODE16, 0x20
.set DATA16, 0x28

.text
.code32
header:
    .long 0x1badb002, 0x10000, -(0x1badb002 + 0x10000)
    .long BASE, BASE, 0, 0x140000, _start

.globl _start
_start:
    mov $0x130000, %esp
    mov %ebx, information
    cmp $0x2badb002, %eax
    mov $name_magic, %esi
    call verdict
    mov information, %ebx
    mov 16(%ebx), %esi
    call puts
    call newline
    cmpl $0, 20(%ebx)
    je 1f
    mov 24(%ebx), %esi
    mov (%esi), %esi
    call puts
    call newline
1:  lgdt gdtr
    ljmp $CODE32, $2f
2:  mov $DATA32, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss

    # The configuration interface: one processor.
    mov $0x510, %edx
    mov $5, %eax
    out %ax, %dx
    inc %edx
    in %dx, %al
    cmp $1, %al
    mov $name_fwcfg, %esi
    call verdict

    # Memory that is a device, by string instructions.
    mov $0xff000000, %edi
    mov $0x11223344, %eax
    mov $4, %ecx
    rep stosl
    mov $0xff000004, %esi
    mov $0x120000, %edi
    mov $2, %ecx
    rep movsl
    cmpl $0x11223344, 0x120004
    mov $name_mmio, %esi
    call verdict

    # Real mode: the code is copied below 64 KiB, takes a software interrupt through the vector table, and returns.
    mov $real, %esi
    mov $0x8000, %edi
    mov $real_end - real, %ecx
    rep movsb
    ljmp $CODE16, $0x8000
back:
    mov $DATA32, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov $0x130000, %esp
    cmpw $0x1235, 0x9000
    mov $name_real, %esi
    call verdict

    # The timer through the PIC, with a 32-bit interrupt gate.
    lidt idtr
    mov $0x11, %al
    out %al, $0x20
    out %al, $0xa0
    mov $0x20, %al
    out %al, $0x21
    mov $0x28, %al
    out %al, $0xa1
    mov $4, %al
    out %al, $0x21
    mov $2, %al
    out %al, $0xa1
    mov $1, %al
    out %al, $0x21
    out %al, $0xa1
    mov $0xfe, %al
    out %al, $0x21
    mov $0xff, %al
    out %al, $0xa1
    mov $0x34, %al
    out %al, $0x43
    mov $0x00, %al
    out %al, $0x40
    mov $0x10, %al
    out %al, $0x40
    sti
3:  cmpl $3, ticks
    jae 4f
    hlt
    jmp 3b
4:  cli
    mov $0xff, %al
    out %al, $0x21
    cmp %al, %al
    mov $name_timer, %esi
    call verdict

    # PAE paging: the first gigabyte by 2 MiB pages, and 3 MiB of it moved by 2 MiB.
    mov $directory, %edi
    mov $0x83, %eax
    xor %ecx, %ecx
5:  mov %eax, (%edi, %ecx, 8)
    movl $0, 4(%edi, %ecx, 8)
    add $0x200000, %eax
    inc %ecx
    cmp $512, %ecx
    jb 5b
    movl $0x83, directory + 4 * 8
    movl $directory + 1, pointers
    movl $0, pointers + 4
    mov $0x20, %eax
    mov %eax, %cr4
    mov $pointers, %eax
    mov %eax, %cr3
    mov %cr0, %eax
    or $0x80000000, %eax
    mov %eax, %cr0
    mov 0x800000 + BASE, %eax
    cmp BASE, %eax
    mov $name_pae, %esi
    call verdict
    mov %cr0, %eax
    and $0x7fffffff, %eax
    mov %eax, %cr0

    # Long mode.
    movl $pointers + 3, top
    movl $0, top + 4
    movl $directory + 3, pointers
    mov $top, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx
    rdmsr
    or $0x100, %eax
    wrmsr
    mov %cr0, %eax
    or $0x80000000, %eax
    mov %eax, %cr0
    # Compatibility mode now.
    mov $0xc0000080, %ecx
    rdmsr
    and $0x500, %eax
    cmp $0x500, %eax
    mov $name_compatibility, %esi
    call verdict
    ljmp $CODE64, $long
after:
    mov $name_return, %esi
    cmpl $0x55667788, 0x120010
    call verdict
    # And out of it again.
    mov %cr0, %eax
    and $0x7fffffff, %eax
    mov %eax, %cr0
    mov $0xc0000080, %ecx
    rdmsr
    test $0x400, %eax
    mov $name_left, %esi
    call verdict
    mov failures, %eax
    out %eax, $0xf4
6:  hlt
    jmp 6b

.code64
long:
    movabs $0x1122334455667788, %rax
    mov %rax, %r15
    mov %r15d, 0x120010
    pushq $CODE32
    pushq $after
    lretq

.code32
# ZF: the check passed. ESI: its name.
verdict:
    jz 1f
    movl $1, failures
    push %esi
    mov $bad, %esi
    call puts
    pop %esi
    jmp 2f
1:  push %esi
    mov $ok, %esi
    call puts
    pop %esi
2:  call puts
newline:
    mov $line, %esi
puts:
    push %eax
    push %edx
1:  lodsb
    test %al, %al
    jz 3f
    mov %al, %ah
    mov $0x3fd, %edx
2:  in %dx, %al
    test $0x20, %al
    jz 2b
    mov $0x3f8, %edx
    mov %ah, %al
    out %al, %dx
    jmp 1b
3:  pop %edx
    pop %eax
    ret

tick:
    push %eax
    incl ticks
    mov $0x20, %al
    out %al, $0x20
    pop %eax
    iret

.code16
.balign 16
real:
    mov $DATA16, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov %cr0, %eax
    and $0xfe, %al
    mov %eax, %cr0
    ljmp $0, $0x8000 + (in_real - real)
in_real:
    xor %ax, %ax
    mov %ax, %ds
    mov %ax, %ss
    mov $0x7000, %sp
    lidt 0x8000 + (real_idt - real)
    movw $0x8000 + (service - real), 0x21 * 4
    movw $0, 0x21 * 4 + 2
    mov $0x1234, %ax
    int $0x21
    mov %ax, 0x9000
    mov %cr0, %eax
    or $1, %al
    mov %eax, %cr0
    ljmpl $CODE32, $back
service:
    inc %ax
    iret
real_idt:
    .word 0x3ff
    .long 0
real_end:

.balign 8
gdt:
    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00af9b000000ffff, 0x00009b000000ffff, 0x000093000000ffff
gdtr:
    .word gdtr - gdt - 1
    .long gdt
idt:
    .fill 32, 8, 0
    # The image lies below 16 MiB and its code in one 64 KiB block.
    .word tick - header, CODE32, 0x8e00, BASE >> 16
idtr:
    .word idtr - idt - 1
    .long idt
information: .long 0
ticks: .long 0
failures: .long 0
ok: .asciz "ok  "
bad: .asciz "BAD "
line: .asciz "\n"
name_magic: .asciz "multiboot-entry"
name_fwcfg: .asciz "processor-count"
name_mmio: .asciz "string-mmio"
name_real: .asciz "real-mode-interrupt"
name_timer: .asciz "timer-through-pic"
name_pae: .asciz "pae-paging"
name_compatibility: .asciz "compatibility-mode"
name_return: .asciz "long-mode-and-back"
name_left: .asciz "long-mode-left"
.balign 4096
top: .fill 4096
pointers: .fill 4096
directory: .fill 4096
