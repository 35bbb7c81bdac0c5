// A 32-bit program without any library: compatibility mode, the instructions that 64-bit mode has not, system calls by
// INT 0x80 and by the kernel's page, segments of its own, and jumps into 64-bit code and back.
typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned long long u64;

static u32 call(u32 number, u32 a, u32 b, u32 c, u32 d)
{
    u32 result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d) : "memory");
    return result;
}

static char buffer[8192];
static u32 length;
static void flush(void)
{
    call(4, 1, (u32)buffer, length, 0);
    length = 0;
}
static void text(const char *s)
{
    while (*s && length < sizeof buffer) buffer[length++] = *s++;
    // What came before a fault is seen.
    if (s[-1] == '\n') flush();
}
static void hex(u32 value)
{
    char digits[10] = " ";
    for (int i = 0; i < 8; i++) digits[1 + i] = "0123456789abcdef"[value >> (28 - 4 * i) & 15];
    digits[9] = 0;
    text(digits);
}
// MARK: Instructions

// With the flags that the manual defines [APM3].
#define DECIMAL(name, defined)                                                                                                  \
    static void run_##name(void)                                                                                       \
    {                                                                                                                  \
        u32 sum = 0;                                                                                                   \
        for (u32 i = 0; i < 65536; i += 7)                                                                             \
            for (u32 carry = 0; carry < 4; carry++) {                                                                  \
                u32 flags, value = i;                                                                                  \
                /* CF and AF as they come in. */                                                                       \
                u32 in = (carry & 1) | (carry & 2) << 3 | 0x202;                                                       \
                __asm__ volatile("push %2; popf; " #name "; pushf; pop %1"                                             \
                                 : "+a"(value), "=r"(flags) : "r"(in) : "cc");                                         \
                sum = sum * 31 + value + (flags & (defined));                                                               \
            }                                                                                                          \
        text(#name), hex(sum), text("\n");                                                                             \
    }
DECIMAL(daa, 0xd5)
DECIMAL(das, 0xd5)
DECIMAL(aaa, 0x11)
DECIMAL(aas, 0x11)
DECIMAL(aad, 0xc4)
DECIMAL(aam, 0xc4)

static void instructions(void)
{
    run_daa(), run_das(), run_aaa(), run_aas(), run_aad(), run_aam();
    u32 out[8] = {0}, before, after;
    __asm__ volatile("mov %%esp, %1; mov $1, %%eax; mov $2, %%ecx; mov $3, %%edx; pusha; mov %%esp, %%esi\n"
                     "mov $8, %%ecx; lea %0, %%edi; cld; rep movsl; popa; mov %%esp, %2"
                     : "=m"(out), "=m"(before), "=m"(after) : : "eax", "ecx", "edx", "esi", "edi", "memory");
    text("pusha"), hex(out[7]), hex(out[6]), hex(out[5]), hex(before - out[3]), hex(before - after), text("\n");
    u32 sum = 0;
    for (u32 i = 1; i < 200; i++) {
        u32 value = i * 2654435761u;
        u64 wide = (u64)value * (value ^ 0x5a5a) + i;
        __asm__("shldl %%cl, %1, %0; rcll $3, %0; bswap %0; adcl %1, %0" : "+r"(value) : "r"((u32)wide), "c"(i) : "cc");
        u32 low = (u32)wide, high = (u32)(wide >> 32) % i;
        __asm__("divl %2" : "+a"(low), "+d"(high) : "r"(i) : "cc");
        sum = sum * 31 + value + low * 3 + high;
    }
    text("arithmetic"), hex(sum), text("\n");
    u32 a = 0, b, c = 0, d;
    __asm__ volatile("cmpxchg8b (%3)" : "+a"(a), "+d"(c), "=m"(out) : "r"(out), "b"(5), "c"(6) : "cc", "memory");
    __asm__("movl $0x12345678, %%eax; inc %%eax; .byte 0x66; dec %%eax; xlatb" : "=a"(b) : "b"("0123456789abcdefghijklmnopqrstuvw"
        "xyzABCDEFGHIJKLMNOPQRSTUVWXYZ....................................................................") : "cc");
    __asm__("lea 16(%%eax, %%ecx, 4), %%eax" : "=a"(d) : "0"(0xfffffff0), "c"(0x40000003));
    text("odd"), hex(a), hex(c), hex(b & 0xffffff00), hex(d), text("\n");
}

// MARK: Segments

static u32 segmentData[16] = {0x11111111, 0x22222222, 0x33333333, 0x44444444};
static void segments(void)
{
    // modify_ldt: entry 0 for data of 12 bytes, entry 1 for 16-bit code.
    struct { u32 entry, base, limit, flags; } description = {0, (u32)segmentData, 11, 1};
    u32 made = call(123, 1, (u32)&description, sizeof description, 0);
    u32 inside = 0, limit = 0, rights = 0;
    __asm__ volatile("push %%es; mov %2, %%es; movl %%es:8, %0; lsl %2, %1; lar %2, %3; pop %%es"
                     : "=&r"(inside), "=&r"(limit) , "+r"((u32){7}), "=&r"(rights) : : "memory");
    text("ldt"), hex(made), hex(inside), hex(limit), hex(rights), text("\n");

    // Code in a segment with a base: add %bx, %ax; call to a return of its own; far return.
    static unsigned char based[] = {0x66, 0x01, 0xd8, 0xe8, 1, 0, 0, 0, 0xcb, 0x40, 0xc3};
    struct { u32 entry, base, limit, flags; } codeDescription = {1, (u32)based, 0xfff, 1 | 2 << 1};
    made = call(123, 1, (u32)&codeDescription, sizeof codeDescription, 0);
    call(125, (u32)based & ~4095u, 8192, 7, 0);
    struct { u32 offset; u16 selector; } __attribute__((packed)) far = {0, 15};
    u32 value = 0xabcdfffe;
    __asm__ volatile("lcall *%1" : "+a"(value) : "m"(far), "b"(0x12340005) : "cc", "memory");
    text("based"), hex(made), hex(value), text("\n");

    // 64-bit code: mov $0x123456789abcdef0, %rax; shr $28, %rax; mov %rax, %r9; lea 1(%r9), %eax; lretl
    static unsigned char code64[] = {0x48, 0xb8, 0xf0, 0xde, 0xbc, 0x9a, 0x78, 0x56, 0x34, 0x12, 0x48, 0xc1, 0xe8, 28,
                                     0x49, 0x89, 0xc1, 0x41, 0x8d, 0x41, 0x01, 0xcb};
    call(125, (u32)code64 & ~4095u, 8192, 7, 0);
    struct { u32 offset; u16 selector; } __attribute__((packed)) far64 = {(u32)code64, 0x33};
    __asm__ volatile("lcall *%1" : "=a"(value) : "m"(far64) : "cc", "memory");
    text("64 bits"), hex(value), text("\n");
}

// MARK: Faults

struct context {
    u32 gs, fs, es, ds, edi, esi, ebp, esp, ebx, edx, ecx, eax, trap, error, eip, cs, flags;
};
static u32 origin, resume, resumeStack;
static const char *subject;
// The frame of an old-style handler: number, then the context.
__attribute__((used)) static void handle(u32 number, struct context context)
{
    text(subject), text(": signal"), hex(number), text(" trap"), hex(context.trap), text(" error"), hex(context.error);
    text(" at"), hex(context.eip - origin), text(" cs"), hex(context.cs & 0xffff), text("\n");
    __asm__ volatile("mov %0, %%esp; jmp *%1" : : "r"(resumeStack), "r"(resume));
}

#define FAULT(what, instructions)                                                                                      \
    subject = what;                                                                                                    \
    __asm__ volatile("push %%ebp; push %%ebx; push %%ds; push %%es\n"                                                  \
                     "movl $2f, %1; movl %%esp, %2; movl $1f, %0; xor %%eax, %%eax; xor %%edx, %%edx\n"                \
                     "1: " instructions "\n2: pop %%es; pop %%ds; pop %%ebx; pop %%ebp"                                \
                     : "=m"(origin), "=m"(resume), "=m"(resumeStack) : : "eax", "ecx", "edx", "esi", "edi", "cc", "memory")

static void faults(void)
{
    // SA_NODEFER
    struct { u32 handler, flags, restorer, mask[2]; } action = {(u32)handle, 0x40000000, 0, {0, 0}};
    u32 signals[] = {4, 5, 7, 8, 11};
    for (int i = 0; i < 5; i++) call(174, signals[i], (u32)&action, 0, 8);
    FAULT("into", "mov $0x7f, %%al; inc %%al; into");
    FAULT("bound", "push $10; push $5; mov $4, %%eax; bound %%eax, (%%esp)");
    FAULT("aam 0", ".byte 0xd4, 0");
    FAULT("div 0", "div %%edx");
    FAULT("int3", "int3");
    FAULT("int 0x81", "int $0x81");
    FAULT("ud2", "ud2");
    FAULT("hlt", "hlt");
    FAULT("null", "movl (%%eax), %%eax");
    FAULT("kernel", "mov $0xffffe000, %%eax; movl %%eax, (%%eax)");
    FAULT("wrap", "mov $0xfffffffe, %%eax; movl (%%eax), %%eax");
    FAULT("ldt limit", "push $7; pop %%es; movl %%es:9, %%eax");
    FAULT("ldt write", "push $7; pop %%es; movb %%al, %%es:12");
    FAULT("null segment", "push $0; pop %%es; movl %%es:9, %%eax");
    FAULT("bad selector", "push $0x1233; pop %%ds");
    FAULT("far call", "lcall $0x1230, $0");
    FAULT("far to data", "ljmp $0x2b, $0");
    FAULT("syscall page", "ljmp $0x23, $0xfffff000");
    FAULT("movaps", "lea 1(%%esp), %%ecx; and $-16, %%ecx; movaps 4(%%ecx), %%xmm0");
    FAULT("lds register", ".byte 0xc5, 0xc0");
    FAULT("lock", ".byte 0xf0; nop");
    FAULT("16 bytes", ".fill 15, 1, 0x66; nop");
}

__attribute__((used)) static void run(u32 *stack)
{
    u32 words = stack[0];
    u32 *vector = stack + 1 + words + 1;
    while (*vector++) {}
    u32 entry = 0;
    for (; vector[0]; vector += 2)
        if (vector[0] == 32) entry = vector[1];
    text("32 bits\n");
    instructions();
    segments();
    faults();
    // By SYSCALL or SYSENTER, as the kernel's page has it: the same process, by both ways.
    u32 same = 0, id;
    for (int i = 0; i < 100 && entry; i++) {
        __asm__ volatile("call *%1" : "=a"(id) : "r"(entry), "0"(20) : "ecx", "edx", "memory");
        same += id == call(20, 0, 0, 0, 0);
    }
    text("calls"), hex(same), text("\n");
    call(1, 0, 0, 0, 0);
}

__asm__(".globl _start\n_start: mov %esp, %eax; and $-16, %esp; push %eax; push %eax; push %eax; push %eax; call run\n");
