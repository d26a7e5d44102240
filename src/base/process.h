/* process.h - what the programs ask of the kernel for themselves.
 *
 * Thread: [any].
 */
#ifndef BASE_PROCESS_H
#define BASE_PROCESS_H

#include <pthread.h>

/* Memory of this process holds tokens in clear for moments: from now on it goes into no core dump, and no
 * other process of the same user may look into it. */
void process_protect_memory(void);

/* Starts a thread that blocks all signals from its first instruction on: they are for the main thread.
 * Returns 0, or the error of pthread_create(). */
int process_start_thread(pthread_t *thread, void *(*run)(void *arg), void *arg);

#endif
