#define _GNU_SOURCE
#include "sandbox.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

struct start {
    void (*entry)(uint64_t);
    uint64_t number;
};

static void *begin(void *argument) {
    struct start start = *(struct start *)argument;
    free(argument);
    start.entry(start.number);
    return NULL;
}

int32_t thread_start(void (*entry)(uint64_t), uint64_t number) {
    struct start *start = malloc(sizeof *start);
    if (start == NULL) return -ENOMEM;
    *start = (struct start){.entry = entry, .number = number};
    /* The user's signals are for the main thread; those of a fault of its own stay the thread's. */
    static const int faults[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT};
    sigset_t others, previous;
    sigfillset(&others);
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) sigdelset(&others, faults[i]);
    pthread_sigmask(SIG_SETMASK, &others, &previous);
    pthread_t thread;
    int error = pthread_create(&thread, NULL, begin, start);
    pthread_sigmask(SIG_SETMASK, &previous, NULL);
    if (error != 0) {
        free(start);
        return -error;
    }
    pthread_detach(thread);
    return 0;
}
