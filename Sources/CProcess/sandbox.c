#define _GNU_SOURCE
#include "sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

int32_t sandbox_drop_privileges(void) {
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return -errno;
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3];
    memset(none, 0, sizeof none);
    return syscall(SYS_capset, &header, none) == 0 ? 0 : -errno;
}

/* Landlock, by numbers: the headers of many systems are older than their kernels. */

/* <linux/landlock.h> of 6.12; an older kernel takes the part of it that it knows. */
struct ruleset {
    uint64_t files;
    uint64_t network;
    uint64_t scopes;
};

/* How many file rights a version knows [Linux landlock.rst]. The later ones are TRUNCATE (3), IOCTL_DEV (5). */
static uint64_t file_rights(long version) {
    int count = version >= 5 ? 16 : version >= 3 ? 15 : version == 2 ? 14 : 13;
    return (UINT64_C(1) << count) - 1;
}

int32_t sandbox_restrict_files(uint64_t folder_address) {
    enum { remove_file = 1 << 5, ioctl_device = 1 << 15, tcp_bind_and_connect = 3, unix_and_signal_scope = 3 };
    long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (version <= 0) return 0;
    struct ruleset rules = {.files = file_rights(version) & ~(uint64_t)ioctl_device};
    if (version >= 4) rules.network = tcp_bind_and_connect;
    if (version >= 6) rules.scopes = unix_and_signal_scope;
    size_t byte_count = version >= 6 ? sizeof rules : version >= 4 ? offsetof(struct ruleset, scopes) : sizeof rules.files;
    int descriptor = (int)syscall(SYS_landlock_create_ruleset, &rules, byte_count, 0);
    if (descriptor < 0) return -errno;
    if (folder_address != 0) {
        int folder = open((const char *)(uintptr_t)folder_address, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (folder >= 0) {
            struct landlock_path_beneath_attr rule = {.allowed_access = remove_file, .parent_fd = folder};
            syscall(SYS_landlock_add_rule, descriptor, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
            close(folder);
        }
    }
    int result = syscall(SYS_landlock_restrict_self, descriptor, 0) == 0 ? (int)version : -errno;
    close(descriptor);
    return result;
}

/* seccomp: a list of calls, each with one jump to "allowed". */

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#endif

/* Calls that every thread needs. What they can reach is this process's memory, its threads, and files that are open. */
static const int common_calls[] = {
    /* Memory. */
    SYS_mmap, SYS_munmap, SYS_mprotect, SYS_madvise, SYS_mremap, SYS_brk, SYS_membarrier,
    /* Threads and signals. */
    SYS_futex, SYS_exit, SYS_exit_group, SYS_set_robust_list, SYS_sched_yield, SYS_sched_getaffinity, SYS_gettid,
    SYS_getpid, SYS_set_tid_address, SYS_tgkill, SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_sigaltstack,
    SYS_restart_syscall, SYS_rt_sigtimedwait, SYS_rt_sigpending,
#ifdef SYS_rseq
    SYS_rseq,
#endif
    /* Time and randomness. */
    SYS_clock_gettime, SYS_clock_getres, SYS_clock_nanosleep, SYS_nanosleep, SYS_gettimeofday, SYS_getrandom,
    SYS_timerfd_create, SYS_timerfd_settime, SYS_eventfd2, SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_pwait,
    /* Files that are open. */
    SYS_read, SYS_write, SYS_readv, SYS_writev, SYS_pread64, SYS_pwrite64, SYS_preadv, SYS_pwritev, SYS_lseek, SYS_fstat,
    SYS_newfstatat, SYS_fsync, SYS_fdatasync, SYS_sync_file_range, SYS_fallocate, SYS_ftruncate, SYS_close, SYS_ppoll,
    SYS_fcntl, SYS_flock,
    SYS_recvfrom, SYS_sendto, SYS_recvmsg, SYS_sendmsg, SYS_shutdown, SYS_getsockopt,
    /* Who this is, and what it used. */
    SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid, SYS_getppid, SYS_getpgid, SYS_uname, SYS_getrusage,
#ifdef SYS_poll
    SYS_poll, SYS_epoll_wait, SYS_getpgrp, SYS_time,
#endif
};
static const int socket_calls[] = {SYS_connect, SYS_accept4, SYS_setsockopt};

enum { program_limit = 512 };

/* The program as it grows. Every "allow" is a pair: the jump over the answer, and the answer. */
struct program {
    struct sock_filter code[program_limit];
    unsigned short count;
};

static void add(struct program *program, struct sock_filter instruction) {
    if (program->count < program_limit) program->code[program->count++] = instruction;
}

static void allow_if_equal(struct program *program, uint32_t value) {
    add(program, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1));
    add(program, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
}

static void refuse(struct program *program, int error) {
    add(program, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)error));
}

static void load(struct program *program, size_t offset) {
    add(program, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset));
}

/* The rest of the program up to `end_if` is for this call only. Gives the place of the jump. */
static unsigned short begin_if(struct program *program, int call) {
    add(program, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)call, 0, 0));
    return (unsigned short)(program->count - 1);
}

static void end_if(struct program *program, unsigned short jump) {
    refuse(program, EPERM);
    program->code[jump].jf = (unsigned char)(program->count - jump - 1);
}

/* The low half of an argument; the high halves of the arguments below are ignored by the kernel too. */
static size_t argument(int index) { return offsetof(struct seccomp_data, args) + 8 * (size_t)index; }

int32_t sandbox_filter(uint32_t rights) {
#ifndef ARCHITECTURE
    (void)rights;
    return -ENOSYS;
#else
    struct program program = {.count = 0};
    load(&program, offsetof(struct seccomp_data, arch));
    add(&program, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0));
    refuse(&program, EPERM);
    load(&program, offsetof(struct seccomp_data, nr));

    /* A new thread; not a process. clone3 hides its flags in memory: without it glibc takes clone. */
    unsigned short jump = begin_if(&program, SYS_clone3);
    refuse(&program, ENOSYS);
    end_if(&program, jump);
    jump = begin_if(&program, SYS_clone);
    load(&program, argument(0));
    add(&program, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, CLONE_THREAD, 0, 1));
    add(&program, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    end_if(&program, jump);

    /* A thread's name; nothing else of prctl. */
    jump = begin_if(&program, SYS_prctl);
    load(&program, argument(0));
    allow_if_equal(&program, PR_SET_NAME);
    end_if(&program, jump);

    /* Where the calling thread runs, and no other one: a vCPU's is put where it belongs. */
    jump = begin_if(&program, SYS_sched_setaffinity);
    load(&program, argument(0));
    allow_if_equal(&program, 0);
    end_if(&program, jump);

    jump = begin_if(&program, SYS_ioctl);
    load(&program, argument(1));
    if (rights & SANDBOX_TERMINAL) {
        static const uint32_t modes[] = {TCGETS, TCSETS, TCSETSW, TCSETSF, TIOCGWINSZ, TIOCGPGRP};
        for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) allow_if_equal(&program, modes[i]);
    }
    if (rights & SANDBOX_KVM) {
        /* The type byte of a request's number: KVM's, the secure processor's. */
        add(&program, (struct sock_filter)BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xff00));
        allow_if_equal(&program, 0xae00);
        allow_if_equal(&program, 0x5300);
    }
    end_if(&program, jump);

    if (rights & SANDBOX_SOCKETS) {
        jump = begin_if(&program, SYS_socket);
        load(&program, argument(0));
        allow_if_equal(&program, AF_UNIX);
        end_if(&program, jump);
        for (size_t i = 0; i < sizeof socket_calls / sizeof socket_calls[0]; i++)
            allow_if_equal(&program, (uint32_t)socket_calls[i]);
    }
    if (rights & SANDBOX_CLEANUP) {
        allow_if_equal(&program, SYS_unlinkat);
#ifdef SYS_unlink
        allow_if_equal(&program, SYS_unlink);
#endif
    }
    for (size_t i = 0; i < sizeof common_calls / sizeof common_calls[0]; i++)
        allow_if_equal(&program, (uint32_t)common_calls[i]);
    refuse(&program, EPERM);
    if (program.count >= program_limit) return -E2BIG;

    struct sock_fprog filter = {.len = program.count, .filter = program.code};
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter) == 0 ? 0 : -errno;
#endif
}
