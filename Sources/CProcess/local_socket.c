#define _GNU_SOURCE
#include "local_socket.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

static int make_address(uint64_t path_address, struct sockaddr_un *address) {
    const char *path = (const char *)(uintptr_t)path_address;
    size_t length = strlen(path);
    if (length == 0) return -ENOENT;
    if (length >= sizeof address->sun_path) return -ENAMETOOLONG;
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path, path, length);
    return 0;
}

static int connect_to(const struct sockaddr_un *address, int flags) {
    int descriptor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
    if (descriptor < 0) return -errno;
    if (connect(descriptor, (const struct sockaddr *)address, sizeof *address) != 0) {
        int error = errno;
        close(descriptor);
        return -error;
    }
    return descriptor;
}

int32_t socket_connect(uint64_t path_address) {
    struct sockaddr_un address;
    int error = make_address(path_address, &address);
    return error < 0 ? error : connect_to(&address, 0);
}

int32_t socket_try_connect(uint64_t path_address) {
    struct sockaddr_un address;
    int error = make_address(path_address, &address);
    return error < 0 ? error : connect_to(&address, SOCK_NONBLOCK);
}

int32_t socket_listen(uint64_t path_address) {
    struct sockaddr_un address;
    struct stat status;
    int error = make_address(path_address, &address);
    if (error < 0) return error;
    if (lstat(address.sun_path, &status) == 0) {
        if (!S_ISSOCK(status.st_mode)) return -EADDRINUSE;
        int other = connect_to(&address, SOCK_NONBLOCK);
        if (other >= 0) {
            close(other);
            return -EADDRINUSE;
        }
        /* Whoever listens there is busy. */
        if (other == -EAGAIN) return -EADDRINUSE;
        if (other != -ECONNREFUSED) return other;
        unlink(address.sun_path);
    }
    int descriptor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (descriptor < 0) return -errno;
    /* The mode must be right from the start: a umask does that, and a chmod afterwards would leave a gap. */
    mode_t previous = umask(0177);
    int bound = bind(descriptor, (const struct sockaddr *)&address, sizeof address);
    error = errno;
    umask(previous);
    if (bound != 0 || listen(descriptor, 8) != 0) {
        if (bound == 0) error = errno;
        close(descriptor);
        return -error;
    }
    return descriptor;
}

void socket_unlink(uint64_t path_address) {
    (void)unlink((const char *)(uintptr_t)path_address);
}

int32_t socket_accept(int32_t listener) {
    int descriptor;
    do {
        descriptor = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    } while (descriptor < 0 && (errno == EINTR || errno == ECONNABORTED));
    return descriptor < 0 ? -errno : descriptor;
}

int64_t socket_read(int32_t descriptor, uint64_t address, uint64_t byte_count) {
    ssize_t count;
    do {
        count = recv(descriptor, (void *)(uintptr_t)address, byte_count, 0);
    } while (count < 0 && errno == EINTR);
    return count < 0 ? -errno : count;
}

int32_t socket_write(int32_t descriptor, uint64_t address, uint64_t byte_count) {
    const char *bytes = (const char *)(uintptr_t)address;
    while (byte_count > 0) {
        ssize_t count = send(descriptor, bytes, byte_count, MSG_NOSIGNAL);
        if (count >= 0) {
            bytes += count;
            byte_count -= (uint64_t)count;
        } else if (errno != EINTR) {
            return -errno;
        }
    }
    return 0;
}

int32_t socket_set_patience(int32_t descriptor, int64_t milliseconds) {
    struct timeval time = {milliseconds / 1000, milliseconds % 1000 * 1000};
    if (setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time) != 0) return -errno;
    if (setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time) != 0) return -errno;
    return 0;
}
