# Virtual machine privilege levels [APM2 15.36.7]: a second vCPU at VMPL 1, which can do with each page what VMPL 0 has
# granted it by RMPADJUST, may not PVALIDATE, and hands on no more than it has. Needs --cpus 2.
#
# What it may not do is a nested page fault that no hypervisor resolves, so it ends the guest: the word `vmpl=` and a
# letter on the command line ask for one (r, w, x, u, or v for a level that does not exist).

.include "runtime.inc"
.include "privilege.inc"
.include "vmsa.inc"
.globl guest_main

.set SUCCESS, 0
.set BAD_INPUT, 1
.set NO_PERMISSION, 2

# Permissions
.set READ, 1
.set WRITE, 2
.set USER_EXECUTE, 4
.set EXECUTE, 8

# ADJUST "name", address, attributes, code
.macro ADJUST name, address, attributes, code
    lea rax, [\address]
    xor ecx, ecx
    mov edx, \attributes
    rmpadjust_
    EXPECT "\name", \code
.endm

# WAIT_FOR value: until the other vCPU has come so far.
.macro WAIT_FOR value
1:  pause
    cmp dword ptr [ap_state], \value
    jne 1b
.endm

.text
guest_main:
    call find_violation
    # Everything that is ours, but the page that is shared, to VMPL 1.
    mov r12, 0x200000
1:  lea rax, [ghcb]
    cmp r12, rax
    je 2f
    mov rax, r12
    xor ecx, ecx
    mov edx, 0xF01
    rmpadjust_
    or [grants], rax
2:  add r12, 4096
    lea rax, [image_end]
    cmp r12, rax
    jb 1b
    mov rax, [grants]
    EXPECT "VMPL 1 has all of the image", 0

    mov byte ptr [executable], 0xC3             # RET
    mov byte ptr [user_executable], 0xCC        # INT3
    mov qword ptr [readable], 0x1111
    mov qword ptr [closed], 0x2222
    ADJUST "a page to read", readable, (READ << 8) | 1, SUCCESS
    ADJUST "one to write", writable, ((READ | WRITE) << 8) | 1, SUCCESS
    ADJUST "one to execute", executable, ((READ | EXECUTE) << 8) | 1, SUCCESS
    ADJUST "one to execute at CPL 3", user_executable, ((READ | USER_EXECUTE) << 8) | 1, SUCCESS
    ADJUST "one for nobody else", closed, 1, SUCCESS
    ADJUST "and one that stays so", never, 1, SUCCESS
    mov rax, [closed]
    EXPECT "VMPL 0 keeps all permissions", 0x2222

    lea rdi, [vmsa]
    lea rsi, [ap_start]
    lea rdx, [ap_stack_top]
    call prepare_vmsa
    mov r12, rax
    mov byte ptr [vmsa + VMSA_VMPL], 1
    cmp byte ptr [violation], 'v'
    jne 3f
    mov byte ptr [vmsa + VMSA_VMPL], 4
3:  ADJUST "its registers are in a VMSA", vmsa, 0x10001, SUCCESS
    CREATE "the hypervisor takes requests for VMPL 0 alone", 0x100010001, vmsa, r12, 2, 5
    CREATE "created", 0x100000001, vmsa, r12, 0, 0
    mov dword ptr [go], 1

    WAIT_FOR 1
    ADJUST "the page that was for nobody else", closed, (READ << 8) | 1, SUCCESS
    mov dword ptr [go], 2
    WAIT_FOR 2
    mov rax, [writable]
    EXPECT "what VMPL 1 has written", 0x3333
    ret

# The second vCPU. Only one of the two prints at a time, so one GHCB serves both.
ap_start:
    pause
    cmp dword ptr [go], 1
    jne ap_start
    lea rdi, [ghcb + MSR_REGISTER_GHCB]
    call msr_protocol
    lea rdx, [ghcb + MSR_REGISTER_GHCB + 1]
    xor rax, rdx
    EXPECT "VMPL 1 registers its GHCB", 0
    call privilege_setup
    lea rdi, [user_executable]
    call pte_of
    or qword ptr [rax], 4
    invlpg [user_executable]

    mov rax, [readable]
    EXPECT "VMPL 1 reads", 0x1111
    mov rax, [writable]
    mov qword ptr [writable], 0x3333
    mov rax, [writable]
    EXPECT "VMPL 1 writes", 0x3333
    FAULTS "VMPL 1 executes", -1, -1, "lea rax, [executable]; call rax"
    USER "VMPL 1 executes at CPL 3", NONE, 0, "lea rax, [user_executable]; jmp rax"
    mov rax, [fault_rip]
    EXPECT_AT "and was there", user_executable + 1

    # The instructions.
    FAULTS "PVALIDATE at VMPL 1", VECTOR_GP, 0, "lea rax, [writable]; xor ecx, ecx; mov edx, 1; pvalidate_"
    ADJUST "VMPL 1 grants itself", readable, ((READ | WRITE) << 8) | 1, NO_PERMISSION
    ADJUST "VMPL 1 takes from VMPL 0", readable, 0, NO_PERMISSION
    ADJUST "VMPL 1 grants VMPL 2 what it has", readable, (READ << 8) | 2, SUCCESS
    ADJUST "VMPL 1 grants VMPL 2 more", readable, ((READ | WRITE) << 8) | 2, NO_PERMISSION
    ADJUST "VMPL 1 takes from VMPL 3", readable, 3, SUCCESS
    ADJUST "level 4", readable, (READ << 8) | 4, BAD_INPUT
    ADJUST "VMPL 1 makes no VMSA", writable, 0x10002, SUCCESS
    FAULTS "the page stays as it was", -1, -1, "mov qword ptr [writable], 0x3333"

    mov dword ptr [ap_state], 1
1:  pause
    cmp dword ptr [go], 2
    jne 1b
    mov rax, [closed]
    EXPECT "VMPL 1 reads what it has been granted meanwhile", 0x2222
    mov al, [violation]
    cmp al, 'r'
    je violate_read
    cmp al, 'w'
    je violate_write
    cmp al, 'x'
    je violate_execute
    cmp al, 'u'
    je violate_user
    mov dword ptr [ap_state], 2
2:  pause
    jmp 2b

violate_read:
    PRINT "VMPL 1 reads a page for nobody else"
    mov rax, [never]
    jmp violated
violate_write:
    PRINT "VMPL 1 writes a page to read"
    mov [readable], rax
    jmp violated
violate_execute:
    PRINT "VMPL 1 executes what is for CPL 3"
    lea rax, [user_executable]
    call rax
    jmp violated
violate_user:
    PRINT "VMPL 1 executes at CPL 3 what is for CPL 0"
    lea rdi, [executable]
    call pte_of
    or qword ptr [rax], 4
    invlpg [executable]
    USER "no permission", NONE, 0, "lea rax, [executable]; jmp rax"
violated:
    PRINT "BAD it may"
    jmp finish

# find_violation(): notes the letter behind "vmpl=" on the command line.
find_violation:
    mov rax, [boot_params]
    mov eax, [rax + 0x228]          # cmd_line_ptr
    test eax, eax
    jz 3f
1:  cmp byte ptr [rax], 0
    je 3f
    cmp dword ptr [rax], 0x6C706D76 # "vmpl"
    je 2f
    inc rax
    jmp 1b
2:  mov al, [rax + 5]
    mov [violation], al
3:  ret

.bss
.align 4096
vmsa:       .skip 4096
readable:   .skip 4096
writable:   .skip 4096
executable: .skip 4096
user_executable: .skip 4096
closed:     .skip 4096
never:      .skip 4096
ap_stack:   .skip 4096
ap_stack_top:
grants:     .skip 8
go:         .skip 4
ap_state:   .skip 4
violation:  .skip 8
