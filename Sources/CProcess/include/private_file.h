/* Files that only this user may read, changed as a whole. Results are non-negative, or a negated errno. Paths are the
 * addresses of NUL-terminated strings. */
#ifndef SNPVMM_PRIVATE_FILE_H
#define SNPVMM_PRIVATE_FILE_H

#include <stdint.h>

/* Makes a folder with mode 0700, and those above it that are missing. An existing one stays as it is. */
int32_t folder_create_private(uint64_t path_address);

/* Opens the file, made with mode 0600 if need be, and waits until no other process holds its lock. The lock goes with the
 * descriptor. */
int32_t file_lock(uint64_t path_address);

/* Opens the file for reading and writing, made with mode 0600 if need be. */
int32_t file_open_private(uint64_t path_address);

/* Makes these bytes all that an open file holds, without opening another: a reader meanwhile sees a part of them. */
int32_t file_overwrite(int32_t descriptor, uint64_t address, uint64_t byte_count);

/* Replaces the file by these bytes, with mode 0600: a reader sees the old bytes or the new ones. The temporary file is
 * the path with this process's id and ".new" behind it. */
int32_t file_replace_private(uint64_t path_address, uint64_t address, uint64_t byte_count);

#endif
