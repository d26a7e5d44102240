#include "control/survey.h"

#include "base/container.h"

#include <stdlib.h>

static void on_answered(struct loop_message *m)
{
    struct survey_part *part = CONTAINER_OF(m, struct survey_part, message);
    struct survey *s = part->survey;
    part->is_answered = true;
    if (--s->waiting == 0) s->done(s);
}

/* The control loop outlives its workers: it never refuses. */
static void give_back(struct survey_part *part)
{
    part->message.deliver = on_answered;
    BUG_IF(!loop_post(part->survey->loop, &part->message), "the control loop ended before its workers");
}

static void on_asked(struct loop_message *m)
{
    struct survey_part *part = CONTAINER_OF(m, struct survey_part, message);
    part->survey->ask(part->survey, part);
    give_back(part);
}

struct survey *survey_start(struct loop *loop, struct worker *const *workers, unsigned n, size_t part_bytes,
                            void (*ask)(const struct survey *s, struct survey_part *part),
                            void (*done)(struct survey *s), void *arg)
{
    size_t head = sizeof(struct survey) + n * sizeof(struct survey_part);
    struct survey *s = malloc(head + n * part_bytes);
    if (!s) return NULL;
    *s = (struct survey){.loop = loop, .ask = ask, .done = done, .arg = arg, .waiting = n, .nparts = n};
    for (unsigned i = 0; i < n; i++) {
        s->parts[i] = (struct survey_part){.message.deliver = on_asked, .survey = s, .worker = workers[i]};
        s->parts[i].out = outbuf_of((char *)s + head + i * part_bytes, part_bytes);
    }
    for (unsigned i = 0; i < n; i++) /* a worker that has ended refuses */
        if (!loop_post(&workers[i]->loop, &s->parts[i].message)) give_back(&s->parts[i]);
    return s;
}

void survey_free(struct survey *s)
{
    free(s);
}
