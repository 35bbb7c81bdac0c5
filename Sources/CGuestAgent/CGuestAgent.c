#define _GNU_SOURCE
#include "CGuestAgent.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
/* After <sys/socket.h>, whose types it uses. */
#include <linux/vm_sockets.h>

extern char **environ;

int32_t device_open(uint64_t path_address) {
    int descriptor = open((const char *)(uintptr_t)path_address, O_RDWR | O_CLOEXEC);
    return descriptor < 0 ? -errno : descriptor;
}

int32_t device_ioctl(int32_t descriptor, uint32_t request, uint64_t argument_address) {
    int result = ioctl(descriptor, (unsigned long)request, (void *)(uintptr_t)argument_address);
    return result < 0 ? -errno : result;
}

int32_t vsock_connect(uint32_t cid, uint32_t port) {
    int descriptor = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (descriptor < 0) return -errno;
    struct sockaddr_vm address;
    memset(&address, 0, sizeof address);
    address.svm_family = AF_VSOCK;
    address.svm_cid = cid;
    address.svm_port = port;
    if (connect(descriptor, (const struct sockaddr *)&address, sizeof address) != 0) {
        int error = errno;
        close(descriptor);
        return -error;
    }
    return descriptor;
}

/* The bytes for a program's standard input. A pipe would bring SIGPIPE, whose handling belongs to the whole process. */
static void feed(int descriptor, const char *bytes, uint64_t byte_count) {
    while (byte_count > 0) {
        ssize_t count = send(descriptor, bytes, byte_count, MSG_NOSIGNAL);
        if (count >= 0) {
            bytes += count;
            byte_count -= (uint64_t)count;
        } else if (errno != EINTR) {
            return;
        }
    }
}

int32_t program_run(uint64_t arguments_address, uint64_t input_address, uint64_t byte_count) {
    enum { argument_limit = 64 };
    char *arguments[argument_limit + 1];
    int count = 0;
    for (char *next = (char *)(uintptr_t)arguments_address; *next != 0; next += strlen(next) + 1) {
        if (count == argument_limit) return -E2BIG;
        arguments[count++] = next;
    }
    if (count == 0) return -ENOENT;
    arguments[count] = NULL;

    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return -errno;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[0], 0);
    pid_t child;
    int error = posix_spawnp(&child, arguments[0], &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[0]);
    if (error == 0) feed(ends[1], (const char *)(uintptr_t)input_address, byte_count);
    close(ends[1]);
    if (error != 0) return -error;

    int status;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR) return -errno;
    return WIFSIGNALED(status) ? 256 + WTERMSIG(status) : WEXITSTATUS(status);
}
