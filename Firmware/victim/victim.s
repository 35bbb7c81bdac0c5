# The guest that the isolation suite attacks: it does what it is told, looks at its own memory and registers, and says
# what it sees. One flat image for all technologies, at 0x8000, entered in 64-bit mode by `swift-snp-vmm attack`
# (Sources/IsolationSuite/Victim, which builds its page tables, GDT and IDT and knows the same numbers).
#
# At entry RDI is the technology: 0 plain, 1 SEV, 2 SEV-ES, 3 SEV-SNP. RBX is a mark that the launcher chose.
#
#     0x00_8000  this image          0x00_D000  mailbox, shared      0x20_0000  all of it once more, without the C-bit:
#     0x00_A000  variables           0x00_E000  CPUID page (SNP)                the guest's view of shared memory
#     0x00_B000  stack               0x00_F000  "initrd" and "command line"
#     0x00_C000  GHCB, shared        0x01_0000  pages to fight about
#
# The mailbox: command at 0, arguments at 8, 16, 24; results at 64, 72, 80, 88; the fault that ended the command at 96
# (vector plus one), 104 (error code), 112 (RIP); a plain guest's request at 120. A byte to port 0xA0 hands it over to the host and waits for an answer.

.intel_syntax noprefix

.set VARIABLES, 0xA000
.set STACK_TOP, 0xC000
.set GHCB_GPA,  0xC000
.set CPUID_PAGE, 0xE000
.set INITRD,    0xF000
.set COMMAND_LINE, 0xF800
.set WINDOW,    0x200000
.set GHCB,      WINDOW + GHCB_GPA
.set MAILBOX,   WINDOW + 0xD000

.set technology,     VARIABLES
.set entry_mark,     VARIABLES + 8
.set recovery,       VARIABLES + 16     # where a fault goes on, 0 = at the instruction itself
.set recovery_stack, VARIABLES + 24
.set fault,          VARIABLES + 32     # vector plus one
.set fault_error,    VARIABLES + 40
.set fault_rip,      VARIABLES + 48
.set event_count,    VARIABLES + 56     # exceptions that came while no command was at work
.set event_vector,   VARIABLES + 64
.set event_error,    VARIABLES + 72

.set COMMAND_COUNT, 12
.set DOORBELL, 0xA0
.set SEV_ES, 2
.set SNP, 3
.set STRIDE, 0x9E3779B97F4A7C15         # between neighbours of a pattern

.set MSR_GHCB, 0xC0010130
.set GHCB_CPL,    0x0CB
.set GHCB_RAX,    0x1F8
.set GHCB_RCX,    0x308
.set GHCB_RDX,    0x310
.set GHCB_RBX,    0x318
.set GHCB_CODE,   0x390
.set GHCB_INFO1,  0x398
.set GHCB_INFO2,  0x3A0
.set GHCB_BITMAP, 0x3F0
.set GHCB_VERSION, 0xFFA

.macro GHCB_VALID field
    or byte ptr [GHCB + GHCB_BITMAP + (\field / 64)], 1 << ((\field / 8) & 7)
.endm

.text
.globl _start
_start:
    cli
    cld
    mov esp, STACK_TOP
    mov [technology], rdi
    mov [entry_mark], rbx
    cmp edi, SNP
    jne next
    mov edi, GHCB_GPA | 0x012           # register the GHCB [GHCB 2.3.2]
    call msr_protocol

next:
    mov qword ptr [recovery], 0
    call doorbell
    mov qword ptr [fault], 0
    mov [recovery_stack], rsp
    lea rax, [finish]
    mov [recovery], rax
    mov rbp, [MAILBOX]                  # each word once: the host may change them at any time
    mov rdi, [MAILBOX + 8]
    mov rsi, [MAILBOX + 16]
    mov rdx, [MAILBOX + 24]
    xor r8d, r8d                        # results
    xor r9d, r9d
    xor r10d, r10d
    xor r11d, r11d
    cmp rbp, COMMAND_COUNT
    jae finish
    call [commands + rbp * 8]
finish:
    mov [MAILBOX + 64], r8
    mov [MAILBOX + 72], r9
    mov [MAILBOX + 80], r10
    mov [MAILBOX + 88], r11
    mov rax, [fault]
    mov [MAILBOX + 96], rax
    mov rax, [fault_error]
    mov [MAILBOX + 104], rax
    mov rax, [fault_rip]
    mov [MAILBOX + 112], rax
    jmp next

.balign 8
commands:
    .quad idle, fill, check, read, write, hold, cpuid_trusted, cpuid_asked, validate, page_state, events, marks

# Nothing.
idle:
    ret

# fill(address, seed): a page of the pattern.
fill:
    mov ecx, 512
    mov rax, STRIDE
1:  mov [rdi], rsi
    add rsi, rax
    add rdi, 8
    dec ecx
    jnz 1b
    ret

# check(address, seed) → words that differ, the first of them, its index.
check:
    xor ecx, ecx
    mov rax, STRIDE
1:  mov rdx, [rdi + rcx * 8]
    cmp rdx, rsi
    je 3f
    test r8, r8
    jnz 2f
    mov r9, rdx
    mov r10, rcx
2:  inc r8
3:  add rsi, rax
    inc ecx
    cmp ecx, 512
    jb 1b
    ret

# read(address) → the word there.
read:
    mov r8, [rdi]
    ret

# write(address, word)
write:
    mov [rdi], rsi
    ret

# hold(seed) → registers that changed: keeps the seed and its successors in R12 to R15 while the host has control.
hold:
    mov r12, rdi
    lea r13, [rdi + 1]
    lea r14, [rdi + 2]
    lea r15, [rdi + 3]
    push rdi
    call doorbell
    pop rdi
    cmp r12, rdi
    setne r8b
    lea rax, [rdi + 1]
    cmp r13, rax
    setne al
    add r8b, al
    lea rax, [rdi + 2]
    cmp r14, rax
    setne al
    add r8b, al
    lea rax, [rdi + 3]
    cmp r15, rax
    setne al
    add r8b, al
    mov r9, r12
    ret

# cpuid_trusted(function, subfunction) → EAX, EBX, ECX, EDX, from the most trustworthy place there is: the firmware's
# page in SNP guests, the host through the GHCB in SEV-ES guests, the intercepted instruction in others.
cpuid_trusted:
    cmp dword ptr [technology], SNP
    jne cpuid_asked
    mov ecx, [CPUID_PAGE]
    lea rbx, [CPUID_PAGE + 16]
1:  test ecx, ecx
    jz 3f
    cmp edi, [rbx]
    jne 2f
    cmp esi, [rbx + 4]
    jne 2f
    mov r8d, [rbx + 24]
    mov r9d, [rbx + 28]
    mov r10d, [rbx + 32]
    mov r11d, [rbx + 36]
    ret
2:  add rbx, 48
    dec ecx
    jmp 1b
3:  ret

# cpuid_asked(function, subfunction): what the host answers. The MSR protocol knows no subfunction.
cpuid_asked:
    cmp dword ptr [technology], SEV_ES
    jae 1f
    mov eax, edi
    mov ecx, esi
    cpuid
    mov r8d, eax
    mov r9d, ebx
    mov r10d, ecx
    mov r11d, edx
    ret
1:  shl rdi, 32
    or rdi, 0x004
    mov rbx, rdi
    call msr_protocol
    shr rax, 32
    mov r8, rax
    mov rdi, rbx
    bts rdi, 30
    call msr_protocol
    shr rax, 32
    mov r9, rax
    mov rdi, rbx
    bts rdi, 31
    call msr_protocol
    shr rax, 32
    mov r10, rax
    mov rdi, rbx
    bts rdi, 30
    bts rdi, 31
    call msr_protocol
    shr rax, 32
    mov r11, rax
    ret

# validate(address, 1 or 0) → PVALIDATE's code, its carry flag ("nothing changed").
validate:
    mov rax, rdi
    xor ecx, ecx
    mov edx, esi
    .byte 0xF2, 0x0F, 0x01, 0xFF        # pvalidate
    setc r9b
    mov r8, rax
    ret

# page_state(gpa, 1 private or 2 shared) → the host's answer, 0 = done. SNP: MSR protocol; SEV-ES: hypercall through the
# GHCB; SEV: hypercall KVM_HC_MAP_GPA_RANGE. A plain guest has no such request: it leaves one in the mailbox.
page_state:
    cmp dword ptr [technology], 0
    jne 4f
    mov [MAILBOX + 120], rdi
    mov [MAILBOX + 128], rsi
    call doorbell
    mov r8, [MAILBOX + 136]
    ret
4:  cmp dword ptr [technology], SNP
    jne 1f
    shl rsi, 52
    or rdi, rsi
    or rdi, 0x014
    call msr_protocol
    mov r8, rax
    xor r8, 0x015
    ret
1:  xor edx, edx
    cmp esi, 1
    jne 2f
    mov edx, 1 << 4
2:  mov rbx, rdi
    mov ecx, 1
    mov eax, 12
    cmp dword ptr [technology], SEV_ES
    je 3f
    vmmcall
    mov r8, rax
    ret
3:  call ghcb_begin
    mov qword ptr [GHCB + GHCB_RAX], 12
    mov [GHCB + GHCB_RBX], rbx
    mov qword ptr [GHCB + GHCB_RCX], 1
    mov [GHCB + GHCB_RDX], rdx
    mov byte ptr [GHCB + GHCB_CPL], 0
    GHCB_VALID GHCB_RAX
    GHCB_VALID GHCB_RBX
    GHCB_VALID GHCB_RCX
    GHCB_VALID GHCB_RDX
    GHCB_VALID GHCB_CPL
    mov edi, 0x81
    xor esi, esi
    call ghcb_call
    mov r8, [GHCB + GHCB_RAX]
    ret

# events() → exceptions since the last call that no command caused, the last one's vector plus one, its error code.
events:
    mov r8, [event_count]
    mov r9, [event_vector]
    mov r10, [event_error]
    mov qword ptr [event_count], 0
    mov qword ptr [event_vector], 0
    ret

# marks() → of the image, of the initrd, of the command line, of the register state at entry.
marks:
    mov r8, [image_mark]
    mov r9, [INITRD]
    mov r10, [COMMAND_LINE]
    mov r11, [entry_mark]
    ret

# doorbell(): the host's turn. Changes RAX, RCX, RDX, RDI, RSI.
doorbell:
    cmp dword ptr [technology], SEV_ES
    jae 1f
    out DOORBELL, al
    ret
1:  call ghcb_begin
    mov qword ptr [GHCB + GHCB_RAX], 0
    GHCB_VALID GHCB_RAX
    mov edi, 0x7B                       # IOIO
    mov esi, (DOORBELL << 16) | (1 << 9) | (1 << 4)
    # falls through

# ghcb_call(exit code, info 1)
ghcb_call:
    mov [GHCB + GHCB_CODE], rdi
    mov [GHCB + GHCB_INFO1], rsi
    mov qword ptr [GHCB + GHCB_INFO2], 0
    GHCB_VALID GHCB_CODE
    GHCB_VALID GHCB_INFO1
    GHCB_VALID GHCB_INFO2
    mov edi, GHCB_GPA
    # falls through

# msr_protocol(value) → the MSR afterwards. Changes RAX, RCX, RDX.
msr_protocol:
    mov rax, rdi
    mov rdx, rdi
    shr rdx, 32
    mov ecx, MSR_GHCB
    wrmsr
    .byte 0xF3, 0x0F, 0x01, 0xD9        # vmgexit
    mov ecx, MSR_GHCB
    rdmsr
    shl rdx, 32
    or rax, rdx
    ret

ghcb_begin:
    mov qword ptr [GHCB + GHCB_BITMAP], 0
    mov qword ptr [GHCB + GHCB_BITMAP + 8], 0
    mov word ptr [GHCB + GHCB_VERSION], 2
    mov dword ptr [GHCB + GHCB_VERSION + 2], 0
    ret

# Stack: RAX, vector, error code, RIP, CS, RFLAGS, RSP, SS.
exception:
    push rax
    cmp qword ptr [recovery], 0
    je 1f
    mov rax, [rsp + 8]
    inc rax
    mov [fault], rax
    mov rax, [rsp + 16]
    mov [fault_error], rax
    mov rax, [rsp + 24]
    mov [fault_rip], rax
    mov rax, [recovery]
    mov rsp, [recovery_stack]
    jmp rax
1:  inc qword ptr [event_count]
    mov rax, [rsp + 8]
    inc rax
    mov [event_vector], rax
    mov rax, [rsp + 16]
    mov [event_error], rax
    pop rax
    add rsp, 16
    iretq

.balign 8
image_mark:
    .quad 0x0065676D61492121            # "!!Image"

# The IDT points here: 32 stubs, 16 bytes apart, at 0x9000.
.org 0x1000
.set vector, 0
.rept 32
    .balign 16
    .if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30)
    .byte 0x6A, 0                       # push 0
    .endif
    .byte 0x6A, vector                  # push vector
    jmp exception
    .set vector, vector + 1
.endr
.balign 16
