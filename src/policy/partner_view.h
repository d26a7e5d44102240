/* partner_view.h - what the data plane knows of one partner: immutable, replaced as a whole.
 *
 *   0           16      20               + 32 per token  + 8
 *   +-----------+-------+----------------+----------------+------------------+---------+----------+
 *   | widget id | flags,| digest current | expiry of      | list of          | list of | id       |
 *   | raw    16 | sizes | digest previous| previous, or - | production       | sandbox | 1..64    |
 *   +-----------+-------+----------------+----------------+------------------+---------+----------+
 *
 *   list    empty: nothing; few prefixes: the set itself (cidr_set.h), 20 bytes for two of IPv4; many: a
 *           reference to a set that equal lists share (cidr_pool.h)
 *
 *   Between expiry and lists: 32 bytes per client certificate, which few partners have.
 *
 * One allocation, so that a request touches two cache lines, and compact: 86 bytes with one token, two
 * prefixes and an id of 14 bytes. One load of a pointer to it gives a coherent picture of flags, tokens and
 * both lists. Two views that say the same are equal byte for byte.
 *
 * Thread: [any, pure] on a published view; create, destroy and drafts [control].
 */
#ifndef POLICY_PARTNER_VIEW_H
#define POLICY_PARTNER_VIEW_H

#include "base/uuid.h"
#include "policy/cidr_pool.h"
#include "policy/partner.h"

enum { PARTNER_WIDGET_TEXT_BYTES = UUID_LEN + 1 };

/* How a list is kept. */
enum partner_list {
    PARTNER_LIST_EMPTY = 0, /* admits nobody */
    PARTNER_LIST_INSIDE,
    PARTNER_LIST_SHARED,
};

struct partner_view {
    uint8_t widget_id[UUID_BYTES];
    bool enabled : 1;
    bool off_ramp : 1;
    uint8_t tokens : 2;       /* bit 1 << SLOT_CURRENT, bit 1 << SLOT_PREVIOUS */
    uint8_t certificates : 4; /* how many the partner has for its clients */
    uint8_t lists[ENV_COUNT]; /* enum partner_list */
    uint8_t id_len;
    uint8_t tail[]; /* digests, expiry, lists, id: through the functions below */
};

/* The partner's identifier, without a NUL. */
struct span partner_view_id(const struct partner_view *v);

/* The widget id as lower-case text with a NUL. */
void partner_view_widget_id(const struct partner_view *v, char out[static PARTNER_WIDGET_TEXT_BYTES]);

/* SHA-256 of the token in this slot, or NULL when it has none. */
const uint8_t *partner_view_digest(const struct partner_view *v, enum token_slot slot);

/* The instant from which on the previous token is refused; 0 when there is none. Wall clock. */
uint64_t partner_view_previous_expires_ms(const struct partner_view *v);

/* The partner asks for no client certificates, or this is one of its own (SHA-256; NULL = none was shown). */
bool partner_view_takes_certificate(const struct partner_view *v, const uint8_t *certificate);

/* SHA-256 of the partner's client certificates, v->certificates in a row. */
const uint8_t *partner_view_certificates(const struct partner_view *v);

/* The list of this environment, or NULL when it is empty. As long as the view. */
const struct cidr_set *partner_view_list(const struct partner_view *v, enum environment env);

/* The address is on the partner's list of this environment. */
bool partner_view_allows(const struct partner_view *v, enum environment env, const struct addr *a);

/* --- writer ------------------------------------------------------------------------------------------ */

enum {
    PARTNER_LIST_REFERENCE_BYTES = sizeof(struct cidr_set *) + sizeof(uint64_t),
    PARTNER_VIEW_BYTES_MAX = sizeof(struct partner_view) + TOKEN_SLOTS * TOKEN_DIGEST_BYTES +
                             sizeof(uint64_t) + PARTNER_CERTIFICATES_MAX * CERTIFICATE_DIGEST_BYTES +
                             ENV_COUNT * (CIDR_SET_SMALL_BYTES_MAX + CIDR_SET_ALIGNMENT) + PARTNER_ID_MAX,
};

/* A view that is being made. */
struct partner_draft {
    _Alignas(struct cidr_set *) uint8_t bytes[PARTNER_VIEW_BYTES_MAX]; /* a struct partner_view */
    size_t n;                                                          /* bytes of the view */
    size_t nlists;                                                     /* environments whose list is in it */
    struct cidr_set *fresh[ENV_COUNT]; /* owned: large lists that are in no pool yet, or NULL */
};

/* Makes the view of a record, in two steps: what the record alone tells, then the rest. Large lists are taken
 * from `pools` where an equal one is there, or from `old`, the view before, when the record gives the same
 * prefixes again; else they are `fresh`. Owns: after the second step the caller, until
 * partner_draft_discard(). Errors: begin: ERR_PARSE (an id that is empty or too long, a widget id that is not
 * a UUID, too many certificates); finish: ERR_NOMEM. */
enum err partner_draft_begin(struct partner_draft *d, const struct partner *record);
enum err partner_draft_finish(struct partner_draft *d, const struct partner *record,
                              const struct partner_view *old, const struct cidr_pool pools[ENV_COUNT]);

/* Destroys the fresh lists and wipes the digests. */
void partner_draft_discard(struct partner_draft *d);

/* `v` says just the same. */
bool partner_draft_matches(const struct partner_draft *d, const struct partner_view *v);

/* The view in memory of its own. NULL when memory is out. */
struct partner_view *partner_view_create(const struct partner_draft *d);

/* Wipes the digests. Shared lists are their pool's. */
void partner_view_destroy(struct partner_view *v);

/* Bytes of the view, without shared lists. */
size_t partner_view_bytes(const struct partner_view *v);

#endif
