/* Sockets of this host by path, for a guest owner in another process. Results are non-negative, or a negated errno. */
#ifndef SNPVMM_LOCAL_SOCKET_H
#define SNPVMM_LOCAL_SOCKET_H

#include <stdint.h>

/* Connects to the stream socket whose NUL-terminated path is at `path_address`. */
int32_t socket_connect(uint64_t path_address);

/* The same, and nothing on the connection waits. -EAGAIN: too many others wait there. */
int32_t socket_try_connect(uint64_t path_address);

/* Makes a stream socket at the path, readable by this user alone. A socket that nobody listens on any more is removed;
 * any other file, and a socket in use, is -EADDRINUSE. */
int32_t socket_listen(uint64_t path_address);

/* Removes the path's name, and says nothing of it: it may have gone already. */
void socket_unlink(uint64_t path_address);

/* Waits for a connection; close-on-exec. */
int32_t socket_accept(int32_t listener);

/* Reads what is there, waiting for the first byte: 1...byte_count, or 0 at the end. */
int64_t socket_read(int32_t descriptor, uint64_t address, uint64_t byte_count);

/* Writes all of the bytes. A peer that has gone is -EPIPE, and no signal. */
int32_t socket_write(int32_t descriptor, uint64_t address, uint64_t byte_count);

/* Makes reads and writes fail with -EAGAIN after so long without any byte; 0: never. */
int32_t socket_set_patience(int32_t descriptor, int64_t milliseconds);

#endif
