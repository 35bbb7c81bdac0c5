#define _GNU_SOURCE
#include "file_tree.h"
#include "process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { path_limit = 4096, folder_flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC };

struct listing {
    char *names;
    uint64_t capacity;
    uint64_t used;
    char path[path_limit];
};

/* Lists one folder, whose path below the root are the first `length` bytes of listing->path, with a slash at the end
 * unless it is the root. Takes the descriptor. */
static int list(struct listing *listing, int descriptor, size_t length, int depth) {
    DIR *folder = fdopendir(descriptor);
    if (folder == NULL) {
        int error = errno;
        close(descriptor);
        return -error;
    }
    int result = 0;
    while (result == 0) {
        errno = 0;
        struct dirent *entry = readdir(folder);
        if (entry == NULL) {
            result = -errno;
            break;
        }
        if (entry->d_name[0] == '.') continue;
        size_t name_length = strlen(entry->d_name);
        if (length + name_length + 2 > sizeof listing->path) continue;
        struct stat status;
        if (fstatat(dirfd(folder), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) != 0) continue;
        int is_link = S_ISLNK(status.st_mode);
        if (is_link && fstatat(dirfd(folder), entry->d_name, &status, 0) != 0) continue;
        memcpy(listing->path + length, entry->d_name, name_length + 1);
        if (S_ISREG(status.st_mode)) {
            size_t all = length + name_length + 1;
            if (all > listing->capacity - listing->used) {
                result = -ERANGE;
                break;
            }
            memcpy(listing->names + listing->used, listing->path, all);
            listing->used += all;
        } else if (S_ISDIR(status.st_mode) && !is_link && depth < FILE_TREE_MAXIMUM_DEPTH) {
            int inner = openat(dirfd(folder), entry->d_name, folder_flags | O_NOFOLLOW);
            if (inner < 0) {
                result = -errno;
                break;
            }
            listing->path[length + name_length] = '/';
            result = list(listing, inner, length + name_length + 1, depth + 1);
        }
    }
    closedir(folder);
    return result;
}

int64_t file_tree_names(uint64_t root_address, uint64_t address, uint64_t byte_count) {
    struct listing listing = {.names = (char *)(uintptr_t)address, .capacity = byte_count};
    int root = open((const char *)(uintptr_t)root_address, folder_flags);
    if (root < 0) return -errno;
    int result = list(&listing, root, 0, 0);
    return result != 0 ? result : (int64_t)listing.used;
}

/* Opens the folder of the path's last part, and makes it if wanted. Returns its descriptor, or a negated errno; the last part
 * is at *name then. */
static int open_folder(const char *root_path, char *path, int makes, char **name) {
    int folder = open(root_path, folder_flags);
    if (folder < 0) return -errno;
    char *part = path;
    for (;;) {
        char *slash = strchr(part, '/');
        if (slash != NULL) *slash = 0;
        int error = 0;
        if (part[0] == 0 || strcmp(part, ".") == 0 || strcmp(part, "..") == 0) error = EINVAL;
        if (error == 0 && slash == NULL) {
            *name = part;
            return folder;
        }
        int inner = -1;
        if (error == 0 && makes && mkdirat(folder, part, 0755) != 0 && errno != EEXIST) error = errno;
        if (error == 0 && (inner = openat(folder, part, folder_flags | O_NOFOLLOW)) < 0) error = errno;
        close(folder);
        if (error != 0) return -error;
        folder = inner;
        part = slash + 1;
    }
}

static int copy_path(char *target, uint64_t path_address) {
    size_t length = strlen((const char *)(uintptr_t)path_address);
    if (length >= path_limit) return -ENAMETOOLONG;
    memcpy(target, (const char *)(uintptr_t)path_address, length + 1);
    return 0;
}

int32_t file_tree_open(uint64_t root_address, uint64_t path_address) {
    char path[path_limit], *name = NULL;
    int error = copy_path(path, path_address);
    if (error != 0) return error;
    int folder = open_folder((const char *)(uintptr_t)root_address, path, 0, &name);
    if (folder < 0) return folder;
    /* Without O_NONBLOCK a FIFO would wait for its writer. */
    int descriptor = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    error = errno;
    close(folder);
    return descriptor < 0 ? -error : descriptor;
}

int32_t file_tree_replace(uint64_t root_address, uint64_t path_address, uint64_t address, uint64_t byte_count) {
    char path[path_limit], *name = NULL, temporary[64];
    int error = copy_path(path, path_address);
    if (error != 0) return error;
    int folder = open_folder((const char *)(uintptr_t)root_address, path, 1, &name);
    if (folder < 0) return folder;
    /* A dot first: no listing shows what a crash leaves behind. */
    snprintf(temporary, sizeof temporary, ".%ld.new", (long)getpid());
    unlinkat(folder, temporary, 0);
    int descriptor = openat(folder, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (descriptor < 0) {
        error = -errno;
        close(folder);
        return error;
    }
    error = file_write(descriptor, address, byte_count);
    if (error == 0 && fsync(descriptor) != 0) error = -errno;
    close(descriptor);
    if (error == 0 && renameat(folder, temporary, folder, name) != 0) error = -errno;
    if (error != 0) unlinkat(folder, temporary, 0);
    if (error == 0 && fsync(folder) != 0) error = -errno;
    close(folder);
    return error;
}
