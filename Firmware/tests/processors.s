# Two vCPUs of an SNP guest: the second is created by the first [GHCB 4.1.9] with a state in a page of the guest's own; LOCK
# and XCHG between the two, code and pages that one changes under the other, and the second one's end. Needs --cpus 2.

.include "runtime.inc"
.include "vmsa.inc"
.globl guest_main

.set ROUNDS, 100000
.set QUIET, 20                      # looks in a row

# WAIT_FOR value: until the other vCPU has come so far.
.macro WAIT_FOR value
1:  pause
    cmp dword ptr [ap_state], \value
    jne 1b
.endm

.text
guest_main:
    lea rdi, [vmsa]
    lea rsi, [ap_start]
    lea rdx, [ap_stack_top]
    call prepare_vmsa
    mov [features], rax

    lea rax, [vmsa]
    xor ecx, ecx
    mov edx, 0x10001
    rmpadjust_
    EXPECT "the page is a VMSA", 0

    mov r12, [features]
    CREATE "nobody has this APIC id", 0x700000001, vmsa, r12, 2, 5
    CREATE "a vCPU does not create itself", 0x000000001, vmsa, r12, 2, 5
    CREATE "no such request", 0x100000003, vmsa, r12, 2, 5
    CREATE "other features", 0x100000001, vmsa, 0x7F, 2, 5
    CREATE "not the start of a page", 0x100000001, vmsa+8, r12, 2, 5
    CREATE "the start of a 2 MiB frame", 0x100000001, 0x200000, r12, 2, 5
    mov eax, [ap_state]
    EXPECT "nothing has started", 0
    CREATE "created", 0x100000001, vmsa, r12, 0, 0

    call work
    WAIT_FOR 2
    mov rax, [counter]
    EXPECT "LOCK INC by both", 2 * ROUNDS
    mov rax, [sum]
    EXPECT "LOCK XADD by both", 6 * ROUNDS
    mov rax, [guarded]
    EXPECT "plain INC behind XCHG, by both", 2 * ROUNDS
    mov rax, [exchanged]
    EXPECT "LOCK CMPXCHG by both", 2 * ROUNDS

    mov eax, [ap_result]
    EXPECT "the code as it was", 0x1111
    mov dword ptr [changed + 1], 0x2222
    mov dword ptr [go], 1
    WAIT_FOR 3
    mov eax, [ap_result]
    EXPECT "the code as the other one changed it", 0x2222

    # The second one reads the page all the time.
    mov dword ptr [go], 2
    WAIT_FOR 4
    mov qword ptr [fault_error], 0
    lea rax, [ap_faulted]
    mov [recovery], rax
    lea rdi, [rescinded]
    xor esi, esi
    call validate
    EXPECT "the page is not validated any more", 0
    WAIT_FOR 5
    mov qword ptr [recovery], 0
    mov rax, [fault_error]
    EXPECT "and the other one has noticed", 0x404

    CREATE "destroyed", 0x100000002, 0, r12, 0, 0
    # If the host does not run it at the moment, it notices later: it has to be quiet for a while.
    mov r14d, QUIET
    mov r15d, 1000
2:  mov r13, [heartbeat]
    mov ecx, 100000
3:  pause
    loop 3b
    dec r14d
    cmp r13, [heartbeat]
    je 4f
    mov r14d, QUIET
    dec r15d
    jz 5f
4:  test r14d, r14d
    jnz 2b
5:  mov rax, r14
    EXPECT "it does nothing more", 0

    mov dword ptr [ap_state], 0
    mov dword ptr [go], 0
    CREATE "created again", 0x100000001, vmsa, r12, 0, 0
    WAIT_FOR 2
    mov rax, [counter]
    EXPECT "it has done its work again", 3 * ROUNDS
    ret

# What both do at once.
work:
    mov ecx, ROUNDS
1:  lock inc qword ptr [counter]
    mov eax, 3
    lock xadd [sum], rax
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
    loop 1b
    ret

.align 4096
changed:
    mov eax, 0x1111
    ret
.align 4096

ap_start:
    mov dword ptr [ap_state], 1
    call work
    call changed
    mov [ap_result], eax
    mov dword ptr [ap_state], 2
1:  pause
    cmp dword ptr [go], 1
    jb 1b
    call changed
    mov [ap_result], eax
    mov dword ptr [ap_state], 3
2:  pause
    cmp dword ptr [go], 2
    jb 2b
    mov eax, [rescinded]
    mov dword ptr [ap_state], 4
3:  mov eax, [rescinded]
    jmp 3b
ap_faulted:
    mov dword ptr [ap_state], 5
4:  inc qword ptr [heartbeat]
    pause
    jmp 4b

.bss
.align 4096
vmsa:       .skip 4096
rescinded:  .skip 4096
ap_stack:   .skip 4096
ap_stack_top:
counter:    .skip 8
sum:        .skip 8
guarded:    .skip 8
exchanged:  .skip 8
heartbeat:  .skip 8
features:   .skip 8
spinlock:   .skip 4
go:         .skip 4
ap_state:   .skip 4
ap_result:  .skip 4
