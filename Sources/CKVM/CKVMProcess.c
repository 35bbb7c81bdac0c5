// What the host is asked about this process itself: where its memory comes from, where its threads run, what it may lock.

#include "CKVM.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

// <linux/mempolicy.h>, <linux/mman.h>: newer than some systems' headers, or in none of libc's.
enum { policy_bind = 2, node_limit = 1024, advice_populate_write = 23 };

int32_t ckvm_advise_small_pages(uint64_t address, uint64_t byte_count) {
    return madvise((void *)(uintptr_t)address, byte_count, MADV_NOHUGEPAGE) == 0 ? 0 : -errno;
}

uint64_t ckvm_map_huge_pages(uint64_t byte_count, int32_t *error) {
    void *address =
        mmap(0, byte_count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
    if (address == MAP_FAILED) {
        *error = errno;
        return 0;
    }
    *error = 0;
    madvise(address, byte_count, MADV_DONTDUMP);
    return (uint64_t)(uintptr_t)address;
}

static int set_node(unsigned long *mask, uint32_t node) {
    enum { bits = 8 * sizeof *mask };
    if (node >= node_limit) return -EINVAL;
    memset(mask, 0, node_limit / 8);
    mask[node / bits] = 1ul << node % bits;
    return 0;
}

int32_t ckvm_bind_memory(uint64_t address, uint64_t byte_count, uint32_t node) {
    unsigned long mask[node_limit / 8 / sizeof(unsigned long)];
    if (set_node(mask, node) != 0) return -EINVAL;
    // The kernel takes one bit less than it is told.
    return syscall(SYS_mbind, address, byte_count, policy_bind, mask, (unsigned long)node_limit + 1, 0) == 0 ? 0 : -errno;
}

int32_t ckvm_bind_thread_memory(uint32_t node) {
    unsigned long mask[node_limit / 8 / sizeof(unsigned long)];
    if (set_node(mask, node) != 0) return -EINVAL;
    return syscall(SYS_set_mempolicy, policy_bind, mask, (unsigned long)node_limit + 1) == 0 ? 0 : -errno;
}

struct part {
    uint64_t address, byte_count;
    int32_t result;
};

static void *populate_part(void *argument) {
    struct part *part = argument;
    void *start = (void *)(uintptr_t)part->address;
    int result;
    if (part->byte_count == 0) return 0;
    do {
        result = madvise(start, part->byte_count, advice_populate_write);
    } while (result != 0 && (errno == EINTR || errno == EAGAIN));
    part->result = result == 0 ? 0 : -errno;
    if (part->result == -EINVAL) {
        // Before Linux 5.14: a write to each page that changes nothing.
        uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
        for (uint64_t offset = 0; offset < part->byte_count; offset += page)
            __atomic_fetch_or((uint8_t *)(uintptr_t)(part->address + offset), 0, __ATOMIC_RELAXED);
        part->result = 0;
    }
    return 0;
}

int32_t ckvm_populate(uint64_t address, uint64_t byte_count, uint32_t thread_count) {
    enum { most_threads = 64, grain = 2 << 20 };
    struct part parts[most_threads];
    pthread_t threads[most_threads];
    int is_running[most_threads] = {0};
    uint32_t count = thread_count < 1 ? 1 : thread_count > most_threads ? most_threads : thread_count;
    uint64_t each = (byte_count / count + grain - 1) / grain * grain, done = 0;
    int32_t result = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t left = byte_count - done, length = i == count - 1 || left < each ? left : each;
        parts[i] = (struct part){address + done, length, 0};
        done += length;
        // The last part is this thread's, and so is every one that no thread could be made for.
        is_running[i] = i < count - 1 && length > 0 && pthread_create(&threads[i], 0, populate_part, &parts[i]) == 0;
        if (!is_running[i]) populate_part(&parts[i]);
    }
    for (uint32_t i = 0; i < count; i++) {
        if (is_running[i]) pthread_join(threads[i], 0);
        if (result == 0) result = parts[i].result;
    }
    return result;
}

int32_t ckvm_get_processors(uint64_t address) {
    memset((void *)(uintptr_t)address, 0, CKVM_PROCESSOR_BYTES);
    return sched_getaffinity(0, CKVM_PROCESSOR_BYTES, (cpu_set_t *)(uintptr_t)address) == 0 ? 0 : -errno;
}

int32_t ckvm_set_processors(uint64_t address) {
    return sched_setaffinity(0, CKVM_PROCESSOR_BYTES, (const cpu_set_t *)(uintptr_t)address) == 0 ? 0 : -errno;
}

uint64_t ckvm_raise_memory_lock_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0) return 0;
    if (limit.rlim_cur < limit.rlim_max) {
        rlim_t before = limit.rlim_cur;
        limit.rlim_cur = limit.rlim_max;
        if (setrlimit(RLIMIT_MEMLOCK, &limit) != 0) limit.rlim_cur = before;
    }
    return limit.rlim_cur == RLIM_INFINITY ? UINT64_MAX : (uint64_t)limit.rlim_cur;
}

int32_t ckvm_unblock_signal(int32_t number) {
    sigset_t one;
    sigemptyset(&one);
    if (sigaddset(&one, number) != 0) return -errno;
    return -pthread_sigmask(SIG_UNBLOCK, &one, 0);
}
