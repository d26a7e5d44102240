/* control.h - the main thread: starts everything, watches signals, ends everything.
 *
 *   control_run: log -> policy -> inherited sockets -> store -> admin -> workers -> first generation -> loop
 *
 *   SIGTERM, SIGINT, SIGQUIT: drain; again: at once
 *   SIGHUP: configuration and partner data anew
 *   SIGUSR1: reopen logs
 *   SIGUSR2: a new process takes over (handover.h)
 *
 * Thread: [control]; call once, before any other thread exists.
 */
#ifndef CONTROL_CONTROL_H
#define CONTROL_CONTROL_H

#include "config/config.h"

/* Exit codes of the process. */
enum {
    EXIT_OK = 0,
    EXIT_CONFIG = 1,  /* cannot start: do not restart in a loop */
    EXIT_USAGE = 2,   /* wrong command line; also a forced quit */
    EXIT_UNCLEAN = 3, /* connections were cut because the shutdown bound was met, or a worker hung */
};

/* Runs the gateway until it is told to stop; returns the exit code. Takes `config` over. `version` is for the
 * log and metrics. */
int control_run(struct config *config, const char *version, const char *commit);

/* The tables behind docs/METRICS.md. */
void control_metrics_reference(struct outbuf *o);

#endif
