#include "proofctl/file_snapshot.h"

#include "base/fd.h"

#include <openssl/evp.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

/* Somebody who replaces the file between the two reads is waited out; not for ever. */
enum { ATTEMPTS_MAX = 20 };

static enum err fail(struct record_messages *faults, const char *what)
{
    record_messages_add(faults, 0, 0, "%s: %s%s", what, strerror(errno),
                        errno == EACCES ? "; run proofctl as the owner of the file, or with sudo" : "");
    return ERR_IO;
}

/* Reads an open regular file of s->st.st_size bytes. */
static enum err read_contents(int fd, struct file_snapshot *s, struct record_messages *faults)
{
    size_t size = (size_t)s->st.st_size;
    s->contents = malloc(size + 1);
    if (!s->contents) return ERR_NOMEM;
    ssize_t got = fd_read_all(fd, s->contents, size);
    if (got < 0) return fail(faults, "cannot be read");
    s->st.st_size = got; /* less when the file became shorter: its digest will differ */
    return ERR_OK;
}

static enum err load_contents(const char *path, struct file_snapshot *s, struct record_messages *faults)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* O_NONBLOCK: a FIFO must not hang us */
    s->exists = fd >= 0;
    if (fd < 0) return errno == ENOENT ? ERR_OK : fail(faults, "cannot be opened");
    enum err e = ERR_OK;
    if (fstat(fd, &s->st)) {
        e = fail(faults, "cannot be read");
    } else if (!S_ISREG(s->st.st_mode)) {
        record_messages_add(faults, 0, 0, "is no regular file; name the partner file");
        e = ERR_IO;
    } else if (s->st.st_size > PARTNER_FILE_BYTES_MAX) {
        record_messages_add(faults, 0, 0, "is larger than 256 MiB, more than a gateway reads");
        e = ERR_IO;
    } else {
        e = read_contents(fd, s, faults);
    }
    (void)close(fd); /* only read from */
    return e;
}

static enum err split_lines(struct file_snapshot *s)
{
    const char *p = s->contents, *end = s->contents + s->st.st_size;
    size_t room = 1;
    for (const char *at = p; (at = memchr(at, '\n', (size_t)(end - at))) != NULL; at++)
        room++;
    s->lines = malloc(room * sizeof *s->lines);
    if (!s->lines) return ERR_NOMEM;
    while (p < end) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        s->lines[s->nlines++] = span_of(p, (size_t)((newline ? newline : end) - p));
        p = newline ? newline + 1 : end;
    }
    return ERR_OK;
}

static int compare_entries(const void *a, const void *b)
{
    const struct partner_file_entry *const *x = a, *const *y = b;
    return strcmp(partner_file_id(*x), partner_file_id(*y));
}

static enum err index_entries(struct file_snapshot *s)
{
    uint32_t n = s->file.nentries;
    s->by_id = malloc((n ? n : 1) * sizeof *s->by_id);
    if (!s->by_id) return ERR_NOMEM;
    for (uint32_t i = 0; i < n; i++)
        s->by_id[i] = &s->file.entries[i];
    qsort(s->by_id, n, sizeof *s->by_id, compare_entries);
    return ERR_OK;
}

/* Another operator has put a new file in its place, or is writing this one. */
static bool is_replaced(const char *path, const struct stat *before)
{
    struct stat now;
    return stat(path, &now) == 0 &&
           (now.st_ino != before->st_ino || now.st_dev != before->st_dev || now.st_size != before->st_size ||
            now.st_mtim.tv_sec != before->st_mtim.tv_sec || now.st_mtim.tv_nsec != before->st_mtim.tv_nsec);
}

/* Lets the gateway's reader judge the file. ERR_AGAIN: it saw other bytes. */
static enum err judge(const char *path, struct file_snapshot *s, struct record_messages *faults)
{
    atomic_bool never = false;
    uint8_t digest[32];
    if (EVP_Digest(s->contents, (size_t)s->st.st_size, digest, NULL, EVP_sha256(), NULL) != 1)
        return ERR_NOMEM;
    enum partner_file_outcome outcome = partner_file_read(path, NULL, &never, &s->file);
    bool is_same = s->file.seen.is_valid && memcmp(digest, s->file.seen.digest, sizeof digest) == 0;
    switch (outcome) {
    case PARTNER_FILE_LOADED:
    case PARTNER_FILE_UNCHANGED: return is_same ? ERR_OK : ERR_AGAIN;
    case PARTNER_FILE_INVALID:
        if (!is_same) return ERR_AGAIN;
        *faults = s->file.report.faults;
        return ERR_PARSE;
    case PARTNER_FILE_UNREADABLE:
        if (is_replaced(path, &s->st)) return ERR_AGAIN;
        *faults = s->file.report.faults;
        return ERR_IO;
    }
    return ERR_IO;
}

static enum err read_once(const char *path, struct file_snapshot *s, struct record_messages *faults)
{
    *s = (struct file_snapshot){0};
    enum err e = load_contents(path, s, faults);
    if (!e && s->exists) e = judge(path, s, faults);
    if (!e && s->exists) e = split_lines(s);
    if (!e) e = index_entries(s);
    return e;
}

enum err file_snapshot_read(const char *path, struct file_snapshot *out, struct record_messages *faults)
{
    enum err e = read_once(path, out, faults);
    for (int i = 1; e == ERR_AGAIN && i < ATTEMPTS_MAX; i++) {
        file_snapshot_deinit(out);
        e = read_once(path, out, faults);
    }
    if (e != ERR_AGAIN) return e;
    record_messages_add(faults, 0, 0, "changes faster than it can be read; try again when it is complete");
    return ERR_IO;
}

void file_snapshot_deinit(struct file_snapshot *s)
{
    partner_file_deinit(&s->file);
    free(s->by_id);
    free(s->lines);
    free(s->contents);
    *s = (struct file_snapshot){0};
}

const struct partner_file_entry *file_snapshot_find(const struct file_snapshot *s, const char *id)
{
    uint32_t low = 0, high = s->file.nentries;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order = strcmp(partner_file_id(s->by_id[middle]), id);
        if (order == 0) return s->by_id[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

struct span file_snapshot_text(const struct file_snapshot *s, const struct partner_file_entry *entry)
{
    struct span text = s->lines[entry->line - 1];
    if (text.n && text.p[text.n - 1] == '\r') text.n--;
    return text;
}

bool file_snapshot_is_current(const struct file_snapshot *s, const char *path)
{
    struct stat now;
    if (stat(path, &now)) return errno == ENOENT && !s->exists;
    return s->exists && now.st_dev == s->st.st_dev && now.st_ino == s->st.st_ino &&
           now.st_size == s->st.st_size && now.st_mtim.tv_sec == s->st.st_mtim.tv_sec &&
           now.st_mtim.tv_nsec == s->st.st_mtim.tv_nsec;
}
