/* Compares what lies in Redis with itself: every record with its last entry in the log, and count, digest and
 * numbers with the records. Others may write meanwhile: what they change is replayed from the log, as a
 * gateway does it when it loads.
 *
 *   meta, seq -> log: the last entry of each id -> all records -> log from there on -> do they agree? */
#include "proofctl/redis_state.h"

#include "base/hash.h"
#include "base/outbuf.h"
#include "proofctl/redis_tokens.h"

#include <openssl/evp.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    ROUNDS_MAX = 1000,
};

/* The last that the log says of one id. */
struct last_entry {
    char id[PARTNER_ID_MAX + 1];
    uint64_t sequence, fields; /* fields: hash of names and values; 0 = a removal */
};

/* One id, as it stands in Redis. */
struct seen {
    char id[PARTNER_ID_MAX + 1];
    bool is_there;    /* and counts */
    bool is_valid;    /* as it was when all records were read */
    uint64_t version; /* 0 = no number */
    uint64_t share;   /* of the digest */
};

struct check {
    struct backend_redis *r;
    backend_finding_fn *on_finding;
    void *arg;
    struct redis_hasher *hasher;
    const char *const *ids; /* of the batch that is being read */
    struct last_entry *log; /* owned; sorted by id once it was read */
    size_t nlog, log_cap;
    uint64_t first, top;              /* of the log when it was read; 0 = it is empty */
    uint64_t last_count, last_digest; /* as its last entry says */
    struct seen *seen;                /* owned; sorted by id, newcomers behind `nsorted` */
    size_t nseen, nsorted, seen_cap;
    struct redis_tokens tokens; /* of valid records; their owners are indices of `seen` */
    uint64_t kept_count, kept_digest, kept_sequence, counter; /* what meta and seq say */
    bool is_meta_readable;
    uint64_t replay_until; /* what is behind it came after what meta says */
};

/* --- memory --------------------------------------------------------------------------------------- */

static enum err grow(void **list, size_t *cap, size_t n, size_t size)
{
    if (n < *cap) return ERR_OK;
    size_t wanted = *cap ? 2 * *cap : 1024;
    void *grown = realloc(*list, wanted * size);
    if (!grown) return ERR_NOMEM;
    *list = grown;
    *cap = wanted;
    return ERR_OK;
}

static int compare_id(const void *key, const void *element)
{
    return strcmp(key, element); /* the id comes first in either struct */
}

/* --- findings ------------------------------------------------------------------------------------- */

__attribute__((format(printf, 5, 6))) static enum err
report(struct check *c, const char *id, uint64_t version, enum backend_remedy remedy, const char *format, ...)
{
    char text[240];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args); /* cutting is fine */
    va_end(args);
    struct backend_finding f = {.id = id, .text = text, .remedy = remedy};
    (void)snprintf((char *)f.version.bytes, sizeof f.version.bytes, "%" PRIu64, version); /* fits */
    return c->on_finding(c->arg, &f);
}

/* --- what is kept --------------------------------------------------------------------------------- */

static bool read_u64(const redisReply *reply, uint64_t *out)
{
    *out = 0;
    return redis_number(reply, out);
}

static enum err read_counter(struct check *c, uint64_t *out)
{
    const char *const counter[] = {"GET", c->r->keys.seq};
    redisReply *reply;
    enum err e = redis_ask(c->r, 2, counter, &reply);
    if (e) return e;
    *out = 0;
    (void)read_u64(reply, out); /* 0 when it is missing */
    freeReplyObject(reply);
    return ERR_OK;
}

static enum err read_meta(struct check *c)
{
    struct redis_totals *t = &c->r->totals;
    const char *const meta[] = {"HMGET", c->r->keys.meta, "seq", "count", "digest"};
    redisReply *reply;
    enum err e = redis_ask(c->r, 5, meta, &reply);
    if (e) return e;
    bool is_array = reply->type == REDIS_REPLY_ARRAY && reply->elements == 3;
    c->is_meta_readable =
        is_array && read_u64(reply->element[0], &c->kept_sequence) &&
        read_u64(reply->element[1], &c->kept_count) && reply->element[2]->type == REDIS_REPLY_STRING &&
        redis_digest_parse(span_of(reply->element[2]->str, reply->element[2]->len), &c->kept_digest);
    t->kept_sequence[0] = '\0';
    if (is_array && reply->element[0]->type == REDIS_REPLY_STRING)
        (void)span_to_cstr(span_of(reply->element[0]->str, reply->element[0]->len), t->kept_sequence,
                           sizeof t->kept_sequence); /* longer is nothing of ours, and then mending says so */
    freeReplyObject(reply);
    return ERR_OK;
}

/* The counter goes on while meta is read: what meta says lies between the one before and the one after, and
 * that is then what the counter was. */
static enum err read_kept(struct check *c)
{
    uint64_t before, after;
    enum err e = read_counter(c, &before);
    if (!e) e = read_meta(c);
    if (!e) e = read_counter(c, &after);
    if (e) return e;
    c->counter = c->kept_sequence < before ? before : c->kept_sequence;
    if (c->counter > after) c->counter = after;
    return ERR_OK;
}

/* --- the log -------------------------------------------------------------------------------------- */

/* Does not depend on the order of the fields, because Redis keeps none; never 0. It finds accidents, not
 * somebody who hides a change: whoever may write records may write the log as well. */
static uint64_t hash_fields(const redisReply *pairs, size_t from)
{
    uint64_t sum = 0;
    for (size_t i = from; i + 1 < pairs->elements; i += 2) {
        const redisReply *name = pairs->element[i], *value = pairs->element[i + 1];
        if (!name->str || !value->str || strcmp(name->str, "v") == 0) continue;
        uint64_t hash = hash_fnv1a(HASH_FNV1A_BASIS, span_of(name->str, name->len + 1)); /* with its NUL */
        hash = hash_fnv1a(hash, span_of(value->str, value->len));
        sum += hash ^ hash >> 29;
    }
    return sum ? sum : 1;
}

static void note_entry(struct check *c, const struct redis_entry *entry)
{
    if (!c->first) c->first = entry->sequence;
    c->top = entry->sequence;
    c->last_count = entry->count;
    c->last_digest = entry->digest;
}

static enum err remember_entry(void *arg, const struct redis_entry *entry)
{
    struct check *c = arg;
    note_entry(c, entry);
    enum err e = grow((void **)&c->log, &c->log_cap, c->nlog, sizeof *c->log);
    if (e) return e;
    struct last_entry *last = &c->log[c->nlog++];
    (void)span_to_cstr(entry->id, last->id, sizeof last->id); /* redis_entry_read() has checked it */
    last->sequence = entry->sequence;
    last->fields = entry->is_delete ? 0 : hash_fields(entry->reply, entry->from);
    return ERR_OK;
}

static int compare_entries(const void *a, const void *b)
{
    const struct last_entry *x = a, *y = b;
    int order = strcmp(x->id, y->id);
    return order ? order : (x->sequence > y->sequence) - (x->sequence < y->sequence);
}

/* Leaves the last entry of each id. */
static void sort_log(struct check *c)
{
    size_t kept = 0;
    if (c->nlog) qsort(c->log, c->nlog, sizeof *c->log, compare_entries);
    for (size_t i = 0; i < c->nlog; i++) {
        if (kept && strcmp(c->log[kept - 1].id, c->log[i].id) == 0) kept--;
        c->log[kept++] = c->log[i];
    }
    c->nlog = kept;
}

/* --- records -------------------------------------------------------------------------------------- */

static uint64_t share_of_text(const char *id, const redisReply *v)
{
    /* As the script would take it out again, whatever it says. */
    char text[REDIS_KEY_MAX];
    unsigned char hash[EVP_MAX_MD_SIZE];
    uint64_t share = 0;
    struct outbuf o = outbuf_of(text, sizeof text);
    outbuf_str(&o, id);
    outbuf_char(&o, ':');
    outbuf_bytes(&o, v->str, v->len < sizeof text - PARTNER_ID_MAX - 1 ? v->len : 0);
    BUG_IF(!EVP_Digest(text, o.n, hash, NULL, EVP_sha1(), NULL), "libcrypto refused SHA-1");
    for (int i = 0; i < 8; i++)
        share = share << 8 | hash[i];
    return share;
}

static enum err see(struct check *c, const char *id, bool is_there, uint64_t version, uint64_t share)
{
    enum err e = grow((void **)&c->seen, &c->seen_cap, c->nseen, sizeof *c->seen);
    if (e) return e;
    struct seen *s = &c->seen[c->nseen++];
    *s = (struct seen){.is_there = is_there, .version = version, .share = share};
    (void)snprintf(s->id, sizeof s->id, "%s", id); /* it is an id */
    return ERR_OK;
}

static enum err compare_with_log(struct check *c, const char *id, uint64_t version, const redisReply *hash)
{
    const struct last_entry *last = c->nlog ? bsearch(id, c->log, c->nlog, sizeof *c->log, compare_id) : NULL;
    if (version > c->top) return ERR_OK; /* written since the log was read, or else judge() finds it */
    if (!last && version >= c->first)
        return report(c, id, version, REMEDY_REWRITE,
                      "has version %" PRIu64 ", but the log has no such change", version);
    if (!last) return ERR_OK;
    if (!last->fields)
        return report(c, id, version, REMEDY_REWRITE, "was removed by change %" PRIu64 ", but is there",
                      last->sequence);
    if (last->sequence != version)
        return report(c, id, version, REMEDY_REWRITE,
                      "has version %" PRIu64 ", but the last change in the log is %" PRIu64, version,
                      last->sequence);
    if (last->fields == hash_fields(hash, 0)) return ERR_OK;
    return report(c, id, version, REMEDY_REWRITE, "was changed by hand after change %" PRIu64, version);
}

static enum err judge_version(struct check *c, const char *id, const redisReply *hash)
{
    const redisReply *v = redis_field(hash, SPAN("v"));
    uint64_t version;
    bool is_number = v && redis_number(v, &version);
    if (!v) return report(c, id, 0, REMEDY_REWRITE, "has no version: it was made by hand");
    if (!is_number) return report(c, id, 0, REMEDY_REWRITE, "has no number as its version");
    return compare_with_log(c, id, version, hash);
}

/* What the script counts: a hash with a version, whatever that says. */
static enum err count_one(struct check *c, const char *id, const redisReply *hash)
{
    const redisReply *v = hash->type == REDIS_REPLY_ARRAY ? redis_field(hash, SPAN("v")) : NULL;
    uint64_t version;
    if (!v || v->type != REDIS_REPLY_STRING) return see(c, id, false, 0, 0);
    if (!redis_number(v, &version)) return see(c, id, true, 0, share_of_text(id, v));
    return see(c, id, true, version, redis_hasher_record(c->hasher, span_str(id), version));
}

static enum err judge_one(void *arg, size_t i, const redisReply *hash)
{
    struct check *c = arg;
    const char *id = c->ids[i];
    struct backend_record record;
    struct record_report faults = {0};
    if (!hash) return ERR_OK; /* removed since the scan */
    enum err e = count_one(c, id, hash);
    if (!e) e = redis_describe(c->r, id, hash, &record, &faults);
    if (e) return e;
    c->seen[c->nseen - 1].is_valid = record.json.p != NULL; /* count_one() has put it there */
    const struct seen *seen = &c->seen[c->nseen - 1];
    if (record.json.p) {
        e = redis_tokens_take(&c->tokens, hash, c->nseen - 1, seen->version);
        return e ? e : judge_version(c, id, hash);
    }
    if (seen->version > 0 && hash->elements == 2) /* `v`: see redis_script_mend */
        return report(c, id, seen->version, REMEDY_REMOVE,
                      "has nothing but its version: the repair of a removal by hand has broken off");
    return report(c, id, 0, REMEDY_NONE,
                  "is not valid (%s); gateways refuse it and keep what it was before; `import` a good record",
                  faults.faults.list[0].text);
}

static enum err read_records(struct check *c)
{
    struct names ids = {0}, odd = {0};
    enum err e = redis_partner_ids(c->r, &ids, &odd);
    for (size_t at = 0; !e && at < ids.n; at += REDIS_BATCH) {
        size_t left = ids.n - at;
        c->ids = ids.list + at;
        e = redis_hashes(c->r, c->ids, left < REDIS_BATCH ? left : REDIS_BATCH, judge_one, c);
        progress_show(c->r->base.progress, at, ids.n);
    }
    progress_clear(c->r->base.progress);
    for (size_t i = 0; !e && i < odd.n; i++)
        e = report(c, NULL, 0, REMEDY_NONE, REDIS_ODD_KEY "; remove it", odd.list[i]);
    names_deinit(&ids);
    names_deinit(&odd);
    c->nsorted = c->nseen; /* the ids came in order */
    return e;
}

static struct seen *find_seen(struct check *c, const char *id)
{
    struct seen *s = c->nsorted ? bsearch(id, c->seen, c->nsorted, sizeof *s, compare_id) : NULL;
    for (size_t i = c->nsorted; !s && i < c->nseen; i++)
        if (strcmp(c->seen[i].id, id) == 0) s = &c->seen[i];
    return s;
}

/* A change that came while the records were read. */
static enum err replay(void *arg, const struct redis_entry *entry)
{
    struct check *c = arg;
    char id[PARTNER_ID_MAX + 1];
    if (entry->sequence > c->replay_until) return ERR_OK;
    (void)span_to_cstr(entry->id, id, sizeof id); /* redis_entry_read() has checked it */
    note_entry(c, entry);
    struct seen *s = find_seen(c, id);
    if (!s) {
        enum err e = see(c, id, false, 0, 0);
        if (e) return e;
        s = &c->seen[c->nseen - 1];
    }
    s->is_there = !entry->is_delete;
    s->version = entry->sequence;
    s->share = redis_hasher_record(c->hasher, entry->id, entry->sequence);
    return ERR_OK;
}

/* --- judging the whole ---------------------------------------------------------------------------- */

/* What the log has, and nobody has removed, and is not there. */
static enum err find_ghosts(struct check *c)
{
    struct redis_totals *t = &c->r->totals;
    size_t cap = 0;
    for (size_t i = 0; i < c->nlog; i++) {
        const struct last_entry *last = &c->log[i];
        if (!last->fields || find_seen(c, last->id)) continue;
        enum err e = grow((void **)&t->ghosts, &cap, t->nghosts, sizeof *t->ghosts);
        if (e) return e;
        struct redis_ghost *g = &t->ghosts[t->nghosts++];
        memcpy(g->id, last->id, sizeof g->id);
        g->version = last->sequence;
        t->count++;
        t->digest ^= redis_hasher_record(c->hasher, span_str(g->id), g->version);
        e = report(c, g->id, g->version, REMEDY_REMOVE, "was removed by hand after change %" PRIu64,
                   g->version);
        if (e) return e;
    }
    return ERR_OK;
}

/* Two records with one token, unless one of them has changed since it was read. */
static enum err judge_shared(void *arg, const struct redis_token *first, const struct redis_token *again)
{
    struct check *c = arg;
    const struct seen *x = &c->seen[first->owner], *y = &c->seen[again->owner];
    if (!x->is_there || !y->is_there || x->version != first->version || y->version != again->version)
        return ERR_OK;
    return report(c, y->id, 0, REMEDY_NONE,
                  "has a token that \"%s\" has as well, and gateways refuse one of the two; rotate it",
                  x->id);
}

static uint64_t highest(const struct check *c)
{
    uint64_t most = c->kept_sequence;
    if (c->counter > most) most = c->counter;
    return c->top > most ? c->top : most;
}

/* Compares what is kept with what was counted. */
static enum err judge_totals(struct check *c)
{
    const struct redis_totals *t = &c->r->totals;
    enum err e = ERR_OK;
    if (!c->is_meta_readable)
        e = report(c, NULL, 0, REMEDY_MEND, "count, digest or seq in meta are no numbers");
    if (!e && c->is_meta_readable && c->kept_count != t->count)
        e = report(c, NULL, 0, REMEDY_MEND, "the count is %" PRIu64 ", but should be %" PRIu64, c->kept_count,
                   t->count);
    if (!e && c->is_meta_readable && c->kept_digest != t->digest)
        e = report(c, NULL, 0, REMEDY_MEND, "the digest is %016" PRIx64 ", but should be %016" PRIx64,
                   c->kept_digest, t->digest);
    if (!e && c->counter < t->sequence)
        e = report(c, NULL, 0, REMEDY_MEND, "the counter is at %" PRIu64 ", but change %" PRIu64 " exists",
                   c->counter, t->sequence);
    if (!e && c->kept_sequence < t->sequence && c->is_meta_readable)
        e = report(c, NULL, 0, REMEDY_MEND, "meta knows %" PRIu64 " changes, but change %" PRIu64 " exists",
                   c->kept_sequence, t->sequence);
    return e;
}

static enum err judge(struct check *c)
{
    struct redis_totals *t = &c->r->totals;
    t->sequence = highest(c);
    enum err e = ERR_OK;
    for (size_t i = 0; !e && i < c->nseen; i++) {
        const struct seen *seen = &c->seen[i];
        if (!seen->is_there) continue;
        t->count++;
        t->digest ^= seen->share;
        if (seen->version > t->sequence)
            e = report(c, seen->id, seen->version, seen->is_valid ? REMEDY_REWRITE : REMEDY_NONE,
                       "has version %" PRIu64 ", but there were only %" PRIu64 " changes", seen->version,
                       t->sequence);
    }
    if (!e) e = redis_tokens_shared(&c->tokens, judge_shared, c);
    if (!e) e = find_ghosts(c);
    t->is_known = true;
    if (!e) e = judge_totals(c);
    bool is_end_right = c->top == 0 || c->top != c->kept_sequence || !c->is_meta_readable ||
                        (c->last_count == c->kept_count && c->last_digest == c->kept_digest);
    if (!e && !is_end_right)
        e = report(c, NULL, 0, REMEDY_MEND, "count and digest at the end of the log are not those of meta");
    return e;
}

/* Reads what is kept, and replays until the records that were seen are those of that moment: up to the number
 * that is kept, or, when a hand has set that back, until nothing comes any more. */
static enum err catch_up(struct check *c)
{
    for (int round = 0; round < ROUNDS_MAX; round++) {
        uint64_t top = c->top;
        enum err e = read_kept(c);
        c->replay_until = c->is_meta_readable && c->kept_sequence > top ? c->kept_sequence : UINT64_MAX;
        if (!e) e = redis_read_log(c->r, c->top + 1, replay, c);
        if (e || c->top == top || c->top == c->replay_until) return e;
    }
    return redis_fail(c->r, ERR_UNREACHABLE, "changes come faster than they can be compared; try again");
}

static enum err check_all(struct check *c)
{
    enum err e = redis_read_log(c->r, 0, remember_entry, c);
    sort_log(c);
    if (!e) e = read_records(c);
    if (!e) e = catch_up(c);
    return e ? e : judge(c);
}

enum err redis_check(struct backend *b, backend_finding_fn *on_finding, void *arg)
{
    struct backend_redis *r = redis_of(b);
    struct check c = {.r = r, .on_finding = on_finding, .arg = arg};
    free(r->totals.ghosts);
    r->totals = (struct redis_totals){0};
    enum err e = redis_begin(r);
    if (e) return e;
    c.hasher = redis_hasher_create();
    if (!c.hasher) return ERR_NOMEM;
    e = check_all(&c);
    redis_hasher_destroy(c.hasher);
    redis_tokens_deinit(&c.tokens);
    free(c.log);
    free(c.seen);
    return e;
}
