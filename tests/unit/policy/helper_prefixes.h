/* helper_prefixes.h - prefixes for the tests and measurements of cidr_set and cidr_tree.
 *
 * The generators are deterministic and shaped like real data, which is not in the tree: a routing table
 * (many /24 and /48 in few large blocks, nested), partners (hosts and small networks cut out of routed ones)
 * and cloud ranges (runs of neighbours, published unmerged, with overlaps and duplicates). Errors end
 * the process.
 */
#ifndef HELPER_PREFIXES_H
#define HELPER_PREFIXES_H

#include "policy/cidr.h"

struct prefixes_random {
    uint64_t state;
};

uint64_t prefixes_next(struct prefixes_random *r);
/* 0 <= result < n. */
uint32_t prefixes_below(struct prefixes_random *r, uint32_t n);

/* A growing list. Zero-initialise; prefixes_free() at the end. */
struct prefixes {
    struct cidr *v;
    uint32_t n, cap;
};

void prefixes_free(struct prefixes *p);
void prefixes_push(struct prefixes *p, struct cidr c);
void prefixes_v4(struct prefixes *p, uint32_t net, unsigned len);
void prefixes_v6(struct prefixes *p, uint64_t hi, uint64_t lo, unsigned len);
void prefixes_text(struct prefixes *p, const char *text);

/* `family`: ADDR_V4 or ADDR_V6. They append `n` prefixes. */
void prefixes_routed(struct prefixes *p, struct prefixes_random *r, uint8_t family, uint32_t n);
void prefixes_partner(struct prefixes *p, struct prefixes_random *r, uint8_t family, uint32_t n);
void prefixes_cloud(struct prefixes *p, struct prefixes_random *r, uint8_t family, uint32_t n);

/* What breaks matchers: one prefix of every length, nested chains at both ends of the address space, first
 * and last address, duplicates, neighbours, every other host of a network. Without /0. */
void prefixes_hostile(struct prefixes *p);

/* Reads DIR/`file`: gzip, one prefix a line, the last of its tab-separated columns. */
void prefixes_real(struct prefixes *p, const char *dir, const char *file);

/* Hands the prefixes out one by one: for cidr_tree_build(). */
struct prefixes_feed {
    const struct cidr *v;
    size_t n;
};
bool prefixes_next_of(void *feed, struct cidr *out);

/* A random address inside. */
struct addr prefixes_inside(struct prefixes_random *r, const struct cidr *c);

#endif
