// Single instructions on the host's own processor: a child process with fixed mappings, in which every instruction ends in
// a signal. The case's state is put into the signal frame, the frame's state is the result. CS decides the mode: 0x33 is
// Linux's 64-bit code segment, 0x23 its 32-bit one.
//
//   0x2000_1000…0x2000_2fff   code: read and execute; the parent writes it through another mapping
//   0x3000_1000…0x3000_2fff   data: read and write
#pragma once
#include <stdint.h>

enum {
    JUDGE_CODE = 0x20001000, JUDGE_DATA = 0x30001000, JUDGE_AREA = 0x2000,
    JUDGE_BATCH = 64, JUDGE_IMAGES = 20, JUDGE_WORDS = JUDGE_AREA / 8,
    JUDGE_HANG = 255,   // the vector of a case that never ended
};

struct judge_state {
    uint64_t gpr[16];    // rax rcx rdx rbx rsp rbp rsi rdi r8…r15
    uint64_t rip, rflags;
    uint64_t st_mantissa[8];   // ST(0)…
    uint64_t st_exponent[8];
    uint64_t xmm[32], ymmh[32];
    uint64_t fip, fdp;
    uint32_t mxcsr;
    uint16_t fcw, fsw, ftw, fop;   // ftw: one bit per physical register
    uint32_t image;      // which data image memory starts as
    uint16_t cs, ss, ds, es, fs, gs;
    uint64_t fs_base, gs_base;   // loaded after the selectors
};

struct judge_result {
    struct judge_state state;
    uint64_t cr2;
    uint32_t vector, error;
    uint32_t change_count;         // quadwords of the data area that changed
    uint16_t change_index[JUDGE_WORDS];
    uint64_t change_value[JUDGE_WORDS];
};

/// What parent and child share.
struct judge_shared {
    volatile uint32_t count, progress;
    uint64_t images[JUDGE_IMAGES][JUDGE_WORDS];
    struct judge_state cases[JUDGE_BATCH];
    struct judge_result results[JUDGE_BATCH];
};

struct judge {
    struct judge_shared *shared;
    uint8_t *code;       // the parent's view of the code area
    int child, to_child, from_child;
};

/// 0, or -1 where it cannot be made.
int judge_start(struct judge *judge);
/// Runs the batch in `shared`; 0, or -1 when the child died (its case: `progress`).
int judge_run(struct judge *judge);
void judge_stop(struct judge *judge);
