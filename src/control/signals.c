#include "control/signals.h"

#include <signal.h>
#include <unistd.h>

static const int numbers[SIGNALS_MAX] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2};

static void on_signal(uv_signal_t *handle, int number)
{
    struct signals *s = handle->data;
    loop_turn(s->loop);
    s->on_signal(number, s->arg);
}

enum err signals_open(struct signals *s, struct loop *loop, void (*fn)(int number, void *arg), void *arg)
{
    *s = (struct signals){.loop = loop, .on_signal = fn, .arg = arg};
    for (unsigned i = 0; i < SIGNALS_MAX; i++) {
        if (uv_signal_init(&loop->uv, &s->handles[i])) return ERR_IO;
        s->handles[i].data = s;
        if (uv_signal_start(&s->handles[i], on_signal, numbers[i])) return ERR_IO;
    }
    return ERR_OK;
}

/* libuv gives a signal its default action back, which would end the process by it on the last few steps.
 * Blocked, it waits until it is ignored. */
void signals_close(struct signals *s)
{
    sigset_t ours;
    (void)sigemptyset(&ours);
    for (unsigned i = 0; i < SIGNALS_MAX; i++)
        (void)sigaddset(&ours, numbers[i]);
    (void)pthread_sigmask(SIG_BLOCK, &ours, NULL); /* fails only for another `how` */
    for (unsigned i = 0; i < SIGNALS_MAX; i++) {
        if (s->handles[i].loop) uv_close((uv_handle_t *)&s->handles[i], NULL);
        (void)signal(numbers[i], SIG_IGN); /* fails only for numbers that do not exist */
    }
}

static void freeze(int number)
{
    (void)number;
    for (;;)
        (void)pause();
}

void signals_freeze_abort(void)
{
    (void)signal(SIGABRT, freeze); /* fails only for numbers that do not exist */
}
