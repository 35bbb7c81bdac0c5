# A ROM of 4 KiB that ends at 4 GiB: starts at the reset vector, 16-bit, CS base 0xFFFF0000. Writes "reset" to the debug
# console, checks 4 GiB segments in real mode and protected mode, and ends with exit status 1, or 3.

.text
.code16
.globl _start
# Linked at the offset in the code segment: 0xF000 to 0xFFFF.
_start:
    cli
    mov $text, %si
    mov $0xe9, %dx
1:  cs lodsb
    test %al, %al
    jz 2f
    out %al, %dx
    jmp 1b

    # A segment of 4 GiB, kept through the return to real mode.
2:  lgdtl %cs:gdtr
    mov %cr0, %eax
    or $1, %al
    mov %eax, %cr0
    jmp 3f
3:  mov $0x10, %bx
    mov %bx, %ds
    and $0xfe, %al
    mov %eax, %cr0
    jmp 4f
4:  xor %bx, %bx
    mov %bx, %ds
    # The ROM's own last bytes, and memory above 1 MiB.
    mov $0xfffffff0, %ebx
    cmpb $0xe9, (%ebx)
    jne bad
    mov $0x200000, %ebx
    movl $0x600d600d, (%ebx)
    cmpl $0x600d600d, (%ebx)
    jne bad

    mov %cr0, %eax
    or $1, %al
    mov %eax, %cr0
    ljmpl $8, $0xffff0000 + protected
bad:
    mov $1, %ax
    out %ax, $0xf4
    hlt

.code32
protected:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %ss
    mov $0x300000, %esp
    push $0x200000
    pop %ebx
    cmpl $0x600d600d, (%ebx)
    setne %al
    movzbl %al, %eax
    out %eax, $0xf4
    hlt

text: .asciz "reset\n"
.balign 8
gdt: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdtr: .word 23
    .long 0xffff0000 + gdt

.org 0xff0
.code16
    jmp _start
.org 0x1000
