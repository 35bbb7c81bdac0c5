# #PF and its error codes [APM2 8.4.2]: present 1, write 2, user 4, reserved 8, fetch 16; CR2; accessed and dirty bits.

.include "runtime.inc"
.globl guest_main

.set PTE_PRESENT, 1
.set PTE_WRITE, 2
.set PTE_ACCESSED, 0x20
.set PTE_DIRTY, 0x40

# SET_PTE bits to clear, bits to set (64-bit numbers): in the entry of `page`.
.macro SET_PTE clear, set
    mov rax, [entry]
    mov rdx, [rax]
    mov rcx, \clear
    not rcx
    and rdx, rcx
    mov rcx, \set
    or rdx, rcx
    mov [rax], rdx
    invlpg [page]
.endm

.text
guest_main:
    lea rdi, [page]
    call pte_of
    mov [entry], rax
    mov ecx, 0xC0000080             # EFER.NXE
    rdmsr
    or eax, 1 << 11
    wrmsr

    SET_PTE 1, 0
    FAULTS "read, not present", VECTOR_PF, 0, "mov eax, [page + 8]"
    mov rax, [fault_address]
    lea rdx, [page + 8]
    sub rax, rdx
    EXPECT "CR2 holds the address", 0
    FAULTS "write, not present", VECTOR_PF, 2, "mov [page], eax"
    FAULTS "fetch, not present", VECTOR_PF, 0x10, "lea rax, [page]; call rax"
    add rsp, 8

    SET_PTE 2, 1
    FAULTS "read-only page, read", -1, -1, "mov eax, [page]"
    FAULTS "read-only page, write", VECTOR_PF, 3, "mov [page], eax"
    FAULTS "read-only page, locked compare that fails", VECTOR_PF, 3, "mov eax, 1; lock cmpxchg [page], ecx"
    mov rax, cr0
    and eax, 0xFFFEFFFF
    mov cr0, rax
    FAULTS "read-only page, write with CR0.WP = 0", -1, -1, "mov [page], eax"
    mov rax, cr0
    or eax, 0x10000
    mov cr0, rax

    SET_PTE 0, 0x8000000000000003
    mov byte ptr [page], 0xC3
    FAULTS "no-execute page, fetch", VECTOR_PF, 0x11, "lea rax, [page]; call rax"
    add rsp, 8
    SET_PTE 0x8000000000000000, 3
    FAULTS "executable page, fetch", -1, -1, "lea rax, [page]; call rax"

    # An access over a page border reports the byte that faulted.
    SET_PTE 1, 0
    FAULTS "read into the next page", VECTOR_PF, 0, "mov rax, [page - 4]"
    mov rax, [fault_address]
    lea rdx, [page]
    sub rax, rdx
    EXPECT "CR2 holds the border", 0
    mov dword ptr [page - 4], 0x11111111
    FAULTS "write into the next page", VECTOR_PF, 2, "mov rax, -1; mov [page - 4], rax"
    mov eax, [page - 4]
    EXPECT "and nothing was written before it", 0x11111111

    SET_PTE 0x60, 3
    mov eax, [page]
    mov rax, [entry]
    mov rax, [rax]
    and eax, PTE_ACCESSED | PTE_DIRTY
    EXPECT "a read sets accessed", PTE_ACCESSED
    mov [page], eax
    mov rax, [entry]
    mov rax, [rax]
    and eax, PTE_ACCESSED | PTE_DIRTY
    EXPECT "a write sets dirty", PTE_ACCESSED | PTE_DIRTY

    # REP STOSB stops at the border with its registers at the element that faulted.
    SET_PTE 1, 0
    mov qword ptr [recovery], offset .Lstored
    lea rdi, [page - 16]
    mov ecx, 64
    rep stosb
.Lstored:
    mov qword ptr [recovery], 0
    mov r12, rcx
    lea rax, [page]
    sub rdi, rax
    mov rax, rdi
    EXPECT "REP STOSB over the border: RDI is at it", 0
    mov rax, r12
    EXPECT "REP STOSB over the border: RCX", 48
    mov rax, [fault_error]
    EXPECT "REP STOSB over the border: error code", 2
    SET_PTE 0, 3

    FAULTS "address that is not canonical", VECTOR_GP, 0, "mov rax, 0x0000800000000000; mov eax, [rax]"
    ret

.data
stored_rcx: .quad 0
.bss
entry: .skip 8
.align 4096
before: .skip 4096
page: .skip 4096
