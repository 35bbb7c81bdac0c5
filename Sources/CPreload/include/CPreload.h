// What the preload library's two halves know of each other. The C half stands before libc's functions; the Swift half is
// the kernel.

#ifndef CPRELOAD_H
#define CPRELOAD_H

#include <stdint.h>

// The Swift half. Each gives a result of zero or more, or a negated errno.
int32_t snpvmm_preload_open(int32_t node);  // 0: /dev/kvm, 1: /dev/sev
int32_t snpvmm_preload_ioctl(int32_t descriptor, uint32_t request, uint64_t argument);
void snpvmm_preload_close(int32_t descriptor);
// `immediate_exit` in a vCPU's run page.
void snpvmm_preload_immediate_exit(int32_t descriptor, int32_t value);
// What the machine's CPUID says: register 0…3 is EAX to EDX. A leaf or subleaf that it has not is zero.
uint32_t snpvmm_preload_cpuid(uint32_t leaf, uint32_t subleaf, int32_t which);

// A number from the environment, by the order in preload.c; -1 where there is none or no number.
int64_t preload_setting(int32_t which);

// A line for standard error, a byte at a time; the newline writes it.
void preload_say(uint8_t byte);

// The program's own word at an address that a request has just been read from.
uint32_t preload_word(uint64_t address);

// Keeps the C half in whatever links this module.
void snpvmm_preload_anchor(void);

#endif
