#include "base/process.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>

void process_protect_memory(void)
{
    const struct rlimit none = {0, 0};
    (void)setrlimit(RLIMIT_CORE, &none);          /* lowering a limit cannot fail */
    (void)prctl(PR_SET_DUMPABLE, 0L, 0L, 0L, 0L); /* cannot fail with this value */
}

int process_start_thread(pthread_t *thread, void *(*run)(void *arg), void *arg)
{
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before); /* fails only for another `how` */
    int sys = pthread_create(thread, NULL, run, arg);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return sys;
}
