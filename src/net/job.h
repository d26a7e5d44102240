/* job.h - one piece of work that blocks, on a thread of its own, beside a loop.
 *
 *   loop's thread:  job_start                         done(job)
 *   own thread:         `-----> run(job), which ends --^
 *
 * Not in libuv's pool: look-ups of names have half of that, so that a few name servers that do not answer
 * hold up every other name, and a pool whose threads cannot be made ends the process without a word. What
 * works here waits for nobody, and a thread that cannot be made is an error like any other. It is rare, and
 * takes longer than making a thread does. Callers must bound the number of jobs: at most one per object.
 *
 * Signals are for the control thread: they are blocked in this one.
 *
 * Thread: [the loop's]; run [its own].
 */
#ifndef NET_JOB_H
#define NET_JOB_H

#include "base/err.h"

#include <pthread.h>
#include <uv.h>

/* What a job failed with before it ran, for people. */
#define JOB_NO_THREAD "no thread could be made: raise TasksMax or the limit of processes"

struct job {
    uv_async_t ended;
    pthread_t thread;
    enum err error; /* for done() */
    void (*run)(struct job *j);
    void (*done)(struct job *j, enum err e);
};

/* Starts run() on a thread of its own. Calls: done(), once, on the loop and in a later turn (loop_turn()
 * comes first in it if the clocks matter), when the thread has ended; it may free the job. Owns: nobody
 * touches the job's memory in between but run(). done() gets ERR_LIMIT when no thread could be made
 * (JOB_NO_THREAD): run() was not called then. The loop does not end before done(). */
void job_start(struct job *j, uv_loop_t *loop, void (*run)(struct job *j),
               void (*done)(struct job *j, enum err e));

#endif
