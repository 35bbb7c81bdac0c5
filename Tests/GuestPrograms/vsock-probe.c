/* Runs in a Linux guest and moves bytes over AF_VSOCK, for the tests of the socket device.
 *
 *   vsock-probe serve PORT                     sends back what comes, on any number of connections, until killed
 *   vsock-probe send PORT BYTES CONNECTIONS    connects to the host that often at once, sends so many bytes on each, and
 *                                              compares what comes back
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

static int fail(const char *what) {
    printf("vsock-probe: %s: %s\n", what, strerror(errno));
    return 1;
}

static int write_all(int descriptor, const uint8_t *bytes, size_t count) {
    while (count > 0) {
        ssize_t written = write(descriptor, bytes, count);
        if (written < 0) return -1;
        bytes += written;
        count -= (size_t)written;
    }
    return 0;
}

/* Byte `position` of connection `number`. */
static uint8_t pattern(uint32_t number, uint64_t position) {
    uint64_t value = (position + 1) * 0x9e3779b97f4a7c15ull + number;
    return (uint8_t)(value >> 37 ^ value >> 11);
}

static int echo(int descriptor) {
    static uint8_t bytes[65536];
    for (;;) {
        ssize_t count = read(descriptor, bytes, sizeof bytes);
        if (count < 0) return fail("read");
        if (count == 0) return 0;
        if (write_all(descriptor, bytes, (size_t)count) != 0) return fail("write");
    }
}

static int serve(unsigned port) {
    int listener = socket(AF_VSOCK, SOCK_STREAM, 0);
    struct sockaddr_vm address = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = port};
    if (listener < 0) return fail("socket");
    if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0) return fail("bind");
    if (listen(listener, 16) != 0) return fail("listen");
    printf("serving %u\n", port);
    fflush(stdout);
    for (;;) {
        int descriptor = accept(listener, NULL, NULL);
        if (descriptor < 0) return fail("accept");
        if (fork() == 0) {
            close(listener);
            _exit(echo(descriptor));
        }
        close(descriptor);
        while (waitpid(-1, NULL, WNOHANG) > 0) {}
    }
}

static int exchange(unsigned port, uint64_t byte_count, uint32_t number) {
    static uint8_t bytes[65536];
    int descriptor = socket(AF_VSOCK, SOCK_STREAM, 0);
    struct sockaddr_vm address = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = port};
    if (descriptor < 0) return fail("socket");
    if (connect(descriptor, (struct sockaddr *)&address, sizeof address) != 0) return fail("connect");
    if (fork() == 0) {
        for (uint64_t done = 0; done < byte_count;) {
            size_t count = sizeof bytes < byte_count - done ? sizeof bytes : (size_t)(byte_count - done);
            for (size_t i = 0; i < count; i++) bytes[i] = pattern(number, done + i);
            if (write_all(descriptor, bytes, count) != 0) _exit(fail("write"));
            done += count;
        }
        shutdown(descriptor, SHUT_WR);
        _exit(0);
    }
    uint64_t done = 0;
    for (;;) {
        ssize_t count = read(descriptor, bytes, sizeof bytes);
        if (count < 0) return fail("read");
        if (count == 0) break;
        for (ssize_t i = 0; i < count; i++, done++) {
            if (bytes[i] == pattern(number, done)) continue;
            printf("vsock-probe: connection %u differs at byte %llu\n", number, (unsigned long long)done);
            return 1;
        }
    }
    int status = 0;
    wait(&status);
    if (done == byte_count && status == 0) return 0;
    printf("vsock-probe: connection %u got %llu bytes\n", number, (unsigned long long)done);
    return 1;
}

static int send_all(unsigned port, uint64_t byte_count, uint32_t connections) {
    for (uint32_t number = 0; number < connections; number++) {
        if (fork() == 0) {
            int status = exchange(port, byte_count, number);
            fflush(stdout);
            _exit(status);
        }
    }
    uint32_t good = 0;
    int status = 0;
    while (wait(&status) > 0) good += status == 0;
    printf("echoed: %u of %u\n", good, connections);
    return good == connections ? 0 : 1;
}

int main(int count, char **words) {
    if (count == 3 && strcmp(words[1], "serve") == 0) return serve((unsigned)strtoul(words[2], NULL, 10));
    if (count == 5 && strcmp(words[1], "send") == 0) {
        return send_all(
            (unsigned)strtoul(words[2], NULL, 10), strtoull(words[3], NULL, 10), (uint32_t)strtoul(words[4], NULL, 10));
    }
    puts("usage: vsock-probe serve PORT | send PORT BYTES CONNECTIONS");
    return 2;
}
