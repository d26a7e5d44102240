/* tool.h - what the command-line tools of bench/ share. Thread: [any]. */
#ifndef BENCH_TOOL_H
#define BENCH_TOOL_H

#include "net/socket.h"

/* Parses 127.0.0.1:PORT, [::1]:PORT or unix:PATH; port 0 is accepted. */
bool tool_parse_address(const char *text, struct socket_address *out);

/* Parses a decimal number from `min` to `max`. */
bool tool_parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *out);

/* As many descriptors as the system allows: tunnels are counted in thousands. */
void tool_raise_descriptor_limit(void);

/* Asks the scheduler for slices of 0.1 ms. Generator and backend share a processor in measurements; with
 * ordinary slices they alternate every 4 ms, and that is what the latencies show. No effect before
 * Linux 6.12. */
void tool_ask_short_slices(void);

#endif
