/* no_threads.h - threads that cannot be made on demand, for tests that compile a source of the project into
 * themselves: between this and #undef pthread_create. */
#ifndef SUPPORT_NO_THREADS_H
#define SUPPORT_NO_THREADS_H

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>

static bool has_no_threads;

static int create_or_fail(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *arg)
{
    return has_no_threads ? EAGAIN : pthread_create(thread, attributes, run, arg);
}

#define pthread_create create_or_fail

#endif
