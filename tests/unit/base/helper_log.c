#include "helper_log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

enum { WAIT_STEPS = 10000, WAIT_STEP_NS = 1000000 };

int log_files_setup(void **state)
{
    struct log_files *f = calloc(1, sizeof *f);
    assert_non_null(f);
    folder_make(f->folder);
    (void)snprintf(f->ops, sizeof f->ops, "%s/ops.log", f->folder);
    (void)snprintf(f->access, sizeof f->access, "%s/access.log", f->folder);
    *state = f;
    return 0;
}

int log_files_teardown(void **state)
{
    struct log_files *f = *state;
    folder_remove(f->folder);
    free(f);
    return 0;
}

void start_log(const char *ops, const char *access, size_t ring_bytes)
{
    struct errmsg why;
    struct log_options o = {
        .ops_path = ops, .access_path = access, .level = LOG_INFO, .ring_bytes = ring_bytes};
    if (log_start(&o, &why)) fail_msg("%s", why.text);
}

void access_line(const char *text)
{
    char *room = log_access_reserve(strlen(text));
    assert_non_null(room);
    memcpy(room, text, strlen(text));
    log_access_commit(strlen(text));
}

unsigned lines_count(const char *text)
{
    unsigned n = 0;
    while ((text = strchr(text, '\n')))
        n++, text++;
    return n;
}

void wait_until(bool (*is_true)(void *), void *arg, const char *what)
{
    for (int i = 0; i < WAIT_STEPS; i++) {
        if (is_true(arg)) return;
        nanosleep(&(struct timespec){.tv_nsec = WAIT_STEP_NS}, NULL);
    }
    fail_msg("gave up waiting: %s", what);
}

bool file_has(void *wanted)
{
    const struct wanted *w = wanted;
    char *text = file_text(w->path);
    bool has = strstr(text, w->text);
    free(text);
    return has;
}

void wait_for_text(const char *path, const char *text)
{
    wait_until(file_has, &(struct wanted){path, text}, text);
}
