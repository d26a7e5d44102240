#include "proofctl/file_replace.h"

#include "base/path.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { MODE_NEW = 0640, ACL_BYTES_MAX = 4096 };

static const char acl_name[] = "system.posix_acl_access";

static enum err fail(struct errmsg *why, const char *what)
{
    int reason = errno;
    errmsg_set(why, 0, 0, "%s: %s", what, strerror(reason));
    errno = reason;
    return ERR_IO;
}

/* A list of access rights beyond the mode is part of who may read the file. */
static enum err copy_acl(int fd, const char *from, struct errmsg *why)
{
    char acl[ACL_BYTES_MAX];
    ssize_t n = getxattr(from, acl_name, acl, sizeof acl);
    if (n < 0 && (errno == ENODATA || errno == ENOTSUP)) return ERR_OK; /* there is none */
    if (n < 0 || fsetxattr(fd, acl_name, acl, (size_t)n, 0))
        return fail(why, "the access control list cannot be kept");
    return ERR_OK;
}

static enum err copy_rights(int fd, const char *path, const struct stat *like, struct errmsg *why)
{
    struct stat own;
    if (fstat(fd, &own)) return fail(why, "cannot be written");
    if ((own.st_uid != like->st_uid || own.st_gid != like->st_gid) &&
        fchown(fd, like->st_uid, like->st_gid)) {
        errmsg_set(why, 0, 0,
                   "belongs to another user or group (%u:%u); run proofctl as that user, or as root",
                   (unsigned)like->st_uid, (unsigned)like->st_gid);
        return ERR_IO;
    }
    if (fchmod(fd, like->st_mode & 07777)) return fail(why, "its mode cannot be kept");
    return copy_acl(fd, path, why);
}

/* The first version of a file: for whoever may use its folder. Should that not be possible, the operator's
 * own group is as good a guess. */
static void choose_group(int fd, const char *path)
{
    struct stat folder;
    int folder_fd = path_open_folder(path);
    if (folder_fd < 0) return;
    if (fstat(folder_fd, &folder) == 0 && fchown(fd, (uid_t)-1, folder.st_gid)) errno = 0;
    (void)close(folder_fd); /* only looked at */
}

enum err file_replace_begin(struct file_replace *r, const char *path, const struct stat *like,
                            struct errmsg *why)
{
    *r = (struct file_replace){.path = path, .temporary = path_with(path, ".tmp")};
    if (!r->temporary) return ERR_NOMEM;
    (void)unlink(r->temporary); /* left by a writer that was killed; if it stays, the next line says so */
    int fd = open(r->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    enum err e = fd < 0 ? fail(why, "no file can be made beside it") : ERR_OK;
    if (!e && like) e = copy_rights(fd, path, like, why);
    if (!e && !like) {
        choose_group(fd, path);
        if (fchmod(fd, MODE_NEW)) e = fail(why, "its mode cannot be set");
    }
    if (!e) r->out = fdopen(fd, "w");
    if (!e && !r->out) e = ERR_NOMEM;
    if (!e) return ERR_OK;
    if (fd >= 0) {
        (void)close(fd); /* is removed anyway */
        file_replace_abort(r);
    } else {
        free(r->temporary);
        *r = (struct file_replace){0};
    }
    return e;
}

enum err file_replace_sync(struct file_replace *r, struct errmsg *why)
{
    bool is_bad = ferror(r->out) || fflush(r->out) || fsync(fileno(r->out));
    int reason = errno;
    if (fclose(r->out) && !is_bad) {
        is_bad = true;
        reason = errno;
    }
    r->out = NULL;
    errno = reason;
    return is_bad ? fail(why, "cannot be written") : ERR_OK;
}

enum err file_replace_commit(struct file_replace *r, bool *is_durable, struct errmsg *why)
{
    if (rename(r->temporary, r->path)) return fail(why, "cannot be replaced");
    *is_durable = path_sync_folder(r->path) == ERR_OK;
    free(r->temporary);
    *r = (struct file_replace){0};
    return ERR_OK;
}

void file_replace_abort(struct file_replace *r)
{
    if (!r->temporary) return;
    if (r->out) (void)fclose(r->out); /* is removed anyway */
    (void)unlink(r->temporary);       /* what stays is removed by the next writer */
    free(r->temporary);
    *r = (struct file_replace){0};
}
