#include "base/path.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char *path_with(const char *path, const char *suffix)
{
    char *joined;
    return asprintf(&joined, "%s%s", path, suffix) < 0 ? NULL : joined;
}

char *path_folder(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash) return strdup(".");
    return slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
}

int path_open_folder(const char *path)
{
    char *folder = path_folder(path);
    if (!folder) return -1;
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(folder);
    return fd;
}

enum err path_sync_folder(const char *path)
{
    int fd = path_open_folder(path);
    if (fd < 0) return ERR_IO;
    int failed = fsync(fd);
    (void)close(fd); /* only synchronised */
    return failed ? ERR_IO : ERR_OK;
}
