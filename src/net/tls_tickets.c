#include "net/tls_tickets.h"

#include "base/random.h"
#include "base/span.h"
#include "net/tls_file.h"

#include <openssl/crypto.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { KEY_BYTES = sizeof(struct tls_ticket_key), HEX_DIGITS = 2 * KEY_BYTES };

struct keys {
    uint64_t n;
    struct tls_ticket_key keys[TLS_TICKET_KEYS_MAX]; /* what is not used is zero */
};

enum { KEYS_WORDS = sizeof(struct keys) / sizeof(uint64_t) };
_Static_assert(sizeof(struct keys) % sizeof(uint64_t) == 0, "a slot is copied by words");

struct tls_tickets {
    atomic_uint refs;
    char *file;                            /* owned; NULL = own keys. Set once */
    uint64_t rotate_ms;                    /* set once */
    uint64_t rotated_ms;                   /* control: own keys */
    _Atomic uint64_t version;              /* shared: the lowest bit is the current slot */
    _Atomic uint64_t slots[2][KEYS_WORDS]; /* shared: struct keys */
};

/* --- publishing ------------------------------------------------------------------------------------ */

/* Whoever sees a word of the next-but-one version also sees that the version has moved: each word is released
 * after the version before it. */
static void publish(struct tls_tickets *t, const struct keys *k)
{
    uint64_t words[KEYS_WORDS];
    uint64_t next = atomic_load_explicit(&t->version, memory_order_relaxed) + 1;
    memcpy(words, k, sizeof words);
    for (size_t i = 0; i < KEYS_WORDS; i++)
        atomic_store_explicit(&t->slots[next & 1][i], words[i], memory_order_release);
    atomic_store_explicit(&t->version, next, memory_order_release);
    OPENSSL_cleanse(words, sizeof words);
}

static void read_keys(const struct tls_tickets *t, struct keys *out)
{
    uint64_t words[KEYS_WORDS], version;
    do {
        version = atomic_load_explicit(&t->version, memory_order_acquire);
        for (size_t i = 0; i < KEYS_WORDS; i++)
            words[i] = atomic_load_explicit(&t->slots[version & 1][i], memory_order_acquire);
    } while (atomic_load_explicit(&t->version, memory_order_relaxed) != version);
    memcpy(out, words, sizeof words);
    OPENSSL_cleanse(words, sizeof words);
}

/* Both slots: what has been replaced twice is gone for good. */
static bool publish_if_new(struct tls_tickets *t, const struct keys *k)
{
    struct keys now;
    read_keys(t, &now);
    bool is_new = CRYPTO_memcmp(&now, k, sizeof now) != 0;
    OPENSSL_cleanse(&now, sizeof now);
    if (is_new) publish(t, k);
    return is_new;
}

uint64_t tls_tickets_rotate_ms(const struct tls_tickets *t)
{
    return t->rotate_ms;
}

const char *tls_tickets_file(const struct tls_tickets *t)
{
    return t->file;
}

void tls_tickets_current(const struct tls_tickets *t, struct tls_ticket_key *out)
{
    struct keys k;
    read_keys(t, &k);
    *out = k.keys[0];
    OPENSSL_cleanse(&k, sizeof k);
}

bool tls_tickets_find(const struct tls_tickets *t, const uint8_t name[TLS_TICKET_NAME_BYTES],
                      struct tls_ticket_key *out)
{
    struct keys k;
    bool found = false;
    read_keys(t, &k);
    for (size_t i = 0; i < TLS_TICKET_KEYS_MAX && i < k.n && !found; i++) {
        found = memcmp(k.keys[i].name, name, TLS_TICKET_NAME_BYTES) == 0;
        if (found) *out = k.keys[i];
    }
    OPENSSL_cleanse(&k, sizeof k);
    return found;
}

/* --- own keys -------------------------------------------------------------------------------------- */

static enum err rotate(struct tls_tickets *t, uint64_t now_ms, struct errmsg *why)
{
    struct keys k;
    read_keys(t, &k);
    k.keys[1] = k.keys[0];
    k.n = k.n ? 2 : 1;
    enum err e = random_bytes(&k.keys[0], sizeof k.keys[0]);
    if (e) {
        errmsg_set(why, 0, 0, "no randomness for a new session ticket key");
    } else {
        publish(t, &k);
        t->rotated_ms = now_ms;
    }
    OPENSSL_cleanse(&k, sizeof k);
    return e;
}

/* --- keys of a file -------------------------------------------------------------------------------- */

static bool parse_key(struct span line, struct tls_ticket_key *out)
{
    uint8_t *to = (uint8_t *)out;
    if (line.n != HEX_DIGITS) return false;
    for (size_t i = 0; i < KEY_BYTES; i++) {
        int high = ascii_hex_value(line.p[2 * i]), low = ascii_hex_value(line.p[2 * i + 1]);
        if (high < 0 || low < 0) return false;
        to[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

static bool has_name(const struct keys *k, const uint8_t *name)
{
    for (uint64_t i = 0; i < k->n; i++)
        if (memcmp(k->keys[i].name, name, TLS_TICKET_NAME_BYTES) == 0) return true;
    return false;
}

/* What is wrong with the next line, NULL when nothing is. Never quotes it. */
static const char *take_line(struct keys *k, struct span line)
{
    struct tls_ticket_key key;
    const char *fault = NULL;
    if (line.n == 0 || line.p[0] == '#') return NULL;
    if (k->n == TLS_TICKET_KEYS_MAX) return "more than four keys";
    if (!parse_key(line, &key))
        fault = "a key is 160 hexadecimal digits; make one with: openssl rand -hex 80";
    else if (has_name(k, key.name))
        fault = "two keys begin with the same 32 digits, which are the key's name";
    else
        k->keys[k->n++] = key;
    OPENSSL_cleanse(&key, sizeof key);
    return fault;
}

static enum err parse_keys(const char *path, struct span text, struct keys *k, struct errmsg *why)
{
    const char *fault = NULL;
    unsigned line_number = 0;
    while (!fault && text.n) {
        const char *end = memchr(text.p, '\n', text.n);
        size_t n = end ? (size_t)(end - text.p) : text.n, skip = end ? n + 1 : n;
        struct span line = span_of(text.p, n && text.p[n - 1] == '\r' ? n - 1 : n);
        line_number++;
        fault = take_line(k, span_trim(line));
        text = span_of(text.p + skip, text.n - skip);
    }
    if (!fault && k->n == 0) fault = "it holds no key; make one with: openssl rand -hex 80";
    if (!fault) return ERR_OK;
    errmsg_set(why, line_number, 0, "%s:%u: %s", path, line_number, fault);
    return ERR_PARSE;
}

static enum err reread(struct tls_tickets *t, bool *changed, struct errmsg *why)
{
    struct tls_file f;
    struct keys k = {0};
    enum err e = tls_file_read(t->file, true, &f, why);
    if (e) return e;
    e = parse_keys(t->file, span_of(f.p, f.n), &k, why);
    tls_file_free(&f);
    if (!e) *changed = publish_if_new(t, &k);
    OPENSSL_cleanse(&k, sizeof k);
    return e;
}

/* --- life ------------------------------------------------------------------------------------------ */

enum err tls_tickets_refresh(struct tls_tickets *t, uint64_t now_ms, bool *changed, struct errmsg *why)
{
    *changed = false;
    if (t->file) return reread(t, changed, why);
    if (now_ms - t->rotated_ms < t->rotate_ms) return ERR_OK;
    enum err e = rotate(t, now_ms, why);
    *changed = e == ERR_OK;
    return e;
}

enum err tls_tickets_create(const char *file, uint64_t rotate_ms, uint64_t now_ms, struct errmsg *why,
                            struct tls_tickets **out)
{
    bool changed;
    enum err e = ERR_NOMEM;
    struct tls_tickets *t = calloc(1, sizeof *t);
    if (t && file) t->file = strdup(file);
    if (t && (!file || t->file)) {
        atomic_init(&t->refs, 1);
        t->rotate_ms = rotate_ms;
        e = file ? reread(t, &changed, why) : rotate(t, now_ms, why);
    } else {
        errmsg_set(why, 0, 0, "no memory for session ticket keys");
    }
    if (!e) {
        *out = t;
    } else if (t) {
        free(t->file);
        free(t);
    }
    return e;
}

struct tls_tickets *tls_tickets_ref(struct tls_tickets *t)
{
    atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
    return t;
}

void tls_tickets_unref(struct tls_tickets *t)
{
    if (!t || atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1) return;
    OPENSSL_cleanse((void *)t->slots, sizeof t->slots);
    free(t->file);
    free(t);
}
