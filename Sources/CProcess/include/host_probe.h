/* What can be read of the host beside its files: the processor's CPUID and MSRs, limits, who may open what. Results are
 * non-negative, or a negated errno. Paths are the addresses of NUL-terminated strings. */
#ifndef SNPVMM_HOST_PROBE_H
#define SNPVMM_HOST_PROBE_H

#include <stdint.h>

/* CPUID: EAX, EBX, ECX, EDX into the 16 bytes at `address`. -ENOSYS on other processors. */
int32_t host_cpuid(uint32_t leaf, uint32_t index, uint64_t address);

/* One MSR of the first processor, by /dev/cpu/0/msr, into the 8 bytes at `address`. */
int32_t host_read_msr(uint32_t number, uint64_t address);

/* RLIMIT_MEMLOCK and RLIMIT_NOFILE; all ones for no limit. */
uint64_t host_memory_lock_limit(void);
uint64_t host_open_files_limit(void);

/* How many entries a folder has, without those that begin with a dot. */
int32_t host_entry_count(uint64_t path_address);

/* The permission bits of a file or node. */
int32_t host_file_mode(uint64_t path_address);

/* 1 when the file's group is one of this process's, else 0. */
int32_t host_file_group_is_mine(uint64_t path_address);

/* 1 for root. */
int32_t host_user_is_root(void);

#endif
