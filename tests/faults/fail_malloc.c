/* fail_malloc.c - linked into the executable proofgw-faults only (ld --wrap): lets the gateway's own
 * allocations fail.
 *
 * GW_FAIL_EVERY=N: while switched on, each Nth allocation of a thread returns NULL. SIGRTMIN switches on and
 * off. Allocations of libraries are not touched: libuv, for one, aborts when it gets none.
 */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);

static atomic_bool is_on;
static unsigned long every;

static bool fails(void)
{
    static _Thread_local unsigned long count;
    if (!atomic_load_explicit(&is_on, memory_order_relaxed) || ++count % every) return false;
    errno = ENOMEM;
    return true;
}

void *__wrap_malloc(size_t n)
{
    return fails() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
    return fails() ? NULL : __real_realloc(p, n);
}

static void on_switch(int number)
{
    (void)number;
    atomic_store(&is_on, !atomic_load(&is_on));
}

__attribute__((constructor)) static void begin(void)
{
    const char *text = getenv("GW_FAIL_EVERY");
    every = text ? strtoul(text, NULL, 10) : 0;
    if (every == 0) abort(); /* this executable is for the test that sets it */
    struct sigaction action = {.sa_handler = on_switch, .sa_flags = SA_RESTART};
    (void)sigaction(SIGRTMIN, &action, NULL);
}
