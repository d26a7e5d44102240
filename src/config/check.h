/* check.h - what no single value shows: keys that contradict each other. Thread: [any, pure]. */
#ifndef CONFIG_CHECK_H
#define CONFIG_CHECK_H

#include "config/config.h"
#include "config/document.h"

/* Compares the values of a configuration with each other and reports contradictions at the value that the
 * file sets. Values that were reported before are left out of it. */
void config_check(const struct config *c, const struct document *doc, struct report *report);

#endif
