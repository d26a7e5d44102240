#include "proofctl/backend.h"

#include "base/path.h"
#include "proofctl/audit_file.h"
#include "proofctl/claims.h"
#include "proofctl/file_lock.h"
#include "proofctl/file_replace.h"
#include "proofctl/file_snapshot.h"

#include <openssl/evp.h>

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

enum { LOCK_WAIT_MS = 10000 };

struct backend_file {
    struct backend base;           /* first */
    char *path;                    /* owned; without links: the file that is replaced */
    char *lock_path, *audit_path;  /* owned */
    struct file_snapshot snapshot; /* what the last call read */
};

/* A change and the record of the file that it is about. */
struct placed_change {
    const struct backend_change *change;
    const struct partner_file_entry *entry; /* NULL: a new record */
};

static struct backend_file *file_of(struct backend *b)
{
    return (struct backend_file *)(void *)b;
}

__attribute__((format(printf, 3, 4))) static enum err fail(struct backend_file *f, enum err e,
                                                           const char *format, ...)
{
    struct errmsg why;
    va_list args;
    va_start(args, format);
    (void)vsnprintf(why.text, sizeof why.text, format, args); /* truncation is what errmsg promises */
    va_end(args);
    record_messages_add(&f->base.faults, 0, 0, "%s", why.text);
    return e;
}

static enum err fail_missing(struct backend_file *f)
{
    return fail(f, ERR_NOT_FOUND, "does not exist; `proofctl partner add` makes it");
}

/* What to do about an errno of a file of ours. */
static const char *remedy_of(int sys)
{
    if (sys == EACCES) return "; run proofctl as the owner of the partner file, or with sudo";
    return sys == ENOENT ? "; make its folder first" : "";
}

/* --- reading -------------------------------------------------------------------------------------- */

static enum err reload(struct backend_file *f)
{
    f->base.faults = (struct record_messages){0};
    f->base.note[0] = '\0';
    f->base.ncommitted = 0;
    file_snapshot_deinit(&f->snapshot);
    return file_snapshot_read(f->path, &f->snapshot, &f->base.faults);
}

/* Reads the file unless it was read already and is still the same: an import asks for every record of its
 * file. What is only shown may rest on stat(2); a change reads again. */
static enum err refresh(struct backend_file *f)
{
    if (!f->snapshot.exists || !file_snapshot_is_current(&f->snapshot, f->path)) return reload(f);
    f->base.faults = (struct record_messages){0};
    return ERR_OK;
}

static enum err describe(const struct backend_file *f, const struct partner_file_entry *entry,
                         struct backend_record *out)
{
    out->id = partner_file_id(entry);
    out->json = file_snapshot_text(&f->snapshot, entry);
    bool is_done = EVP_Digest(out->json.p, out->json.n, out->version.bytes, NULL, EVP_sha256(), NULL) == 1;
    return is_done ? ERR_OK : ERR_NOMEM;
}

static enum err file_list(struct backend *b, backend_record_fn *on_record, void *arg)
{
    struct backend_file *f = file_of(b);
    enum err e = refresh(f);
    if (!e && !f->snapshot.exists) e = fail_missing(f);
    for (uint32_t i = 0; !e && i < f->snapshot.file.nentries; i++) {
        struct backend_record record;
        e = describe(f, &f->snapshot.file.entries[i], &record);
        if (!e) e = on_record(arg, &record);
    }
    return e;
}

static enum err file_get(struct backend *b, const char *id, struct backend_record *out)
{
    struct backend_file *f = file_of(b);
    enum err e = refresh(f);
    if (e) return e;
    const struct partner_file_entry *entry = file_snapshot_find(&f->snapshot, id);
    return entry ? describe(f, entry, out) : ERR_NOT_FOUND;
}

static enum err file_get_many(struct backend *b, const char *const *ids, size_t n, backend_found_fn *on_found,
                              void *arg)
{
    enum err e = ERR_OK;
    for (size_t i = 0; !e && i < n; i++) {
        struct backend_record record;
        e = file_get(b, ids[i], &record);
        if (!e || e == ERR_NOT_FOUND) e = on_found(arg, i, e ? NULL : &record);
    }
    return e;
}

/* --- changing ------------------------------------------------------------------------------------- */

/* Finds the record of one change and compares it with what the change was made from. */
static enum err place_change(struct backend_file *f, const struct backend_change *change,
                             struct placed_change *placed)
{
    struct backend_record now;
    *placed = (struct placed_change){change, file_snapshot_find(&f->snapshot, change->id)};
    if (!change->expected)
        return placed->entry
                   ? fail(f, ERR_EXISTS, "there is a partner \"%s\" already; choose another --id", change->id)
                   : ERR_OK;
    if (!placed->entry)
        return fail(f, ERR_CONFLICT, "somebody else has removed \"%s\" meanwhile; nothing was changed",
                    change->id);
    enum err e = describe(f, placed->entry, &now);
    if (e) return e;
    if (memcmp(&now.version, change->expected, sizeof now.version) == 0) return ERR_OK;
    return fail(f, ERR_CONFLICT,
                "somebody else has changed \"%s\" meanwhile; nothing was changed: look at it and try again",
                change->id);
}

static int compare_placed(const void *a, const void *b)
{
    const struct placed_change *x = a, *y = b;
    unsigned line_x = x->entry ? x->entry->line : UINT_MAX, line_y = y->entry ? y->entry->line : UINT_MAX;
    if (line_x != line_y) return line_x < line_y ? -1 : 1;
    return (x->change > y->change) - (x->change < y->change); /* new records in the order of the call */
}

static enum err place_changes(struct backend_file *f, const struct backend_change *changes, size_t n,
                              struct placed_change *placed)
{
    uint32_t left = f->snapshot.file.nentries;
    for (size_t i = 0; i < n; i++) {
        enum err e = place_change(f, &changes[i], &placed[i]);
        if (e) return e;
        left = left + !changes[i].expected - !changes[i].json.p;
    }
    if (left == 0)
        return fail(f, ERR_RANGE,
                    "a gateway takes a file without partners for an accident and keeps the old ones; "
                    "`proofctl partner disable` the last partner instead of removing it");
    qsort(placed, n, sizeof *placed, compare_placed);
    return ERR_OK;
}

static void write_line(FILE *out, struct span line)
{
    (void)fwrite(line.p, 1, line.n, out); /* a failure stays in the stream: file_replace_sync() reports it */
    (void)putc('\n', out);
}

/* The old lines in their order, byte for byte but for those that change, then the new ones. */
static void write_lines(const struct file_snapshot *s, const struct placed_change *placed, size_t n,
                        FILE *out)
{
    size_t next = 0;
    for (uint32_t i = 0; i < s->nlines; i++) {
        bool is_changed = next < n && placed[next].entry && placed[next].entry->line == i + 1;
        struct span line = is_changed ? placed[next++].change->json : s->lines[i];
        if (line.p) write_line(out, line);
    }
    for (; next < n; next++)
        write_line(out, placed[next].change->json);
}

/* The gateway's own reader must take what was written, read back from the disk. */
static enum err check_written(struct backend_file *f, const char *path)
{
    struct file_snapshot written;
    enum err e = file_snapshot_read(path, &written, &f->base.faults);
    for (uint32_t i = 0; i < f->base.faults.n; i++)
        f->base.faults.list[i].line = 0; /* lines of a file that nobody will see */
    file_snapshot_deinit(&written);
    return e == ERR_PARSE ? ERR_RANGE : e;
}

static enum err append_audit(struct backend_file *f, struct audit_file *audit,
                             const struct backend_change *changes, size_t n)
{
    char *text = NULL;
    size_t size = 0;
    FILE *memory = open_memstream(&text, &size);
    if (!memory) return ERR_NOMEM;
    for (size_t i = 0; i < n; i++)
        write_line(memory, changes[i].audit);
    enum err e = fclose(memory) ? ERR_NOMEM : ERR_OK;
    if (!e && audit_file_append(audit, span_of(text, size)))
        e = fail(f, ERR_IO, "nothing was changed, because the audit (%s) cannot be written: %s",
                 f->audit_path, strerror(errno));
    free(text);
    return e;
}

/* Audit first, then the file: there is no change without its line. */
static enum err put_in_force(struct backend_file *f, struct file_replace *new_file,
                             const struct backend_change *changes, size_t n)
{
    struct audit_file audit;
    struct errmsg why;
    bool is_durable = true;
    struct stat st = {.st_uid = geteuid(), .st_gid = getegid()};
    if (f->snapshot.exists) st = f->snapshot.st;
    if (audit_file_open(&audit, f->audit_path, st.st_uid, st.st_gid))
        return fail(f, ERR_IO, "nothing was changed, because the audit (%s) cannot be opened: %s",
                    f->audit_path, strerror(errno));
    enum err e = append_audit(f, &audit, changes, n);
    if (!e && !file_snapshot_is_current(&f->snapshot, f->path)) {
        e = fail(f, ERR_CONFLICT,
                 "another program has changed the file meanwhile; nothing was changed: try again");
        (void)audit_file_take_back(&audit); /* at worst a line too many */
    }
    if (!e && file_replace_commit(new_file, &is_durable, &why)) {
        e = fail(f, ERR_IO, "%s", why.text);
        (void)audit_file_take_back(&audit);
    }
    audit_file_close(&audit);
    if (!e) f->base.ncommitted = n;
    if (!e && !is_durable)
        (void)snprintf(
            f->base.note, sizeof f->base.note,
            "the change is in force, but the disk has not confirmed it: it may be lost in a power failure");
    else if (!e && !f->snapshot.exists)
        (void)snprintf(f->base.note, sizeof f->base.note, "%.200s did not exist and was made", f->path);
    return e;
}

static enum err replace(struct backend_file *f, const struct placed_change *placed,
                        const struct backend_change *changes, size_t n)
{
    struct file_replace new_file;
    struct errmsg why = {0};
    enum err e = file_replace_begin(&new_file, f->path, f->snapshot.exists ? &f->snapshot.st : NULL, &why);
    if (e) return e == ERR_IO ? fail(f, e, "%s", why.text) : e;
    write_lines(&f->snapshot, placed, n, new_file.out);
    if (file_replace_sync(&new_file, &why)) e = fail(f, ERR_IO, "%s; nothing was changed", why.text);
    if (!e) e = check_written(f, new_file.temporary);
    if (!e) e = put_in_force(f, &new_file, changes, n);
    file_replace_abort(&new_file);
    return e;
}

static enum err commit_locked(struct backend_file *f, const struct backend_change *changes, size_t n)
{
    enum err e = reload(f);
    if (!e) e = claims_try(&f->base, changes, n); /* it names the partners; the reader knows lines only */
    if (e) return e;
    struct placed_change *placed = calloc(n, sizeof *placed);
    if (!placed) return ERR_NOMEM;
    e = place_changes(f, changes, n, placed);
    if (!e) e = replace(f, placed, changes, n);
    free(placed);
    return e;
}

static enum err file_commit(struct backend *b, const struct backend_change *changes, size_t n)
{
    struct backend_file *f = file_of(b);
    sigset_t all, before;
    struct stat st;
    int lock;
    b->faults = (struct record_messages){0};
    if (stat(f->path, &st)) st = (struct stat){.st_uid = geteuid(), .st_gid = getegid()};
    enum err e = file_lock_take(f->lock_path, st.st_uid, st.st_gid, LOCK_WAIT_MS, &lock);
    if (e == ERR_TIMEOUT)
        return fail(f, e, "another proofctl has been writing for %d s; try again", LOCK_WAIT_MS / 1000);
    if (e) return fail(f, e, "cannot be locked (%s): %s%s", f->lock_path, strerror(errno), remedy_of(errno));
    /* Ctrl-C between the line in the audit and the change would leave one without the other. */
    (void)sigfillset(&all);
    (void)sigprocmask(SIG_BLOCK, &all, &before); /* cannot fail with these arguments */
    e = commit_locked(f, changes, n);
    (void)sigprocmask(SIG_SETMASK, &before, NULL);
    file_lock_release(lock);
    return e;
}

/* --- audit, life ---------------------------------------------------------------------------------- */

static enum err file_audit(struct backend *b, uint64_t limit, backend_line_fn *on_line, void *arg)
{
    struct backend_file *f = file_of(b);
    b->faults = (struct record_messages){0};
    if (access(f->path, F_OK) && errno == ENOENT && access(f->audit_path, F_OK)) return fail_missing(f);
    enum err e = audit_file_tail(f->audit_path, limit, on_line, arg);
    if (e != ERR_IO) return e;
    return fail(f, e, "the audit (%s) cannot be read: %s%s", f->audit_path, strerror(errno),
                remedy_of(errno));
}

static void file_close(struct backend *b)
{
    struct backend_file *f = file_of(b);
    file_snapshot_deinit(&f->snapshot);
    free(f->audit_path);
    free(f->lock_path);
    free(f->path);
    free(f);
}

static const struct backend_ops file_ops = {
    .list = file_list,
    .get = file_get,
    .get_many = file_get_many,
    .commit = file_commit,
    .audit = file_audit,
    .close = file_close,
};

/* The file behind links, so that a link is not replaced by a file and every way to it has the same lock. */
static enum err resolve(const char *path, char **out, struct errmsg *why)
{
    struct stat st;
    *out = realpath(path, NULL);
    if (*out) return ERR_OK;
    if (errno != ENOENT) {
        errmsg_set(why, 0, 0, "%s: cannot be opened: %s", path, strerror(errno));
        return ERR_IO;
    }
    if (lstat(path, &st) == 0) {
        errmsg_set(why, 0, 0, "%s: is a link to a file that does not exist", path);
        return ERR_IO;
    }
    *out = strdup(path);
    return *out ? ERR_OK : ERR_NOMEM;
}

enum err backend_file_open(const char *path, struct backend **out, struct errmsg *why)
{
    struct backend_file *f = calloc(1, sizeof *f);
    if (!f) return ERR_NOMEM;
    enum err e = resolve(path, &f->path, why);
    if (!e) {
        f->lock_path = path_with(f->path, ".lock");
        f->audit_path = path_with(f->path, ".audit");
        if (!f->lock_path || !f->audit_path) e = ERR_NOMEM;
    }
    f->base.ops = &file_ops;
    f->base.place = f->path;
    if (e) {
        file_close(&f->base);
        return e;
    }
    *out = &f->base;
    return ERR_OK;
}
