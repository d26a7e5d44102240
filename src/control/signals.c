#include "control/signals.h"

#include <signal.h>

static const int numbers[SIGNALS_MAX] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2};

/* `how`: SIG_BLOCK or SIG_UNBLOCK. */
static void mask(int how)
{
    sigset_t ours;
    (void)sigemptyset(&ours);
    for (unsigned i = 0; i < SIGNALS_MAX; i++)
        (void)sigaddset(&ours, numbers[i]);
    (void)pthread_sigmask(how, &ours, NULL); /* fails only for another `how` */
}

static void do_nothing(uv_work_t *work)
{
    (void)work;
}

static void start_pool(struct signals *s)
{
    mask(SIG_BLOCK);
    (void)uv_queue_work(&s->loop->uv, &s->first_work, do_nothing, NULL); /* fails only without a callback */
    mask(SIG_UNBLOCK);
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct signals *s = handle->data;
    loop_turn(s->loop);
    s->on_signal(number, s->arg);
}

enum err signals_open(struct signals *s, struct loop *loop, void (*fn)(int number, void *arg), void *arg)
{
    *s = (struct signals){.loop = loop, .on_signal = fn, .arg = arg};
    start_pool(s);
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
    mask(SIG_BLOCK);
    for (unsigned i = 0; i < SIGNALS_MAX; i++) {
        if (s->handles[i].loop) uv_close((uv_handle_t *)&s->handles[i], NULL);
        (void)signal(numbers[i], SIG_IGN); /* fails only for numbers that do not exist */
    }
}
