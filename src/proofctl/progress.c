#include "proofctl/progress.h"

#include "base/clock.h"

#include <stdio.h>
#include <unistd.h>

enum { BAR_CHARS = 30, INTERVAL_US = 100000 };

void progress_init(struct progress *p, const char *label, bool is_wanted)
{
    /* What is done within the first interval needs no bar. */
    *p = (struct progress){
        .label = label, .is_on = is_wanted && isatty(STDERR_FILENO), .drawn_us = clock_mono_us()};
}

void progress_show(struct progress *p, size_t done, size_t total)
{
    char bar[BAR_CHARS + 1];
    if (!p || !p->is_on || clock_mono_us() - p->drawn_us < INTERVAL_US) return;
    p->drawn_us = clock_mono_us();
    p->is_drawn = true;
    if (total == 0) {
        (void)fprintf(stderr, "\r%s %zu\033[K", p->label, done); /* there is nowhere to report a failure */
        return;
    }
    for (size_t i = 0; i < BAR_CHARS; i++)
        bar[i] = i < done * BAR_CHARS / total ? '#' : '.';
    bar[BAR_CHARS] = '\0';
    (void)fprintf(stderr, "\r%s [%s] %zu of %zu\033[K", p->label, bar, done, total);
}

void progress_clear(struct progress *p)
{
    if (!p || !p->is_drawn) return;
    p->is_drawn = false;
    (void)fputs("\r\033[K", stderr);
}
