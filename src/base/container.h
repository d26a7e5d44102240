/* container.h - from a member back to the struct that it is embedded in.
 *
 * Example:  struct conn *c = CONTAINER_OF(entry, struct conn, timer);
 *
 * Thread: [any, pure].
 */
#ifndef BASE_CONTAINER_H
#define BASE_CONTAINER_H

#include <stddef.h>

#define CONTAINER_OF(pointer, type, member) ((type *)((char *)(pointer)-offsetof(type, member)))

#endif
