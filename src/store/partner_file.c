#include "store/partner_file.h"

#include "base/clock.h"
#include "base/hash.h"

#include <openssl/evp.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* File times advance with the kernel's tick (up to 10 ms) or, on old file systems, in seconds: a file that
 * was modified more recently than this can change again and look the same to stat(2). */
enum { SETTLED_AFTER_MS = 2000 };

/* --- contents ------------------------------------------------------------------------------------- */

static enum partner_file_outcome unreadable(struct partner_file *f, const char *what, const char *why)
{
    f->seen.is_valid = false;
    record_messages_add(&f->report.faults, 0, 0, "%s: %s", what, why);
    return PARTNER_FILE_UNREADABLE;
}

static bool same_time(struct timespec a, struct timespec b)
{
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static bool same_stat(const struct partner_file_seen *a, const struct partner_file_seen *b)
{
    return a->dev == b->dev && a->ino == b->ino && a->bytes == b->bytes &&
           same_time(a->modified, b->modified) && same_time(a->changed, b->changed);
}

/* What stat(2) says about an open regular file. Errors: ERR_IO (errno), ERR_UNSUPPORTED (no regular file). */
static enum err look_at(int fd, struct partner_file_seen *out)
{
    struct stat st;
    if (fstat(fd, &st)) return ERR_IO;
    if (!S_ISREG(st.st_mode)) return ERR_UNSUPPORTED;
    uint64_t changed_ms = (uint64_t)st.st_ctim.tv_sec * 1000 + (uint64_t)st.st_ctim.tv_nsec / 1000000;
    *out = (struct partner_file_seen){.is_valid = true,
                                      .is_settled = clock_wall_ms() > changed_ms + SETTLED_AFTER_MS,
                                      .dev = st.st_dev,
                                      .ino = st.st_ino,
                                      .bytes = st.st_size,
                                      .modified = st.st_mtim,
                                      .changed = st.st_ctim};
    return ERR_OK;
}

/* Whether it is still as it was before it was read. One that was replaced meanwhile, whole, is: only its last
 * link went, and the directory tells of the other. */
static bool is_unchanged(int fd, const struct partner_file_seen *before)
{
    struct stat st;
    if (fstat(fd, &st)) return false;
    return st.st_size == before->bytes && same_time(st.st_mtim, before->modified) &&
           (st.st_nlink == 0 || same_time(st.st_ctim, before->changed));
}

/* Judges the file without reading it; PARTNER_FILE_LOADED means that it must be read. */
static enum partner_file_outcome look_first(int fd, const struct partner_file_seen *last,
                                            struct partner_file *f)
{
    enum err e = look_at(fd, &f->seen);
    if (e == ERR_UNSUPPORTED) return unreadable(f, "cannot be read", "it is no regular file");
    if (e) return unreadable(f, "cannot be read", strerror(errno));
    if (last && last->is_valid && last->is_settled && same_stat(last, &f->seen)) {
        f->seen = *last;
        return PARTNER_FILE_UNCHANGED;
    }
    if (f->seen.bytes > PARTNER_FILE_BYTES_MAX)
        return unreadable(f, "is refused", "it is larger than 256 MiB");
    return PARTNER_FILE_LOADED;
}

/* --- records -------------------------------------------------------------------------------------- */

/* Packs a partner; its version is not used. Errors: ERR_NOMEM. */
static enum err entry_add(struct partner_file *f, const struct partner *partner, unsigned line,
                          struct bytes *scratch)
{
    if (f->nentries == f->capacity) {
        uint32_t capacity = f->capacity ? 2 * f->capacity : 256;
        struct partner_file_entry *larger = realloc(f->entries, capacity * sizeof *larger);
        if (!larger) return ERR_NOMEM;
        f->entries = larger;
        f->capacity = capacity;
    }
    scratch->n = 0;
    enum err e = packed_add(scratch, partner, 1, 0);
    if (!e) e = bytes_add(scratch, partner->id, strlen(partner->id) + 1);
    char *room = e ? NULL : blocks_add(&f->records, scratch->n);
    if (!room) return ERR_NOMEM;
    memcpy(room, scratch->p, scratch->n);
    f->entries[f->nentries++] = (struct partner_file_entry){.packed = room, .line = line};
    return ERR_OK;
}

struct packed partner_file_look(const struct partner_file_entry *entry)
{
    struct packed r;
    uint32_t bytes;
    memcpy(&bytes, entry->packed, sizeof bytes);
    BUG_IF(packed_look(span_of(entry->packed, bytes), &r, NULL), "a packed record of our own is damaged");
    return r;
}

const char *partner_file_id(const struct partner_file_entry *entry)
{
    uint32_t bytes;
    memcpy(&bytes, entry->packed, sizeof bytes);
    return entry->packed + bytes;
}

static bool is_blank(struct span line)
{
    size_t i = 0;
    while (i < line.n && (line.p[i] == ' ' || line.p[i] == '\t' || line.p[i] == '\r'))
        i++;
    return i == line.n;
}

/* Reads the record of one line. Errors: ERR_NOMEM; a faulty record is counted and reported instead. */
static enum err read_line(struct partner_file *f, struct span text, unsigned line, struct bytes *scratch)
{
    struct partner partner;
    if (line == 1 && span_starts(text, SPAN("\xef\xbb\xbf"))) {
        record_messages_add(&f->report.faults, 1, 1,
                            "the file starts with a byte order mark; save it as UTF-8 without one");
        text = span_of(text.p + 3, text.n - 3);
    }
    if (is_blank(text)) return ERR_OK;
    enum err e = record_parse_partner(text, line, &partner, &f->report);
    if (e == ERR_PARSE) {
        f->records_rejected++;
        return ERR_OK;
    }
    if (e) return e;
    e = entry_add(f, &partner, line, scratch);
    partner_deinit(&partner);
    return e;
}

/* --- lines ---------------------------------------------------------------------------------------- */

enum { PIECE_BYTES = 256 * 1024 };

/* The text that is being read: whole lines are taken out as soon as they are there. */
struct text {
    char *p; /* owned; room for a line of the greatest length and one byte, touched only as far as needed */
    size_t n;
    unsigned line;       /* the last one that was taken */
    bool is_skipping;    /* inside a line that was too long */
    struct bytes packed; /* owned: the record that is being added */
};

static const size_t TEXT_BYTES_MAX = (size_t)PARTNER_LINE_BYTES_MAX + 1;

/* One line, or the rest of one that was too long. */
static enum err take_line(struct partner_file *f, struct text *t, struct span line)
{
    bool is_rest = t->is_skipping;
    t->is_skipping = false;
    return is_rest ? ERR_OK : read_line(f, line, ++t->line, &t->packed);
}

static void refuse_long_line(struct partner_file *f, struct text *t)
{
    t->n = 0;
    if (t->is_skipping) return;
    t->is_skipping = true;
    f->records_rejected++;
    record_messages_add(&f->report.faults, ++t->line, 0,
                        "this line is longer than 16 MiB; merge its prefixes into fewer");
}

/* Takes the lines that are whole; at the end of the file the last one counts as such. `fresh`: where the
 * bytes begin that were not looked at yet. */
static enum err take_lines(struct partner_file *f, struct text *t, size_t fresh, bool is_end)
{
    size_t begin = 0;
    enum err e = ERR_OK;
    for (const char *newline; !e && (newline = memchr(t->p + fresh, '\n', t->n - fresh)); begin = fresh) {
        fresh = (size_t)(newline - t->p) + 1;
        e = take_line(f, t, span_of(t->p + begin, fresh - 1 - begin));
    }
    if (!e && is_end && begin < t->n) {
        e = take_line(f, t, span_of(t->p + begin, t->n - begin));
        begin = t->n;
    }
    t->n -= begin;
    if (begin) memmove(t->p, t->p + begin, t->n);
    if (t->n == TEXT_BYTES_MAX) refuse_long_line(f, t);
    return e;
}

/* Reads the file from its start to its end and digests it. `takes_lines`: and loads it. Errors: ERR_IO
 * (errno), ERR_EOF (the file became shorter), ERR_NOMEM. */
static enum err read_through(int fd, struct partner_file *f, struct text *t, EVP_MD_CTX *digest,
                             bool takes_lines, const atomic_bool *cancelled)
{
    size_t left = (size_t)f->seen.bytes;
    if (lseek(fd, 0, SEEK_SET) < 0) return ERR_IO;
    if (EVP_DigestInit_ex(digest, EVP_sha256(), NULL) != 1) return ERR_NOMEM;
    while (left && !atomic_load_explicit(cancelled, memory_order_relaxed)) {
        size_t room = TEXT_BYTES_MAX - t->n, piece = left < PIECE_BYTES ? left : PIECE_BYTES;
        ssize_t got = read(fd, t->p + t->n, piece < room ? piece : room);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return got ? ERR_IO : ERR_EOF;
        if (EVP_DigestUpdate(digest, t->p + t->n, (size_t)got) != 1) return ERR_NOMEM;
        left -= (size_t)got;
        t->n += takes_lines ? (size_t)got : 0;
        enum err e = takes_lines ? take_lines(f, t, t->n - (size_t)got, left == 0) : ERR_OK;
        if (e) return e;
    }
    return EVP_DigestFinal_ex(digest, f->seen.digest, NULL) == 1 ? ERR_OK : ERR_NOMEM;
}

/* Whether the contents are those of `last`. Reads the file for that alone, because a load costs more. */
static enum err is_as_before(int fd, struct partner_file *f, struct text *t, EVP_MD_CTX *digest,
                             const struct partner_file_seen *last, const atomic_bool *cancelled, bool *same)
{
    *same = false;
    if (!last || !last->is_valid || last->bytes != f->seen.bytes) return ERR_OK;
    enum err e = read_through(fd, f, t, digest, false, cancelled);
    *same = !e && memcmp(last->digest, f->seen.digest, sizeof f->seen.digest) == 0;
    return e;
}

/* --- what no two records may share ---------------------------------------------------------------- */

/* Something that must be unique, and where it stands. */
struct unique {
    const void *bytes; /* the digest, or the id with its NUL */
    struct partner_file_entry *entry;
    enum token_slot slot; /* of a digest */
};

static int by_line(const struct unique *a, const struct unique *b)
{
    return a->entry->line < b->entry->line ? -1 : a->entry->line > b->entry->line;
}

static int compare_ids(const void *a, const void *b)
{
    const struct unique *x = a, *y = b;
    int order = strcmp(x->bytes, y->bytes);
    return order ? order : by_line(x, y);
}

static int compare_digests(const void *a, const void *b)
{
    const struct unique *x = a, *y = b;
    int order = memcmp(x->bytes, y->bytes, TOKEN_DIGEST_BYTES);
    return order ? order : by_line(x, y);
}

static void reject(struct partner_file *f, struct partner_file_entry *entry)
{
    f->records_rejected += !entry->is_rejected; /* a record with two faults is one record */
    entry->is_rejected = true;
}

static void check_ids(struct partner_file *f, struct unique *list)
{
    size_t n = f->nentries, first = 0;
    for (size_t i = 0; i < n; i++)
        list[i] = (struct unique){.bytes = partner_file_id(&f->entries[i]), .entry = &f->entries[i]};
    qsort(list, n, sizeof *list, compare_ids);
    for (size_t i = 1; i < n; i++) {
        if (strcmp(list[first].bytes, list[i].bytes) != 0) {
            first = i;
            continue;
        }
        reject(f, list[i].entry);
        record_messages_add(&f->report.faults, list[i].entry->line, 0,
                            "partner_id \"%s\" is used in line %u already; keep one record for each partner",
                            (const char *)list[i].bytes, list[first].entry->line);
    }
}

static const char *slot_field(enum token_slot slot)
{
    return slot == SLOT_CURRENT ? "client_token_sha256" : "previous_token_sha256";
}

static void check_digests(struct partner_file *f, struct unique *list)
{
    size_t n = 0, first = 0;
    for (size_t i = 0; i < f->nentries; i++) {
        struct packed r = partner_file_look(&f->entries[i]);
        for (enum token_slot slot = SLOT_CURRENT; slot <= SLOT_PREVIOUS; slot++)
            if (packed_digest(&r, slot))
                list[n++] = (struct unique){packed_digest(&r, slot), &f->entries[i], slot};
    }
    qsort(list, n, sizeof *list, compare_digests);
    for (size_t i = 1; i < n; i++) {
        if (memcmp(list[first].bytes, list[i].bytes, TOKEN_DIGEST_BYTES) != 0) {
            first = i;
            continue;
        }
        reject(f, list[i].entry);
        record_messages_add(
            &f->report.faults, list[i].entry->line, 0,
            "%s is the same as %s in line %u; each token belongs to one partner: issue a new one",
            slot_field(list[i].slot), slot_field(list[first].slot), list[first].entry->line);
    }
}

/* Finds and reports what is not unique. Errors: ERR_NOMEM. */
static enum err find_repeated(struct partner_file *f)
{
    struct unique *list = malloc(2 * (size_t)f->nentries * sizeof *list);
    if (!list) return ERR_NOMEM;
    check_ids(f, list);
    check_digests(f, list);
    free(list);
    return ERR_OK;
}

/* Radix sort, from the lowest byte: the same work whatever the keys are, and a tenth of qsort()'s for a
 * million. The result is in `keys`, because the number of passes is even. */
static void sort_keys(uint64_t *keys, uint64_t *spare, size_t n)
{
    for (unsigned shift = 0; shift < 64; shift += 8) {
        size_t at[UINT8_MAX + 2] = {0};
        for (size_t i = 0; i < n; i++)
            at[(uint8_t)(keys[i] >> shift) + 1]++;
        for (size_t v = 1; v <= UINT8_MAX; v++)
            at[v] += at[v - 1];
        for (size_t i = 0; i < n; i++)
            spare[at[(uint8_t)(keys[i] >> shift)]++] = keys[i];
        uint64_t *sorted = spare;
        spare = keys;
        keys = sorted;
    }
}

static bool has_repeated_key(uint64_t *keys, uint64_t *spare, size_t n)
{
    sort_keys(keys, spare, n);
    for (size_t i = 1; i < n; i++)
        if (keys[i - 1] == keys[i]) return true;
    return false;
}

/* Finds ids and digests that two records share. First only 64-bit keys of them are sorted, which takes a
 * fifth of the memory and a tenth of the time for a million records: without two equal keys nothing is
 * shared. With two, which may be chance, ids and digests themselves are sorted. No hash table, so that no
 * input can make this slow. Errors: ERR_NOMEM. */
static enum err check_unique(struct partner_file *f)
{
    if (f->nentries == 0) return ERR_OK;
    size_t n = 0, room = TOKEN_SLOTS * (size_t)f->nentries;
    uint64_t *keys = malloc(2 * room * sizeof *keys);
    if (!keys) return ERR_NOMEM;
    for (uint32_t i = 0; i < f->nentries; i++)
        keys[n++] = hash_fnv1a(HASH_FNV1A_BASIS, partner_file_look(&f->entries[i]).id);
    bool is_repeated = has_repeated_key(keys, keys + room, n);
    n = 0;
    for (uint32_t i = 0; i < f->nentries; i++) {
        struct packed r = partner_file_look(&f->entries[i]);
        for (enum token_slot slot = SLOT_CURRENT; slot <= SLOT_PREVIOUS; slot++)
            if (packed_digest(&r, slot)) memcpy(&keys[n++], packed_digest(&r, slot), sizeof *keys);
    }
    is_repeated = is_repeated || has_repeated_key(keys, keys + room, n);
    free(keys);
    return is_repeated ? find_repeated(f) : ERR_OK;
}

/* --- whole ---------------------------------------------------------------------------------------- */

static void drop_entries(struct partner_file *f)
{
    blocks_deinit(&f->records);
    free(f->entries);
    f->entries = NULL;
    f->nentries = f->capacity = 0;
}

/* A load that failed in the middle: what it found so far is of no interest. */
static enum partner_file_outcome read_failed(struct partner_file *f, enum err e)
{
    const char *text = e == ERR_IO ? strerror(errno) : "out of memory";
    f->report = (struct record_report){0};
    f->records_rejected = 0;
    drop_entries(f);
    if (e == ERR_EOF)
        return unreadable(f, "was changed while it was read", "it is read again once it is complete");
    return unreadable(f, e == ERR_IO ? "cannot be read" : "cannot be loaded", text);
}

static enum partner_file_outcome load(int fd, const struct partner_file_seen *last,
                                      const atomic_bool *cancelled, struct partner_file *f, struct text *t,
                                      EVP_MD_CTX *digest)
{
    bool same;
    enum err e = is_as_before(fd, f, t, digest, last, cancelled, &same);
    if (!e && !same) e = read_through(fd, f, t, digest, true, cancelled);
    if (!e && !is_unchanged(fd, &f->seen)) e = ERR_EOF;
    if (!e && same) return PARTNER_FILE_UNCHANGED;
    if (!e) e = check_unique(f);
    if (e) return read_failed(f, e);
    if (f->report.faults.total == 0) return PARTNER_FILE_LOADED;
    drop_entries(f);
    return PARTNER_FILE_INVALID;
}

enum partner_file_outcome partner_file_read(const char *path, const struct partner_file_seen *last,
                                            const atomic_bool *cancelled, struct partner_file *out)
{
    memset(out, 0, sizeof *out);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* O_NONBLOCK: a FIFO must not hang the thread */
    if (fd < 0) return unreadable(out, "cannot be opened", strerror(errno));
    enum partner_file_outcome outcome = look_first(fd, last, out);
    if (outcome == PARTNER_FILE_LOADED) {
        struct text text = {.p = malloc(TEXT_BYTES_MAX)};
        EVP_MD_CTX *digest = EVP_MD_CTX_new();
        outcome =
            text.p && digest ? load(fd, last, cancelled, out, &text, digest) : read_failed(out, ERR_NOMEM);
        EVP_MD_CTX_free(digest);
        bytes_deinit(&text.packed);
        free(text.p);
    }
    (void)close(fd); /* only read from: nothing can be lost */
    return outcome;
}

void partner_file_deinit(struct partner_file *f)
{
    drop_entries(f);
}
