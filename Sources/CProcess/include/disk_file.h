/* A file or a block device as a guest's disk. Results are non-negative, or a negated errno. Paths are the addresses of
 * NUL-terminated strings, as everywhere here. */
#ifndef SNPVMM_DISK_FILE_H
#define SNPVMM_DISK_FILE_H

#include <stdint.h>

/* Opens a regular file or a block device and locks all of it: against everybody when it is writable, against writers
 * when not. The lock belongs to the open file, not to the process, and goes with the descriptor. -EAGAIN: somebody else
 * has locked it; -EBUSY: a block device that the system uses; -ENOTBLK: neither a file nor a block device. */
int32_t disk_open(uint64_t path_address, int32_t is_writable);

/* Bytes in the disk. */
int64_t disk_byte_count(int32_t descriptor);

/* A process that has the file open, as far as this user may see that: its id, and its name in at most `byte_count` bytes
 * with a NUL. 0 when none was found. */
int32_t disk_user(uint64_t path_address, uint64_t name_address, uint64_t byte_count);

/* Reads all of the bytes; -ENODATA when the file ends before. */
int32_t disk_read(int32_t descriptor, uint64_t address, uint64_t byte_count, uint64_t offset);

/* Writes all of the bytes. */
int32_t disk_write(int32_t descriptor, uint64_t address, uint64_t byte_count, uint64_t offset);

/* Returns when all that was written is on stable storage. */
int32_t disk_flush(int32_t descriptor);

/* Gives the space of these bytes back; they read as zero. -EOPNOTSUPP where the file system cannot. */
int32_t disk_punch(int32_t descriptor, uint64_t offset, uint64_t byte_count);

/* Makes these bytes zero and keeps their space. */
int32_t disk_zero(int32_t descriptor, uint64_t offset, uint64_t byte_count);

#endif
