#include "net/job.h"

#include "base/process.h"

static void on_handle_closed(uv_handle_t *handle)
{
    struct job *j = handle->data;
    j->done(j, j->error);
}

static void on_ended(uv_async_t *ended)
{
    struct job *j = ended->data;
    (void)pthread_join(j->thread, NULL); /* it is on its last steps; fails only for one that was joined */
    uv_close((uv_handle_t *)ended, on_handle_closed);
}

static void *run_thread(void *arg)
{
    struct job *j = arg;
    j->run(j);
    (void)uv_async_send(&j->ended); /* fails only for another kind of handle */
    return NULL;
}

void job_start(struct job *j, uv_loop_t *loop, void (*run)(struct job *j),
               void (*done)(struct job *j, enum err e))
{
    *j = (struct job){.run = run, .done = done};
    int rc = uv_async_init(loop, &j->ended, on_ended);
    BUG_IF(rc, "uv_async_init() fails only for the first one of a loop, which is the loop's own");
    j->ended.data = j;
    if (process_start_thread(&j->thread, run_thread, j) == 0) return;
    j->error = ERR_LIMIT;
    uv_close((uv_handle_t *)&j->ended, on_handle_closed);
}
