# Paging with four levels: the features that guard pages (SMEP, SMAP, UMIP, PKU, WP, NX), reserved bits, accessed and
# dirty bits of every level, large and global pages, PCID and INVPCID, and changes of page tables without INVLPG as far as
# the manual allows them [APM2 5.3 to 5.6, 8.4.2; APM3]. What CPUID does not announce must not be there.

.include "runtime.inc"
.include "privilege.inc"
.globl guest_main

.set CR4_PGE, 1 << 7
.set CR4_UMIP, 1 << 11
.set CR4_PCIDE, 1 << 17
.set CR4_SMEP, 1 << 20
.set CR4_SMAP, 1 << 21
.set CR4_PKE, 1 << 22

# PTE clear, set: bits of `page`'s entry.
.macro PTE clear, set
    mov rax, [entry]
    mov rcx, \clear
    not rcx
    and [rax], rcx
    mov rcx, \set
    or [rax], rcx
    invlpg [page]
.endm

# LEVEL level, clear, set: bits of the entry that leads to `page` there.
.macro LEVEL level, clear, set
    lea rdi, [page]
    mov esi, \level
    call table_of
    mov rcx, \clear
    not rcx
    and [rax], rcx
    mov rcx, \set
    or [rax], rcx
    mov rax, cr3
    mov cr3, rax
.endm

.macro CR4_SET bits
    mov rax, cr4
    or rax, \bits
    mov cr4, rax
.endm
.macro CR4_CLEAR bits
    mov rax, cr4
    and rax, ~(\bits)
    mov cr4, rax
.endm

# IF_FEATURE leaf, register, bit, label
.macro UNLESS_FEATURE leaf, register, bit, label
    mov edi, \leaf
    mov esi, \register
    mov edx, \bit
    call has_feature
    test eax, eax
    jz \label
.endm

.text
guest_main:
    call privilege_setup
    lea rdi, [page]
    call pte_of
    mov [entry], rax
    mov ecx, 0xC0000080             # EFER.NXE
    rdmsr
    or eax, 1 << 11
    wrmsr
    mov byte ptr [page], 0xC3

    # Privilege.
    USER "CPL 3, a page of its own", NONE, 0, "mov eax, [user_stack]; mov [user_stack], eax"
    USER "CPL 3 reads a supervisor page", VECTOR_PF, 5, "mov eax, [page]"
    USER "CPL 3 writes one", VECTOR_PF, 7, "mov [page], eax"
    USER "CPL 3 fetches from one", VECTOR_PF, 0x15, "lea rax, [page]; jmp rax"
    mov rax, [fault_cs]
    EXPECT "the frame says CPL 3", USER64
    PTE 0, 4
    USER "CPL 3, a user page", NONE, 0, "mov eax, [page]; mov [page], eax"
    PTE 2, 0
    USER "CPL 3 writes a read-only user page", VECTOR_PF, 7, "mov [page], eax"
    mov rax, cr0
    and rax, ~(1 << 16)
    mov cr0, rax
    USER "and without CR0.WP too", VECTOR_PF, 7, "mov [page], eax"
    mov rax, cr0
    or rax, 1 << 16
    mov cr0, rax
    PTE 1, 2
    USER "CPL 3, a page that is not present", VECTOR_PF, 4, "mov eax, [page]"
    PTE 0, 1
    mov byte ptr [page], 0xC3
    .irp level, 2, 3, 4
    LEVEL \level, 4, 0
    USER "level \level without U: CPL 3 cannot even fetch", VECTOR_PF, 0x15, "nop"
    LEVEL \level, 0, 4
    .endr
    # SMEP.
    FAULTS "supervisor fetch from a user page, without SMEP", -1, -1, "lea rax, [page]; call rax"
    UNLESS_FEATURE 7, 1, 7, no_smep
    CR4_SET CR4_SMEP
    FAULTS "supervisor fetch from a user page, with SMEP", VECTOR_PF, 0x11, "lea rax, [page]; call rax"
    add rsp, 8
    PTE 4, 0
    FAULTS "from a supervisor page, with SMEP", -1, -1, "lea rax, [page]; call rax"
    PTE 0, 4
    CR4_CLEAR CR4_SMEP
    jmp 1f
no_smep:
    FAULTS "CR4.SMEP without the feature", VECTOR_GP, 0, "mov rax, cr4; or eax, CR4_SMEP; mov cr4, rax"
1:
    # SMAP.
    UNLESS_FEATURE 7, 1, 20, no_smap
    CR4_SET CR4_SMAP
    FAULTS "supervisor load from a user page, with SMAP", VECTOR_PF, 1, "mov eax, [page]"
    FAULTS "supervisor store", VECTOR_PF, 3, "mov [page], eax"
    FAULTS "locked read-modify-write", VECTOR_PF, 3, "lock inc dword ptr [page]"
    FAULTS "fetch is SMEP's matter", -1, -1, "lea rax, [page]; call rax"
    FAULTS "behind STAC", -1, -1, "stac; mov eax, [page]; mov [page], eax; clac"
    FAULTS "behind STAC and CLAC", VECTOR_PF, 1, "stac; mov eax, [page]; clac; mov eax, [page]"
    FAULTS "AC by POPF counts as well", -1, -1, "pushfq; or dword ptr [rsp], 1 << 18; popfq; mov eax, [page]; clac"
    FAULTS "string instruction", VECTOR_PF, 3, "lea rdi, [page]; mov ecx, 4; rep stosb"
    FAULTS "string instruction behind STAC", -1, -1, "stac; lea rdi, [page]; mov ecx, 4; mov al, 0xC3; rep stosb; clac"
    FAULTS "INVLPG never counts", -1, -1, "invlpg [page]"
    # What the processor does for itself: a local descriptor table in a user page.
    lea rax, [page]
    mov word ptr [test_gdt + SPARE], 15
    mov [test_gdt + SPARE + 2], ax
    shr rax, 16
    mov [test_gdt + SPARE + 4], al
    mov byte ptr [test_gdt + SPARE + 5], 0x82
    mov [test_gdt + SPARE + 7], ah
    mov eax, SPARE
    lldt ax
    mov rax, [test_gdt + DATA]
    stac
    mov [page + 8], rax
    clac
    FAULTS "descriptor in a user page", VECTOR_PF, 1, "mov eax, 0xC; mov fs, eax"
    xor eax, eax
    lldt ax
    mov fs, eax
    USER "SMAP does not concern CPL 3", NONE, 0, "mov eax, [page]"
    USER "STAC at CPL 3", VECTOR_UD, 0, "stac"
    USER "CLAC at CPL 3", VECTOR_UD, 0, "clac"
    CR4_CLEAR CR4_SMAP
    jmp 1f
no_smap:
    FAULTS "CR4.SMAP without the feature", VECTOR_GP, 0, "mov rax, cr4; or eax, CR4_SMAP; mov cr4, rax"
    FAULTS "STAC without the feature", VECTOR_UD, 0, "stac"
1:
    # UMIP.
    UNLESS_FEATURE 7, 2, 2, no_umip
    USER "SGDT at CPL 3 without UMIP", NONE, 0, "sgdt [user_result]"
    CR4_SET CR4_UMIP
    .irp instruction, sgdt, sidt, sldt, str, smsw
    USER "\instruction at CPL 3 with UMIP", VECTOR_GP, 0, "\instruction [user_result]"
    FAULTS "\instruction at CPL 0 with UMIP", -1, -1, "\instruction [table]"
    .endr
    USER "SMSW of a register", VECTOR_GP, 0, "smsw eax"
    CR4_CLEAR CR4_UMIP
    jmp 1f
no_umip:
    FAULTS "CR4.UMIP without the feature", VECTOR_GP, 0, "mov rax, cr4; or eax, CR4_UMIP; mov cr4, rax"
1:
    # Protection keys.
    UNLESS_FEATURE 7, 2, 3, no_keys
    FAULTS "RDPKRU without CR4.PKE", VECTOR_UD, 0, "xor ecx, ecx; rdpkru"
    CR4_SET CR4_PKE
    mov edi, 7
    mov esi, 2
    mov edx, 4
    test byte ptr [sev_status], SEV_STATUS_SNP
    jnz 2f                          # there the guest knows OSPKE from its own CR4
    call has_feature
    EXPECT "CPUID: OSPKE follows CR4.PKE", 1
2:  FAULTS "RDPKRU with ECX 1", VECTOR_GP, 0, "mov ecx, 1; rdpkru"
    FAULTS "WRPKRU with EDX 1", VECTOR_GP, 0, "xor ecx, ecx; xor eax, eax; mov edx, 1; wrpkru"
    PTE 0x7800000000000000, 0x2800000000000000      # key 5
    call with_key_rights_0
    USER "key 5, all rights", NONE, 0, "mov eax, [page]; mov [page], eax"
    call with_key_rights_ad
    USER "key 5, access disabled: load", VECTOR_PF, 0x25, "mov eax, [page]"
    USER "key 5, access disabled: store", VECTOR_PF, 0x27, "mov [page], eax"
    FAULTS "key 5, access disabled: supervisor load from a user page", VECTOR_PF, 0x21, "mov eax, [page]"
    FAULTS "key 5, access disabled: fetch", -1, -1, "lea rax, [page]; call rax"
    call with_key_rights_wd
    USER "key 5, writes disabled: load", NONE, 0, "mov eax, [page]"
    USER "key 5, writes disabled: store", VECTOR_PF, 0x27, "mov [page], eax"
    FAULTS "key 5, writes disabled: supervisor store", VECTOR_PF, 0x23, "mov [page], eax"
    mov rax, cr0
    and rax, ~(1 << 16)
    mov cr0, rax
    FAULTS "the same without CR0.WP", -1, -1, "mov [page], eax"
    mov rax, cr0
    or rax, 1 << 16
    mov cr0, rax
    PTE 2, 0
    USER "key 5 and read-only: store", VECTOR_PF, 0x27, "mov [page], eax"
    PTE 4, 2
    FAULTS "keys guard user pages alone", -1, -1, "mov eax, [page]"
    PTE 0x7800000000000000, 4
    USER "key 0", NONE, 0, "mov eax, [page]; mov [page], eax"
    USER "CPL 3 may write PKRU itself", NONE, 0, "xor ecx, ecx; xor edx, edx; mov eax, 0xC; wrpkru; rdpkru; mov [user_result], eax"
    mov eax, [user_result]
    EXPECT "and read it back", 0xC
    # XSAVE component 9.
    mov rax, cr4
    or eax, 1 << 18
    mov cr4, rax
    xor ecx, ecx
    xgetbv
    mov [xcr0_before], eax
    or eax, 0x203
    xsetbv
    lea rdi, [area]
    mov ecx, 1024
    xor eax, eax
    rep stosd
    mov eax, 0x200
    xor edx, edx
    xsave [area]
    mov eax, [area + 512]
    EXPECT "XSAVE: XSTATE_BV", 0x200
    mov eax, [area + 0x980]
    EXPECT "XSAVE: PKRU in the standard format", 0xC
    xor eax, eax
    mov ecx, 0
    xor edx, edx
    wrpkru
    mov eax, 0x200
    xrstor [area]
    xor ecx, ecx
    rdpkru
    EXPECT "XRSTOR brings it back", 0xC
    mov dword ptr [area + 512], 0
    mov eax, 0x200
    xor edx, edx
    xrstor [area]
    xor ecx, ecx
    rdpkru
    EXPECT "XRSTOR of the initial state", 0
    mov eax, 0x44
    xor ecx, ecx
    xor edx, edx
    wrpkru
    UNLESS_FEATURE 1, 2, 28, 3f
    xor ecx, ecx
    xgetbv
    or eax, 4
    xsetbv
3:  lea rdi, [area]
    mov ecx, 1024
    xor eax, eax
    rep stosd
    mov eax, 0x202
    xor edx, edx
    xsavec [area]
    mov eax, [area + 512 + 8]
    EXPECT "XSAVEC: XCOMP_BV", 0x202
    mov eax, [area + 576]
    EXPECT "XSAVEC without AVX: PKRU is the first", 0x44
    lea rdi, [area]
    mov ecx, 1024
    xor eax, eax
    rep stosd
    mov eax, 0x206
    xor edx, edx
    xsavec [area]
    mov eax, [area + 832]
    EXPECT "XSAVEC with AVX: PKRU behind it", 0x44
    xor ecx, ecx
    xor edx, edx
    mov eax, [xcr0_before]
    xsetbv
    call with_key_rights_0
    CR4_CLEAR CR4_PKE
    jmp 1f
no_keys:
    FAULTS "CR4.PKE without the feature", VECTOR_GP, 0, "mov rax, cr4; or eax, CR4_PKE; mov cr4, rax"
1:
    PTE 4, 0
    mov byte ptr [page], 0xC3

    # Reserved bits: NX without EFER.NXE, bit 7 of the upper two levels, address bits above memory, the low address bits of
    # large pages.
    mov ecx, 0xC0000080
    rdmsr
    and eax, ~(1 << 11)
    wrmsr
    PTE 0, 0x8000000000000000
    FAULTS "NX without EFER.NXE: load", VECTOR_PF, 9, "mov eax, [page]"
    FAULTS "NX without EFER.NXE: store", VECTOR_PF, 0xB, "mov [page], eax"
    FAULTS "NX without EFER.NXE: fetch", VECTOR_PF, 9, "lea rax, [page]; call rax"
    add rsp, 8
    PTE 0x8000000000000000, 0
    mov ecx, 0xC0000080
    rdmsr
    or eax, 1 << 11
    wrmsr
    mov rax, 0x0008000000000000     # bit 51, unless it is the C-bit: then 50
    cmp rax, [c_mask]
    jne 2f
    shr rax, 1
2:  mov [high_bit], rax
    mov rdx, [entry]
    or [rdx], rax
    invlpg [page]
    FAULTS "address bit above memory: load", VECTOR_PF, 9, "mov eax, [page]"
    FAULTS "address bit above memory: fetch", VECTOR_PF, 0x19, "lea rax, [page]; call rax"
    add rsp, 8
    USER "the same from CPL 3", VECTOR_PF, 0xD, "mov eax, [page]"
    mov rax, [high_bit]
    mov rdx, [entry]
    xor [rdx], rax
    invlpg [page]
    PTE 0, 0x07F0000000000E00       # what software may use
    FAULTS "available bits are no fault", -1, -1, "mov eax, [page]"
    PTE 0x07F0000000000E00, 0
    # At a linear address of its own: PML4 entry 1.
    mov rax, cr3
    and eax, 0xFFFFF000
    lea rdx, [other_pdpt + 3]
    or rdx, [c_mask]
    mov [rax + 8], rdx
    lea rdx, [other_pd + 3]
    or rdx, [c_mask]
    mov [other_pdpt], rdx
    mov r12, 1 << 39
    or dword ptr [rax + 8], 0x80
    FAULTS "bit 7 in the PML4", VECTOR_PF, 9, "mov eax, [r12]"
    mov rax, cr3
    and eax, 0xFFFFF000
    and dword ptr [rax + 8], ~0x80
    FAULTS "directory entry not present", VECTOR_PF, 0, "mov eax, [r12]"
    mov rax, [c_mask]
    or rax, 0x200083
    mov [other_pd], rax
    mov eax, [page - 0x200000 + r12]
    xor eax, [page]
    EXPECT "a 2 MiB page", 0
    or dword ptr [other_pd], 0x2000
    mov rax, cr3
    mov cr3, rax
    FAULTS "2 MiB page with bit 13", VECTOR_PF, 9, "mov eax, [r12]"
    and dword ptr [other_pd], ~0x2000
    mov eax, [r12]
    mov rax, [other_pd]
    and eax, 0x60
    EXPECT "a load sets accessed in a large page", 0x20
    mov rax, [other_pdpt]
    and eax, 0x60
    EXPECT "and in the entry above it, nothing else", 0x20
    mov eax, [scratch - 0x200000 + r12]
    mov [scratch - 0x200000 + r12], eax
    mov rax, [other_pd]
    and eax, 0x60
    EXPECT "a store sets dirty", 0x60
    .irp level, 3, 4
    call other_entry_\level
    and dword ptr [rax], ~2
    mov rax, cr3
    mov cr3, rax
    FAULTS "level \level without W: a store", VECTOR_PF, 3, "mov [scratch - 0x200000 + r12], eax"
    FAULTS "level \level without W: a load", -1, -1, "mov eax, [scratch - 0x200000 + r12]"
    call other_entry_\level
    or dword ptr [rax], 2
    .endr
    .irp level, 3, 4
    call other_entry_\level
    bts qword ptr [rax], 63
    mov rax, cr3
    mov cr3, rax
    FAULTS "level \level with NX: a fetch", VECTOR_PF, 0x11, "lea rax, [page - 0x200000 + r12]; call rax"
    add rsp, 8
    call other_entry_\level
    btr qword ptr [rax], 63
    .endr
    mov rax, cr3
    mov cr3, rax
    UNLESS_FEATURE 0x80000001, 3, 26, 1f
    mov rax, [c_mask]
    or rax, 0x83
    mov [other_pdpt], rax
    mov rax, cr3
    mov cr3, rax
    mov eax, [page + r12]
    xor eax, [page]
    EXPECT "a 1 GiB page", 0
    or dword ptr [other_pdpt], 0x200000
    mov rax, cr3
    mov cr3, rax
    FAULTS "1 GiB page with bit 21", VECTOR_PF, 9, "mov eax, [r12]"
    jmp 2f
1:  mov rax, [c_mask]
    or rax, 0x83
    mov [other_pdpt], rax
    mov rax, cr3
    mov cr3, rax
    FAULTS "1 GiB page without the feature", VECTOR_PF, 9, "mov eax, [r12]"
2:
    # Accessed and dirty bits that are set need no write to the table, and nothing clears them.
    PTE 0x60, 0
    FAULTS "a store that faults", VECTOR_PF, 3, "PTE 2, 0; mov [page], al"
    mov rax, [entry]
    mov rax, [rax]
    and eax, 0x40
    EXPECT "does not set dirty", 0
    PTE 0, 2
    mov eax, 1
    mov ecx, 2
    lock cmpxchg [page], ecx        # fails, but writes
    mov rax, [entry]
    mov rax, [rax]
    and eax, 0x60
    EXPECT "a locked compare that fails sets dirty", 0x60
    PTE 0x60, 0
    prefetcht0 [page]
    mov ecx, 0
    lea rdi, [page]
    rep stosb
    mov rax, [entry]
    mov rax, [rax]
    and eax, 0x40
    EXPECT "REP STOSB of nothing does not", 0

    # What needs no INVLPG: from not present to present, more rights after a fault that was taken, and a new CR3.
    mov rax, [entry]
    and dword ptr [rax], ~1
    invlpg [page]
    FAULTS "not present", VECTOR_PF, 0, "mov eax, [page]"
    mov rax, [entry]
    or dword ptr [rax], 1
    FAULTS "present, without INVLPG", -1, -1, "mov eax, [page]"
    PTE 2, 0
    FAULTS "read-only", VECTOR_PF, 3, "mov [page], al"
    mov rax, [entry]
    or dword ptr [rax], 2
    FAULTS "writable behind the fault, without INVLPG", -1, -1, "mov [page], al"
    PTE 0, 0x8000000000000000
    FAULTS "no-execute", VECTOR_PF, 0x11, "lea rax, [page]; call rax"
    add rsp, 8
    mov byte ptr [page], 0xC3
    mov rax, [entry]
    btr qword ptr [rax], 63
    FAULTS "executable behind the fault, without INVLPG", -1, -1, "lea rax, [page]; call rax"
    mov rax, [entry]
    and dword ptr [rax], ~1
    mov rax, cr3
    mov cr3, rax
    FAULTS "taken away, with a write to CR3", VECTOR_PF, 0, "mov eax, [page]"
    PTE 0, 1
    # A global page may survive a write to CR3, and must not survive a change of CR4.PGE.
    CR4_SET CR4_PGE
    PTE 0, 0x100
    mov eax, [page]
    mov rax, [entry]
    and dword ptr [rax], ~1
    CR4_CLEAR CR4_PGE
    FAULTS "a global page, behind a change of CR4.PGE", VECTOR_PF, 0, "mov eax, [page]"
    PTE 0x100, 1
    CR4_SET CR4_PGE
    PTE 0, 0x100
    mov eax, [page]
    mov rax, [entry]
    and dword ptr [rax], ~1
    invlpg [page + 5]
    FAULTS "a global page, behind INVLPG", VECTOR_PF, 0, "mov eax, [page]"
    PTE 0x100, 1

    # PCID and INVPCID.
    UNLESS_FEATURE 1, 2, 17, no_pcid
    mov rax, cr3
    mov [cr3_before], rax
    or rax, 0x18                    # PCD and PWT: no context, but not zero
    mov cr3, rax
    FAULTS "CR4.PCIDE while CR3 11:0 is not 0", VECTOR_GP, 0, "mov rax, cr4; or eax, CR4_PCIDE; mov cr4, rax"
    mov rax, [cr3_before]
    mov cr3, rax
    CR4_SET CR4_PCIDE
    mov rax, [cr3_before]
    or rax, 5
    mov cr3, rax
    mov rax, cr3
    and eax, 0xFFF
    EXPECT "context 5", 5
    mov eax, [page]
    bts qword ptr [cr3_before], 63
    mov rax, [cr3_before]
    mov cr3, rax                    # context 0, nothing invalidated
    mov rax, cr3
    shr rax, 63
    EXPECT "bit 63 is not kept", 0
    mov rax, [entry]
    and dword ptr [rax], ~1
    FAULTS "CR0.PG off with contexts on", VECTOR_GP, 0, "mov rax, cr0; btr rax, 31; mov cr0, rax"
    UNLESS_FEATURE 7, 1, 10, no_invpcid
    lea rax, [page]
    mov [invalidation + 8], rax
    mov qword ptr [invalidation], 0
    xor ecx, ecx
    invpcid rcx, [invalidation]     # one address, this context
    FAULTS "INVPCID of an address", VECTOR_PF, 0, "mov eax, [page]"
    mov rax, [entry]
    or dword ptr [rax], 1
    mov eax, [page]
    mov rax, [entry]
    and dword ptr [rax], ~1
    mov ecx, 1
    invpcid rcx, [invalidation]     # this context
    FAULTS "INVPCID of a context", VECTOR_PF, 0, "mov eax, [page]"
    PTE 0, 0x101
    mov eax, [page]
    mov rax, [entry]
    and dword ptr [rax], ~1
    mov ecx, 2
    invpcid rcx, [invalidation]     # everything, global pages too
    FAULTS "INVPCID of everything", VECTOR_PF, 0, "mov eax, [page]"
    PTE 0x100, 1
    FAULTS "INVPCID type 4", VECTOR_GP, 0, "mov ecx, 4; invpcid rcx, [invalidation]"
    mov qword ptr [invalidation], 0x1000
    FAULTS "INVPCID, descriptor bit 12", VECTOR_GP, 0, "mov ecx, 1; invpcid rcx, [invalidation]"
    mov qword ptr [invalidation], 0
    bts qword ptr [invalidation + 8], 63
    FAULTS "INVPCID, address that is not canonical", VECTOR_GP, 0, "mov ecx, 0; invpcid rcx, [invalidation]"
    btr qword ptr [invalidation + 8], 63
    USER "INVPCID at CPL 3", VECTOR_GP, 0, "mov ecx, 2; invpcid rcx, [user_result]"
no_invpcid:
    PTE 0, 1
    mov rax, [cr3_before]
    btr rax, 63
    mov cr3, rax
    CR4_CLEAR CR4_PCIDE
    mov qword ptr [invalidation], 1
    UNLESS_FEATURE 7, 1, 10, 1f
    FAULTS "INVPCID of context 1 without CR4.PCIDE", VECTOR_GP, 0, "mov ecx, 1; invpcid rcx, [invalidation]"
    jmp 1f
no_pcid:
    FAULTS "CR4.PCIDE without the feature", VECTOR_GP, 0, "mov rax, cr4; or eax, CR4_PCIDE; mov cr4, rax"
1:
    FAULTS "CR3 with a bit above memory", VECTOR_GP, 0, "mov rax, cr3; or rax, [high_bit]; mov cr3, rax"
    FAULTS "CR4.PAE off in long mode", VECTOR_GP, 0, "mov rax, cr4; and eax, ~0x20; mov cr4, rax"
    FAULTS "CR4 with a reserved bit", VECTOR_GP, 0, "mov rax, cr4; bts rax, 15; mov cr4, rax"
    FAULTS "CR4 with a bit above 31", VECTOR_GP, 0, "mov rax, cr4; bts rax, 32; mov cr4, rax"
    FAULTS "CR0 with a bit above 31", VECTOR_GP, 0, "mov rax, cr0; bts rax, 32; mov cr0, rax"
    FAULTS "CR0.PG without PE", VECTOR_GP, 0, "mov rax, cr0; btr rax, 0; mov cr0, rax"
    FAULTS "CR0.NW without CD", VECTOR_GP, 0, "mov rax, cr0; bts rax, 29; btr rax, 30; mov cr0, rax"
    FAULTS "EFER.LME off while paging", VECTOR_GP, 0, "mov ecx, 0xC0000080; rdmsr; btr eax, 8; wrmsr"
    FAULTS "EFER with a reserved bit", VECTOR_GP, 0, "mov ecx, 0xC0000080; rdmsr; bts eax, 1; wrmsr"
    FAULTS "CR1", VECTOR_UD, 0, ".byte 0x0F, 0x20, 0xC8"
    FAULTS "CR5", VECTOR_UD, 0, ".byte 0x0F, 0x20, 0xE8"
    USER "MOV from CR3 at CPL 3", VECTOR_GP, 0, "mov rax, cr3"
    USER "INVLPG at CPL 3", VECTOR_GP, 0, "invlpg [page]"
    USER "CLTS at CPL 3", VECTOR_GP, 0, "clts"
    ret

other_entry_3:
    lea rax, [other_pdpt]
    ret
other_entry_4:
    mov rax, cr3
    and eax, 0xFFFFF000
    add rax, 8
    ret

with_key_rights_0:
    xor eax, eax
    jmp 1f
with_key_rights_ad:
    mov eax, 1 << 10
    jmp 1f
with_key_rights_wd:
    mov eax, 2 << 10
1:  xor ecx, ecx
    xor edx, edx
    wrpkru
    ret

.bss
entry:      .skip 8
high_bit:   .skip 8
cr3_before: .skip 8
xcr0_before: .skip 8
.align 16
table:      .skip 16
invalidation: .skip 16
scratch:    .skip 64
.align 64
area:       .skip 4096
.align 4096
page:       .skip 4096
other_pdpt: .skip 4096
other_pd:   .skip 4096
