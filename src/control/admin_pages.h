/* admin_pages.h - what the admin listener answers: whether the process lives, whether it is ready, its
 * metrics.
 *
 * Thread: [control].
 */
#ifndef CONTROL_ADMIN_PAGES_H
#define CONTROL_ADMIN_PAGES_H

#include "control/admin.h"

/* For admin_open(), whose `arg` is a struct status. */
extern const struct admin_route admin_pages[];

#endif
