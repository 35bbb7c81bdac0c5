#include "CKVM.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

int32_t ckvm_open(const char *path) {
    int descriptor;
    do {
        descriptor = open(path, O_RDWR | O_CLOEXEC);
    } while (descriptor < 0 && errno == EINTR);
    return descriptor < 0 ? -errno : descriptor;
}

int32_t ckvm_close(int32_t descriptor) {
    return close(descriptor) == 0 ? 0 : -errno;
}

int32_t ckvm_ioctl(int32_t descriptor, uint32_t request, uint64_t argument) {
    int result = ioctl(descriptor, (unsigned long)request, (unsigned long)argument);
    return result < 0 ? -errno : result;
}

static uint64_t map(int flags, int32_t descriptor, int64_t offset, uint64_t byte_count, int32_t *error) {
    void *address = mmap(0, byte_count, PROT_READ | PROT_WRITE, flags, descriptor, offset);
    if (address == MAP_FAILED) {
        *error = errno;
        return 0;
    }
    *error = 0;
    return (uint64_t)(uintptr_t)address;
}

uint64_t ckvm_map(int32_t descriptor, int64_t offset, uint64_t byte_count, int32_t *error) {
    return map(MAP_SHARED, descriptor, offset, byte_count, error);
}

uint64_t ckvm_map_anonymous(uint64_t byte_count, int32_t *error) {
    uint64_t address = map(MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0, byte_count, error);
    /* Guests' memory, and what passes on its way to the firmware: no part of a core file. */
    if (address != 0) madvise((void *)(uintptr_t)address, byte_count, MADV_DONTDUMP);
    return address;
}

int32_t ckvm_punch_hole(int32_t descriptor, int64_t offset, int64_t byte_count) {
    int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    return fallocate(descriptor, mode, (off_t)offset, (off_t)byte_count) == 0 ? 0 : -errno;
}

int32_t ckvm_discard(uint64_t address, uint64_t byte_count) {
    return madvise((void *)(uintptr_t)address, byte_count, MADV_DONTNEED) == 0 ? 0 : -errno;
}

int32_t ckvm_create_file(uint64_t byte_count) {
    int32_t descriptor = memfd_create("swift-snp-vmm", MFD_CLOEXEC);
    if (descriptor < 0) return -errno;
    if (ftruncate(descriptor, (off_t)byte_count) != 0) {
        int32_t error = -errno;
        close(descriptor);
        return error;
    }
    return descriptor;
}

int32_t ckvm_advise_huge_pages(uint64_t address, uint64_t byte_count) {
    return madvise((void *)(uintptr_t)address, byte_count, MADV_HUGEPAGE) == 0 ? 0 : -errno;
}

int32_t ckvm_unmap(uint64_t address, uint64_t byte_count) {
    return munmap((void *)(uintptr_t)address, byte_count) == 0 ? 0 : -errno;
}
