#include "store/snapshot.h"

#include "base/fd.h"
#include "base/path.h"

#include <openssl/evp.h>

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FORMAT = 1, SHA_BYTES = 32, READ_BYTES = 1 << 20 };

static const char magic[8] = {'P', 'G', 'W', 'S', 'N', 'A', 'P', '\n'};

/* As they lie in the file. FORMAT reads as another number on a machine with another byte order. */
struct file_head {
    char magic[8];
    uint32_t format, schema;
    struct snapshot_head head;
};
struct file_foot {
    uint32_t end_mark; /* 0: where a record would have its size */
    uint32_t reserved;
    uint64_t nrecords;
    struct snapshot_foot foot;
};

struct snapshot_writer {
    int fd;
    int lock;        /* held until the writer is freed */
    EVP_MD_CTX *sha; /* owned */
    uint64_t nrecords;
    char *path;      /* owned */
    char *temporary; /* owned */
};

__attribute__((format(printf, 4, 5))) static enum err refuse(struct errmsg *why, enum err e, const char *path,
                                                             const char *format, ...)
{
    char text[160];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args); /* cutting is fine */
    va_end(args);
    errmsg_set(why, 0, 0, "snapshot %s: %s", path, text);
    return e;
}

static EVP_MD_CTX *sha_begin(void)
{
    EVP_MD_CTX *sha = EVP_MD_CTX_new();
    if (sha && EVP_DigestInit_ex(sha, EVP_sha256(), NULL)) return sha;
    EVP_MD_CTX_free(sha);
    return NULL;
}

/* --- writing ---------------------------------------------------------------------------------------- */

static void writer_free(struct snapshot_writer *w)
{
    if (w->fd >= 0) (void)close(w->fd);     /* after a failure, or synchronised already */
    if (w->lock >= 0) (void)close(w->lock); /* drops it; nothing was written */
    EVP_MD_CTX_free(w->sha);
    free(w->path);
    free(w->temporary);
    free(w);
}

void snapshot_abort(struct snapshot_writer *w)
{
    if (!w) return;
    (void)unlink(w->temporary); /* a leftover is overwritten by the next one */
    writer_free(w);
}

static enum err put(struct snapshot_writer *w, const void *p, size_t n, struct errmsg *why)
{
    BUG_IF(EVP_DigestUpdate(w->sha, p, n) != 1, "libcrypto refused SHA-256");
    if (fd_write_all(w->fd, p, n) == ERR_OK) return ERR_OK;
    return refuse(why, ERR_IO, w->temporary, "cannot be written: %s", strerror(errno));
}

/* What is no lock of ours goes: another user's, such as root's who tried something out, or a link. */
static int lock_open(const char *name)
{
    const int flags = O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW;
    int fd = open(name, flags, 0600);
    if (fd < 0 && (errno == EACCES || errno == ELOOP) && unlink(name) == 0) fd = open(name, flags, 0600);
    return fd;
}

/* Two gateways write at once while one takes over from the other: without a lock, one would put the other's
 * unfinished file in place. Errors: ERR_AGAIN, ERR_NOMEM, ERR_IO. */
static enum err writer_lock(struct snapshot_writer *w, const char *path, struct errmsg *why)
{
    char *name = path_with(path, ".lock");
    if (!name) return refuse(why, ERR_NOMEM, path, "out of memory");
    enum err e = ERR_OK;
    w->lock = lock_open(name);
    if (w->lock < 0)
        e = refuse(why, ERR_IO, name, "cannot be made: %s", strerror(errno));
    else if (flock(w->lock, LOCK_EX | LOCK_NB))
        e = errno == EWOULDBLOCK ? refuse(why, ERR_AGAIN, path, "another gateway is writing it")
                                 : refuse(why, ERR_IO, name, "cannot be locked: %s", strerror(errno));
    free(name);
    return e;
}

/* Errors: ERR_AGAIN, ERR_NOMEM, ERR_IO. */
static enum err writer_open(struct snapshot_writer *w, const char *path, struct errmsg *why)
{
    w->path = strdup(path);
    w->temporary = path_with(path, ".tmp");
    w->sha = sha_begin();
    if (!w->path || !w->temporary || !w->sha) return refuse(why, ERR_NOMEM, path, "out of memory");
    enum err e = writer_lock(w, path, why);
    if (e) return e;
    (void)unlink(w->temporary); /* a leftover, whatever its owner and mode */
    w->fd = open(w->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (w->fd >= 0) return ERR_OK;
    return refuse(why, ERR_IO, w->temporary, "cannot be made: %s", strerror(errno));
}

enum err snapshot_create(const char *path, const struct snapshot_head *head, struct snapshot_writer **out,
                         struct errmsg *why)
{
    struct file_head h;
    memset(&h, 0, sizeof h); /* no byte of the file is left to chance */
    memcpy(h.magic, magic, sizeof magic);
    h.format = FORMAT;
    h.schema = REDIS_SCHEMA_VERSION;
    h.head = *head;
    struct snapshot_writer *w = calloc(1, sizeof *w);
    if (!w) return refuse(why, ERR_NOMEM, path, "out of memory");
    w->fd = w->lock = -1;
    enum err e = writer_open(w, path, why);
    if (!e) e = put(w, &h, sizeof h, why);
    if (e) {
        if (w->fd >= 0) (void)unlink(w->temporary); /* else it is not ours */
        writer_free(w);
        return e;
    }
    *out = w;
    return ERR_OK;
}

enum err snapshot_append(struct snapshot_writer *w, struct span records, struct errmsg *why)
{
    struct packed r;
    for (struct span rest = records; rest.n > 0;
         rest = span_of(rest.p + r.bytes, rest.n - r.bytes), w->nrecords++)
        BUG_IF(packed_look(rest, &r, NULL), "half a record was given to the snapshot");
    return put(w, records.p, records.n, why);
}

static enum err finish(struct snapshot_writer *w, const struct snapshot_foot *foot, struct errmsg *why)
{
    struct file_foot f;
    unsigned char sha[EVP_MAX_MD_SIZE];
    memset(&f, 0, sizeof f);
    f.nrecords = w->nrecords;
    f.foot = *foot;
    enum err e = put(w, &f, sizeof f, why);
    if (e) return e;
    BUG_IF(EVP_DigestFinal_ex(w->sha, sha, NULL) != 1, "libcrypto refused SHA-256");
    if (fd_write_all(w->fd, sha, SHA_BYTES) || fsync(w->fd))
        return refuse(why, ERR_IO, w->temporary, "cannot be written: %s", strerror(errno));
    if (rename(w->temporary, w->path))
        return refuse(why, ERR_IO, w->path, "cannot be replaced: %s", strerror(errno));
    (void)path_sync_folder(w->path); /* not every file system can; the file itself is complete */
    return ERR_OK;
}

enum err snapshot_commit(struct snapshot_writer *w, const struct snapshot_foot *foot, struct errmsg *why)
{
    enum err e = finish(w, foot, why);
    if (e) (void)unlink(w->temporary); /* a leftover is overwritten by the next one */
    writer_free(w);
    return e;
}

/* --- reading ---------------------------------------------------------------------------------------- */

struct reader {
    int fd;
    const char *path;
    struct errmsg *why;
    uint64_t left; /* bytes of the file that are not read yet, without the checksum */
    struct bytes buffer;
    size_t at; /* bytes of the buffer that were taken */
};

/* Reads up to `n` bytes more into the buffer. Errors: ERR_IO, ERR_NOMEM, ERR_EOF (nothing is left). */
static enum err read_more(struct reader *r, size_t n)
{
    if (r->left == 0) return ERR_EOF;
    if (n > r->left) n = (size_t)r->left;
    if (bytes_reserve(&r->buffer, n)) return refuse(r->why, ERR_NOMEM, r->path, "out of memory");
    ssize_t got;
    do
        got = read(r->fd, r->buffer.p + r->buffer.n, n);
    while (got < 0 && errno == EINTR);
    if (got <= 0)
        return refuse(r->why, ERR_IO, r->path, "cannot be read: %s", got ? strerror(errno) : "cut off");
    r->buffer.n += (size_t)got;
    r->left -= (uint64_t)got;
    return ERR_OK;
}

/* Opens the file, looks who may write it, and how large it is. */
static enum err open_file(struct reader *r)
{
    struct stat st;
    r->fd = open(r->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* O_NONBLOCK: a FIFO must not hang the start */
    if (r->fd < 0)
        return refuse(r->why, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, r->path, "%s", strerror(errno));
    if (fstat(r->fd, &st)) return refuse(r->why, ERR_IO, r->path, "%s", strerror(errno));
    if (!S_ISREG(st.st_mode)) return refuse(r->why, ERR_PARSE, r->path, "it is no regular file");
    if (st.st_mode & (S_IWGRP | S_IWOTH))
        return refuse(r->why, ERR_PARSE, r->path, "others may write it: make it chmod 600, or remove it");
    size_t least = sizeof(struct file_head) + sizeof(struct file_foot) + SHA_BYTES;
    if ((uint64_t)st.st_size < least)
        return refuse(r->why, ERR_PARSE, r->path, "it is cut off, or no snapshot");
    r->left = (uint64_t)st.st_size - SHA_BYTES;
    return ERR_OK;
}

static bool is_text(const char *p, size_t n)
{
    return memchr(p, 0, n) != NULL;
}

static enum err check_head(const struct reader *r, const struct file_head *h, const char *tag)
{
    const struct snapshot_head *head = &h->head;
    if (memcmp(h->magic, magic, sizeof magic) != 0)
        return refuse(r->why, ERR_PARSE, r->path, "it is no snapshot of this program");
    if (h->format != FORMAT || h->schema != REDIS_SCHEMA_VERSION)
        return refuse(
            r->why, ERR_PARSE, r->path,
            "format %u, schema %u: written by another version of the program, or for another kind of "
            "machine; this one reads format %d, schema %d",
            h->format, h->schema, FORMAT, REDIS_SCHEMA_VERSION);
    if (!is_text(head->nonce, sizeof head->nonce) || !is_text(head->epoch, sizeof head->epoch) ||
        !is_text(head->tag, sizeof head->tag))
        return refuse(r->why, ERR_PARSE, r->path, "it is damaged: a text has no end");
    if (strcmp(head->tag, tag) != 0)
        return refuse(r->why, ERR_PARSE, r->path, "it holds the partners of the tag \"%s\", not of \"%s\"",
                      head->tag, tag);
    return ERR_OK;
}

/* First pass: everything is hashed and compared with the checksum. */
static enum err check_sum(struct reader *r)
{
    unsigned char sum[EVP_MAX_MD_SIZE], stored[SHA_BYTES];
    EVP_MD_CTX *sha = sha_begin();
    if (!sha) return refuse(r->why, ERR_NOMEM, r->path, "out of memory");
    enum err e = ERR_OK;
    while (!e && r->left > 0) {
        r->buffer.n = 0;
        e = read_more(r, READ_BYTES);
        if (!e) BUG_IF(EVP_DigestUpdate(sha, r->buffer.p, r->buffer.n) != 1, "libcrypto refused SHA-256");
    }
    if (!e) BUG_IF(EVP_DigestFinal_ex(sha, sum, NULL) != 1, "libcrypto refused SHA-256");
    EVP_MD_CTX_free(sha);
    if (e) return e;
    if (read(r->fd, stored, sizeof stored) != SHA_BYTES || memcmp(sum, stored, SHA_BYTES) != 0)
        return refuse(r->why, ERR_PARSE, r->path, "it is damaged: its checksum does not match");
    return ERR_OK;
}

/* Makes sure that `n` bytes that were not taken yet are in the buffer. Errors: as read_more(). */
static enum err need_bytes(struct reader *r, size_t n)
{
    if (r->buffer.n - r->at >= n) return ERR_OK;
    if (r->at > 0) { /* what was taken makes room */
        memmove(r->buffer.p, r->buffer.p + r->at, r->buffer.n - r->at);
        r->buffer.n -= r->at;
        r->at = 0;
    }
    while (r->buffer.n < n) {
        enum err e = read_more(r, READ_BYTES);
        if (e == ERR_EOF) return refuse(r->why, ERR_PARSE, r->path, "it is damaged: it ends too early");
        if (e) return e;
    }
    return ERR_OK;
}

static struct span rest_of(const struct reader *r)
{
    return span_of(r->buffer.p + r->at, r->buffer.n - r->at);
}

static enum err read_head(struct reader *r, const char *tag, struct snapshot_head *head)
{
    struct file_head h;
    enum err e = need_bytes(r, sizeof h);
    if (e) return e;
    memcpy(&h, rest_of(r).p, sizeof h);
    e = check_head(r, &h, tag);
    if (e) return e;
    r->at += sizeof h;
    *head = h.head;
    return ERR_OK;
}

static enum err read_foot(struct reader *r, uint64_t nrecords, struct snapshot_foot *foot)
{
    struct file_foot f;
    enum err e = need_bytes(r, sizeof f);
    if (e) return e;
    memcpy(&f, rest_of(r).p, sizeof f);
    r->at += sizeof f;
    if (f.nrecords != nrecords || rest_of(r).n + r->left > 0)
        return refuse(r->why, ERR_PARSE, r->path, "it is damaged: the number of records is wrong");
    *foot = f.foot;
    return ERR_OK;
}

/* Takes one record and hands it over. */
static enum err read_record(struct reader *r, const struct snapshot_sink *sink)
{
    struct packed record;
    size_t need = 0;
    enum err e = packed_look(rest_of(r), &record, &need);
    while (e == ERR_AGAIN) { /* twice at most: the head of the record tells its size */
        e = need_bytes(r, need);
        if (e) return e;
        e = packed_look(rest_of(r), &record, &need);
    }
    if (e) return refuse(r->why, ERR_PARSE, r->path, "it is damaged: a record is malformed");
    r->at += record.bytes;
    struct packed next;
    if (sink->announce && packed_look(rest_of(r), &next, NULL) == ERR_OK) sink->announce(&next, sink->arg);
    e = sink->record(&record, sink->arg);
    if (e) return refuse(r->why, e, r->path, "a record cannot be used: %s", err_text(e));
    return ERR_OK;
}

/* What the foot says of the number of records; it is checked when they have been read. */
static enum err look_ahead(struct reader *r, const struct snapshot_sink *sink)
{
    struct file_foot f;
    off_t at = (off_t)(sizeof(struct file_head) + r->left - sizeof f);
    if (pread(r->fd, &f, sizeof f, at) != (ssize_t)sizeof f)
        return refuse(r->why, ERR_IO, r->path, "%s", strerror(errno));
    if (f.nrecords > r->left / PACKED_HEAD_BYTES)
        return refuse(r->why, ERR_PARSE, r->path, "it is damaged: the number of records is wrong");
    if (sink->begin) sink->begin(f.nrecords, sink->arg);
    return ERR_OK;
}

/* Second pass, over contents that are known to be whole. */
static enum err read_records(struct reader *r, const struct snapshot_sink *sink, struct snapshot_foot *foot)
{
    enum err looked = look_ahead(r, sink);
    if (looked) return looked;
    for (uint64_t nrecords = 0;; nrecords++) {
        uint32_t mark;
        enum err e = need_bytes(r, sizeof mark);
        if (e) return e;
        memcpy(&mark, rest_of(r).p, sizeof mark);
        if (mark == 0) return read_foot(r, nrecords, foot);
        e = read_record(r, sink);
        if (e) return e;
    }
}

static enum err load(struct reader *r, const char *tag, const struct snapshot_sink *sink,
                     struct snapshot_head *head, struct snapshot_foot *foot)
{
    enum err e = open_file(r);
    if (e) return e;
    uint64_t bytes = r->left;
    e = read_head(r, tag, head); /* before the checksum: a foreign file gets a message that says so */
    if (e) return e;
    if (lseek(r->fd, 0, SEEK_SET) != 0) return refuse(r->why, ERR_IO, r->path, "%s", strerror(errno));
    r->left = bytes;
    e = check_sum(r);
    if (e) return e;
    if (lseek(r->fd, sizeof(struct file_head), SEEK_SET) < 0)
        return refuse(r->why, ERR_IO, r->path, "%s", strerror(errno));
    r->left = bytes - sizeof(struct file_head);
    r->buffer.n = r->at = 0;
    return read_records(r, sink, foot);
}

enum err snapshot_load(const char *path, const char *tag, const struct snapshot_sink *sink,
                       struct snapshot_head *head, struct snapshot_foot *foot, struct errmsg *why)
{
    struct reader r = {.fd = -1, .path = path, .why = why};
    enum err e = load(&r, tag, sink, head, foot);
    if (r.fd >= 0) (void)close(r.fd); /* only read from */
    bytes_deinit(&r.buffer);
    return e;
}
