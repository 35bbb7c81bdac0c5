# Other privilege levels and modes for test guests: a descriptor table with user segments and a TSS, pages for code and
# stack at CPL 3, and the way there and back. It works in all four kinds of guest.

.include "runtime.inc"
.include "privilege.inc"

.globl privilege_setup, run_user, table_of, test_gdt, test_gdt_pointer, test_tss, user_code, user_stack, user_stack_top
.globl user_alias, user_flags, user_result, kernel_stack_top, double_fault_stack_top, has_feature, read_msr, write_msr

.text
# privilege_setup(): see above. The first GiB's tables let users in; which page does is the page's own matter.
privilege_setup:
    mov esi, 4
1:  push rsi
    push rdi
    lea rdi, [user_code]
    call table_of
    or qword ptr [rax], 4
    pop rdi
    pop rsi
    dec esi
    cmp esi, 1
    ja 1b
    lea rdi, [user_code]
    call pte_of
    or qword ptr [rax], 4
    mov rdx, [rax]
    push rdx
    lea rdi, [user_alias]           # the same page for us, so that SMAP and SMEP have nothing against filling it
    call pte_of
    pop rdx
    and rdx, -5
    mov [rax], rdx
    lea rdi, [user_stack]
    call pte_of
    or qword ptr [rax], 4
    lea rdi, [user_result]
    call pte_of
    or qword ptr [rax], 4
    mov rax, cr3
    mov cr3, rax

    lea rax, [kernel_stack_top]
    mov [test_tss + 4], rax         # RSP0
    mov word ptr [test_tss + 0x66], 0x68    # no I/O permission map
    lea rax, [test_tss]
    mov word ptr [test_gdt + TSS], 0x67
    mov [test_gdt + TSS + 2], ax
    shr rax, 16
    mov [test_gdt + TSS + 4], al
    mov byte ptr [test_gdt + TSS + 5], 0x89
    mov [test_gdt + TSS + 7], ah
    lgdt [test_gdt_pointer]
    mov eax, TSS
    ltr ax
    or byte ptr [idt + 3 * 16 + 5], 0x60    # INT3 ends code at CPL 3
    ret

# table_of(address, level) → address of the entry of that level: 1 page, 2 directory, 3 directory pointers, 4 PML4.
table_of:
    push rcx
    push rdx
    mov rax, cr3
    mov ecx, 39
    mov edx, 4
1:  and eax, 0xFFFFF000             # all tables are below 4 GiB
    push rdi
    shr rdi, cl
    and edi, 511
    lea rax, [rax + rdi * 8]
    pop rdi
    cmp edx, esi
    je 2f
    mov rax, [rax]
    sub ecx, 9
    dec edx
    jmp 1b
2:  pop rdx
    pop rcx
    ret

# run_user(code, its end, code selector): copies the code to the user page and runs it there until an exception; which
# one is in fault_vector and so on. RFLAGS come from user_flags; RAX, RBX, RCX, RDX, RSI, RDI are 0, the stack is the
# user's at CPL 3 and a scratch stack else.
run_user:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    mov rcx, rsi
    sub rcx, rdi
    mov rsi, rdi
    lea rdi, [user_alias]
    rep movsb
    mov [recovery_stack], rsp
    mov qword ptr [recovery], offset back_from_user
    mov qword ptr [fault_vector], -1
    mov qword ptr [fault_error], -1
    xor ecx, ecx                    # offset of the code in its segment
    cmp edx, CODE16
    jne 1f
    lea rax, [user_alias]           # base of the 16-bit segment
    mov [test_gdt + CODE16 + 2], ax
    shr rax, 16
    mov [test_gdt + CODE16 + 4], al
    mov [test_gdt + CODE16 + 7], ah
    jmp 2f
1:  lea rcx, [user_alias]           # supervisor code runs from the supervisor's mapping
    test edx, 3
    jz 2f
    lea rcx, [user_code]
    mov eax, USER_DATA
    mov ds, eax
    mov es, eax
    push rax
    lea rax, [user_stack_top]
    jmp 4f
2:  push DATA
    lea rax, [scratch_stack_top]
4:  push rax
    push qword ptr [user_flags]
    push rdx
    push rcx
    xor eax, eax
    xor ebx, ebx
    xor ecx, ecx
    xor edx, edx
    xor esi, esi
    xor edi, edi
    iretq
back_from_user:
    mov qword ptr [recovery], 0
    mov qword ptr [recovery_stack], 0
    mov eax, DATA
    mov ds, eax
    mov es, eax
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

# has_feature(leaf, register 0 EAX 1 EBX 2 ECX 3 EDX, bit) → 1 or 0: CPUID, by the MSR protocol where that is intercepted.
has_feature:
    push rbx
    push r12
    push rdx
    test byte ptr [sev_status], SEV_STATUS_ES
    jnz 1f
    push rsi
    mov eax, edi
    xor ecx, ecx
    cpuid
    mov [cpuid_values], eax
    mov [cpuid_values + 4], ebx
    mov [cpuid_values + 8], ecx
    mov [cpuid_values + 12], edx
    pop rsi
    mov eax, [cpuid_values + rsi * 4]
    jmp 2f
1:  mov rax, rdi
    shl rax, 32
    shl rsi, 30
    or rax, rsi
    or rax, MSR_CPUID_REQUEST
    mov rdi, rax
    call msr_protocol
    shr rax, 32
2:  pop rcx
    shr eax, cl
    and eax, 1
    pop r12
    pop rbx
    ret

# read_msr(number) → value, write_msr(number, value): by the GHCB where MSRs are intercepted. For MSRs of the hypervisor.
read_msr:
    push rbx
    test byte ptr [sev_status], SEV_STATUS_ES
    jnz 1f
    mov ecx, edi
    rdmsr
    jmp 2f
1:  mov rbx, rdi
    call ghcb_begin
    mov [ghcb + GHCB_RCX], rbx
    GHCB_VALID GHCB_RCX
    mov edi, EXIT_MSR
    xor esi, esi
    xor edx, edx
    call ghcb_call
    mov eax, [ghcb + GHCB_RAX]
    mov edx, [ghcb + GHCB_RDX]
2:  shl rdx, 32
    or rax, rdx
    pop rbx
    ret
write_msr:
    push rbx
    push rsi
    test byte ptr [sev_status], SEV_STATUS_ES
    jnz 1f
    mov ecx, edi
    mov eax, esi
    mov rdx, rsi
    shr rdx, 32
    wrmsr
    pop rsi
    pop rbx
    ret
1:  mov rbx, rdi
    call ghcb_begin
    mov [ghcb + GHCB_RCX], rbx
    mov rsi, [rsp]
    mov eax, esi
    mov [ghcb + GHCB_RAX], rax
    shr rsi, 32
    mov [ghcb + GHCB_RDX], rsi
    GHCB_VALID GHCB_RCX
    GHCB_VALID GHCB_RAX
    GHCB_VALID GHCB_RDX
    mov edi, EXIT_MSR
    mov esi, 1
    xor edx, edx
    call ghcb_call
    pop rsi
    pop rbx
    ret

.data
.align 8
user_flags: .quad 2
.align 16
test_gdt:
    .quad 0
    .quad 0x00AF9B000000FFFF        # 64-bit code
    .quad 0x00CF93000000FFFF        # data
    .quad 0x00CF9B000000FFFF        # 32-bit code
    .quad 0x00CFFB000000FFFF        # 32-bit code, DPL 3
    .quad 0x00CFF3000000FFFF        # data, DPL 3
    .quad 0x00AFFB000000FFFF        # 64-bit code, DPL 3
    .quad 0x00009B000000FFFF        # 16-bit code
    .quad 0, 0                      # TSS
    .skip 64 * 8
test_gdt_end:
test_gdt_pointer:
    .word test_gdt_end - test_gdt - 1
    .quad test_gdt

.bss
.align 4096
user_code:      .skip 4096
user_alias:     .skip 4096
user_stack:     .skip 4096
user_stack_top:
user_result:    .skip 4096          # CPL 3 may write here
kernel_stack:   .skip 8192
kernel_stack_top:
scratch_stack:  .skip 4096
scratch_stack_top:
double_fault_stack: .skip 4096
double_fault_stack_top:
test_tss:       .skip 0x68
.align 16
cpuid_values:   .skip 16
