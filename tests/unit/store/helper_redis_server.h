/* helper_redis_server.h - a real redis-server for one test: in a folder of its own, on a unix socket, with
 * users. */
#ifndef STORE_HELPER_REDIS_SERVER_H
#define STORE_HELPER_REDIS_SERVER_H

#include "support/folder.h"
#include "net/socket.h"

#include <stdbool.h>
#include <sys/types.h>

struct redis_server {
    char folder[FOLDER_PATH_MAX];
    struct socket_address address;
    pid_t pid; /* 0 = not running */
};

/* There is a redis-server in PATH. */
bool redis_server_is_installed(void);

/* Starts it with `settings`, lines of a redis.conf besides those for folder and socket, and waits until it
 * answers. It dies with the test. */
void redis_server_start(struct redis_server *s, const char *settings);

/* The same program as a Sentinel. */
void redis_server_start_sentinel(struct redis_server *s, const char *settings);

/* kill -9, and waits until it is gone. The folder stays. */
void redis_server_kill(struct redis_server *s);

/* Kills it when it still runs, removes the folder. */
void redis_server_remove(struct redis_server *s);

#endif
