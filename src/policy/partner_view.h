/* partner_view.h - what the data plane knows of one partner: immutable, replaced as a whole.
 *
 *   0                  16          24           40       44               + 32 per token  + 8
 *   +---------+--------+-----------+------------+--------+----------------+----------------+----------+
 *   | allow   | allow  | lists     | widget id  | flags, | digest current | expiry of      | id       |
 *   | [prod.] | [sbx.] | hash    8 | raw     16 | id len | digest previous| previous, or - | 1..64    |
 *   +---------+--------+-----------+------------+--------+----------------+----------------+----------+
 *
 * One allocation, so that a request touches two cache lines of it, and compact: about 90 bytes with one
 * token. One load of a pointer to it gives a coherent picture of flags, tokens and both lists.
 *
 * The allowlists are objects of their own, because a change that leaves them alone (a rotated token) hands
 * them on to the next view.
 *
 * Thread: [any, pure] on a published view; create, destroy and matches [control].
 */
#ifndef POLICY_PARTNER_VIEW_H
#define POLICY_PARTNER_VIEW_H

#include "policy/cidr_set.h"
#include "policy/partner.h"

enum { PARTNER_WIDGET_TEXT_BYTES = 37 }; /* a UUID's text and its NUL */

struct partner_view {
    const struct cidr_set *allow[ENV_COUNT]; /* NULL: the empty list, which admits nobody */
    uint64_t lists_hash;                     /* of the lists as they were given; writer only */
    uint8_t widget_id[16];
    bool enabled;
    bool off_ramp;
    uint8_t tokens; /* bit 1 << SLOT_CURRENT, bit 1 << SLOT_PREVIOUS */
    uint8_t id_len;
    uint8_t tail[]; /* digests, expiry, id: through the functions below */
};

/* The partner's identifier, without a NUL. */
struct span partner_view_id(const struct partner_view *v);

/* The widget id as lower-case text with a NUL. */
void partner_view_widget_id(const struct partner_view *v, char out[static PARTNER_WIDGET_TEXT_BYTES]);

/* SHA-256 of the token in this slot, or NULL when it has none. */
const uint8_t *partner_view_digest(const struct partner_view *v, enum token_slot slot);

/* The instant from which on the previous token is refused; 0 when there is none. Wall clock. */
uint64_t partner_view_previous_expires_ms(const struct partner_view *v);

/* The address is on the partner's list of this environment. */
bool partner_view_allows(const struct partner_view *v, enum environment env, const struct addr *a);

/* --- writer ------------------------------------------------------------------------------------------ */

/* A 64-bit hash of both lists that does not depend on the order of the prefixes. */
uint64_t partner_lists_hash(const struct partner *record);

/* True when `record`, which has the id of `v` and lists of this hash, says nothing new. */
bool partner_view_matches(const struct partner_view *v, const struct partner *record, uint64_t lists_hash);

/* `lists_of`: a view whose lists are the same and shall be used on (then exactly one of the two views may
 * destroy them), or NULL.
 * Errors: ERR_PARSE (an id that is empty or too long, a widget id that is not a UUID), ERR_NOMEM. */
enum err partner_view_create(const struct partner *record, uint64_t lists_hash,
                             const struct partner_view *lists_of, struct partner_view **out);

/* Wipes the digests. `with_lists`: false when another view goes on with the lists. */
void partner_view_destroy(struct partner_view *v, bool with_lists);

/* Bytes of the view and its lists. */
size_t partner_view_bytes(const struct partner_view *v);

#endif
