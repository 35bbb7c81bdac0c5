# CPUID tells the truth: each instruction group that it announces has an instruction here that works, each that it hides one
# that raises #UD, or #GP where a switch for it is refused [APM3 appendix E]. A group that is hidden and works all the same
# (a processor cannot forget its instructions, only software can) gives a line "THERE"; a bit that has no test, a line
# "UNTESTED".

.include "runtime.inc"
.include "privilege.inc"
.globl guest_main

.set HIDDEN, VECTOR_UD              # what the instructions of a hidden group raise

# Registers of CPUID, by number.
.set F1_ECX, 0
.set F1_EDX, 1
.set F7_EBX, 2
.set F7_ECX, 3
.set F7_EDX, 4
.set FD_EAX, 5
.set X1_ECX, 6
.set X1_EDX, 7
.set X8_EBX, 8
.set REGISTERS, 9

# FEATURE "name", register, bit, vector if it is hidden, "code"
.macro FEATURE name:req, register:req, bit:req, hidden:req, code:req
    .pushsection .rodata
.Lfeature\@: .asciz "\name"
    .popsection
    mov qword ptr [fault_vector], -1
    mov qword ptr [recovery], offset .Lbehind\@
    mov [stack_before], rsp
    lea rbx, [area]
    \code
.Lbehind\@:
    mov rsp, [stack_before]
    mov qword ptr [recovery], 0
    lea rdi, [.Lfeature\@]
    mov esi, \register
    mov edx, \bit
    mov ecx, \hidden
    call judge
.endm

# KNOWN register, bits: groups without an instruction of their own, and where they are looked at.
.macro KNOWN register:req, bits:vararg
    .irp bit, \bits
    or dword ptr [known + \register * 4], 1 << \bit
    .endr
.endm

# SWITCH "name", register, bit, bit of CR4
.macro SWITCH name:req, register:req, bit:req, switch:req
    FEATURE "\name", \register, \bit, VECTOR_GP, "mov rax, cr4; mov rdx, rax; bts rax, \switch; mov cr4, rax; mov cr4, rdx"
.endm

.text
guest_main:
    xor r12d, r12d
1:  imul ebx, r12d, 12
    mov edi, [leaves + rbx]
    mov esi, [leaves + rbx + 4]
    call read_cpuid
    mov eax, [leaves + rbx + 8]
    mov eax, [cpuid_registers + rax * 4]
    mov [values + r12 * 4], eax
    inc r12d
    cmp r12d, REGISTERS
    jb 1b

    mov rax, cr4                    # OSFXSR, OSXMMEXCPT
    or eax, 3 << 9
    mov cr4, rax
    mov rax, cr0                    # no EM, no TS; MP
    and eax, ~0xC
    or eax, 2
    mov cr0, rax
    bt dword ptr [values + F1_ECX * 4], 26
    jnc 2f
    mov rax, cr4                    # OSXSAVE
    or eax, 1 << 18
    mov cr4, rax
    mov eax, 3
    bt dword ptr [values + F1_ECX * 4], 28
    jnc 1f
    or eax, 4
1:  xor ecx, ecx
    xor edx, edx
    xsetbv
2:
    # Leaf 1, EDX.
    FEATURE "FPU", F1_EDX, 0, HIDDEN, "fninit; fld1; fstp st(0)"
    SWITCH "DE", F1_EDX, 2, 3
    SWITCH "PSE", F1_EDX, 3, 4
    FEATURE "TSC", F1_EDX, 4, HIDDEN, "rdtsc"
    FEATURE "MSR", F1_EDX, 5, HIDDEN, "mov ecx, 0xC0000080; rdmsr"
    FEATURE "CMPXCHG8B", F1_EDX, 8, HIDDEN, "cmpxchg8b [rbx]"
    FEATURE "SYSENTER", F1_EDX, 11, VECTOR_GP, "mov ecx, 0x174; rdmsr"
    SWITCH "PGE", F1_EDX, 13, 7
    FEATURE "CMOV", F1_EDX, 15, HIDDEN, "cmovz eax, ecx; fninit; fld1; fcmovb st(0), st(0); fninit"
    FEATURE "PAT", F1_EDX, 16, VECTOR_GP, "mov ecx, 0x277; rdmsr"
    FEATURE "CLFLUSH", F1_EDX, 19, HIDDEN, "clflush [rbx]"
    FEATURE "MMX", F1_EDX, 23, HIDDEN, "paddb mm0, mm1; emms"
    FEATURE "FXSR", F1_EDX, 24, HIDDEN, "fxsave [rbx]; fxrstor [rbx]"
    FEATURE "SSE", F1_EDX, 25, HIDDEN, "addps xmm0, xmm1; sfence"
    FEATURE "SSE2", F1_EDX, 26, HIDDEN, "paddq xmm0, xmm1; mfence"
    # PAE: we run by it. APIC: apic-timer. MTRR, MCE, MCA: msrs. PSE36: frames beyond 4 GiB with two levels. HTT: a count.
    KNOWN F1_EDX, 6, 7, 9, 12, 14, 17, 28

    # Leaf 1, ECX.
    FEATURE "SSE3", F1_ECX, 0, HIDDEN, "haddps xmm0, xmm1"
    FEATURE "PCLMULQDQ", F1_ECX, 1, HIDDEN, "pclmulqdq xmm0, xmm1, 0"
    FEATURE "SSSE3", F1_ECX, 9, HIDDEN, "pshufb xmm0, xmm1"
    FEATURE "FMA", F1_ECX, 12, HIDDEN, "vfmadd132pd xmm0, xmm1, xmm2"
    FEATURE "CMPXCHG16B", F1_ECX, 13, HIDDEN, "cmpxchg16b [rbx]"
    SWITCH "PCID", F1_ECX, 17, 17
    FEATURE "SSE4.1", F1_ECX, 19, HIDDEN, "ptest xmm0, xmm1"
    FEATURE "SSE4.2", F1_ECX, 20, HIDDEN, "crc32 eax, ecx; pcmpgtq xmm0, xmm1"
    FEATURE "MOVBE", F1_ECX, 22, HIDDEN, "movbe eax, [rbx]"
    FEATURE "POPCNT", F1_ECX, 23, HIDDEN, "popcnt eax, ecx"
    FEATURE "AES", F1_ECX, 25, HIDDEN, "aesenc xmm0, xmm1"
    FEATURE "XSAVE", F1_ECX, 26, HIDDEN, "xor ecx, ecx; xgetbv; xsave [rbx]"
    FEATURE "AVX", F1_ECX, 28, HIDDEN, "vaddps ymm0, ymm1, ymm2"
    FEATURE "F16C", F1_ECX, 29, HIDDEN, "vcvtph2ps ymm0, xmm1"
    FEATURE "RDRAND", F1_ECX, 30, HIDDEN, "rdrand eax"
    # x2APIC and the TSC deadline: apic-timer. OSXSAVE is ours, the hypervisor's bit says that there is one.
    KNOWN F1_ECX, 21, 24, 27, 31

    # Leaf 7.
    FEATURE "FSGSBASE", F7_EBX, 0, VECTOR_GP, "mov rax, cr4; bts rax, 16; mov cr4, rax; rdfsbase rax; wrfsbase rax"
    FEATURE "BMI1", F7_EBX, 3, HIDDEN, "andn eax, ecx, edx; bextr eax, ecx, edx; blsr eax, ecx; tzcnt eax, ecx"
    FEATURE "RTM", F7_EBX, 11, HIDDEN, ".byte 0xC7, 0xF8, 0, 0, 0, 0"
    FEATURE "AVX2", F7_EBX, 5, HIDDEN, "vpaddd ymm0, ymm1, ymm2"
    SWITCH "SMEP", F7_EBX, 7, 20
    FEATURE "BMI2", F7_EBX, 8, HIDDEN, "pdep eax, ecx, edx; shlx eax, ecx, edx; mulx eax, ecx, edx"
    FEATURE "INVPCID", F7_EBX, 10, HIDDEN, "mov eax, 2; mov qword ptr [rbx], 0; mov qword ptr [rbx + 8], 0; invpcid rax, [rbx]"
    FEATURE "AVX-512", F7_EBX, 16, HIDDEN, "vaddps zmm0, zmm1, zmm2"
    FEATURE "RDSEED", F7_EBX, 18, HIDDEN, "rdseed eax"
    FEATURE "ADX", F7_EBX, 19, HIDDEN, "adcx eax, ecx; adox eax, ecx"
    FEATURE "SMAP: CLAC", F7_EBX, 20, HIDDEN, "clac"
    SWITCH "SMAP: the switch", F7_EBX, 20, 21
    FEATURE "CLFLUSHOPT", F7_EBX, 23, HIDDEN, "clflushopt [rbx]"
    FEATURE "CLWB", F7_EBX, 24, HIDDEN, "clwb [rbx]"
    FEATURE "SHA", F7_EBX, 29, HIDDEN, "sha1msg1 xmm0, xmm1; sha256rnds2 xmm1, xmm2, xmm0"
    SWITCH "UMIP", F7_ECX, 2, 11
    FEATURE "PKU", F7_ECX, 3, VECTOR_GP, "mov rax, cr4; bts rax, 22; mov cr4, rax; xor ecx, ecx; rdpkru"
    FEATURE "WAITPKG", F7_ECX, 5, HIDDEN, "xor eax, eax; xor edx, edx; xor ecx, ecx; tpause ecx"
    FEATURE "GFNI", F7_ECX, 8, HIDDEN, "gf2p8mulb xmm0, xmm1"
    FEATURE "VAES", F7_ECX, 9, HIDDEN, "vaesenc ymm0, ymm1, ymm2"
    FEATURE "VPCLMULQDQ", F7_ECX, 10, HIDDEN, "vpclmulqdq ymm0, ymm1, ymm2, 0"
    FEATURE "RDPID", F7_ECX, 22, HIDDEN, "rdpid rax"
    FEATURE "MOVDIRI", F7_ECX, 27, HIDDEN, "movdiri [rbx], eax"
    FEATURE "MOVDIR64B", F7_ECX, 28, HIDDEN, "mov rax, rbx; movdir64b rax, [rbx]"
    FEATURE "SERIALIZE", F7_EDX, 14, HIDDEN, "serialize"
    # TSC_ADJUST: an MSR of the hypervisor's. OSPKE is ours. LA57: five-levels.
    KNOWN F7_EBX, 1
    KNOWN F7_ECX, 4, 16

    # Leaf 0xD, subleaf 1.
    FEATURE "XSAVEOPT", FD_EAX, 0, HIDDEN, "xor eax, eax; xor edx, edx; xsaveopt [rbx]"
    FEATURE "XSAVEC", FD_EAX, 1, HIDDEN, "xor eax, eax; xor edx, edx; xsavec [rbx]"
    FEATURE "XGETBV with ECX 1", FD_EAX, 2, VECTOR_GP, "mov ecx, 1; xgetbv"
    FEATURE "XSAVES", FD_EAX, 3, HIDDEN, "xor eax, eax; xor edx, edx; xsaves [rbx]"

    # Leaf 0x80000001.
    FEATURE "LAHF", X1_ECX, 0, HIDDEN, "lahf; sahf"
    FEATURE "CR8 by LOCK MOV CR0", X1_ECX, 4, HIDDEN, ".byte 0xF0, 0x0F, 0x20, 0xC0"
    FEATURE "SSE4A", X1_ECX, 6, HIDDEN, "extrq xmm0, xmm1"
    FEATURE "misaligned SSE", X1_ECX, 7, VECTOR_GP, "mov dword ptr [rbx], 0x21F80; ldmxcsr [rbx]; mov dword ptr [rbx], 0x1F80; ldmxcsr [rbx]"
    FEATURE "PREFETCHW", X1_ECX, 8, -1, "prefetchw [rbx]"
    FEATURE "XOP", X1_ECX, 11, HIDDEN, "vphaddbd xmm0, xmm1"
    FEATURE "FMA4", X1_ECX, 16, HIDDEN, "vfmaddps xmm0, xmm1, xmm2, xmm3"
    FEATURE "TBM", X1_ECX, 21, HIDDEN, "blcfill eax, ecx"
    FEATURE "NX", X1_EDX, 20, VECTOR_GP, "mov ecx, 0xC0000080; rdmsr; or eax, 1 << 11; wrmsr"
    FEATURE "MMXEXT", X1_EDX, 22, HIDDEN, "pavgb mm0, mm1; emms"
    FEATURE "RDTSCP", X1_EDX, 27, HIDDEN, "rdtscp"
    FEATURE "3DNow!", X1_EDX, 31, HIDDEN, "pfadd mm0, mm1; femms"
    # SVM: no instruction without its switch. Those of leaf 1 once more. SYSCALL: transfers. 1 GiB pages: paging. Long mode.
    KNOWN X1_ECX, 2
    KNOWN X1_EDX, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 23, 24, 26, 29
    # ABM: LZCNT, which is BSR without it.
    KNOWN X1_ECX, 5
    mov ecx, 1
    xor eax, eax
    lzcnt eax, ecx
    mov edx, [values + X1_ECX * 4]
    bt edx, 5
    sbb edx, edx
    and edx, 31
    mov esi, eax
    lea rdi, [text_lzcnt]
    call expect

    # Leaf 0x80000008.
    FEATURE "CLZERO", X8_EBX, 0, HIDDEN, "mov rax, rbx; clzero"
    FEATURE "INVLPGB", X8_EBX, 3, HIDDEN, ".byte 0x0F, 0x01, 0xFE"
    FEATURE "RDPRU", X8_EBX, 4, HIDDEN, "xor ecx, ecx; rdpru"
    FEATURE "MCOMMIT", X8_EBX, 8, HIDDEN, ".byte 0xF3, 0x0F, 0x01, 0xFA"
    # FXSAVE keeps error pointers. WBNOINVD is WBINVD elsewhere.
    KNOWN X8_EBX, 2, 9

    # What is announced and has no test.
    xor r12d, r12d
1:  mov ebx, [known + r12 * 4]
    not ebx
    and ebx, [values + r12 * 4]
    jz 2f
    lea rdi, [text_untested]
    call print
    mov rdi, r12
    call print_hex
    lea rdi, [text_bits]
    call print
    mov edi, ebx
    call print_hex
    lea rdi, [text_end]
    call print
2:  inc r12d
    cmp r12d, REGISTERS
    jb 1b
    ret

# judge(name, register, bit, vector if hidden): what the last instructions raised against what CPUID says.
judge:
    mov r8d, ecx
    movsxd r8, r8d
    bts [known + rsi * 4], edx
    bt [values + rsi * 4], edx
    mov rsi, [fault_vector]
    jnc 1f
    mov rdx, -1
    jmp expect
1:  mov rdx, r8
    cmp rsi, rdx
    je expect
    cmp rsi, -1
    jne expect
    push rdi
    lea rdi, [text_there]
    call print
    pop rdi
    call print
    lea rdi, [text_end]
    jmp print

# read_cpuid(leaf, subleaf): into cpuid_registers, by the GHCB where CPUID is intercepted.
read_cpuid:
    push rbx
    test byte ptr [sev_status], SEV_STATUS_ES
    jnz 1f
    mov eax, edi
    mov ecx, esi
    cpuid
    jmp 2f
1:  call ghcb_begin
    mov eax, edi
    mov [ghcb + GHCB_RAX], rax
    mov eax, esi
    mov [ghcb + GHCB_RCX], rax
    mov qword ptr [ghcb + GHCB_XCR0], 1
    GHCB_VALID GHCB_RAX
    GHCB_VALID GHCB_RCX
    GHCB_VALID GHCB_XCR0
    mov edi, EXIT_CPUID
    xor esi, esi
    xor edx, edx
    call ghcb_call
    mov eax, [ghcb + GHCB_RAX]
    mov ebx, [ghcb + GHCB_RBX]
    mov ecx, [ghcb + GHCB_RCX]
    mov edx, [ghcb + GHCB_RDX]
2:  mov [cpuid_registers], eax
    mov [cpuid_registers + 4], ebx
    mov [cpuid_registers + 8], ecx
    mov [cpuid_registers + 12], edx
    pop rbx
    ret

.section .rodata
# Leaf, subleaf, register (EAX, EBX, ECX, EDX).
leaves:
    .long 1, 0, 2
    .long 1, 0, 3
    .long 7, 0, 1
    .long 7, 0, 2
    .long 7, 0, 3
    .long 0xD, 1, 0
    .long 0x80000001, 0, 2
    .long 0x80000001, 0, 3
    .long 0x80000008, 0, 1
text_lzcnt:    .asciz "ABM: LZCNT of 1"
text_there:    .asciz "THERE though hidden: "
text_untested: .asciz "UNTESTED register "
text_bits:     .asciz ", bits "
text_end:      .asciz "\n"

.bss
.align 64
area:            .skip 4096
stack_before:    .skip 8
cpuid_registers: .skip 16
values:          .skip 4 * REGISTERS
known:           .skip 4 * REGISTERS
