// What several processors need of the host's own: locked instructions, fences, and asking a processor that runs to come
// out. Inlined into the handlers.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "x86_state.h"

// Compare and exchange at a naturally aligned address. False: `expected` is what was there.
static inline bool x86_compare_exchange_8(void *_Nonnull at, uint8_t *_Nonnull expected, uint8_t value) {
    return __atomic_compare_exchange_n((uint8_t *)at, expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}
static inline bool x86_compare_exchange_16(void *_Nonnull at, uint16_t *_Nonnull expected, uint16_t value) {
    return __atomic_compare_exchange_n((uint16_t *)at, expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}
static inline bool x86_compare_exchange_32(void *_Nonnull at, uint32_t *_Nonnull expected, uint32_t value) {
    return __atomic_compare_exchange_n((uint32_t *)at, expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}
static inline bool x86_compare_exchange_64(void *_Nonnull at, uint64_t *_Nonnull expected, uint64_t value) {
    return __atomic_compare_exchange_n((uint64_t *)at, expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

// The same for 16 bytes, low half first. Where the host is no x86-64, processors take turns, and plain accesses do.
static inline bool x86_compare_exchange_128(
    void *_Nonnull at, uint64_t *_Nonnull low, uint64_t *_Nonnull high, uint64_t new_low, uint64_t new_high) {
#if defined(__x86_64__)
    bool equal;
    struct x86_pair { uint64_t low, high; };
    __asm__ volatile("lock cmpxchg16b %1"
                     : "=@ccz"(equal), "+m"(*(struct x86_pair *)at), "+a"(*low), "+d"(*high)
                     : "b"(new_low), "c"(new_high)
                     : "memory");
    return equal;
#else
    uint64_t *words = (uint64_t *)at;
    bool equal = words[0] == *low && words[1] == *high;
    *low = words[0];
    *high = words[1];
    if (equal) {
        words[0] = new_low;
        words[1] = new_high;
    }
    return equal;
#endif
}

// MFENCE.
static inline void x86_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

// What the host's processor does about a loop that waits.
static inline void x86_pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

// A kick takes this from the budget, so that what is left of the slice can be told again.
#define X86_KICK ((int64_t)1 << 62)

// Called by any thread: the processor leaves at its next block. Its own counting may undo it at the same moment; whoever
// must be heard asks again.
static inline void x86_kick(struct x86_cpu *_Nonnull s) {
    int64_t budget = __atomic_load_n(&s->budget, __ATOMIC_RELAXED);
    if (budget <= -(X86_KICK / 2)) return;
    __atomic_compare_exchange_n(&s->budget, &budget, budget - X86_KICK, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}

// Called by the processor's own thread: the budget without a kick. True: there was one.
static inline bool x86_settle_kick(struct x86_cpu *_Nonnull s) {
    if (s->budget > -(X86_KICK / 2)) return false;
    s->budget += X86_KICK;
    return true;
}

// A request that outlives the slice: `run` answers it when it begins, if not before.
static inline void x86_request(struct x86_cpu *_Nonnull s) {
    __atomic_store_n(&s->requested, 1, __ATOMIC_SEQ_CST);
    x86_kick(s);
}
static inline bool x86_take_request(struct x86_cpu *_Nonnull s) {
    if (__atomic_load_n(&s->requested, __ATOMIC_ACQUIRE) == 0) return false;
    __atomic_store_n(&s->requested, 0, __ATOMIC_SEQ_CST);
    return true;
}
