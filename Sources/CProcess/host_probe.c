#define _GNU_SOURCE
#include "host_probe.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

int32_t host_cpuid(uint32_t leaf, uint32_t index, uint64_t address) {
#if defined(__x86_64__)
    uint32_t registers[4] = {0, 0, 0, 0};
    __cpuid_count(leaf, index, registers[0], registers[1], registers[2], registers[3]);
    memcpy((void *)(uintptr_t)address, registers, sizeof registers);
    return 0;
#else
    (void)leaf, (void)index, (void)address;
    return -ENOSYS;
#endif
}

int32_t host_read_msr(uint32_t number, uint64_t address) {
    int descriptor = open("/dev/cpu/0/msr", O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) return -errno;
    uint64_t value;
    ssize_t count = pread(descriptor, &value, sizeof value, number);
    int32_t result = count == (ssize_t)sizeof value ? 0 : count < 0 ? -errno : -EIO;
    close(descriptor);
    if (result == 0) memcpy((void *)(uintptr_t)address, &value, sizeof value);
    return result;
}

static uint64_t limit_of(int resource) {
    struct rlimit limit;
    if (getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return UINT64_MAX;
    return limit.rlim_cur;
}

uint64_t host_memory_lock_limit(void) { return limit_of(RLIMIT_MEMLOCK); }
uint64_t host_open_files_limit(void) { return limit_of(RLIMIT_NOFILE); }

int32_t host_entry_count(uint64_t path_address) {
    DIR *folder = opendir((const char *)(uintptr_t)path_address);
    if (folder == NULL) return -errno;
    int32_t count = 0;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;)
        if (entry->d_name[0] != '.') count++;
    closedir(folder);
    return count;
}

int32_t host_file_mode(uint64_t path_address) {
    struct stat file;
    if (stat((const char *)(uintptr_t)path_address, &file) != 0) return -errno;
    return (int32_t)(file.st_mode & 07777);
}

int32_t host_file_group_is_mine(uint64_t path_address) {
    struct stat file;
    if (stat((const char *)(uintptr_t)path_address, &file) != 0) return -errno;
    if (getegid() == file.st_gid) return 1;
    gid_t groups[1024];
    int count = getgroups(1024, groups);
    for (int index = 0; index < count; index++)
        if (groups[index] == file.st_gid) return 1;
    return 0;
}

int32_t host_user_is_root(void) { return geteuid() == 0; }
