#include "store/partner_file.h"

#include "base/clock.h"

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

/* Reads exactly `n` bytes. Errors: ERR_IO (errno), ERR_EOF (the file became shorter). */
static enum err read_fully(int fd, char *out, size_t n)
{
    while (n > 0) {
        ssize_t got = read(fd, out, n);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return ERR_IO;
        if (got == 0) return ERR_EOF;
        out += got;
        n -= (size_t)got;
    }
    return ERR_OK;
}

/* Reads the contents of an open file whose size is in f->seen, and their digest. */
static enum partner_file_outcome read_contents(int fd, struct partner_file *f, char *contents)
{
    struct partner_file_seen after;
    size_t n = (size_t)f->seen.bytes;
    enum err e = read_fully(fd, contents, n);
    if (e == ERR_IO) return unreadable(f, "cannot be read", strerror(errno));
    if (e == ERR_EOF || look_at(fd, &after) || !same_stat(&f->seen, &after))
        return unreadable(f, "was changed while it was read", "it is read again once it is complete");
    if (EVP_Digest(contents, n, f->seen.digest, NULL, EVP_sha256(), NULL) != 1)
        return unreadable(f, "cannot be hashed", "libcrypto refused SHA-256");
    return PARTNER_FILE_LOADED;
}

/* Opens, compares and reads. With PARTNER_FILE_LOADED `*contents` is the caller's to free. */
static enum partner_file_outcome load_contents(int fd, const struct partner_file_seen *last,
                                               struct partner_file *f, char **contents)
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
    char *bytes = malloc((size_t)f->seen.bytes + 1); /* + 1: an empty file is no failed allocation */
    if (!bytes) return unreadable(f, "cannot be read", "out of memory");
    enum partner_file_outcome outcome = read_contents(fd, f, bytes);
    if (outcome == PARTNER_FILE_LOADED && last && last->is_valid &&
        memcmp(last->digest, f->seen.digest, sizeof f->seen.digest) == 0)
        outcome = PARTNER_FILE_UNCHANGED;
    if (outcome == PARTNER_FILE_LOADED) {
        *contents = bytes;
    } else {
        free(bytes);
    }
    return outcome;
}

/* --- records -------------------------------------------------------------------------------------- */

static enum err entry_add(struct partner_file *f, const struct partner *partner, unsigned line)
{
    if (f->nentries == f->capacity) {
        uint32_t capacity = f->capacity ? 2 * f->capacity : 256;
        struct partner_file_entry *larger = realloc(f->entries, capacity * sizeof *larger);
        if (!larger) return ERR_NOMEM;
        f->entries = larger;
        f->capacity = capacity;
    }
    f->entries[f->nentries++] = (struct partner_file_entry){.partner = *partner, .line = line};
    return ERR_OK;
}

static bool is_blank(struct span line)
{
    size_t i = 0;
    while (i < line.n && (line.p[i] == ' ' || line.p[i] == '\t' || line.p[i] == '\r'))
        i++;
    return i == line.n;
}

/* Reads the record of one line. Errors: ERR_NOMEM; a faulty record is counted and reported instead. */
static enum err read_line(struct partner_file *f, struct span text, unsigned line)
{
    if (is_blank(text)) return ERR_OK;
    if (text.n > PARTNER_LINE_BYTES_MAX) {
        f->records_rejected++;
        record_messages_add(&f->report.faults, line, 0,
                            "this line is longer than 16 MiB; merge its prefixes into fewer");
        return ERR_OK;
    }
    struct partner_record record;
    enum err e = record_parse(text, line, &record, &f->report);
    if (e == ERR_PARSE) {
        f->records_rejected++;
        return ERR_OK;
    }
    if (e) return e;
    struct partner partner = record.partner;
    record.partner = (struct partner){0}; /* the entry owns it now; the rest the data plane does not need */
    record_deinit(&record);
    e = entry_add(f, &partner, line);
    if (e) partner_deinit(&partner);
    return e;
}

static enum err read_lines(struct partner_file *f, struct span contents, const atomic_bool *cancelled)
{
    unsigned line = 0;
    const char *p = contents.p, *end = contents.p + contents.n;
    if (span_starts(contents, SPAN("\xef\xbb\xbf"))) {
        record_messages_add(&f->report.faults, 1, 1,
                            "the file starts with a byte order mark; save it as UTF-8 without one");
        p += 3;
    }
    while (p < end && !atomic_load_explicit(cancelled, memory_order_relaxed)) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        struct span text = {p, (size_t)((newline ? newline : end) - p)};
        enum err e = read_line(f, text, ++line);
        if (e) return e;
        p += text.n + 1;
        if (!newline) break;
    }
    return ERR_OK;
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
        list[i] = (struct unique){.bytes = f->entries[i].partner.id, .entry = &f->entries[i]};
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
    for (size_t i = 0; i < f->nentries; i++)
        for (enum token_slot slot = SLOT_CURRENT; slot <= SLOT_PREVIOUS; slot++)
            if (f->entries[i].partner.has_token[slot])
                list[n++] = (struct unique){f->entries[i].partner.digest[slot], &f->entries[i], slot};
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

/* Sorted copies rather than a hash table: no input can make this slow. Errors: ERR_NOMEM. */
static enum err check_unique(struct partner_file *f)
{
    if (f->nentries == 0) return ERR_OK;
    struct unique *list = malloc(2 * (size_t)f->nentries * sizeof *list);
    if (!list) return ERR_NOMEM;
    check_ids(f, list);
    check_digests(f, list);
    free(list);
    return ERR_OK;
}

/* --- whole ---------------------------------------------------------------------------------------- */

static void drop_entries(struct partner_file *f)
{
    for (uint32_t i = 0; i < f->nentries; i++)
        partner_deinit(&f->entries[i].partner);
    free(f->entries);
    f->entries = NULL;
    f->nentries = f->capacity = 0;
}

static enum partner_file_outcome parse_contents(struct partner_file *f, struct span contents,
                                                const atomic_bool *cancelled)
{
    enum err e = read_lines(f, contents, cancelled);
    if (!e) e = check_unique(f);
    if (!e && f->report.faults.total == 0) return PARTNER_FILE_LOADED;
    drop_entries(f);
    return e ? unreadable(f, "cannot be loaded", "out of memory") : PARTNER_FILE_INVALID;
}

enum partner_file_outcome partner_file_read(const char *path, const struct partner_file_seen *last,
                                            const atomic_bool *cancelled, struct partner_file *out)
{
    char *contents = NULL;
    memset(out, 0, sizeof *out);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* O_NONBLOCK: a FIFO must not hang the thread */
    if (fd < 0) return unreadable(out, "cannot be opened", strerror(errno));
    enum partner_file_outcome outcome = load_contents(fd, last, out, &contents);
    (void)close(fd); /* only read from: nothing can be lost */
    if (outcome != PARTNER_FILE_LOADED) return outcome;
    outcome = parse_contents(out, span_of(contents, (size_t)out->seen.bytes), cancelled);
    free(contents);
    return outcome;
}

void partner_file_deinit(struct partner_file *f)
{
    drop_entries(f);
}
