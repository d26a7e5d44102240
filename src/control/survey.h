/* survey.h - one question to every worker: asked on its thread, gathered on control's.
 *
 *   control: survey_start -- message --> each worker: ask() writes into its own part
 *   control: done(survey)  <-- message --  the last one has answered
 *
 * A worker that has ended already answers nothing: its part stays empty. One that hangs keeps `done` waiting:
 * whoever cannot wait looks at the parts that are answered.
 *
 * Thread: [control], but for `ask`.
 */
#ifndef CONTROL_SURVEY_H
#define CONTROL_SURVEY_H

#include "base/outbuf.h"
#include "proxy/worker.h"

struct survey;

struct survey_part {
    struct loop_message message;
    struct survey *survey;
    struct worker *worker;
    struct outbuf out; /* what the worker writes */
    uint64_t count;    /* what the worker counts */
    bool is_answered;  /* [control] before that, `out` and `count` are the worker's */
};

struct survey {
    struct loop *loop;                                             /* control's */
    void (*ask)(const struct survey *s, struct survey_part *part); /* [worker] */
    void (*done)(struct survey *s);                                /* [control] may free what it is in */
    void *arg;                                                     /* for ask: nobody writes it meanwhile */
    unsigned waiting;
    unsigned nparts;
    struct survey_part parts[];
};

/* Asks `n` workers; each part has room for `part_bytes`. `done` comes in a later turn.
 * Owns: `*s` is freed by survey_free(), from `done` on. Returns NULL when memory is out. */
struct survey *survey_start(struct loop *loop, struct worker *const *workers, unsigned n, size_t part_bytes,
                            void (*ask)(const struct survey *s, struct survey_part *part),
                            void (*done)(struct survey *s), void *arg);

/* NULL is fine. */
void survey_free(struct survey *s);

#endif
