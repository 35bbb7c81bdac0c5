// The kernel's entry points without errno: every function gives a result of zero or more, or a negated errno, so that
// no code between the call and its check can spoil the number.
//
// Wrapped because Swift cannot call variadic ioctl with every argument form, and because MAP_FAILED and errno are
// macros.

#ifndef CKVM_H
#define CKVM_H

#include <stdint.h>

// Opens a device node for reading and writing, close-on-exec. A descriptor or -errno.
int32_t ckvm_open(const char *_Nonnull path);

// Closes a descriptor. 0 or -errno. Never repeated: after EINTR the descriptor is gone on Linux.
int32_t ckvm_close(int32_t descriptor);

// Issues one request. The kernel's result or -errno; EINTR is not retried here.
int32_t ckvm_ioctl(int32_t descriptor, uint32_t request, uint64_t argument);

// Maps byte_count bytes of a descriptor, shared, readable and writable. The address, or 0 with *error = errno.
uint64_t ckvm_map(int32_t descriptor, int64_t offset, uint64_t byte_count, int32_t *_Nonnull error);

// Maps zeroed private memory without reserving swap for it. The address, or 0 with *error = errno.
uint64_t ckvm_map_anonymous(uint64_t byte_count, int32_t *_Nonnull error);

// Frees pages of a file, which keeps its length: fallocate with FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE.
// 0 or -errno.
int32_t ckvm_punch_hole(int32_t descriptor, int64_t offset, int64_t byte_count);

// Gives pages of anonymous memory back; they read as zeroes afterwards. 0 or -errno.
int32_t ckvm_discard(uint64_t address, uint64_t byte_count);

// Asks for huge pages, where the kernel has them. 0 or -errno.
int32_t ckvm_advise_huge_pages(uint64_t address, uint64_t byte_count);

// Asks for pages of the usual size. 0 or -errno.
int32_t ckvm_advise_small_pages(uint64_t address, uint64_t byte_count);

// Maps zeroed private memory of the host's reserved huge pages. The address, or 0 with *error = errno.
uint64_t ckvm_map_huge_pages(uint64_t byte_count, int32_t *_Nonnull error);

// The pages of this range come from one NUMA node (below 1024) and no other. 0 or -errno.
int32_t ckvm_bind_memory(uint64_t address, uint64_t byte_count, uint32_t node);

// The same for what the calling thread, and those that it makes, will get from now on. 0 or -errno.
int32_t ckvm_bind_thread_memory(uint32_t node);

// Makes every page of anonymous memory, on so many threads. Contents stay. 0 or -errno.
int32_t ckvm_populate(uint64_t address, uint64_t byte_count, uint32_t thread_count);

// The processors that the calling thread may run on: bits of the CKVM_PROCESSOR_BYTES bytes at `address`, lowest first.
#define CKVM_PROCESSOR_BYTES 128
int32_t ckvm_get_processors(uint64_t address);
int32_t ckvm_set_processors(uint64_t address);

// The calling thread gets this signal from here on. 0 or a negated errno.
int32_t ckvm_unblock_signal(int32_t number);

// Raises this process's limit on locked memory as far as it may, and gives the limit in bytes; all ones for none.
uint64_t ckvm_raise_memory_lock_limit(void);

// Unmaps what one of the maps gave. 0 or -errno.
int32_t ckvm_unmap(uint64_t address, uint64_t byte_count);

// A file in memory of so many zeros, close-on-exec. A descriptor or -errno.
int32_t ckvm_create_file(uint64_t byte_count);

// One named place in a kernel structure: its offset in bytes, or, where the field name is "", the structure's length.
typedef struct {
    const char *_Nonnull structure;
    const char *_Nonnull field;
    uint32_t value;
} ckvm_field;

// The layouts this project relies on; each was compared with the installed header at compile time where that knows the
// structure. Tests compare the Swift structures with the same table.
uint32_t ckvm_field_count(void);
ckvm_field ckvm_field_at(uint32_t index);

// A named constant of the kernel: a request word, a capability, an exit reason, a firmware status.
typedef struct {
    const char *_Nonnull name;
    uint32_t value;
} ckvm_constant;

uint32_t ckvm_constant_count(void);
ckvm_constant ckvm_constant_at(uint32_t index);

#endif
