/* families.h - the metric families of control: build, configuration, certificates, store, policy, log,
 * process. Those of the workers are in base/metrics.h.
 *
 * Thread: [control].
 */
#ifndef CONTROL_FAMILIES_H
#define CONTROL_FAMILIES_H

#include "base/outbuf.h"
#include "control/status.h"

/* Writes all of them with their values, for behind metrics_write(). */
void families_write(const struct status *s, struct outbuf *o);

/* The same families as Markdown rows, for docs/METRICS.md. */
void families_reference(struct outbuf *o);

#endif
