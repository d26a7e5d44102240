/* sources.h - how many connections each source address has open at one worker.
 *
 * IPv6 is counted by /64, which is what one customer of a provider has at least.
 *
 * Open addressing with linear probing and backward-shift deletion; keyed SipHash-1-3, because clients choose
 * the keys. Grows by doubling; never holds more addresses than there are connections.
 *
 * Thread: [worker].
 */
#ifndef PROXY_SOURCES_H
#define PROXY_SOURCES_H

#include "base/addr.h"
#include "base/err.h"

struct source_slot {
    struct addr addr;
    uint32_t connections; /* 0 = free */
};

struct sources {
    struct source_slot *slots;
    uint32_t nslots; /* power of two */
    uint32_t used;
    uint64_t key[2];
};

/* Errors: ERR_NOMEM, ERR_IO (no randomness). */
enum err sources_init(struct sources *s);
void sources_deinit(struct sources *s);

/* Counts one more connection. `max` 0 = no limit. Errors: ERR_LIMIT (not counted), ERR_NOMEM (not counted).
 */
enum err sources_add(struct sources *s, const struct addr *source, uint32_t max);

/* Counts one less; the address must have been added. */
void sources_remove(struct sources *s, const struct addr *source);

#endif
