// Stands before libc's open, ioctl and close in a program that knows nothing of us: /dev/kvm and /dev/sev are the
// software kernel's, everything else goes on to the real one. The variadic functions take their third argument always, as
// libc's own do.
//
// Descriptors of ours are memory files of the process; a byte per number says which. A close that libc does not see
// (close_range, a bare system call) leaves such a byte behind; the next request on it is then refused with EBADF.

#include "CPreload.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define LIMIT (1 << 20)
#define KVM_RUN 0x0000ae80

static _Atomic uint8_t ours[LIMIT];

static int is_ours(int fd) {
    return fd >= 0 && fd < LIMIT && atomic_load_explicit(&ours[fd], memory_order_acquire);
}

static int result(long value) {
    if (value >= 0) return (int)value;
    errno = (int)-value;
    return -1;
}

// Marks a new descriptor; one beyond the table is given back.
static int adopt(int32_t value) {
    if (value < 0) return result(value);
    if (value >= LIMIT) {
        snpvmm_preload_close(value);
        return result(-EMFILE);
    }
    atomic_store_explicit(&ours[value], 1, memory_order_release);
    return value;
}

static int open_path(int directory, const char *path, int flags, mode_t mode) {
    int32_t node = path == NULL ? -1 : strcmp(path, "/dev/kvm") == 0 ? 0 : strcmp(path, "/dev/sev") == 0 ? 1 : -1;
    if (node < 0) return (int)syscall(SYS_openat, directory, path, flags, mode);
    return adopt(snpvmm_preload_open(node));
}

#define MODE(flags)                       \
    mode_t mode = 0;                      \
    if ((flags) & (O_CREAT | O_TMPFILE)) { \
        va_list list;                     \
        va_start(list, flags);            \
        mode = va_arg(list, mode_t);      \
        va_end(list);                     \
    }

EXPORT int open(const char *path, int flags, ...) {
    MODE(flags)
    return open_path(AT_FDCWD, path, flags, mode);
}
EXPORT int open64(const char *path, int flags, ...) {
    MODE(flags)
    return open_path(AT_FDCWD, path, flags | O_LARGEFILE, mode);
}
EXPORT int openat(int directory, const char *path, int flags, ...) {
    MODE(flags)
    return open_path(directory, path, flags, mode);
}
EXPORT int openat64(int directory, const char *path, int flags, ...) {
    MODE(flags)
    return open_path(directory, path, flags | O_LARGEFILE, mode);
}
// The forms of programs built with _FORTIFY_SOURCE.
EXPORT int __open_2(const char *path, int flags) { return open_path(AT_FDCWD, path, flags, 0); }
EXPORT int __open64_2(const char *path, int flags) { return open_path(AT_FDCWD, path, flags | O_LARGEFILE, 0); }
EXPORT int __openat_2(int directory, const char *path, int flags) { return open_path(directory, path, flags, 0); }
EXPORT int __openat64_2(int directory, const char *path, int flags) {
    return open_path(directory, path, flags | O_LARGEFILE, 0);
}

EXPORT int close(int fd) {
    if (!is_ours(fd)) return (int)syscall(SYS_close, fd);
    // First the mark: the kernel closes the file through this very function.
    atomic_store_explicit(&ours[fd], 0, memory_order_release);
    snpvmm_preload_close(fd);
    return 0;
}

// Requests that answer with a new descriptor.
static int makes_descriptor(uint32_t request) {
    return request == 0x0000ae01 || request == 0x0000ae41 || request == 0xc040aed4;
}

// MARK: Cancelled threads
//
// A thread that may be cancelled at any instruction must not be while the software kernel holds its locks: it is
// cancelled behind its request. One in KVM_RUN is asked to come out, as the real kernel's signal would have it.

typedef struct running {
    struct running *next;
    pthread_t thread;
    int fd, is_asynchronous, is_asked;
} running;

static running *all_running;
static pthread_mutex_t running_lock = PTHREAD_MUTEX_INITIALIZER;

static int32_t run(int fd, uint64_t argument, int cancel_type) {
    running self = {NULL, pthread_self(), fd, cancel_type == PTHREAD_CANCEL_ASYNCHRONOUS, 0};
    pthread_mutex_lock(&running_lock);
    self.next = all_running;
    all_running = &self;
    pthread_mutex_unlock(&running_lock);
    int32_t value = snpvmm_preload_ioctl(fd, KVM_RUN, argument);
    pthread_mutex_lock(&running_lock);
    running **at = &all_running;
    while (*at != &self) at = &(*at)->next;
    *at = self.next;
    pthread_mutex_unlock(&running_lock);
    if (self.is_asked) snpvmm_preload_immediate_exit(fd, 0);
    return value;
}

EXPORT int pthread_cancel(pthread_t thread) {
    int (*next)(pthread_t) = (int (*)(pthread_t))dlsym(RTLD_NEXT, "pthread_cancel");
    if (next == NULL) return ENOSYS;
    int value = next(thread);
    pthread_mutex_lock(&running_lock);
    for (running *r = all_running; r != NULL; r = r->next) {
        if (!pthread_equal(r->thread, thread) || !r->is_asynchronous) continue;
        r->is_asked = 1;
        snpvmm_preload_immediate_exit(r->fd, 1);
    }
    pthread_mutex_unlock(&running_lock);
    return value;
}

EXPORT int ioctl(int fd, unsigned long request, ...) {
    va_list list;
    va_start(list, request);
    void *argument = va_arg(list, void *);
    va_end(list);
    if (!is_ours(fd)) return (int)syscall(SYS_ioctl, fd, request, argument);
    int cancel_type;
    pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, &cancel_type);
    int32_t value = (uint32_t)request == KVM_RUN
                        ? run(fd, (uint64_t)(uintptr_t)argument, cancel_type)
                        : snpvmm_preload_ioctl(fd, (uint32_t)request, (uint64_t)(uintptr_t)argument);
    pthread_setcanceltype(cancel_type, NULL);
    return makes_descriptor((uint32_t)request) ? adopt(value) : result(value);
}

// MARK: Settings and complaints

int64_t preload_setting(int32_t which) {
    static const char *const names[] = {"SNPVMM_SEED", "SNPVMM_MEMORY", "SNPVMM_TSC_KHZ", "SNPVMM_TRACE", "SNPVMM_CPUID"};
    const char *text = getenv(names[which]);
    if (text == NULL || *text < '0' || *text > '9') return -1;
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 0);
    return *end != 0 || errno != 0 ? -1 : value;
}

void preload_say(uint8_t byte) {
    static _Thread_local char line[512];
    static _Thread_local size_t count;
    if (count < sizeof line) line[count++] = (char)byte;
    if (byte != '\n') return;
    (void)!write(STDERR_FILENO, line, count);
    count = 0;
}

uint32_t preload_word(uint64_t address) { return *(const uint32_t *)(uintptr_t)address; }

void snpvmm_preload_anchor(void) {}
