/* Sockets of this host that one thread looks after: nothing here waits but socket_poll. Results are non-negative, or a
 * negated errno; -EAGAIN: not now. */
#ifndef SNPVMM_SOCKET_POLL_H
#define SNPVMM_SOCKET_POLL_H

#include <stdint.h>

/* From here on nothing on this descriptor waits. */
int32_t socket_do_not_wait(int32_t descriptor);

/* The next connection of a listener, that does not wait. */
int32_t socket_try_accept(int32_t listener);

/* Reads 1...byte_count bytes, or 0 at the end. */
int64_t socket_try_read(int32_t descriptor, uint64_t address, uint64_t byte_count);

/* Writes 1...byte_count bytes. A peer that reads no more is -EPIPE, and no signal. */
int64_t socket_try_write(int32_t descriptor, uint64_t address, uint64_t byte_count);

/* The peer gets no more bytes than it has. */
void socket_end_writing(int32_t descriptor);

/* The peer can send no more bytes. */
void socket_end_reading(int32_t descriptor);

/* A number that tells the socket that the path names from every other file of this file system; 0 when there is none. */
uint64_t socket_identity(uint64_t path_address);

/* A descriptor that another thread makes readable. */
int32_t wake_create(void);
void wake_send(int32_t descriptor);
void wake_take(int32_t descriptor);

/* Waits until one of `count` descriptors can do something, or for so long; negative: as long as it takes. An entry has 8 bytes, little-endian: the descriptor (negative:
 * left out), 16 bits to wait for, 16 bits that are there. Interrupted by a signal, nothing is there. */
#define SOCKET_POLL_ENTRY_BYTES 8
#define SOCKET_POLL_IN 0x001
#define SOCKET_POLL_OUT 0x004
#define SOCKET_POLL_ERROR 0x008
#define SOCKET_POLL_HANGUP 0x010
int32_t socket_poll(uint64_t entries_address, uint64_t count, int32_t milliseconds);

#endif
