#define _GNU_SOURCE
#include "disk_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *text(uint64_t address) { return (const char *)(uintptr_t)address; }

static int32_t fail(int descriptor, int error) {
    close(descriptor);
    return -error;
}

int32_t disk_open(uint64_t path_address, int32_t is_writable) {
    struct stat status;
    if (stat(text(path_address), &status) != 0) return -errno;
    if (S_ISDIR(status.st_mode)) return -EISDIR;
    if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode)) return -ENOTBLK;
    /* O_EXCL on a block device: not while it is mounted or part of another device. */
    int flags = (is_writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK;
    if (S_ISBLK(status.st_mode) && is_writable) flags |= O_EXCL;
    int descriptor = open(text(path_address), flags);
    if (descriptor < 0) return -errno;
    /* The name may be another file's by now. */
    if (fstat(descriptor, &status) != 0) return fail(descriptor, errno);
    if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode)) return fail(descriptor, ENOTBLK);
    struct flock lock = {.l_type = is_writable ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET};
    if (fcntl(descriptor, F_OFD_SETLK, &lock) != 0) return fail(descriptor, errno == EACCES ? EAGAIN : errno);
    return descriptor;
}

int64_t disk_byte_count(int32_t descriptor) {
    struct stat status;
    if (fstat(descriptor, &status) != 0) return -errno;
    if (S_ISREG(status.st_mode)) return status.st_size;
    uint64_t byte_count = 0;
    if (ioctl(descriptor, BLKGETSIZE64, &byte_count) != 0) return -errno;
    return byte_count > INT64_MAX ? -EFBIG : (int64_t)byte_count;
}

/* 1 when the process has this file open. */
static int has_open(long process, const struct stat *wanted) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%ld/fd", process);
    DIR *folder = opendir(path);
    if (folder == NULL) return 0;
    int found = 0;
    struct dirent *entry;
    while (!found && (entry = readdir(folder)) != NULL) {
        struct stat status;
        if (fstatat(dirfd(folder), entry->d_name, &status, 0) != 0) continue;
        found = status.st_dev == wanted->st_dev && status.st_ino == wanted->st_ino;
    }
    closedir(folder);
    return found;
}

int32_t disk_user(uint64_t path_address, uint64_t name_address, uint64_t byte_count) {
    struct stat wanted;
    if (byte_count == 0 || stat(text(path_address), &wanted) != 0) return 0;
    DIR *folder = opendir("/proc");
    if (folder == NULL) return 0;
    long process = 0;
    struct dirent *entry;
    while ((entry = readdir(folder)) != NULL) {
        long candidate = strtol(entry->d_name, NULL, 10);
        if (candidate <= 0 || !has_open(candidate, &wanted)) continue;
        process = candidate;
        /* This process may have inherited the file from the one that locked it: another one is the better answer. */
        if (candidate != getpid()) break;
    }
    closedir(folder);
    char *name = (char *)(uintptr_t)name_address;
    name[0] = 0;
    if (process == 0) return 0;
    char path[64];
    snprintf(path, sizeof path, "/proc/%ld/comm", process);
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor >= 0) {
        ssize_t count = read(descriptor, name, byte_count - 1);
        name[count > 0 ? count : 0] = 0;
        name[strcspn(name, "\n")] = 0;
        close(descriptor);
    }
    return (int32_t)process;
}

int32_t disk_read(int32_t descriptor, uint64_t address, uint64_t byte_count, uint64_t offset) {
    while (byte_count > 0) {
        ssize_t count = pread(descriptor, (void *)(uintptr_t)address, byte_count, (off_t)offset);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) return -errno;
        if (count == 0) return -ENODATA;
        address += (uint64_t)count;
        offset += (uint64_t)count;
        byte_count -= (uint64_t)count;
    }
    return 0;
}

int32_t disk_write(int32_t descriptor, uint64_t address, uint64_t byte_count, uint64_t offset) {
    while (byte_count > 0) {
        ssize_t count = pwrite(descriptor, (const void *)(uintptr_t)address, byte_count, (off_t)offset);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) return -errno;
        /* Nothing written and no error: no progress either. */
        if (count == 0) return -EIO;
        address += (uint64_t)count;
        offset += (uint64_t)count;
        byte_count -= (uint64_t)count;
    }
    return 0;
}

int32_t disk_flush(int32_t descriptor) {
    while (fdatasync(descriptor) != 0) {
        if (errno != EINTR) return -errno;
    }
    return 0;
}

static int32_t allocate(int32_t descriptor, int mode, uint64_t offset, uint64_t byte_count) {
    while (fallocate(descriptor, mode, (off_t)offset, (off_t)byte_count) != 0) {
        if (errno != EINTR) return -errno;
    }
    return 0;
}

int32_t disk_punch(int32_t descriptor, uint64_t offset, uint64_t byte_count) {
    return allocate(descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, byte_count);
}

int32_t disk_zero(int32_t descriptor, uint64_t offset, uint64_t byte_count) {
    static const char zeroes[1 << 16];
    int32_t error = allocate(descriptor, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset, byte_count);
    if (error != -EOPNOTSUPP) return error;
    while (byte_count > 0) {
        uint64_t count = byte_count < sizeof zeroes ? byte_count : sizeof zeroes;
        error = disk_write(descriptor, (uint64_t)(uintptr_t)zeroes, count, offset);
        if (error != 0) return error;
        offset += count;
        byte_count -= count;
    }
    return 0;
}
