/* signals.h - the signals that operators send, as events on control's loop.
 *
 * No other thread ever takes one: workers, jobs (net/job.h) and the log thread block them.
 *
 * Thread: [control].
 */
#ifndef CONTROL_SIGNALS_H
#define CONTROL_SIGNALS_H

#include "net/loop.h"

enum { SIGNALS_MAX = 6 }; /* TERM, INT, QUIT, HUP, USR1, USR2 */

struct signals {
    uv_signal_t handles[SIGNALS_MAX];
    struct loop *loop;
    void (*on_signal)(int number, void *arg);
    void *arg;
};

/* Begins to listen. Errors: ERR_IO (what was begun is ended by
 * signals_close()). */
enum err signals_open(struct signals *s, struct loop *loop, void (*on_signal)(int number, void *arg),
                      void *arg);

/* From here on they are ignored, until the process ends. Harmless with zeros. */
void signals_close(struct signals *s);

/* From here on a thread that calls abort() stands still instead: the process is about to end without it, and
 * one that hung and goes on in that moment finds its event queue closed, for which libuv aborts. */
void signals_freeze_abort(void);

#endif
