/* helper_config.h - loading configurations from text in tests. */
#ifndef HELPER_CONFIG_H
#define HELPER_CONFIG_H

#include "config/config.h"

/* A configuration that has what is required and nothing else. */
#define CONFIG_REQUIRED                                                                                      \
    "listeners: [{address: \"127.0.0.1:8080\"}]\n"                                                           \
    "environments: {production: {hosts: [api.example.com], upstream: \"127.0.0.1:9000\"}}\n"                 \
    "store: {file: partners.ndjson}\n"

/* Loads `text` as the file `path`; NULL: the file itself. `*report`: what was said about it; the caller frees
 * it. */
enum err load_reporting(const char *path, const char *text, struct config **out, char **report);

/* Loads `text` as /etc/proofgw/gateway.yaml, which must be right. Owns: the caller, config_unref(). */
struct config *load_good(const char *text);

/* Loads `text`, which must be refused. Returns the report; the caller frees it. */
char *load_bad(const char *text);

/* The text is refused with a report that contains `expected`. */
void assert_refused(const char *text, const char *expected);

#endif
