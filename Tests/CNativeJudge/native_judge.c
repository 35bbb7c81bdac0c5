#if defined(__x86_64__) && defined(__linux__)
#include "native_judge.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/ucontext.h>
#include <sys/wait.h>
#include <unistd.h>

// The child's own. Signal handlers use no thread-local storage and no library but memory copies.
static struct judge_shared *shared;
static int running;
static greg_t host_registers[NGREG];
static uint32_t ended, seen_ended, seen_twice;
static uint32_t loaded_image = ~0u;

static const int register_order[16] = {
    REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
    REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15,
};

// What a case may set; NT and ID come back too, but have to be taken out of the handlers' own flags.
enum { XSTATE_BV = 512, YMM_UPPER = 576, FLAGS = 0x40cd5 };

// The segments while no case runs. The handlers keep them out of the way of thread-local storage.
static uint64_t host_fs_base, host_gs_base;
static struct { uint16_t ds, es, fs, gs; uint64_t fs_base, gs_base; } segments;

#define LOAD_SEGMENT(name, value) __asm__ volatile("movw %0, %%" #name ::"r"(value))
#define STORE_SEGMENT(name, place) __asm__ volatile("movw %%" #name ", %0" : "=r"(place))

static void load_segments(uint16_t ds, uint16_t es, uint16_t fs, uint16_t gs, uint64_t fs_base, uint64_t gs_base) {
    LOAD_SEGMENT(ds, ds);
    LOAD_SEGMENT(es, es);
    LOAD_SEGMENT(fs, fs);
    LOAD_SEGMENT(gs, gs);
    __asm__ volatile("wrfsbase %0; wrgsbase %1" ::"r"(fs_base), "r"(gs_base));
}

/// Before anything else in a handler: the case's segments out, the host's in.
static void store_segments(void) {
    STORE_SEGMENT(ds, segments.ds);
    STORE_SEGMENT(es, segments.es);
    STORE_SEGMENT(fs, segments.fs);
    STORE_SEGMENT(gs, segments.gs);
    __asm__ volatile("rdfsbase %0; rdgsbase %1" : "=r"(segments.fs_base), "=r"(segments.gs_base));
    load_segments(0, 0, 0, 0, host_fs_base, host_gs_base);
}

static void load(ucontext_t *context, const struct judge_state *s) {
    greg_t *g = context->uc_mcontext.gregs;
    uint8_t *fp = (uint8_t *)context->uc_mcontext.fpregs;
    for (int i = 0; i < 16; i++) g[register_order[i]] = (greg_t)s->gpr[i];
    g[REG_RIP] = (greg_t)s->rip;
    g[REG_EFL] = (greg_t)((s->rflags & FLAGS) | 0x202);
    memcpy(fp, &s->fcw, 2);
    memcpy(fp + 2, &s->fsw, 2);
    memcpy(fp + 4, &s->ftw, 2);
    memcpy(fp + 6, &s->fop, 2);
    memcpy(fp + 8, &s->fip, 8);
    memcpy(fp + 16, &s->fdp, 8);
    memcpy(fp + 24, &s->mxcsr, 4);
    for (int i = 0; i < 8; i++) {
        memcpy(fp + 32 + 16 * i, &s->st_mantissa[i], 8);
        memcpy(fp + 40 + 16 * i, &s->st_exponent[i], 8);
    }
    memcpy(fp + 160, s->xmm, 256);
    *(uint64_t *)(fp + XSTATE_BV) |= 7;
    memcpy(fp + YMM_UPPER, s->ymmh, 256);
    if (loaded_image != s->image) {
        memcpy((void *)JUDGE_DATA, shared->images[s->image % JUDGE_IMAGES], JUDGE_AREA);
        loaded_image = s->image;
    }
    // The frame's word: CS, GS and FS (not used), SS.
    g[REG_CSGSFS] = (greg_t)(s->cs | (uint64_t)s->ss << 48);
    load_segments(s->ds, s->es, s->fs, s->gs, s->fs_base, s->gs_base);
}

static void save(const ucontext_t *context, struct judge_result *r, uint32_t image) {
    const greg_t *g = context->uc_mcontext.gregs;
    const uint8_t *fp = (const uint8_t *)context->uc_mcontext.fpregs;
    struct judge_state *s = &r->state;
    for (int i = 0; i < 16; i++) s->gpr[i] = (uint64_t)g[register_order[i]];
    s->rip = (uint64_t)g[REG_RIP];
    s->rflags = (uint64_t)g[REG_EFL];
    s->cs = (uint16_t)g[REG_CSGSFS];
    s->ss = (uint16_t)((uint64_t)g[REG_CSGSFS] >> 48);
    s->ds = segments.ds;
    s->es = segments.es;
    s->fs = segments.fs;
    s->gs = segments.gs;
    s->fs_base = segments.fs_base;
    s->gs_base = segments.gs_base;
    memcpy(&s->fcw, fp, 2);
    memcpy(&s->fsw, fp + 2, 2);
    memcpy(&s->ftw, fp + 4, 2);
    memcpy(&s->fop, fp + 6, 2);
    memcpy(&s->fip, fp + 8, 8);
    memcpy(&s->fdp, fp + 16, 8);
    memcpy(&s->mxcsr, fp + 24, 4);
    for (int i = 0; i < 8; i++) {
        memcpy(&s->st_mantissa[i], fp + 32 + 16 * i, 8);
        uint16_t e;
        memcpy(&e, fp + 40 + 16 * i, 2);
        s->st_exponent[i] = e;
    }
    memcpy(s->xmm, fp + 160, 256);
    uint64_t present = *(const uint64_t *)(fp + XSTATE_BV);
    // A component in its initial state need not have been written.
    if (!(present & 1)) {
        s->fcw = 0x37f;
        s->fsw = s->ftw = s->fop = 0;
        s->fip = s->fdp = 0;
        memset(s->st_mantissa, 0, sizeof s->st_mantissa);
        memset(s->st_exponent, 0, sizeof s->st_exponent);
    }
    if (!(present & 2)) memset(s->xmm, 0, 256);
    if (present & 4) memcpy(s->ymmh, fp + YMM_UPPER, 256);
    else memset(s->ymmh, 0, 256);
    r->vector = (uint32_t)g[REG_TRAPNO];
    r->error = (uint32_t)g[REG_ERR];
    r->cr2 = (uint64_t)g[REG_CR2];
    uint64_t *data = (uint64_t *)JUDGE_DATA;
    const uint64_t *before = shared->images[image % JUDGE_IMAGES];
    uint32_t n = 0;
    for (uint32_t i = 0; i < JUDGE_WORDS; i += 8) {
        uint64_t any = 0;
        for (uint32_t k = 0; k < 8; k++) any |= data[i + k] ^ before[i + k];
        if (!any) continue;
        for (uint32_t k = i; k < i + 8; k++) {
            if (data[k] == before[k]) continue;
            r->change_index[n] = (uint16_t)k;
            r->change_value[n++] = data[k];
            data[k] = before[k];
        }
    }
    r->change_count = n;
}

/// Begins with the case at `progress`, or goes back to the host's code.
static void proceed(ucontext_t *context) {
    if (shared->progress < shared->count) return load(context, &shared->cases[shared->progress]);
    running = 0;
    memcpy(context->uc_mcontext.gregs, host_registers, sizeof host_registers);
    uint8_t *fp = (uint8_t *)context->uc_mcontext.fpregs;
    const uint32_t mxcsr = 0x1f80;
    const uint16_t fcw = 0x37f, none = 0;
    memcpy(fp, &fcw, 2);
    memcpy(fp + 2, &none, 2);
    memcpy(fp + 4, &none, 2);
    memcpy(fp + 24, &mxcsr, 4);
}

__attribute__((used)) static void judge_trap(int signal, siginfo_t *info, void *place) {
    (void)signal;
    (void)info;
    ucontext_t *context = place;
    if (running) {
        store_segments();
    } else {
        if (context->uc_mcontext.gregs[REG_TRAPNO] != 3) _exit(70);
        running = 1;
        __asm__ volatile("rdfsbase %0; rdgsbase %1" : "=r"(host_fs_base), "=r"(host_gs_base));
        memcpy(host_registers, context->uc_mcontext.gregs, sizeof host_registers);
        return proceed(context);
    }
    uint32_t i = shared->progress;
    ended++;
    save(context, &shared->results[i], shared->cases[i].image);
    shared->progress = i + 1;
    proceed(context);
}

__attribute__((used)) static void judge_tick(int signal, siginfo_t *info, void *place) {
    (void)signal;
    (void)info;
    if (!running) return;
    uint32_t i = shared->progress;
    if (ended != seen_ended || ++seen_twice < 2) {
        if (ended != seen_ended) seen_twice = 0;
        seen_ended = ended;
        return;
    }
    store_segments();
    seen_twice = 0;
    ended++;
    ucontext_t *context = place;
    save(context, &shared->results[i], shared->cases[i].image);
    shared->results[i].vector = JUDGE_HANG;
    shared->progress = i + 1;
    proceed(context);
}

// A case may leave alignment checking, NT and ID on: they go before the handlers' own code runs.
__asm__(
    ".text\n"
    "judge_trap_entry: pushfq; andq $~0x244000, (%rsp); popfq; jmp judge_trap\n"
    "judge_tick_entry: pushfq; andq $~0x244000, (%rsp); popfq; jmp judge_tick\n");
extern void judge_trap_entry(int, siginfo_t *, void *);
extern void judge_tick_entry(int, siginfo_t *, void *);

static void child_main(int code_file, int in, int out) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    // The thread that forked may have had every signal blocked.
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, 0);
    int fixed = MAP_FIXED_NOREPLACE;
    if (mmap((void *)JUDGE_CODE, JUDGE_AREA, PROT_READ | PROT_EXEC, MAP_SHARED | fixed, code_file, 0) != (void *)JUDGE_CODE)
        _exit(71);
    if (mmap((void *)JUDGE_DATA, JUDGE_AREA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | fixed, -1, 0)
        != (void *)JUDGE_DATA)
        _exit(72);
    stack_t stack = {.ss_size = 1 << 17};
    stack.ss_sp = mmap(0, stack.ss_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack.ss_sp == MAP_FAILED || sigaltstack(&stack, 0)) _exit(73);
    struct sigaction action = {.sa_sigaction = judge_trap_entry, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigaddset(&action.sa_mask, SIGVTALRM);
    const int traps[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
    for (unsigned i = 0; i < sizeof traps / sizeof *traps; i++)
        if (sigaction(traps[i], &action, 0)) _exit(74);
    action.sa_sigaction = judge_tick_entry;
    for (unsigned i = 0; i < sizeof traps / sizeof *traps; i++) sigaddset(&action.sa_mask, traps[i]);
    if (sigaction(SIGVTALRM, &action, 0)) _exit(74);
    struct itimerval tick = {{0, 8000}, {0, 8000}};
    setitimer(ITIMER_VIRTUAL, &tick, 0);
    char byte = 0;
    for (;;) {
        ssize_t n = read(in, &byte, 1);
        if (n < 0 && errno == EINTR) continue;
        if (n != 1) _exit(0);
        loaded_image = ~0u;
        if (shared->progress < shared->count) __asm__ volatile("int3" ::: "memory");
        while (write(out, &byte, 1) < 0 && errno == EINTR) {}
    }
}

int judge_start(struct judge *judge) {
    int code_file = memfd_create("judge", 0);
    if (code_file < 0 || ftruncate(code_file, JUDGE_AREA)) return -1;
    judge->code = mmap(0, JUDGE_AREA, PROT_READ | PROT_WRITE, MAP_SHARED, code_file, 0);
    void *area = mmap(0, sizeof(struct judge_shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int down[2], up[2];
    if (judge->code == MAP_FAILED || area == MAP_FAILED || pipe(down) || pipe(up)) return -1;
    judge->shared = area;
    int child = fork();
    if (child < 0) return -1;
    if (child == 0) {
        shared = area;
        close(down[1]);
        close(up[0]);
        child_main(code_file, down[0], up[1]);
    }
    close(code_file);
    close(down[0]);
    close(up[1]);
    judge->child = child;
    judge->to_child = down[1];
    judge->from_child = up[0];
    return 0;
}

int judge_run(struct judge *judge) {
    char byte = 1;
    judge->shared->progress = 0;
    if (write(judge->to_child, &byte, 1) != 1) return -1;
    for (;;) {
        ssize_t n = read(judge->from_child, &byte, 1);
        if (n == 1) return 0;
        if (n < 0 && errno == EINTR) continue;
        return -1;
    }
}

void judge_stop(struct judge *judge) {
    kill(judge->child, SIGKILL);
    waitpid(judge->child, 0, 0);
    close(judge->to_child);
    close(judge->from_child);
    munmap(judge->code, JUDGE_AREA);
    munmap(judge->shared, sizeof(struct judge_shared));
}
#else
#include "native_judge.h"
int judge_start(struct judge *judge) { (void)judge; return -1; }
int judge_run(struct judge *judge) { (void)judge; return -1; }
void judge_stop(struct judge *judge) { (void)judge; }
#endif
