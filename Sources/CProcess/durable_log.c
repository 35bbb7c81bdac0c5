#define _GNU_SOURCE
#include "durable_log.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

int32_t log_open(uint64_t path_address) {
    int descriptor = open((const char *)(uintptr_t)path_address, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    return descriptor < 0 ? -errno : descriptor;
}

int32_t log_append(int32_t descriptor, uint64_t address, uint64_t byte_count) {
    const char *bytes = (const char *)(uintptr_t)address;
    struct stat before;
    if (fstat(descriptor, &before) != 0) return -errno;
    while (byte_count > 0) {
        ssize_t count = write(descriptor, bytes, byte_count);
        if (count >= 0) {
            bytes += count;
            byte_count -= (uint64_t)count;
        } else if (errno != EINTR) {
            int error = errno;
            /* Half a line would spoil the next one. */
            if (S_ISREG(before.st_mode)) (void)!ftruncate(descriptor, before.st_size);
            return -error;
        }
    }
    /* A pipe or a terminal has no disk behind it. */
    if (S_ISREG(before.st_mode) && fdatasync(descriptor) != 0) return -errno;
    return 0;
}
