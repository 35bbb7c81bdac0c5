// What a program asks of processor and kernel together: processes, threads, signals, faults, memory maps, code that is
// written while it runs. One line for each subject. Nothing that is printed depends on addresses, times or luck.
//
// usage: processes [breakpoints]     with the breakpoints of the debug registers, which an SNP guest's kernel does not have
#define _GNU_SOURCE
#include <errno.h>
#include <fenv.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/time.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

extern char **environ;

static void must(int condition, const char *what)
{
    if (condition) return;
    printf("failed: %s: %s\n", what, strerror(errno));
    fflush(stdout);
    _exit(1);
}

static uint64_t mix(uint64_t value)
{
    for (int i = 0; i < 1000; i++) value = (value ^ value >> 31) * 0x9e3779b97f4a7c15 + i;
    return value;
}

// MARK: Processes

static void processes(void)
{
    int statuses = 0;
    for (int i = 0; i < 30; i++) {
        pid_t child = fork();
        if (child == 0) _exit((int)(mix(i) & 63));
        int status;
        must(waitpid(child, &status, 0) == child, "waitpid");
        statuses += status >> 8 == (int)(mix(i) & 63);
    }
    // Many at once, each with memory of its own that began as ours.
    static uint64_t page[4096];
    for (int i = 0; i < 4096; i++) page[i] = i;
    int ends[2];
    must(pipe(ends) == 0, "pipe");
    for (int i = 0; i < 16; i++)
        if (fork() == 0) {
            uint64_t sum = 0;
            for (int at = 0; at < 4096; at++) sum += page[at] *= i + 1;
            if (write(ends[1], &sum, 8) != 8) _exit(1);
            _exit(0);
        }
    uint64_t total = 0, sum, own = 0;
    for (int i = 0; i < 16; i++) must(read(ends[0], &sum, 8) == 8, "read"), total += sum;
    for (int i = 0; i < 16; i++) wait(NULL);
    for (int at = 0; at < 4096; at++) own += page[at];
    printf("fork: %d statuses, %llu %llu\n", statuses, (unsigned long long)total, (unsigned long long)own);

    // A program started anew, with vfork and with spawn.
    fflush(stdout);
    int answers = 0;
    for (int i = 0; i < 6; i++) {
        char number[16];
        snprintf(number, sizeof number, "%d", i);
        char *words[] = {"processes", "exit", number, NULL};
        pid_t child;
        int status;
        if (i & 1) {
            must(posix_spawn(&child, "/proc/self/exe", NULL, NULL, words, environ) == 0 ||
                     posix_spawn(&child, "/suite/processes", NULL, NULL, words, environ) == 0, "posix_spawn");
        } else {
            child = vfork();
            if (child == 0) {
                execv("/proc/self/exe", words);
                execv("/suite/processes", words);
                _exit(99);
            }
        }
        must(waitpid(child, &status, 0) == child, "waitpid");
        answers += WIFEXITED(status) && WEXITSTATUS(status) == i + 10;
    }
    printf("exec: %d answers\n", answers);
}

// MARK: Threads

enum { THREADS = 6, TURNS = 3000 };
static _Atomic uint64_t added, exchanged, compared;
static _Atomic uint8_t narrow;
static struct { uint64_t low, high; } __attribute__((aligned(16))) wide;
static uint64_t guarded, handed;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t barrier;
static __thread uint64_t mine = 5;

static void *worker(void *argument)
{
    uint64_t number = (uint64_t)(uintptr_t)argument;
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < TURNS; i++) {
        atomic_fetch_add(&added, number);
        atomic_fetch_xor(&exchanged, mix(number) << (i & 7));
        atomic_fetch_sub(&narrow, 3);
        uint64_t old = atomic_load(&compared);
        while (!atomic_compare_exchange_weak(&compared, &old, old * 3 + 1 - 2 * old)) {}
        // CMPXCHG16B: both halves go up together.
        uint64_t low = wide.low, high = wide.high;
        for (uint8_t done = 0; !done;)
            __asm__ volatile("lock cmpxchg16b %1; sete %0"
                             : "=q"(done), "+m"(wide), "+a"(low), "+d"(high)
                             : "b"(low + 1), "c"(high - 1)
                             : "cc", "memory");
        pthread_mutex_lock(&mutex);
        guarded += number;
        pthread_mutex_unlock(&mutex);
        mine += number;
        if (i % 500 == 0) sched_yield();
    }
    // In turn, the lowest number first.
    pthread_mutex_lock(&mutex);
    while (handed != number) pthread_cond_wait(&condition, &mutex);
    handed++;
    pthread_cond_broadcast(&condition);
    pthread_mutex_unlock(&mutex);
    return (void *)(uintptr_t)mine;
}

static void threads(void)
{
    pthread_t all[THREADS];
    pthread_barrier_init(&barrier, NULL, THREADS);
    for (uintptr_t i = 0; i < THREADS; i++) must(!pthread_create(&all[i], NULL, worker, (void *)i), "pthread_create");
    uint64_t own = 0;
    for (int i = 0; i < THREADS; i++) {
        void *result;
        pthread_join(all[i], &result);
        own = own * 31 + (uint64_t)(uintptr_t)result;
    }
    printf("threads: %llu %llu %u %llu %lld %lld %llu %llu %llu\n", (unsigned long long)added,
           (unsigned long long)exchanged, narrow, (unsigned long long)(compared & 1), (long long)wide.low,
           (long long)wide.high, (unsigned long long)guarded, (unsigned long long)handed, (unsigned long long)own);
}

// MARK: The state of the floating-point unit is each thread's own

static _Atomic int disturbances;
static void disturb(int number)
{
    (void)number;
    disturbances++;
    __asm__ volatile("vzeroall; fninit; fldpi; fldpi" ::
                         : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
                           "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
}

static void *keeper(void *argument)
{
    uint64_t number = (uint64_t)(uintptr_t)argument;
    uint64_t in[64], out[64];
    for (int i = 0; i < 64; i++) in[i] = mix(number * 64 + i);
    uint32_t control = 0x1f80 | (uint32_t)(number & 3) << 13, seen;
    uint16_t word = (uint16_t)(0x037f | (number & 3) << 10), wordSeen;
    uintptr_t wrong = 0;
    for (int turn = 0; turn < 400; turn++) {
        __asm__ volatile(
            "ldmxcsr %[control]; fldcw %[word]; fildll (%[in]); fildll 8(%[in])\n"
            ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n vmovdqu \\n*32(%[in]), %%ymm\\n\n .endr\n"
            "mov $24, %%eax; push %%rcx; syscall; pop %%rcx\n"      // sched_yield
            "mov $2000, %%eax\n 1: dec %%eax; jnz 1b\n"
            ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n vmovdqu %%ymm\\n, \\n*32(%[out])\n .endr\n"
            "stmxcsr %[seen]; fnstcw %[wordSeen]; fistpll (%[whole]); fistpll 8(%[whole]); vzeroupper\n"
            : [seen] "=m"(seen), [wordSeen] "=m"(wordSeen)
            : [in] "r"(in), [out] "r"(out), [whole] "r"((uint64_t[2]){0}), [control] "m"(control), [word] "m"(word)
            : "rax", "rcx", "r11", "cc", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",
              "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
        wrong += memcmp(in, out, sizeof in) != 0 || (seen & ~63u) != control || wordSeen != word;
    }
    return (void *)wrong;
}

static void states(void)
{
    struct sigaction action = {.sa_handler = disturb, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval often = {{0, 3000}, {0, 3000}}, never = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &often, NULL);
    pthread_t all[4];
    for (uintptr_t i = 0; i < 4; i++) must(!pthread_create(&all[i], NULL, keeper, (void *)i), "pthread_create");
    uintptr_t wrong = 0;
    for (int i = 0; i < 4; i++) {
        void *result;
        pthread_join(all[i], &result);
        wrong += (uintptr_t)result;
    }
    // Until the handler has been in the middle of it a few times.
    while (disturbances < 5) wrong += (uintptr_t)keeper((void *)9);
    setitimer(ITIMER_REAL, &never, NULL);
    signal(SIGALRM, SIG_DFL);
    printf("states: %ld wrong\n", (long)wrong);
}

// MARK: Faults

static sigjmp_buf back;
static volatile uintptr_t origin;
static char *object;
static volatile long long steps;
static const char *subject;

static const char *name(int number)
{
    switch (number) {
    case SIGSEGV: return "SEGV";
    case SIGBUS: return "BUS";
    case SIGILL: return "ILL";
    case SIGFPE: return "FPE";
    case SIGTRAP: return "TRAP";
    default: return "?";
    }
}

static void caught(int number, siginfo_t *information, void *context)
{
    // The handler begins with the alignment check that its program asked for.
    __asm__ volatile("pushfq; andl $~0x40100, (%%rsp); popfq" ::: "cc", "memory");
    ucontext_t *state = context;
    greg_t *registers = state->uc_mcontext.gregs;
    uintptr_t address = (uintptr_t)information->si_addr;
    printf("  %-22s %s code %d trap %lld error %llx at +%llx", subject, name(number), information->si_code,
           (long long)registers[REG_TRAPNO], (long long)registers[REG_ERR],
           (unsigned long long)(registers[REG_RIP] - origin));
    if (number == SIGSEGV && registers[REG_TRAPNO] == 14) {
        if (address >= (uintptr_t)object && address < (uintptr_t)object + 16384)
            printf(" object+%lx", address - (uintptr_t)object);
        else if (address < 65536)
            printf(" %lx", address);
    }
    if (number == SIGFPE && registers[REG_TRAPNO] == 19) printf(" mxcsr %x", state->uc_mcontext.fpregs->mxcsr & 0x3f);
    if (number == SIGFPE && registers[REG_TRAPNO] == 16) printf(" fsw %x", state->uc_mcontext.fpregs->swd);
    printf("\n");
    siglongjmp(back, 1);
}

/// Runs machine code, with `object` in RDI.
static void fault(const char *what, const char *code, size_t count)
{
    static char *place;
    if (!place) {
        place = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        must(place != MAP_FAILED, "mmap");
    }
    subject = what;
    memset(place, 0xcc, 256);
    memcpy(place, code, count);
    place[count] = (char)0xc3;
    origin = (uintptr_t)place;
    if (sigsetjmp(back, 1) == 0) {
        __asm__ volatile("push %%rbx; push %%rbp; push %%r12; call *%0; pop %%r12; pop %%rbp; pop %%rbx"
                         : "+r"((char *){place}), "+D"((char *){object})
                         :
                         : "rax", "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "cc", "memory", "xmm0", "xmm1");
        printf("  %-22s nothing\n", what);
    }
    __asm__ volatile("fninit");
    feclearexcept(FE_ALL_EXCEPT);
    fedisableexcept(FE_ALL_EXCEPT);
}
#define FAULT(what, code) fault(what, code, sizeof code - 1)

static void faults(void)
{
    struct sigaction action = {.sa_sigaction = caught, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
    stack_t apart = {.ss_sp = malloc(65536), .ss_size = 65536};
    sigaltstack(&apart, NULL);
    int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
    for (int i = 0; i < 5; i++) sigaction(signals[i], &action, NULL);
    object = mmap(NULL, 16384, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    must(object != MAP_FAILED, "mmap");
    memset(object, 0x11, 16384);
    must(mprotect(object + 4096, 4096, PROT_READ) == 0 && mprotect(object + 8192, 4096, PROT_NONE) == 0, "mprotect");
    printf("faults:\n");
    FAULT("UD2", "\x0f\x0b");
    FAULT("INT3", "\xcc");
    FAULT("INT 3", "\xcd\x03");
    FAULT("INT 0x21", "\xcd\x21");
    FAULT("INTO", "\xce");
    FAULT("HLT", "\xf4");
    FAULT("CLI", "\xfa");
    FAULT("IN", "\xec");
    FAULT("OUT", "\x66\xef");
    FAULT("MOV CR3", "\x0f\x20\xd8");
    FAULT("MOV DR7", "\x0f\x21\xf8");
    FAULT("RDMSR", "\x0f\x32");
    FAULT("WBINVD", "\x0f\x09");
    FAULT("INVLPG", "\x0f\x01\x3f");
    FAULT("LGDT", "\x0f\x01\x17");
    FAULT("SYSRET", "\x48\x0f\x07");
    FAULT("SWAPGS", "\x0f\x01\xf8");
    FAULT("XSETBV", "\x0f\x01\xd1");
    FAULT("RSM", "\x0f\xaa");
    FAULT("LOCK NOP", "\xf0\x90");
    FAULT("LOCK MOV", "\xf0\x48\x89\x07");
    FAULT("PUSH ES", "\x06");
    FAULT("AAM", "\xd4\x0a");
    FAULT("15 prefixes", "\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x90");
    FAULT("DIV by 0", "\x31\xc9\xf7\xf1");
    FAULT("IDIV too large", "\x48\x31\xc0\x48\xff\xc8\x48\xd1\xe8\x48\xf7\xd0\x31\xd2\x48\x99\x6a\xff\x59\x48\xf7\xf9");
    FAULT("MOV SS, 0", "\x31\xc0\x8e\xd0");
    FAULT("MOV DS, 0x123", "\x66\xb8\x23\x01\x8e\xd8");
    FAULT("MOV FS, 0xfff8", "\x66\xb8\xf8\xff\x8e\xe0");
    FAULT("far return", "\x68\x23\x01\x00\x00\x50\x48\xcb");
    FAULT("read 0", "\x31\xc0\x8b\x00");
    FAULT("write 0x1234", "\xc7\x04\x25\x34\x12\x00\x00\x01\x00\x00\x00");
    FAULT("read noncanonical", "\x48\xb8\x00\x00\x00\x00\x00\x80\x00\x00\x8b\x00");
    FAULT("stack noncanonical", "\x48\xb8\x00\x00\x00\x00\x00\x80\x00\x00\x48\x89\xc5\x8b\x45\x00");
    FAULT("call noncanonical", "\x48\xb8\x00\x00\x00\x00\x00\x80\x00\x00\xff\xd0");
    FAULT("read the kernel", "\x48\xb8\x00\x00\x00\x00\x00\x88\xff\xff\x8b\x00");
    FAULT("write read-only", "\x88\x87\x00\x10\x00\x00");
    FAULT("read allowed", "\x8b\x87\x00\x10\x00\x00");
    FAULT("add to read-only", "\x00\x87\x05\x10\x00\x00");
    FAULT("lock add read-only", "\xf0\x00\x87\x05\x10\x00\x00");
    FAULT("cmpxchg read-only", "\xf0\x0f\xb1\x8f\x10\x10\x00\x00");
    FAULT("read none", "\x8b\x87\x00\x20\x00\x00");
    FAULT("across into none", "\x48\x8b\x87\xfc\x1f\x00\x00");
    FAULT("write across", "\x48\x89\x87\xfc\x0f\x00\x00");
    FAULT("run data", "\xff\xe7");
    FAULT("run none", "\x48\x8d\x87\x00\x20\x00\x00\xff\xe0");
    FAULT("REP STOSB", "\xb9\x00\x30\x00\x00\xf3\xaa");
    FAULT("REP MOVSQ", "\x48\x8d\xb7\x00\x10\x00\x00\xb9\x00\x04\x00\x00\xf3\x48\xa5");
    FAULT("MOVAPS unaligned", "\x0f\x28\x47\x01");
    FAULT("VMOVDQA unaligned", "\xc5\xfd\x6f\x47\x10");
    FAULT("MOVUPS into none", "\x0f\x10\x87\xf8\x1f\x00\x00");
    FAULT("VMASKMOV masked", "\xc5\xf1\xef\xc9\xc4\xe2\x75\x2c\x87\x00\x20\x00\x00");
    FAULT("VGATHER", "\xc5\xf5\x76\xc9\xc5\xed\xef\xd2\xc4\xe2\x75\x90\x84\x97\x00\x20\x00\x00");
    FAULT("alignment check", "\x9c\x81\x0c\x24\x00\x00\x04\x00\x9d\x8b\x47\x01");
    FAULT("single step", "\x9c\x80\x4c\x24\x01\x01\x9d\x90\x90");
    FAULT("ENTER into none", "\x48\x8d\xa7\x08\x30\x00\x00\xc8\x10\x10\x00");
    FAULT("XRSTOR reserved", "\x48\x8d\x77\x40\x48\x83\xe6\xc0\x31\xd2\xb8\x07\x00\x00\x00\x0f\xae\x2e");
    FAULT("LDMXCSR reserved", "\x0f\xae\x17");

    // Each exception of SSE, unmasked alone; then of the 8087, which reports it one instruction later.
    struct {
        const char *what;
        int exception;
        double x, y;
    } operands[] = {
        {"invalid", FE_INVALID, 0, 0},       {"divide by 0", FE_DIVBYZERO, 1, 0},
        {"overflow", FE_OVERFLOW, 1e300, 1e-300}, {"underflow", FE_UNDERFLOW, 1e-300, 1e300},
        {"inexact", FE_INEXACT, 1, 3},
    };
    for (int i = 0; i < 5; i++) {
        memcpy(object, &operands[i].x, 8);
        memcpy(object + 8, &operands[i].y, 8);
        char what[32];
        snprintf(what, sizeof what, "SSE %s", operands[i].what);
        feenableexcept(operands[i].exception);
        FAULT(what, "\xf2\x0f\x10\x07\xf2\x0f\x5e\x47\x08");
        snprintf(what, sizeof what, "8087 %s", operands[i].what);
        feenableexcept(operands[i].exception);
        FAULT(what, "\xdd\x07\xdc\x77\x08\xdd\x9f\x00\x01\x00\x00\x9b");
    }
    for (int i = 0; i < 5; i++) signal(signals[i], SIG_DFL);
}

// MARK: Stepping

static void step(int number, siginfo_t *information, void *context)
{
    (void)number, (void)information;
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    steps = steps * 31 + (registers[REG_RIP] - (greg_t)origin);
}

static void stepping(void)
{
    struct sigaction action = {.sa_sigaction = step, .sa_flags = SA_SIGINFO};
    sigaction(SIGTRAP, &action, NULL);
    steps = 0;
    // Over a repeated instruction, a system call, a loop and a POPF that ends it; MOV SS would hide a step.
    __asm__ volatile("lea 1f(%%rip), %%rax; mov %%rax, %0\n"
                     "pushfq; orl $0x100, (%%rsp); popfq\n"
                     "1: mov $3, %%ecx; rep lodsb\n"
                     "mov $39, %%eax; syscall\n"
                     "mov $2, %%ecx; 2: dec %%ecx; jnz 2b\n"
                     "pushfq; pushfq; pop %%rax; andl $~0x100, (%%rsp); popfq; nop\n"
                     : "=m"(origin) : "S"(environ) : "rax", "rcx", "r11", "cc", "memory");
    signal(SIGTRAP, SIG_DFL);
    printf("steps: %016llx\n", (unsigned long long)steps);

    // The same from outside, with PTRACE_SINGLESTEP.
    pid_t child = fork();
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        __asm__ volatile("mov $50, %%ecx; 1: imul $7, %%eax, %%eax; dec %%ecx; jnz 1b; ud2" ::: "rax", "rcx", "cc");
    }
    int status, count = 0;
    waitpid(child, &status, 0);
    struct user_regs_struct registers = {0};
    // The way out of raise() differs from kernel to kernel; the loop's own steps are counted.
    uint64_t loop = 0;
    while (ptrace(PTRACE_SINGLESTEP, child, 0, 0) == 0 && waitpid(child, &status, 0) == child && WIFSTOPPED(status) &&
           WSTOPSIG(status) == SIGTRAP) {
        ptrace(PTRACE_GETREGS, child, 0, &registers);
        uint64_t code = (uint64_t)ptrace(PTRACE_PEEKTEXT, child, registers.rip, 0);
        if ((code & 0xffffff) == 0x07c06b) loop = registers.rip;
        count += loop && registers.rip - loop < 16;
    }
    printf("ptrace: %d steps, then signal %d\n", count, WSTOPSIG(status));
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
}

static volatile uint64_t watched[4];
static void breakpoints(void)
{
    pid_t child = fork();
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        for (int i = 0; i < 10; i++) {
            watched[i & 3] = i;
            if (i == 5) watched[0] = watched[1];
        }
        _exit(7);
    }
    int status, hits = 0;
    waitpid(child, &status, 0);
    // DR0: writes of eight bytes; DR1: reads and writes of four.
    long offset = offsetof(struct user, u_debugreg);
    long wrong = ptrace(PTRACE_POKEUSER, child, offset, &watched[1]) |
        ptrace(PTRACE_POKEUSER, child, offset + 8, &watched[2]) |
        ptrace(PTRACE_POKEUSER, child, offset + 56, 0x00f90005);
    uint64_t causes = 0;
    while (ptrace(PTRACE_CONT, child, 0, 0) == 0 && waitpid(child, &status, 0) == child && WIFSTOPPED(status)) {
        uint64_t cause = (uint64_t)ptrace(PTRACE_PEEKUSER, child, offset + 48, 0);
        causes = causes * 16 + (cause & 15);
        ptrace(PTRACE_POKEUSER, child, offset + 48, 0);
        hits++;
    }
    printf("breakpoints: %ld wrong, %d hits, %llx, exit %d\n", wrong, hits, (unsigned long long)causes,
           WEXITSTATUS(status));
}

// MARK: Memory maps

static void maps(void)
{
    uint64_t sum = 0;
    size_t pages = 600;
    char *area = mmap(NULL, pages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    must(area != MAP_FAILED, "mmap");
    for (size_t i = 0; i < pages; i++) *(uint64_t *)(area + i * 4096 + (i * 8 & 4088)) = mix(i);
    // Holes, zeroes, and pages that move.
    for (size_t i = 0; i < pages; i += 7) madvise(area + i * 4096, 4096, MADV_DONTNEED);
    for (size_t i = 3; i < pages; i += 7) mprotect(area + i * 4096, 4096, i & 1 ? PROT_READ : PROT_NONE);
    for (size_t i = 3; i < pages; i += 7) mprotect(area + i * 4096, 4096, PROT_READ | PROT_WRITE);
    char *moved = mremap(area, pages * 4096, 2 * pages * 4096, MREMAP_MAYMOVE);
    must(moved != MAP_FAILED, "mremap");
    for (size_t i = 0; i < pages; i++) sum = sum * 31 + *(uint64_t *)(moved + i * 4096 + (i * 8 & 4088));
    for (size_t i = pages; i < 2 * pages; i++) sum += (uint64_t)moved[i * 4096];
    munmap(moved, 2 * pages * 4096);

    // Two views of the same memory, and a child's.
    int file = memfd_create("twice", 0);
    must(file >= 0 && ftruncate(file, 65536) == 0, "memfd_create");
    uint64_t *one = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    uint64_t *two = mmap(NULL, 65536, PROT_READ, MAP_SHARED, file, 0);
    uint64_t *own = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
    must(one != MAP_FAILED && two != MAP_FAILED && own != MAP_FAILED, "mmap");
    own[512] = 5;
    for (int i = 0; i < 8192; i++) one[i] = i;
    pid_t child = fork();
    if (child == 0) {
        for (int i = 0; i < 8192; i++) one[i] *= two[8191 - i] + 1, own[i] = 1;
        _exit(0);
    }
    waitpid(child, NULL, 0);
    for (int i = 0; i < 8192; i++) sum = sum * 31 + two[i] + own[i];

    // A large one, sparsely: page tables come and go.
    for (int round = 0; round < 3; round++) {
        size_t span = 1ull << 36;
        char *sparse = mmap(NULL, span, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        must(sparse != MAP_FAILED, "mmap of 64 GiB");
        for (size_t at = 0; at < span; at += span / 97) sparse[at] = (char)(at >> 20 ^ round);
        for (size_t at = 0; at < span; at += span / 97) sum = sum * 31 + (uint64_t)sparse[at];
        munmap(sparse, span);
    }
    printf("maps: %016llx\n", (unsigned long long)sum);
}

// MARK: Signals

static volatile sig_atomic_t received, values;
static void receive(int number, siginfo_t *information, void *context)
{
    (void)number, (void)context;
    received++;
    values += information->si_value.sival_int;
}
static volatile sig_atomic_t depth;
static void nest(int number)
{
    depth++;
    if (number < SIGRTMIN + 5) raise(number + 1);
}
static sigjmp_buf out;
static void overflow(int number) { siglongjmp(out, number); }
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Winfinite-recursion"
static int recurse(volatile int *above)
{
    volatile int here[512] = {0};
    here[5] = *above + 1;
    return recurse(here + 5) + here[7];
}
#pragma GCC diagnostic pop

static void signals(void)
{
    struct sigaction queued = {.sa_sigaction = receive, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR1, &queued, NULL);
    sigaction(SIGRTMIN, &queued, NULL);
    sigset_t set, old;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGRTMIN);
    sigprocmask(SIG_BLOCK, &set, &old);
    for (int i = 0; i < 20; i++) sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = i}), kill(getpid(), SIGUSR1);
    sigprocmask(SIG_SETMASK, &old, NULL);
    printf("signals: %d received, %d", received, values);
    struct sigaction nested = {.sa_handler = nest, .sa_flags = SA_NODEFER};
    for (int i = 1; i < 6; i++) sigaction(SIGRTMIN + i, &nested, NULL);
    raise(SIGRTMIN + 1);
    printf(", depth %d", depth);
    // The stack runs out; the handler has another one.
    stack_t other = {.ss_sp = malloc(65536), .ss_size = 65536};
    sigaltstack(&other, NULL);
    struct sigaction emergency = {.sa_handler = overflow, .sa_flags = SA_ONSTACK};
    sigaction(SIGSEGV, &emergency, NULL);
    int caughtAs = sigsetjmp(out, 1);
    if (caughtAs == 0) recurse(&(int){0});
    signal(SIGSEGV, SIG_DFL);
    printf(", stack overflow %d", caughtAs);

    // Interrupted at any instruction, a computation stays what it is.
    struct sigaction tick = {.sa_handler = disturb, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &tick, NULL);
    struct itimerval often = {{0, 1000}, {0, 1000}}, never = {{0, 0}, {0, 0}};
    disturbances = 0;
    setitimer(ITIMER_REAL, &often, NULL);
    uint64_t wrong = 0, turns = 0;
    double sum = 0;
    long double longSum = 0;
    do {
        uint64_t value = 1;
        double single = 1;
        long double extended = 1;
        for (int i = 1; i < 2000; i++) {
            value = value * 6364136223846793005 + i;
            single = single * 1.0000001 + 1.0 / i;
            extended = extended * 1.0000001L + 1.0L / i;
        }
        if (turns++ == 0) sum = single, longSum = extended;
        wrong += value != 0 && (single != sum || extended != longSum);
    } while (disturbances < 20);
    setitimer(ITIMER_REAL, &never, NULL);
    printf(", %llu wrong, %a %La\n", (unsigned long long)wrong, sum, longSum);
}

static ucontext_t mainContext, otherContext;
static uint64_t switched;
static void other(void)
{
    for (int i = 0; i < 100; i++) {
        switched = switched * 3 + i;
        swapcontext(&otherContext, &mainContext);
    }
}
static void contexts(void)
{
    getcontext(&otherContext);
    otherContext.uc_stack.ss_sp = malloc(65536);
    otherContext.uc_stack.ss_size = 65536;
    otherContext.uc_link = &mainContext;
    makecontext(&otherContext, other, 0);
    for (int i = 0; i < 100; i++) {
        switched ^= (uint64_t)i << 20;
        swapcontext(&mainContext, &otherContext);
    }
    printf("contexts: %016llx\n", (unsigned long long)switched);
}

// MARK: Code that changes

static unsigned char *code, *writable;
static _Atomic int version, acknowledged;
static void *rewriter(void *argument)
{
    (void)argument;
    for (int i = 1; i <= 300; i++) {
        writable[65] = (unsigned char)i;
        atomic_store(&version, i);
        while (atomic_load(&acknowledged) != i) sched_yield();
    }
    return NULL;
}

static void changing(void)
{
    uint64_t sum = 0;
    int file = memfd_create("code", 0);
    must(file >= 0 && ftruncate(file, 8192) == 0, "memfd_create");
    writable = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    code = mmap(NULL, 8192, PROT_READ | PROT_EXEC, MAP_SHARED, file, 0);
    must(writable != MAP_FAILED && code != MAP_FAILED, "mmap of code");
    // mov $n, %eax; ret — written anew each time, by the other name of the same page.
    for (uint32_t i = 0; i < 500; i++) {
        unsigned char made[] = {0xb8, 0, 0, 0, 0, 0xc3};
        memcpy(made + 1, &i, 4);
        memcpy(writable + (i & 1 ? 4093 : 0), made, sizeof made);
        sum = sum * 31 + ((uint32_t(*)(void))(void *)(code + (i & 1 ? 4093 : 0)))();
    }
    // A page that is written, protected and run in turn.
    unsigned char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (uint32_t i = 0; i < 60; i++) {
        mprotect(page, 4096, PROT_READ | PROT_WRITE);
        unsigned char made[] = {0x8d, 0x47, (unsigned char)i, 0xc3};
        memcpy(page, made, sizeof made);
        mprotect(page, 4096, PROT_READ | PROT_EXEC);
        sum = sum * 31 + ((uint32_t(*)(uint32_t))(void *)page)(i);
    }
    // Code that changes the instruction behind it.
    unsigned char own[] = {0xc6, 0x05, 0x01, 0, 0, 0, 0x2a, 0xb0, 0x00, 0x0f, 0xb6, 0xc0, 0xc3};
    mprotect(page, 4096, PROT_READ | PROT_WRITE | PROT_EXEC);
    for (unsigned i = 0; i < 50; i++) {
        memcpy(page, own, sizeof own);
        page[6] = (unsigned char)i;
        sum = sum * 31 + ((uint32_t(*)(void))(void *)page)();
    }
    // And code that another thread changes.
    unsigned char made[] = {0xb8, 0, 0, 0, 0, 0xc3};
    memcpy(writable + 64, made, sizeof made);
    pthread_t thread;
    must(!pthread_create(&thread, NULL, rewriter, NULL), "pthread_create");
    for (int i = 1; i <= 300; i++) {
        while (atomic_load(&version) != i) sched_yield();
        // A serialising instruction between the change and the code.
        unsigned a = 0, b, c = 0, d;
        __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d)::"memory");
        sum = sum * 31 + ((uint32_t(*)(void))(void *)(code + 64))();
        atomic_store(&acknowledged, i);
    }
    pthread_join(thread, NULL);
    printf("changing code: %016llx\n", (unsigned long long)sum);
}

// MARK: Time

static void *watcher(void *argument)
{
    (void)argument;
    uintptr_t backwards = 0;
    struct timespec last = {0, 0}, now;
    uint64_t lastCount = 0;
    for (int i = 0; i < 3000; i++) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        backwards += now.tv_sec < last.tv_sec || (now.tv_sec == last.tv_sec && now.tv_nsec < last.tv_nsec);
        last = now;
        uint32_t low, high;
        __asm__ volatile("rdtscp" : "=a"(low), "=d"(high)::"rcx", "memory");
        uint64_t count = (uint64_t)high << 32 | low;
        backwards += count < lastCount;
        lastCount = count;
    }
    return (void *)backwards;
}

static void times(void)
{
    pthread_t all[3];
    uintptr_t backwards = 0;
    for (int i = 0; i < 3; i++) must(!pthread_create(&all[i], NULL, watcher, NULL), "pthread_create");
    for (int i = 0; i < 3; i++) {
        void *result;
        pthread_join(all[i], &result);
        backwards += (uintptr_t)result;
    }
    struct timespec before, after, pause = {0, 30000000};
    clock_gettime(CLOCK_MONOTONIC, &before);
    nanosleep(&pause, NULL);
    clock_gettime(CLOCK_MONOTONIC, &after);
    long slept = (after.tv_sec - before.tv_sec) * 1000000000 + after.tv_nsec - before.tv_nsec;
    printf("time: %ld times backwards, slept %s\n", (long)backwards, slept >= 30000000 ? "long enough" : "too short");
}

int main(int argc, char **argv)
{
    if (argc > 2 && !strcmp(argv[1], "exit")) return atoi(argv[2]) + 10;
    setvbuf(stdout, NULL, _IOLBF, 0);
    processes();
    threads();
    states();
    faults();
    stepping();
    if (argc > 1 && !strcmp(argv[1], "breakpoints")) breakpoints();
    maps();
    signals();
    contexts();
    changing();
    times();
    return 0;
}
