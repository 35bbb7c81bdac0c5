/* What the guest agent asks of its kernel, beyond the files and sockets of CProcess: a device, a socket to the host, another
 * program. All arguments are numbers, addresses too: the callers need no pointers. Results are non-negative, or a negated
 * errno. */
#ifndef SNPVMM_GUEST_AGENT_H
#define SNPVMM_GUEST_AGENT_H

#include <stdint.h>

/* Opens the device whose NUL-terminated path is at `path_address`, for reading and writing. */
int32_t device_open(uint64_t path_address);

/* One ioctl whose argument is a structure. */
int32_t device_ioctl(int32_t descriptor, uint32_t request, uint64_t argument_address);

/* Connects to a port of a machine on the virtual socket bus; 2 is the host. */
int32_t vsock_connect(uint32_t cid, uint32_t port);

/* Runs a program, looked up on PATH, with these bytes on its standard input, and waits for its end. A program that does not
 * read all of them is its own affair.
 * `arguments_address`: NUL-terminated strings, the program first, ended by an empty one.
 * Returns its exit status, 0...255, or 256 and the number of the signal that ended it. */
int32_t program_run(uint64_t arguments_address, uint64_t input_address, uint64_t byte_count);

#endif
