/* What a thread gives up before it runs a guest or serves one. Nothing here can be undone. Results are 0 or a negated
 * errno unless said otherwise. */
#ifndef SNPVMM_SANDBOX_H
#define SNPVMM_SANDBOX_H

#include <stdint.h>

/* This process, and what it might start, never gets more rights again (no_new_privs), and has no capability left. */
int32_t sandbox_drop_privileges(void);

/* Landlock: the calling thread, and the threads that it makes, can open, make and rename no file, and bind or connect no
 * TCP port; nor signal processes outside, where the kernel can say so. Below `folder_address` (a NUL-terminated path, or
 * 0) it may remove files. Returns the version of Landlock, 0 where the kernel has none. */
int32_t sandbox_restrict_files(uint64_t folder_address);

/* What a kind of thread may do beyond memory, time, other threads of this process, and files that are open. */
#define SANDBOX_KVM 1       /* requests of KVM and of /dev/sev, mappings of their descriptors */
#define SANDBOX_TERMINAL 2  /* the terminal's modes; not TIOCSTI, which types for the user */
#define SANDBOX_SOCKETS 4   /* new unix sockets, connections from and to programs */
#define SANDBOX_CLEANUP 8   /* unlink: with Landlock, below its folder only */

/* seccomp: everything else that the calling thread, and the threads that it makes, ask of the kernel is EPERM. */
int32_t sandbox_filter(uint32_t rights);

/* Starts a thread that calls `entry` with `number`. It belongs to nobody: its end is its own. */
int32_t thread_start(void (*_Nonnull entry)(uint64_t), uint64_t number);

#endif
