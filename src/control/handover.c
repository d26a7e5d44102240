#include "control/handover.h"

#include "base/container.h"
#include "base/log.h"
#include "control/notify.h"
#include "control/status.h"
#include "control/survey.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

enum { GATHER_MS = 5000 }; /* a worker that takes longer hangs */

/* A duplicate of one socket of one worker. */
struct gathered {
    uint32_t listener; /* index in the configuration */
    int fd;            /* -1: there are no descriptors left */
};

/* No listener has more sockets than there can be workers, and they are dealt out evenly. */
static size_t gathered_bytes_max(unsigned workers)
{
    return (size_t)CONFIG_LISTENERS_MAX * (CONFIG_WORKERS_MAX / workers + 1) * sizeof(struct gathered);
}

const char *handover_result_text(enum handover_result r)
{
    static const char *const text[] = {
        [HANDOVER_DONE] = "done", [HANDOVER_FAILED] = "failed", [HANDOVER_REFUSED] = "refused"};
    return text[r];
}

static void set_state(struct handover *h, enum handover_state to)
{
    static const uint8_t moves[] = {
        [HANDOVER_IDLE] = 1 << HANDOVER_GATHERING | 1 << HANDOVER_CLOSED,
        [HANDOVER_GATHERING] = 1 << HANDOVER_RUNNING | 1 << HANDOVER_IDLE | 1 << HANDOVER_CLOSED,
        [HANDOVER_RUNNING] = 1 << HANDOVER_IDLE | 1 << HANDOVER_CLOSED,
        [HANDOVER_CLOSED] = 0,
    };
    BUG_IF(!(moves[h->state] & 1 << to), "a handover makes a move that does not exist");
    if (h->state == HANDOVER_GATHERING) {
        loop_deadline_clear(h->host.loop, &h->timer);
        h->asked = NULL;
    }
    h->state = to;
}

static void refuse(struct handover *h, const char *reason)
{
    h->total[HANDOVER_REFUSED]++;
    log_warn("upgrade_failed", KV_STR("reason", reason));
}

static void fail(struct handover *h, const char *reason)
{
    h->total[HANDOVER_FAILED]++;
    log_error("upgrade_failed", KV_STR("reason", reason));
    set_state(h, HANDOVER_IDLE);
    reload_resume(h->host.reload);
}

/* --- the new process ------------------------------------------------------------------------------- */

static void on_upgrade_done(struct upgrade *u, enum upgrade_result result)
{
    struct handover *h = CONTAINER_OF(u, struct handover, upgrade);
    char reason[160];
    if (result != UPGRADE_TAKEN_OVER) {
        upgrade_describe(u, result, reason, sizeof reason);
        fail(h, reason);
        return;
    }
    h->total[HANDOVER_DONE]++;
    log_info("upgraded", KV_INT("pid", u->process.pid));
    notify_handed_over((pid_t)u->process.pid);
    set_state(h, HANDOVER_CLOSED);
    h->host.on_taken_over(h->host.arg);
}

static void start_new(struct handover *h, struct upgrade_socket *sockets, unsigned n)
{
    struct errmsg why;
    const struct upgrade_offer offer = {.sockets = sockets,
                                        .n = n,
                                        .is_ready = status_can_serve(h->host.status),
                                        .timeout_ms =
                                            h->host.deployment->current->config->timeouts.upgrade_ms};
    set_state(h, HANDOVER_RUNNING);
    if (upgrade_start(&h->upgrade, h->host.loop, &offer, on_upgrade_done, &why))
        fail(h, why.text);
    else
        log_info("upgrading", KV_INT("pid", h->upgrade.process.pid), KV_UINT("sockets", n));
}

/* --- sockets --------------------------------------------------------------------------------------- */

static void put(struct survey_part *part, uint32_t listener, int fd)
{
    const struct gathered g = {.listener = listener, .fd = fcntl(fd, F_DUPFD_CLOEXEC, 0)};
    outbuf_bytes(&part->out, (const char *)&g, sizeof g);
    BUG_IF(part->out.overflow, "a worker has more sockets than were dealt out");
    part->count++;
}

/* On the worker's thread. */
static void ask_sockets(const struct survey *s, struct survey_part *part)
{
    (void)s;
    for (uint32_t i = 0; i < CONFIG_LISTENERS_MAX; i++)
        for (const struct worker_listener *l = part->worker->listeners[i]; l; l = l->more)
            put(part, i, l->listener.fd);
}

/* Until a worker has answered, its part is its own. */
static uint64_t gathered_count(const struct survey_part *part)
{
    return part->is_answered ? part->count : 0;
}

static struct gathered gathered_at(const struct survey_part *part, uint64_t i)
{
    struct gathered g;
    memcpy(&g, part->out.p + i * sizeof g, sizeof g);
    return g;
}

static void add(struct upgrade_socket *to, enum inherited_role role, const struct endpoint *e, int fd)
{
    inherited_name(role, e, to->name);
    to->fd = fd;
}

/* Takes them out of `s`, those of one listener together, as the new process wants them. Returns how many
 * there are; `*complete` is false when a descriptor is missing. */
static unsigned collect(const struct handover *h, struct survey *s, struct upgrade_socket *to, bool *complete)
{
    const struct config *config = h->host.deployment->current->config;
    unsigned n = 0;
    *complete = true;
    for (uint32_t l = 0; l < config->nlisteners; l++) {
        for (unsigned w = 0; w < s->nparts; w++) {
            for (uint64_t i = 0; i < gathered_count(&s->parts[w]); i++) {
                struct gathered g = gathered_at(&s->parts[w], i);
                if (g.listener == l) add(&to[n++], INHERITED_LISTENER, &config->listeners[l].address, g.fd);
            }
        }
    }
    for (unsigned w = 0; w < s->nparts; w++)
        if (s->parts[w].is_answered) s->parts[w].count = 0;
    for (unsigned i = 0; i < HANDOVER_OWN_SOCKETS; i++) {
        const struct handover_socket *own = &h->host.own[i];
        if (own->fd >= 0) add(&to[n++], own->role, own->endpoint, fcntl(own->fd, F_DUPFD_CLOEXEC, 0));
    }
    for (unsigned i = 0; i < n; i++)
        *complete = *complete && to[i].fd >= 0;
    return n;
}

static void close_gathered(struct survey *s)
{
    for (unsigned w = 0; w < s->nparts; w++) {
        struct survey_part *part = &s->parts[w];
        for (; gathered_count(part); part->count--) {
            int fd = gathered_at(part, part->count - 1).fd;
            if (fd >= 0) (void)close(fd);
        }
    }
}

/* With the sockets of those workers that have answered. */
static void go_on(struct handover *h, struct survey *s)
{
    uint64_t n = HANDOVER_OWN_SOCKETS;
    bool complete;
    for (unsigned w = 0; w < s->nparts; w++)
        n += gathered_count(&s->parts[w]);
    struct upgrade_socket *sockets = calloc(n, sizeof *sockets);
    if (!sockets) {
        close_gathered(s);
        fail(h, "out of memory");
        return;
    }
    unsigned nsockets = collect(h, s, sockets, &complete);
    if (complete) {
        start_new(h, sockets, nsockets);
    } else {
        upgrade_sockets_free(sockets, nsockets);
        fail(h, "there are no descriptors left");
    }
}

static void on_gathered(struct survey *s)
{
    struct handover *h = s->arg;
    if (h->asked == s) go_on(h, s);
    close_gathered(s); /* what came too late */
    survey_free(s);
}

/* An upgrade is the way out when a worker hangs. What waits in its sockets is lost with this process, as with
 * any other way. */
static void on_timer(struct wheel_entry *e)
{
    struct handover *h = CONTAINER_OF(e, struct handover, timer);
    struct survey *s = h->asked;
    if (loop_deadline_is_overdue(h->host.loop, e)) {
        loop_deadline(h->host.loop, e, GATHER_MS);
        return;
    }
    if (s->waiting == s->nparts) {
        fail(h, "every worker hangs: start the gateway anew (docs/ALERTS.md, ProofgwWorkerSilent)");
        return;
    }
    log_warn("upgrade_incomplete", KV_UINT("silent_workers", s->waiting));
    go_on(h, s);
}

/* --- requests -------------------------------------------------------------------------------------- */

static const char *reason_against(const struct handover *h)
{
    if (h->state == HANDOVER_CLOSED) return "the gateway is draining";
    if (h->host.loop == NULL) return "the gateway has not started yet";
    if (h->state != HANDOVER_IDLE || h->upgrade.state != UPGRADE_IDLE) return "an upgrade is going on";
    if (getpid() == 1) return "this is process 1: the container ends with it; replace the container instead";
    if (!reload_pause(h->host.reload)) return "a reload is going on";
    return NULL;
}

void handover_request(struct handover *h)
{
    const char *reason = reason_against(h);
    if (reason) {
        refuse(h, reason);
        return;
    }
    unsigned n = h->host.deployment->fleet.n;
    set_state(h, HANDOVER_GATHERING);
    h->asked =
        survey_start(h->host.loop, h->host.workers, n, gathered_bytes_max(n), ask_sockets, on_gathered, h);
    if (h->asked)
        loop_deadline(h->host.loop, &h->timer, GATHER_MS);
    else
        fail(h, "out of memory");
}

void handover_open(struct handover *h, const struct handover_host *host)
{
    h->host = *host;
    wheel_entry_init(&h->timer, on_timer);
}

void handover_close(struct handover *h)
{
    if (h->state == HANDOVER_RUNNING) upgrade_cancel(&h->upgrade);
    if (h->state != HANDOVER_CLOSED) set_state(h, HANDOVER_CLOSED);
}
