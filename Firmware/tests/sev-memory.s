# A SEV or SEV-ES guest's memory: the C-bit alone decides who sees what [APM2 15.34]. No page states, no validation.

.include "runtime.inc"
.globl guest_main

.set PATTERN, 0x0123456789ABCDEF

.text
guest_main:
    mov eax, [sev_status]
    and eax, SEV_STATUS_SEV | SEV_STATUS_SNP
    EXPECT "SEV_STATUS: SEV and not SNP", 1

    # CPUID names the C-bit that we run with.
    mov edi, 0x8000001F
    call cpuid_leaf
    mov r13d, edx
    and eax, 2
    EXPECT "CPUID 0x8000001F EAX: SEV", 2
    and r13d, 63
    mov ecx, r13d
    mov eax, 1
    shl rax, cl
    xor rax, [c_mask]
    EXPECT "CPUID 0x8000001F EBX: C-bit position against CR3", 0

    # Stored with C=1, seen with C=0: ciphertext, different in each page.
    mov rax, PATTERN
    mov [page_a], rax
    mov [page_b], rax
    mov [page_a + 4088], rax
    lea rdi, [page_a]
    xor esi, esi
    call set_encrypted
    lea rdi, [page_b]
    xor esi, esi
    call set_encrypted
    mov r12, [page_a]
    mov r13, [page_b]
    mov rdx, PATTERN
    xor eax, eax
    cmp r12, rdx
    sete al
    EXPECT "C=0 shows the plaintext", 0
    xor eax, eax
    cmp r12, r13
    sete al
    EXPECT "one plaintext in two pages is one ciphertext", 0

    # And back: nothing is lost.
    lea rdi, [page_a]
    mov esi, 1
    call set_encrypted
    mov rax, [page_a]
    mov rdx, PATTERN
    xor rax, rdx
    EXPECT "C=1 again: the plaintext", 0

    # Ciphertext copied with C=0 to another page is garbage there; copied back where it was, it is the plaintext.
    lea rdi, [page_a]
    xor esi, esi
    call set_encrypted
    mov r12, [page_a]
    mov r13, [page_a + 8]
    mov [page_b], r12
    mov [page_b + 8], r13
    lea rdi, [page_b]
    mov esi, 1
    call set_encrypted
    mov rax, [page_b]
    mov rdx, PATTERN
    cmp rax, rdx
    mov eax, 0
    sete al
    EXPECT "ciphertext moved to another page is the plaintext", 0
    mov qword ptr [page_a], 0       # an attacker's store, then the old block again
    mov [page_a], r12
    lea rdi, [page_a]
    mov esi, 1
    call set_encrypted
    mov rax, [page_a]
    mov rdx, PATTERN
    xor rax, rdx
    EXPECT "an old ciphertext block at its own address is accepted", 0
    mov rax, [page_a + 4088]
    mov rdx, PATTERN
    xor rax, rdx
    EXPECT "the rest of the page is untouched", 0

    # C=0 stores are garbage for C=1, from the first byte of their block on.
    lea rdi, [page_a]
    xor esi, esi
    call set_encrypted
    mov rax, PATTERN
    mov [page_a + 64], rax
    mov rax, [page_a + 64]
    mov rdx, PATTERN
    xor rax, rdx
    EXPECT "C=0 reads what C=0 wrote", 0
    lea rdi, [page_a]
    mov esi, 1
    call set_encrypted
    mov rax, [page_a + 64]
    mov rdx, PATTERN
    cmp rax, rdx
    mov eax, 0
    sete al
    EXPECT "C=1 reads what C=0 wrote", 0

    # Code is fetched with C=1 whatever its mapping says: the same bytes run, though data reads ciphertext.
    lea rdi, [code_page]
    xor esi, esi
    call set_encrypted
    xor eax, eax
    call code_page
    EXPECT "a page mapped with C=0 is fetched as C=1", 0x77
    mov rax, [code_page]
    mov rdx, 0x0000C300000077B8
    mov rcx, 0x0000FFFFFFFFFFFF
    and rax, rcx
    cmp rax, rdx
    mov eax, 0
    sete al
    EXPECT "its bytes as data are the plaintext", 0
    lea rdi, [code_page]
    mov esi, 1
    call set_encrypted
    xor eax, eax
    call code_page
    EXPECT "and runs as before", 0x77
    ret

# cpuid_leaf(leaf) → EAX, EDX = EBX. By the GHCB in SEV-ES guests.
cpuid_leaf:
    test byte ptr [sev_status], SEV_STATUS_ES
    jnz 1f
    push rbx
    mov eax, edi
    xor ecx, ecx
    cpuid
    mov edx, ebx
    pop rbx
    ret
1:  call ghcb_begin
    mov eax, edi
    mov [ghcb + GHCB_RAX], rax
    mov qword ptr [ghcb + GHCB_RCX], 0
    GHCB_VALID GHCB_RAX
    GHCB_VALID GHCB_RCX
    mov edi, EXIT_CPUID
    xor esi, esi
    xor edx, edx
    call ghcb_call
    mov eax, [ghcb + GHCB_RAX]
    mov edx, [ghcb + GHCB_RBX]
    ret

.balign 4096
code_page:
    mov eax, 0x77
    ret
    .balign 4096

.bss
.balign 4096
page_a: .skip 4096
page_b: .skip 4096
