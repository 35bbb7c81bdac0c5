/* A log whose lines are on the disk when they have been written. Results are non-negative, or a negated errno. */
#ifndef SNPVMM_DURABLE_LOG_H
#define SNPVMM_DURABLE_LOG_H

#include <stdint.h>

/* Opens the file for appending, made with mode 0600 if need be. The path is the address of a NUL-terminated string. */
int32_t log_open(uint64_t path_address);

/* Appends all of the bytes, and waits until they are on the disk. When that fails, none of them stays where that can be
 * helped. One writer at a time. */
int32_t log_append(int32_t descriptor, uint64_t address, uint64_t byte_count);

#endif
