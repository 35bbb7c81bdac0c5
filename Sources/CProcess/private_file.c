#define _GNU_SOURCE
#include "private_file.h"
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { path_limit = 4096 };

int32_t folder_create_private(uint64_t path_address) {
    char path[path_limit];
    size_t length = strlen((const char *)(uintptr_t)path_address);
    if (length == 0) return -ENOENT;
    if (length >= sizeof path) return -ENAMETOOLONG;
    memcpy(path, (const char *)(uintptr_t)path_address, length + 1);
    for (size_t i = 1; i <= length; i++) {
        if (path[i] != '/' && path[i] != 0) continue;
        path[i] = 0;
        if (mkdir(path, 0700) != 0 && errno != EEXIST) return -errno;
        if (i < length) path[i] = '/';
    }
    struct stat status;
    if (stat(path, &status) != 0) return -errno;
    return S_ISDIR(status.st_mode) ? 0 : -ENOTDIR;
}

int32_t file_open_private(uint64_t path_address) {
    int descriptor = open((const char *)(uintptr_t)path_address, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    return descriptor < 0 ? -errno : descriptor;
}

int32_t file_overwrite(int32_t descriptor, uint64_t address, uint64_t byte_count) {
    if (ftruncate(descriptor, 0) != 0 || lseek(descriptor, 0, SEEK_SET) != 0) return -errno;
    return file_write(descriptor, address, byte_count);
}

int32_t file_lock(uint64_t path_address) {
    int descriptor = file_open_private(path_address);
    if (descriptor < 0) return descriptor;
    while (flock(descriptor, LOCK_EX) != 0) {
        if (errno == EINTR) continue;
        int error = errno;
        close(descriptor);
        return -error;
    }
    return descriptor;
}

int32_t file_replace_private(uint64_t path_address, uint64_t address, uint64_t byte_count) {
    const char *path = (const char *)(uintptr_t)path_address;
    char temporary[path_limit];
    int length = snprintf(temporary, sizeof temporary, "%s.%ld.new", path, (long)getpid());
    if (length < 0 || (size_t)length >= sizeof temporary) return -ENAMETOOLONG;
    unlink(temporary);
    int descriptor = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (descriptor < 0) return -errno;
    int32_t error = file_write(descriptor, address, byte_count);
    if (error == 0 && fsync(descriptor) != 0) error = -errno;
    close(descriptor);
    if (error == 0 && rename(temporary, path) != 0) error = -errno;
    if (error != 0) unlink(temporary);
    return error;
}
