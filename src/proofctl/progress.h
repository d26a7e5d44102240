/* progress.h - a bar on stderr for what takes long, when somebody looks at a terminal.
 *
 *   import [##########..........] 50123 of 100000
 *
 * Thread: [any]; one bar, one thread.
 */
#ifndef PROOFCTL_PROGRESS_H
#define PROOFCTL_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct progress {
    const char *label; /* borrowed */
    bool is_on;
    bool is_drawn;
    uint64_t drawn_us; /* when it was drawn last */
};

/* `is_wanted`: false keeps it quiet even on a terminal. */
void progress_init(struct progress *p, const char *label, bool is_wanted);

/* So much is done; draws it now and then. `p` may be NULL. `total` 0: not known yet. */
void progress_show(struct progress *p, size_t done, size_t total);

/* Takes the bar away, so that other lines can be printed. `p` may be NULL. */
void progress_clear(struct progress *p);

#endif
