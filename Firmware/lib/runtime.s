# The ground under the test guests: entered in 64-bit mode by the launch plan, RSI = boot_params, paging on, everything
# private. Builds its own page tables, GDT and IDT, shares one page for the GHCB, and calls `guest_main`.
#
# Runs in SEV-ES guests, where sharing a page is the C-bit's matter alone, and in SEV and plain guests, where there is no
# GHCB and ports are used directly.
#
# Functions take RDI, RSI, RDX and return RAX; they change RAX, RCX and RDX only.

.include "runtime.inc"

.globl _start, guest_main, print, print_hex, expect, finish, power_off, terminate, serial_byte
.globl msr_protocol, ghcb_begin, ghcb_call, mmio_write_byte, pte_of, set_encrypted, validate, page_state
.globl ghcb, boot_params, c_mask, sev_status, fault_vector, fault_error, fault_address, fault_rip, recovery, idt_pointer
.globl fault_cs, fault_flags, fault_rsp, fault_dr6, fault_count, recovery_stack, idt, exception_stubs

.section .text.start, "ax"
_start:
    cli
    cld
    lea rsp, [stack_top]
    mov [boot_params], rsi

    # The C-bit is the one address bit of CR3 above all of memory.
    mov rax, cr3
    mov rcx, 0x000FFF0000000000
    and rax, rcx
    mov [c_mask], rax
    mov r15, rax
    test rax, rax
    jz 0f
    mov ecx, MSR_SEV_STATUS         # only where there is a C-bit; never intercepted
    rdmsr
    mov [sev_status], eax
0:

    # pml4[0] → pdpt; pdpt[0] → first GiB, private; pdpt[3] → fourth GiB, devices, not private.
    lea rax, [pdpt + 3]
    or rax, r15
    mov [pml4], rax
    lea rax, [pd_memory + 3]
    or rax, r15
    mov [pdpt], rax
    lea rax, [pd_devices + 3]
    or rax, r15
    mov [pdpt + 3 * 8], rax

    xor ecx, ecx
1:  mov rax, rcx                    # 2 MiB leaves: present, writable, large
    shl rax, 21
    lea rdx, [rax + 0x83]
    or rdx, r15
    mov [pd_memory + rcx * 8], rdx
    mov edx, 0xC0000083
    add rdx, rax
    mov [pd_devices + rcx * 8], rdx
    shr rax, 9                      # 4 KiB leaves of our own 2 MiB block
    add rax, 0x200003
    or rax, r15
    mov [pt_image + rcx * 8], rax
    inc ecx
    cmp ecx, 512
    jb 1b
    lea rax, [pt_image + 3]
    or rax, r15
    mov [pd_memory + 8], rax

    lea rax, [pml4]
    or rax, r15
    mov cr3, rax
    mov rax, cr0
    or eax, 1 << 16                 # WP: write protection holds in supervisor mode
    mov cr0, rax

    lgdt [gdt_pointer]
    push 8
    lea rax, [2f]
    push rax
    retfq
2:  mov eax, 16
    mov ds, eax
    mov es, eax
    mov ss, eax

    # An interrupt gate for each of the 32 exceptions.
    lea rax, [exception_stubs]
    lea rdi, [idt]
    mov ecx, 32
3:  mov [rdi], ax
    mov word ptr [rdi + 2], 8
    mov word ptr [rdi + 4], 0x8E00
    mov rdx, rax
    shr rdx, 16
    mov [rdi + 6], dx
    mov qword ptr [rdi + 8], 0      # below 4 GiB
    add rdi, 16
    add rax, 16
    dec ecx
    jnz 3b
    lidt [idt_pointer]

    test byte ptr [sev_status], SEV_STATUS_ES
    jz 4f
    call ghcb_setup
4:  call guest_main
    jmp finish

.text

# Shares the GHCB page: rescind, ask the hypervisor, register it, and only then map it without C. Before SNP the last
# step is all.
ghcb_setup:
    test byte ptr [sev_status], SEV_STATUS_SNP
    jz 1f
    lea rdi, [ghcb]
    xor esi, esi
    call validate
    jc setup_failed
    test eax, eax
    jnz setup_failed
    lea rdi, [ghcb]
    mov esi, PAGE_SHARED
    call page_state
    test rax, rax
    jnz setup_failed
    lea rdi, [ghcb + MSR_REGISTER_GHCB]
    call msr_protocol
    lea rdx, [ghcb + MSR_REGISTER_GHCB + 1]
    cmp rax, rdx
    jne setup_failed
1:  lea rdi, [ghcb]
    xor esi, esi
    call set_encrypted
    push rdi
    lea rdi, [ghcb]
    mov ecx, 512
    xor eax, eax
    rep stosq
    pop rdi
    ret
setup_failed:
    xor edi, edi
    xor esi, esi
    jmp terminate

# msr_protocol(request) → response [GHCB 2.3.1].
msr_protocol:
    mov rax, rdi
    mov rdx, rdi
    shr rdx, 32
    mov ecx, MSR_GHCB
    wrmsr
    vmgexit_
    mov ecx, MSR_GHCB
    rdmsr
    shl rdx, 32
    or rax, rdx
    ret

# validate(address, 1 or 0) → EAX = PVALIDATE's code, CF = nothing changed. 4 KiB.
validate:
    mov rax, rdi
    xor ecx, ecx
    mov edx, esi
    pvalidate_
    ret

# page_state(gpa, operation) → 0, or what the hypervisor answered.
page_state:
    push rdi
    mov rax, rsi
    shl rax, 52
    or rdi, rax
    or rdi, MSR_PAGE_STATE
    call msr_protocol
    pop rdi
    xor rax, MSR_PAGE_STATE + 1
    ret

# pte_of(address in the image's block) → address of its page-table entry.
pte_of:
    mov rax, rdi
    shr rax, 12
    and eax, 511
    lea rax, [pt_image + rax * 8]
    ret

# set_encrypted(address, 1 or 0): the C-bit of one page's mapping.
set_encrypted:
    call pte_of
    mov rdx, [c_mask]
    or [rax], rdx
    test esi, esi
    jnz 1f
    xor [rax], rdx
1:  invlpg [rdi]
    ret

# ghcb_begin(): no field is valid.
ghcb_begin:
    mov qword ptr [ghcb + GHCB_BITMAP], 0
    mov qword ptr [ghcb + GHCB_BITMAP + 8], 0
    mov word ptr [ghcb + GHCB_VERSION], 2
    mov dword ptr [ghcb + GHCB_USAGE], 0
    ret

# ghcb_call(exit code, info 1, info 2) → RAX low half of info 1: 0 done, 1 exception, 2 malformed; RDX info 2. Printing
# uses the GHCB too, so callers keep what they need of it first.
ghcb_call:
    mov [ghcb + GHCB_CODE], rdi
    mov [ghcb + GHCB_INFO1], rsi
    mov [ghcb + GHCB_INFO2], rdx
    GHCB_VALID GHCB_CODE
    GHCB_VALID GHCB_INFO1
    GHCB_VALID GHCB_INFO2
    lea rax, [ghcb]
    xor edx, edx
    mov ecx, MSR_GHCB
    wrmsr
    vmgexit_
    mov eax, [ghcb + GHCB_INFO1]
    mov rdx, [ghcb + GHCB_INFO2]
    ret

# serial_byte(byte)
serial_byte:
    test byte ptr [sev_status], SEV_STATUS_ES
    jnz 1f
    mov eax, edi
    mov edx, COM1
    out dx, al
    ret
1:  push rdi
    push rsi
    call ghcb_begin
    movzx edi, dil
    mov [ghcb + GHCB_RAX], rdi
    GHCB_VALID GHCB_RAX
    mov edi, EXIT_IOIO
    mov esi, (COM1 << 16) | (1 << 9) | (1 << 4)     # 64-bit address, 8-bit data, OUT
    xor edx, edx
    call ghcb_call
    pop rsi
    pop rdi
    ret

# print(zero-terminated text); a line feed goes out as CR LF.
print:
    push rdi
    push rbx
    mov rbx, rdi
1:  movzx edi, byte ptr [rbx]
    test edi, edi
    jz 3f
    cmp edi, 10
    jne 2f
    mov edi, 13
    call serial_byte
    mov edi, 10
2:  call serial_byte
    inc rbx
    jmp 1b
3:  pop rbx
    pop rdi
    ret

# print_hex(number): "0x" and its digits without leading zeros.
print_hex:
    push rdi
    push rbx
    push r12
    mov rbx, rdi
    lea rdi, [text_0x]
    call print
    mov r12d, 60
1:  mov rax, rbx                    # skip leading zeros, but not the last digit
    mov ecx, r12d
    shr rax, cl
    jnz 2f
    sub r12d, 4
    jnz 1b
2:  mov rdi, rbx
    mov ecx, r12d
    shr rdi, cl
    and edi, 15
    movzx edi, byte ptr [digits + rdi]
    call serial_byte
    sub r12d, 4
    jns 2b
    pop r12
    pop rbx
    pop rdi
    ret

# expect(name, got, wanted): prints "ok name value" or "BAD name got … wanted …" and counts the failures.
expect:
    push rdi
    push rbx
    push rdx
    push rsi
    mov rbx, rdi
    lea rdi, [text_ok]
    cmp rsi, rdx
    je 1f
    inc dword ptr [failures]
    lea rdi, [text_bad]
1:  call print
    mov rdi, rbx
    call print
    lea rdi, [text_space]
    call print
    mov rdi, [rsp]
    call print_hex
    mov rsi, [rsp]
    mov rdx, [rsp + 8]
    cmp rsi, rdx
    je 2f
    lea rdi, [text_wanted]
    call print
    mov rdi, [rsp + 8]
    call print_hex
2:  lea rdi, [text_newline]
    call print
    pop rsi
    pop rdx
    pop rbx
    pop rdi
    ret

# finish(): "PASS" and power-off, or "FAIL" and the end of the guest.
finish:
    cmp dword ptr [failures], 0
    jne 1f
    lea rdi, [text_pass]
    call print
    jmp power_off
1:  lea rdi, [text_fail]
    call print
    xor edi, edi
    xor esi, esi
    # falls through

# terminate(reason set, reason code): the GHCB termination request; a triple fault in guests without one.
terminate:
    test byte ptr [sev_status], SEV_STATUS_ES
    jz triple_fault
    shl edi, 12
    shl esi, 16
    or edi, esi
    or edi, MSR_TERMINATE
    call msr_protocol
1:  hlt
    jmp 1b
triple_fault:
    lidt [no_idt]
    int3

# power_off(): ACPI S5 by the sleep control register of the FADT [ACPI 4.8.3.7]: RSDP → XSDT → FADT, value from \_S5.
power_off:
    mov rax, [boot_params]
    mov rax, [rax + 0x70]           # acpi_rsdp_addr
    test rax, rax
    jz no_acpi
    mov rbx, [rax + 24]             # XSDT
    mov ecx, [rbx + 4]              # its length
    add rcx, rbx
    add rbx, 36
1:  cmp rbx, rcx
    jae no_acpi
    mov rax, [rbx]
    add rbx, 8
    cmp dword ptr [rax], 0x50434146 # "FACP"
    jne 1b
    mov r12, [rax + 248]            # SLEEP_CONTROL_REG's address; space id at 244
    movzx r13d, byte ptr [rax + 244]
    mov rbx, [rax + 140]            # X_DSDT
    mov ecx, [rbx + 4]
    add rcx, rbx
    xor esi, esi                    # SLP_TYP 0 unless \_S5 says more
2:  inc rbx
    cmp rbx, rcx
    jae 3f
    cmp dword ptr [rbx], 0x5F35535F # "_S5_", then package 0x12, length, count, first element
    jne 2b
    movzx esi, byte ptr [rbx + 7]
    cmp esi, 0x0A                   # BytePrefix; else the constant 0 or 1 itself
    jne 3f
    movzx esi, byte ptr [rbx + 8]
3:  shl esi, 2
    or esi, 0x20                    # SLP_EN
    cmp r13d, 1
    je 4f
    mov rdi, r12
    call mmio_write_byte
    jmp 5f
4:  mov edi, r12d
    call port_write_byte
5:  hlt
    jmp 5b
no_acpi:
    lea rdi, [text_no_acpi]
    call print
    xor edi, edi
    xor esi, esi
    jmp terminate

# mmio_write_byte(gpa, byte)
mmio_write_byte:
    test byte ptr [sev_status], SEV_STATUS_ES
    jnz 1f
    mov [rdi], sil
    ret
1:  push rdi
    push rsi
    call ghcb_begin
    mov [ghcb + GHCB_BUFFER], sil
    lea rax, [ghcb + GHCB_BUFFER]
    mov [ghcb + GHCB_SCRATCH], rax
    GHCB_VALID GHCB_SCRATCH
    mov rsi, rdi
    mov edi, EXIT_MMIO_WRITE
    mov edx, 1
    call ghcb_call
    pop rsi
    pop rdi
    ret

# port_write_byte(port, byte)
port_write_byte:
    test byte ptr [sev_status], SEV_STATUS_ES
    jnz 1f
    mov edx, edi
    mov eax, esi
    out dx, al
    ret
1:  push rdi
    push rsi
    call ghcb_begin
    movzx eax, sil
    mov [ghcb + GHCB_RAX], rax
    GHCB_VALID GHCB_RAX
    mov esi, edi
    shl esi, 16
    or esi, (1 << 9) | (1 << 4)
    mov edi, EXIT_IOIO
    xor edx, edx
    call ghcb_call
    pop rsi
    pop rdi
    ret

# Exceptions: note what happened; go on at `recovery` if a check waits there, else report and end. With a
# `recovery_stack` that is at CPL 0 in 64-bit code, on this stack.
.align 16
exception_stubs:
.set vector, 0
.rept 32
    .align 16
    .if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30)
    .byte 0x6A, 0                   # push 0
    .endif
    .byte 0x6A, vector              # push vector
    jmp exception
    .set vector, vector + 1
.endr
.align 16

# Stack: RAX, vector, error code, RIP, CS, RFLAGS, RSP, SS.
exception:
    push rax
    mov rax, [rsp + 8]
    mov [fault_vector], rax
    mov rax, [rsp + 16]
    mov [fault_error], rax
    mov rax, [rsp + 24]
    mov [fault_rip], rax
    mov rax, [rsp + 32]
    mov [fault_cs], rax
    mov rax, [rsp + 40]
    mov [fault_flags], rax
    mov rax, [rsp + 48]
    mov [fault_rsp], rax
    mov rax, cr2
    mov [fault_address], rax
    mov rax, dr6
    mov [fault_dr6], rax
    inc qword ptr [fault_count]
    mov rax, [recovery]
    test rax, rax
    jz 1f
    mov [rsp + 24], rax
    mov rax, [recovery_stack]
    test rax, rax
    jz 2f
    mov qword ptr [rsp + 32], 8     # from whatever privilege and mode back to ours
    mov qword ptr [rsp + 40], 2
    mov [rsp + 48], rax
    mov qword ptr [rsp + 56], 16
2:  pop rax
    add rsp, 16
    iretq
1:  # A second exception on the way to the report ends in a triple fault.
    cmp dword ptr [reporting], 0
    jne triple_fault
    inc dword ptr [reporting]
    lea rdi, [text_vector]
    call print
    mov rdi, [fault_vector]
    call print_hex
    lea rdi, [text_error]
    call print
    mov rdi, [fault_error]
    call print_hex
    lea rdi, [text_rip]
    call print
    mov rdi, [fault_rip]
    call print_hex
    lea rdi, [text_address]
    call print
    mov rdi, [fault_address]
    call print_hex
    lea rdi, [text_newline]
    call print
    inc dword ptr [failures]
    jmp finish

.section .rodata
text_0x:        .asciz "0x"
digits:         .ascii "0123456789abcdef"
text_ok:        .asciz "ok  "
text_bad:       .asciz "BAD "
text_space:     .asciz "  "
text_wanted:    .asciz " wanted "
text_newline:   .asciz "\n"
text_pass:      .asciz "PASS\n"
text_fail:      .asciz "FAIL\n"
text_no_acpi:   .asciz "no ACPI tables to power off with\n"
text_vector:    .asciz "BAD unexpected exception "
text_error:     .asciz " error "
text_rip:       .asciz " at "
text_address:   .asciz " address "

.align 8
gdt:
    .quad 0
    .quad 0x00AF9B000000FFFF        # 64-bit code
    .quad 0x00CF93000000FFFF        # data
gdt_pointer:
    .word . - gdt - 1
    .quad gdt
idt_pointer:
    .word 32 * 16 - 1
    .quad idt
no_idt:
    .word 0
    .quad 0

.bss
.align 4096
ghcb:           .skip 4096          # shared with the hypervisor
pml4:           .skip 4096
pdpt:           .skip 4096
pd_memory:      .skip 4096
pd_devices:     .skip 4096
pt_image:       .skip 4096
stack:          .skip 16384
stack_top:
idt:            .skip 32 * 16
boot_params:    .skip 8
c_mask:         .skip 8
sev_status:     .skip 8
fault_vector:   .skip 8
fault_error:    .skip 8
fault_address:  .skip 8
fault_rip:      .skip 8
fault_cs:       .skip 8
fault_flags:    .skip 8
fault_rsp:      .skip 8
fault_dr6:      .skip 8
fault_count:    .skip 8
recovery:       .skip 8
recovery_stack: .skip 8
failures:       .skip 4
reporting:      .skip 4
