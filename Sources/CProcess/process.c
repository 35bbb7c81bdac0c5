#define _GNU_SOURCE
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static struct termios saved_mode;
static struct termios raw_mode;
static int raw_descriptor = -1;
static atomic_int is_raw;

/* Signals that end the process: the ones of the user, and the ones of a bug in this process. */
static const int ending_signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGALRM, SIGABRT,
                                     SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGXCPU};
enum { ending_signal_count = sizeof ending_signals / sizeof ending_signals[0] };
static struct sigaction previous_actions[ending_signal_count];

static int stop_pipe[2] = {-1, -1};

int32_t terminal_is_interactive(int32_t descriptor) {
    return isatty(descriptor) && tcgetpgrp(descriptor) == getpgrp();
}

void terminal_restore(void) {
    if (atomic_exchange(&is_raw, 0)) {
        int error = errno;
        tcsetattr(raw_descriptor, TCSANOW, &saved_mode);
        errno = error;
    }
}

/* The old action takes over. For a fault the instruction runs again and faults into it; for a signal that was sent, the
 * raise is delivered when this handler returns. */
static void on_ending_signal(int number) {
    terminal_restore();
    for (int i = 0; i < ending_signal_count; i++)
        if (ending_signals[i] == number) sigaction(number, &previous_actions[i], NULL);
    raise(number);
}

static void install(int number, void (*handler)(int), struct sigaction *previous) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    sigaction(number, &action, previous);
}

static void on_continue(int number) {
    (void)number;
    if (raw_descriptor >= 0 && !atomic_exchange(&is_raw, 1)) {
        int error = errno;
        tcsetattr(raw_descriptor, TCSANOW, &raw_mode);
        errno = error;
    }
}

static void on_stop(int number) {
    int error = errno;
    sigset_t set;
    terminal_restore();
    install(number, SIG_DFL, NULL);
    raise(number);
    sigemptyset(&set);
    sigaddset(&set, number);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL); /* stops here, until SIGCONT */
    install(number, on_stop, NULL);
    errno = error;
}

int32_t terminal_enter_raw(int32_t descriptor) {
    if (atomic_load(&is_raw)) return 0;
    if (tcgetattr(descriptor, &saved_mode) != 0) return errno;
    raw_mode = saved_mode;
    raw_mode.c_iflag &= ~(tcflag_t)(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
    raw_mode.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | ISIG | IEXTEN);
    raw_mode.c_cflag &= ~(tcflag_t)(CSIZE | PARENB);
    raw_mode.c_cflag |= CS8;
    raw_mode.c_cc[VMIN] = 1;
    raw_mode.c_cc[VTIME] = 0;
    if (raw_descriptor < 0) {
        atexit(terminal_restore);
        raw_descriptor = descriptor;
        for (int i = 0; i < ending_signal_count; i++) {
            struct sigaction old;
            sigaction(ending_signals[i], NULL, &old);
            if (old.sa_handler == SIG_IGN && !(old.sa_flags & SA_SIGINFO)) continue; /* as under nohup */
            install(ending_signals[i], on_ending_signal, &previous_actions[i]);
        }
        install(SIGTSTP, on_stop, NULL);
        install(SIGCONT, on_continue, NULL);
    }
    /* Marked first: a signal between the two lines then restores a mode that is already there. */
    atomic_store(&is_raw, 1);
    if (tcsetattr(descriptor, TCSANOW, &raw_mode) != 0) {
        int error = errno;
        atomic_store(&is_raw, 0);
        return error;
    }
    return 0;
}

static int stop_descriptor(int end) {
    static atomic_int made;
    int expected = 0;
    if (atomic_compare_exchange_strong(&made, &expected, 1)) {
        if (pipe(stop_pipe) != 0) stop_pipe[0] = stop_pipe[1] = -1;
        atomic_store(&made, 2);
    }
    while (atomic_load(&made) != 2) {}
    return stop_pipe[end];
}

int32_t terminal_read_byte(int32_t descriptor) {
    static uint8_t buffer[512];
    static ssize_t count, position;
    struct pollfd wait[2] = {{descriptor, POLLIN, 0}, {stop_descriptor(0), POLLIN, 0}};
    if (position < count) return buffer[position++];
    for (;;) {
        if (poll(wait, 2, -1) < 0) {
            if (errno == EINTR) continue;
            return TERMINAL_END;
        }
        if (wait[1].revents) return TERMINAL_STOPPED;
        if (!wait[0].revents) continue;
        count = read(descriptor, buffer, sizeof buffer);
        position = 0;
        if (count > 0) return buffer[position++];
        if (count < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        count = 0;
        return TERMINAL_END;
    }
}

void terminal_stop_reading(void) {
    int descriptor = stop_descriptor(1);
    if (descriptor >= 0) {
        ssize_t written = write(descriptor, "", 1);
        (void)written;
    }
}

static int ending_pipe[2] = {-1, -1};
static atomic_int first_ending, ending_count;

static void restore_default(int number) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = SIG_DFL;
    sigaction(number, &action, NULL);
}

static const int put_off_signals[] = {SIGINT, SIGTERM, SIGHUP};
enum { put_off_count = sizeof put_off_signals / sizeof put_off_signals[0] };
static int is_put_off[put_off_count];

static void on_put_off_signal(int number) {
    int error = errno, none = 0;
    atomic_compare_exchange_strong(&first_ending, &none, number);
    if (atomic_fetch_add(&ending_count, 1) > 0) process_let_endings_be();
    ssize_t written = write(ending_pipe[1], "", 1);
    (void)written;
    errno = error;
}

int32_t process_put_endings_off(void) {
    if (pipe2(ending_pipe, O_CLOEXEC | O_NONBLOCK) != 0) return errno;
    for (int i = 0; i < put_off_count; i++) {
        struct sigaction old;
        sigaction(put_off_signals[i], NULL, &old);
        if (old.sa_handler == SIG_IGN && !(old.sa_flags & SA_SIGINFO)) continue; /* as under nohup */
        is_put_off[i] = 1;
        install(put_off_signals[i], on_put_off_signal, NULL);
    }
    return 0;
}

void process_let_endings_be(void) {
    for (int i = 0; i < put_off_count; i++)
        if (is_put_off[i]) restore_default(put_off_signals[i]);
}

static int64_t monotonic_milliseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int32_t process_wait_for_endings(int32_t count, int32_t milliseconds) {
    int64_t end = monotonic_milliseconds() + milliseconds;
    while (atomic_load(&ending_count) < count) {
        struct pollfd wait = {ending_pipe[0], POLLIN, 0};
        int64_t left = milliseconds < 0 ? -1 : end - monotonic_milliseconds();
        if (milliseconds >= 0 && left <= 0) break;
        uint8_t bytes[16];
        if (poll(&wait, 1, (int)left) > 0 && read(ending_pipe[0], bytes, sizeof bytes) < 0 && errno != EINTR &&
            errno != EAGAIN)
            break;
    }
    return atomic_load(&ending_count);
}

int32_t process_ending_signal(void) { return atomic_load(&first_ending); }

void process_end_as_asked(void) {
    int number = process_ending_signal();
    if (number == 0) return;
    restore_default(number);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, number);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    raise(number);
}

int32_t file_open(uint64_t path_address) {
    struct stat status;
    int descriptor = open((const char *)(uintptr_t)path_address, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0) return -errno;
    if (fstat(descriptor, &status) == 0 && S_ISDIR(status.st_mode)) {
        close(descriptor);
        return -EISDIR;
    }
    return descriptor;
}

int32_t file_create(uint64_t path_address) {
    int descriptor = open((const char *)(uintptr_t)path_address, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    return descriptor < 0 ? -errno : descriptor;
}

int32_t file_is_same(uint64_t path_address, uint64_t other_address) {
    const char *path = (const char *)(uintptr_t)path_address, *other = (const char *)(uintptr_t)other_address;
    struct stat one, two;
    int has_one = stat(path, &one) == 0, has_two = stat(other, &two) == 0;
    if (!has_one && !has_two) return strcmp(path, other) == 0;
    return has_one && has_two && S_ISREG(one.st_mode) && one.st_dev == two.st_dev && one.st_ino == two.st_ino;
}

int64_t file_byte_count(int32_t descriptor) {
    struct stat status;
    if (fstat(descriptor, &status) != 0) return -errno;
    return S_ISREG(status.st_mode) ? (int64_t)status.st_size : -ESPIPE;
}

int64_t file_read(int32_t descriptor, uint64_t address, uint64_t byte_count) {
    uint64_t done = 0;
    while (done < byte_count) {
        ssize_t count = read(descriptor, (char *)(uintptr_t)address + done, byte_count - done);
        if (count > 0) done += (uint64_t)count;
        else if (count == 0) break;
        else if (errno != EINTR) return -errno;
    }
    return (int64_t)done;
}

int64_t file_read_at(int32_t descriptor, uint64_t address, uint64_t byte_count, uint64_t offset) {
    uint64_t done = 0;
    while (done < byte_count) {
        ssize_t count = pread(descriptor, (char *)(uintptr_t)address + done, byte_count - done, (off_t)(offset + done));
        if (count > 0) done += (uint64_t)count;
        else if (count == 0) break;
        else if (errno != EINTR) return -errno;
    }
    return (int64_t)done;
}

int32_t file_write(int32_t descriptor, uint64_t address, uint64_t byte_count) {
    const char *bytes = (const char *)(uintptr_t)address;
    while (byte_count > 0) {
        ssize_t written = write(descriptor, bytes, byte_count);
        if (written >= 0) {
            bytes += written;
            byte_count -= (uint64_t)written;
        } else if (errno == EAGAIN) {
            struct pollfd wait = {descriptor, POLLOUT, 0};
            poll(&wait, 1, -1);
        } else if (errno != EINTR) {
            return -errno;
        }
    }
    return 0;
}

int32_t file_write_byte(int32_t descriptor, uint8_t byte) { return file_write(descriptor, (uintptr_t)&byte, 1); }

void file_close(int32_t descriptor) { close(descriptor); }

int32_t process_environment(uint64_t name_address, uint64_t address, uint64_t byte_count) {
    const char *value = getenv((const char *)(uintptr_t)name_address);
    if (!value) return -ENOENT;
    size_t length = strlen(value);
    if (length > byte_count || length > INT32_MAX) return -ERANGE;
    memcpy((void *)(uintptr_t)address, value, length);
    return (int32_t)length;
}

void process_sleep(int64_t milliseconds) { poll(NULL, 0, milliseconds > 60000 ? 60000 : (int)milliseconds); }

int64_t process_wall_clock(void) { return (int64_t)time(NULL); }

int64_t process_peak_resident_byte_count(void) {
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0) return 0;
    return (int64_t)usage.ru_maxrss * 1024;
}

void process_forbid_dumps(void) {
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}
