/* stage.h - the records of a load before they are in force: by id, the newest version wins.
 *
 *   table: open addressing --> packed record --> in blocks of 1 MiB, one behind the other
 *
 * A load is held here until it is known to be complete and plausible; only then does it touch the policy.
 * A version is overwritten by a newer one of the same size; by one of another size it is left in its block as
 * garbage. Draining frees block after block, so that the records do not exist twice while the policy grows.
 *
 * The hash of an id has no key: ids are given by operators, not by clients.
 *
 * Thread: [control].
 */
#ifndef STORE_STAGE_H
#define STORE_STAGE_H

#include "store/blocks.h"
#include "store/packed.h"
#include "store/redis_schema.h"

/* Starts with stage_init(). */
struct stage {
    struct redis_hasher *hasher; /* borrowed */
    uint64_t count;              /* records that are not deleted */
    uint64_t digest;             /* of those */
    /* private */
    char **slots; /* owned; a power of two of them, NULL = free */
    size_t nslots, nused;
    struct blocks records;
    size_t at; /* of stage_next() */
};

/* Empty. `hasher`: borrowed until stage_deinit(). */
void stage_init(struct stage *s, struct redis_hasher *hasher);
void stage_deinit(struct stage *s);

/* The version of an id, also of a deleted one; 0 = never heard of. */
uint64_t stage_version(const struct stage *s, struct span id);

/* Whether the id is there and not deleted. */
bool stage_has(const struct stage *s, struct span id);

enum stage_change {
    STAGE_SAME = 0, /* the id was there before and is there now, or neither */
    STAGE_ADDED,
    STAGE_REMOVED,
};

/* Puts one packed record (also a deleted one) in place of an older version; a version that is not newer than
 * what is there is ignored. Errors: ERR_NOMEM (nothing changed). */
enum err stage_put(struct stage *s, struct span packed, enum stage_change *change);

/* As if the id had never been there; any version is welcome again. */
void stage_forget(struct stage *s, struct span id);

/* Calls `fn` for every record that is not deleted, in no order. */
void stage_each(const struct stage *s, void (*fn)(const struct packed *r, void *arg), void *arg);

/* Takes out one record after the other, deleted ones left out; false at the end. `out` is valid until the
 * next call. After the first call nothing else but this and stage_deinit() may be called. */
bool stage_next(struct stage *s, struct packed *out);

/* Looks at what comes after the record that stage_next() gave last. False: nothing, or nothing that could be
 * told without a search. */
bool stage_peek(const struct stage *s, struct packed *out);

#endif
