/* What the command needs of its process and that has to be C: the terminal's raw mode, which must be undone in signal
 * handlers, and a few system calls on buffers. All arguments are numbers, addresses too, as at the kernel's own border:
 * the callers need no pointers. */
#ifndef SNPVMM_PROCESS_H
#define SNPVMM_PROCESS_H

#include <stdint.h>

/* Terminal. */

/* 1 when `descriptor` is a terminal and this process is in its foreground. */
int32_t terminal_is_interactive(int32_t descriptor);

/* Puts the terminal into raw mode: every byte is input, none is echoed, none makes a signal. The old mode comes back by
 * terminal_restore, at exit, and before any signal that ends or stops the process takes its course. Returns 0 or errno. */
int32_t terminal_enter_raw(int32_t descriptor);

/* Gives the terminal its old mode back. Does nothing when it is not raw. */
void terminal_restore(void);

/* Waits for a byte: 0...255, TERMINAL_END when there will be no more, TERMINAL_STOPPED after terminal_stop_reading. */
int32_t terminal_read_byte(int32_t descriptor);
#define TERMINAL_END (-1)
#define TERMINAL_STOPPED (-2)

/* Makes a waiting terminal_read_byte, and every later one, return TERMINAL_STOPPED. */
void terminal_stop_reading(void);

/* Files. Results are non-negative, or a negated errno. */

/* Opens the file whose NUL-terminated path is at `path_address`; directories are refused with EISDIR. */
int32_t file_open(uint64_t path_address);

/* Makes an empty file, or empties an existing one. */
int32_t file_create(uint64_t path_address);

/* 1 when both paths name one regular file, or are the same and name nothing; else 0. */
int32_t file_is_same(uint64_t path_address, uint64_t other_address);

/* Bytes of a regular file; -ESPIPE for pipes and devices, whose length nobody knows. */
int64_t file_byte_count(int32_t descriptor);

/* Reads up to `byte_count` bytes; fewer only at the end of the file. */
int64_t file_read(int32_t descriptor, uint64_t address, uint64_t byte_count);

/* The same from an offset on. */
int64_t file_read_at(int32_t descriptor, uint64_t address, uint64_t byte_count, uint64_t offset);

/* Writes all of the bytes, waiting as long as it takes. Returns 0 or a negated errno. */
int32_t file_write(int32_t descriptor, uint64_t address, uint64_t byte_count);

/* The same for one byte. */
int32_t file_write_byte(int32_t descriptor, uint8_t byte);

void file_close(int32_t descriptor);

/* Copies the value of the environment variable whose NUL-terminated name is at `name_address`, without a NUL. Returns its
 * length, -ENOENT when there is none, -ERANGE when it is longer than `byte_count`. */
int32_t process_environment(uint64_t name_address, uint64_t address, uint64_t byte_count);

/* Sleeps for about so long. */
void process_sleep(int64_t milliseconds);

/* From here on this process leaves no core file, and other processes of the user cannot read its memory. */
void process_forbid_dumps(void);

/* From here on SIGINT, SIGTERM and SIGHUP do not end the process: process_wait_for_endings returns, and
 * process_end_as_asked makes up for it. Two of them are put off so; the third ends the process. Returns 0 or errno. */
int32_t process_put_endings_off(void);

/* These signals end the process at once again. */
void process_let_endings_be(void);

/* Waits until there were `count` such signals, or for so long; negative: as long as it takes. Returns how many there
 * were. For one thread. */
int32_t process_wait_for_endings(int32_t count, int32_t milliseconds);

/* The number of the first such signal; 0 when there was none. */
int32_t process_ending_signal(void);

/* Lets the signal take its course, if there was one. On any thread. */
void process_end_as_asked(void);

/* Seconds since 1970, UTC. */
int64_t process_wall_clock(void);

/* Resources. */

/* The most memory this process has had resident, in bytes. */
int64_t process_peak_resident_byte_count(void);

#endif
