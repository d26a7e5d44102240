#include "control/service.h"

#include "base/container.h"
#include "base/log.h"
#include "control/notify.h"

enum { READY_LOOK_MS = 100, STATUS_TEXT_MAX = 256 };

static void set_state(struct service *s, enum service_state to)
{
    static const uint8_t moves[] = {
        [SERVICE_CLOSED] = 1 << SERVICE_STARTING,
        [SERVICE_STARTING] = 1 << SERVICE_RUNNING | 1 << SERVICE_STOPPING | 1 << SERVICE_CLOSED,
        [SERVICE_RUNNING] = 1 << SERVICE_STOPPING | 1 << SERVICE_CLOSED,
        [SERVICE_STOPPING] = 1 << SERVICE_CLOSED,
    };
    BUG_IF(!(moves[s->state] & 1 << to), "the service makes a move that does not exist");
    s->state = to;
}

/* --- ready ----------------------------------------------------------------------------------------- */

static void on_ready_timer(struct wheel_entry *e)
{
    struct service *s = CONTAINER_OF(e, struct service, ready_timer);
    char text[STATUS_TEXT_MAX];
    bool is_late = s->loop->now_ms - s->opened_ms >= SERVICE_READY_WAIT_MS;
    if (!status_can_serve(s->status) && !is_late) {
        loop_deadline(s->loop, &s->ready_timer, READY_LOOK_MS);
        return;
    }
    status_write_line(s->status, text, sizeof text);
    notify_ready(text);
    set_state(s, SERVICE_RUNNING);
}

/* --- alive ----------------------------------------------------------------------------------------- */

static void ask_nothing(const struct survey *s, struct survey_part *part)
{
    (void)s;
    (void)part; /* that it answers is all there is to know */
}

static void on_answered(struct survey *survey)
{
    struct service *s = survey->arg;
    char text[STATUS_TEXT_MAX];
    survey_free(survey);
    s->asked = NULL;
    s->nsilent = 0;
    if (s->state == SERVICE_CLOSED) return;
    if (notify_watchdog_ms()) notify_watchdog();
    if (s->state == SERVICE_STOPPING) notify_extend_timeout(SERVICE_EXTEND_MS);
    if (s->state == SERVICE_STARTING) return; /* its status comes with READY=1 */
    status_write_line(s->status, text, sizeof text);
    notify_status(text);
}

static uint64_t interval_ms(void)
{
    uint64_t wanted = notify_watchdog_ms();
    return wanted && wanted < SERVICE_STATUS_MS ? wanted : SERVICE_STATUS_MS;
}

static void on_alive_timer(struct wheel_entry *e)
{
    struct service *s = CONTAINER_OF(e, struct service, alive_timer);
    loop_deadline(s->loop, &s->alive_timer, interval_ms());
    if (s->asked) {
        s->nsilent = s->asked->waiting;
        log_error("worker_silent", KV_UINT("workers", s->nsilent),
                  KV_UINT("for_ms", s->loop->now_ms - s->asked_ms));
        return;
    }
    s->asked_ms = s->loop->now_ms;
    s->asked = survey_start(s->loop, s->workers, s->nworkers, 0, ask_nothing, on_answered, s);
}

/* --- life ------------------------------------------------------------------------------------------ */

void service_open(struct service *s, struct loop *loop, struct worker *const *workers, unsigned n,
                  const struct status *status)
{
    *s = (struct service){
        .loop = loop, .workers = workers, .nworkers = n, .status = status, .opened_ms = loop->now_ms};
    wheel_entry_init(&s->ready_timer, on_ready_timer);
    wheel_entry_init(&s->alive_timer, on_alive_timer);
    set_state(s, SERVICE_STARTING);
    on_ready_timer(&s->ready_timer);
    on_alive_timer(&s->alive_timer);
}

void service_stop(struct service *s)
{
    char text[STATUS_TEXT_MAX];
    if (s->state != SERVICE_STARTING && s->state != SERVICE_RUNNING) return;
    loop_deadline_clear(s->loop, &s->ready_timer);
    set_state(s, SERVICE_STOPPING);
    status_write_line(s->status, text, sizeof text);
    notify_stopping(text);
    notify_extend_timeout(SERVICE_EXTEND_MS);
}

void service_close(struct service *s)
{
    if (s->state == SERVICE_CLOSED) return;
    loop_deadline_clear(s->loop, &s->ready_timer);
    loop_deadline_clear(s->loop, &s->alive_timer);
    set_state(s, SERVICE_CLOSED);
}
