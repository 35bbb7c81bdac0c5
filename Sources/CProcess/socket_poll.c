#define _GNU_SOURCE
#include "socket_poll.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(sizeof(struct pollfd) == SOCKET_POLL_ENTRY_BYTES, "the entries are the kernel's");
_Static_assert(POLLIN == SOCKET_POLL_IN && POLLOUT == SOCKET_POLL_OUT, "and so are the bits");
_Static_assert(POLLERR == SOCKET_POLL_ERROR && POLLHUP == SOCKET_POLL_HANGUP, "and so are the bits");

int32_t socket_do_not_wait(int32_t descriptor) {
    int flags = fcntl(descriptor, F_GETFL);
    if (flags < 0 || fcntl(descriptor, F_SETFL, flags | O_NONBLOCK) < 0) return -errno;
    return 0;
}

int32_t socket_try_accept(int32_t listener) {
    int descriptor;
    do {
        descriptor = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    } while (descriptor < 0 && (errno == EINTR || errno == ECONNABORTED));
    return descriptor < 0 ? -errno : descriptor;
}

int64_t socket_try_read(int32_t descriptor, uint64_t address, uint64_t byte_count) {
    ssize_t count;
    do {
        count = recv(descriptor, (void *)(uintptr_t)address, byte_count, MSG_DONTWAIT);
    } while (count < 0 && errno == EINTR);
    return count < 0 ? -errno : count;
}

int64_t socket_try_write(int32_t descriptor, uint64_t address, uint64_t byte_count) {
    ssize_t count;
    do {
        count = send(descriptor, (const void *)(uintptr_t)address, byte_count, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (count < 0 && errno == EINTR);
    return count < 0 ? -errno : count;
}

void socket_end_writing(int32_t descriptor) {
    (void)shutdown(descriptor, SHUT_WR);
}

void socket_end_reading(int32_t descriptor) {
    (void)shutdown(descriptor, SHUT_RD);
}

uint64_t socket_identity(uint64_t path_address) {
    struct stat status;
    if (lstat((const char *)(uintptr_t)path_address, &status) != 0 || !S_ISSOCK(status.st_mode)) return 0;
    return status.st_ino;
}

int32_t wake_create(void) {
    int descriptor = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return descriptor < 0 ? -errno : descriptor;
}

void wake_send(int32_t descriptor) {
    uint64_t one = 1;
    ssize_t result;
    do {
        result = write(descriptor, &one, sizeof one);
    } while (result < 0 && errno == EINTR);
}

void wake_take(int32_t descriptor) {
    uint64_t count;
    ssize_t result;
    do {
        result = read(descriptor, &count, sizeof count);
    } while (result < 0 && errno == EINTR);
}

int32_t socket_poll(uint64_t entries_address, uint64_t count, int32_t milliseconds) {
    struct pollfd *entries = (struct pollfd *)(uintptr_t)entries_address;
    int result = poll(entries, (nfds_t)count, milliseconds);
    if (result >= 0) return result;
    if (errno != EINTR) return -errno;
    for (uint64_t i = 0; i < count; i++) entries[i].revents = 0;
    return 0;
}
