/* config.h - the configuration of a process: immutable once loaded.
 *
 * Each field is one row of the schema table (schema.c): name, type, unit, range, default, help. The loader,
 * `proofgw check`, conf/gateway.yaml and docs/CONFIG.md all come from that table. Comments here only say
 * what the code needs to know; the help text is in the table.
 *
 * Thread: config_load [control]; a loaded configuration is read by every thread.
 */
#ifndef CONFIG_CONFIG_H
#define CONFIG_CONFIG_H

#include "base/outbuf.h"
#include "config/endpoint.h"
#include "http/head.h"
#include "policy/cidr.h"
#include "policy/partner.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>

enum {
    CONFIG_WORKERS_MAX = 256,
    CONFIG_LISTENERS_MAX = 16,
    CONFIG_HOSTS_MAX = 64,
    CONFIG_FIELDS_MAX = 64,
    CONFIG_SENTINELS_MAX = 16,
    CONFIG_CERTIFICATES_MAX = 64,
    CONFIG_NETWORKS_MAX = 64,
};

enum store_kind { STORE_FILE = 0, STORE_REDIS };

/* Whether clients show a certificate of their own. */
enum client_certificates {
    CLIENT_CERTIFICATES_OFF = 0,
    CLIENT_CERTIFICATES_OPTIONAL,
    CLIENT_CERTIFICATES_REQUIRED
};

struct config_listener {
    struct endpoint address;
    int32_t backlog;
    bool tls;
    enum client_certificates client_certificates; /* tls only */
    char *client_ca_file;                         /* who may have signed them; NULL = none; owned */
    bool proxy_protocol;                          /* a PROXY header comes first */
    bool forwarded_for;                           /* X-Forwarded-For of trusted proxies is believed */
    bool shield; /* connections whose source is in no partner's list are dropped unanswered */
    char *trusted_proxies[CONFIG_NETWORKS_MAX]; /* text of trusted[]; owned */
    struct cidr trusted[CONFIG_NETWORKS_MAX];
    uint32_t ntrusted;
};

/* One certificate of the gateway. */
struct config_certificate {
    char *chain_file; /* PEM: the certificate, then its intermediates; owned */
    char *key_file;   /* PEM; owned */
};

enum tls_minimum { TLS_MINIMUM_1_2 = 0, TLS_MINIMUM_1_3 };
enum tls_unknown_names { TLS_UNKNOWN_NAMES_REFUSE = 0, TLS_UNKNOWN_NAMES_FIRST };

/* The gateway as a TLS server, for all listeners with `tls`. */
struct config_tls {
    struct config_certificate certificates[CONFIG_CERTIFICATES_MAX];
    uint32_t ncertificates;
    enum tls_minimum minimum;
    enum tls_unknown_names unknown_names; /* SNI that no certificate has */
    char *ticket_keys_file;               /* NULL = random keys of this process; owned */
    uint64_t ticket_rotation_ms;          /* of the random keys */
};

/* The gateway as a TLS client. */
struct config_tls_client {
    bool enabled;
    char *ca_file;          /* NULL = the system's; owned */
    char *server_name;      /* name that the certificate must have; NULL = that of the address; owned */
    char *certificate_file; /* own certificate; NULL = none; owned */
    char *key_file;         /* its key; owned */
};

struct config_environment {
    bool present;                  /* the environment is configured */
    char *hosts[CONFIG_HOSTS_MAX]; /* lower case, without port; owned */
    uint32_t nhosts;
    struct endpoint upstream;
    struct config_tls_client upstream_tls;
};

struct config_identity {
    bool pass_authorization;         /* forward the client's Authorization field */
    char *remove[CONFIG_FIELDS_MAX]; /* further request fields to remove, lower case; owned */
    uint32_t nremove;
};

struct config_limits {
    uint64_t head_bytes;   /* request head, CRLF CRLF included */
    uint32_t header_count; /* fields of one head, 1..HTTP_FIELDS_MAX */
    uint64_t target_bytes;
    uint64_t body_bytes;              /* request body data */
    uint64_t chunk_extension_bytes;   /* of one body */
    uint64_t trailer_bytes;           /* of one body */
    uint64_t pipelined_bytes;         /* received ahead of the current exchange */
    uint64_t requests_per_connection; /* 0 = no limit */
    uint32_t connections_per_worker;
    uint32_t connections_per_source; /* of one address, at all workers together; 0 = no limit */
    uint32_t tunnels_per_worker;
    /* Of one partner, by all workers together; 0 = no limit. */
    uint32_t rate_per_partner;        /* requests per second */
    uint32_t burst_per_partner;       /* requests let in at once; 0 = rate_per_partner */
    uint32_t concurrency_per_partner; /* requests under way */
    uint32_t tunnels_per_partner;
    uint32_t tls_handshakes_per_worker; /* going on at the same time */
    uint64_t response_head_bytes;
    uint32_t upstream_connections;      /* per worker and environment, tunnels included */
    uint32_t upstream_idle_connections; /* kept for reuse, per worker and environment */
    uint32_t upstream_waiting;          /* exchanges waiting for a connection, per worker and environment */
    uint64_t buffer_bytes;              /* shared read buffer of a worker, 64 KiB..1 MiB */
    uint64_t splice_bytes;              /* what must be left of an answer's body for splice(); 0 = never */
};

struct config_timeouts {             /* all milliseconds */
    uint64_t proxy_header_ms;        /* accept to the end of a PROXY header */
    uint64_t tls_handshake_ms;       /* accept, or end of the PROXY header, to the end of the handshake */
    uint64_t request_head_ms;        /* first byte of a head to its last */
    uint64_t request_body_ms;        /* grace before the minimum rate applies */
    uint64_t request_body_rate;      /* bytes per second */
    uint64_t keep_alive_ms;          /* idle between requests; also accept to first byte */
    uint64_t upstream_connect_ms;    /* waiting for a connection and connecting */
    uint64_t upstream_response_ms;   /* request sent to first byte of the final answer */
    uint64_t upstream_idle_ms;       /* between two bytes of an answer, or no progress sending the request */
    uint64_t upstream_keep_alive_ms; /* idle pooled connection */
    uint64_t client_write_ms;        /* no progress sending to the client */
    uint64_t tunnel_idle_ms;         /* no byte in either direction */
    uint64_t linger_ms;              /* reading on after an answer that closes */
    uint64_t drain_delay_ms;         /* SIGTERM: not ready, but still accepting */
    uint64_t drain_keep_alive_ms;    /* draining: idle connections wait for one more request */
    uint64_t drain_tunnels_ms;       /* tunnels are closed evenly over this time */
    uint64_t shutdown_ms;            /* SIGTERM: finishing what is in flight */
    uint64_t upgrade_ms;             /* SIGUSR2: until the new process serves */
};

struct config_fields {
    enum alias_policy alias;                /* names with '_' or '.': drop, reject, allow */
    char *alias_allowed[CONFIG_FIELDS_MAX]; /* lower case; owned */
    struct span alias_allowed_spans[CONFIG_FIELDS_MAX];
    uint32_t nalias_allowed;
};

/* One Redis Sentinel. */
struct config_sentinel {
    struct endpoint address;
};

/* STORE_REDIS. The server is named directly, or asked for at the Sentinels. */
struct config_redis {
    struct endpoint address; /* ENDPOINT_NONE = ask the Sentinels */
    char *sentinel_master;   /* its name there; NULL = no Sentinels; owned */
    struct config_sentinel sentinels[CONFIG_SENTINELS_MAX];
    uint32_t nsentinels;
    char *sentinel_user;          /* NULL = the default user; owned */
    char *sentinel_password_file; /* NULL = no password; read at each connect; owned */
    struct config_tls_client tls; /* to the servers and to the Sentinels */
    char *user;                   /* NULL = the default user; owned */
    char *password_file;          /* NULL = no password; read at each connect; owned */
    char *tag;                    /* the part of every key in braces; owned */
    uint64_t connect_timeout_ms;
    uint64_t command_timeout_ms;
    uint64_t max_staleness_ms; /* 0 = without limit */
    uint32_t deletion_limit;   /* percent of the partners that a resynchronisation may drop */
    uint64_t scrub_interval_ms;
};

struct config_store {
    enum store_kind kind;
    char *file; /* STORE_FILE: partners.ndjson; owned; relative to the configuration's folder */
    struct config_redis redis; /* STORE_REDIS */
    char *snapshot;            /* STORE_REDIS: copy for a start without Redis; NULL = none; owned */
};

struct config_logs {
    char *access;     /* "stdout", "off" or a file; owned */
    char *operations; /* "stderr" or a file; owned */
    char *level;      /* debug, info, warn, error; owned */
    uint64_t ring_bytes;
};

struct config_admin {
    struct endpoint address; /* ENDPOINT_NONE = no admin listener; loopback or unix only */
    char *control_socket;    /* "auto", or a path; NULL = none; owned */
};

struct config {
    _Atomic uint32_t refs; /* config_ref(), config_unref() */
    char *path;            /* of the file; owned */
    uint8_t digest[32];    /* SHA-256 of its content */
    uint32_t workers; /* resolved: "auto" is the number of processors available, at most CONFIG_WORKERS_MAX */
    uint32_t nlisteners;
    struct config_listener listeners[CONFIG_LISTENERS_MAX];
    bool reload_on_change;
    struct config_tls tls;
    struct config_environment environments[ENV_COUNT];
    struct config_identity identity;
    struct config_fields fields;
    struct config_limits limits;
    struct config_timeouts timeouts;
    struct config_store store;
    struct config_logs logs;
    struct config_admin admin;
};

/* Reads and checks a configuration file. All errors of one run are written to `report`
 * (FILE:LINE:COLUMN: error: ..., the line, a caret, what was expected, "did you mean").
 * Relative file names in it are relative to its folder.
 * Owns: the caller, one reference.
 * Errors: ERR_PARSE (something was reported), ERR_IO (the file cannot be read; reported), ERR_NOMEM. */
enum err config_load(const char *path, struct config **out, FILE *report);

/* Reads the whole file, but at most one byte more than a configuration may have. A pipe can keep its reader
 * waiting for ever: it is read only if this one `may_wait`. Owns: the caller frees. Errors: ERR_IO, ERR_NOMEM
 * (reported). */
enum err config_read(const char *path, bool may_wait, char **bytes, size_t *n, FILE *report);

/* The same with the content of the file in memory; `path` is for messages and for relative names. */
enum err config_load_text(const char *path, struct span text, struct config **out, FILE *report);

/* Takes a reference, for another generation with the same configuration. Returns `c`. Any thread. */
struct config *config_ref(struct config *c);

/* Gives a reference back; the last one frees. Any thread. NULL is allowed. */
void config_unref(struct config *c);

/* Reads admin.control_socket from a file that may be faulty elsewhere: an operator who is mending it still
 * has to reach the running gateway. Writes "" for none. Errors: ERR_IO, ERR_NOMEM, ERR_RANGE (longer than
 * `cap`). */
enum err config_peek_control_socket(const char *path, char *out, size_t cap);

/* SHA-256 of the content of a file, as in struct config. Errors: ERR_NOMEM. */
enum err config_digest(struct span text, uint8_t digest[static 32]);

/* The environment that serves this host (lower or upper case, no port); false when none does. */
bool config_find_host(const struct config *c, struct span host, enum environment *env);

/* Whom the certificate of a server must be for: the configured name, else the `name` that it is reached by,
 * or its `address` when `name` is NULL. */
void config_tls_host(const struct config_tls_client *tls, const char *name, const struct addr *address,
                     char out[static ENDPOINT_HOST_BYTES]);

/* docs/CONFIG.md and conf/gateway.yaml, from the schema table. */
void config_reference_markdown(FILE *out);
void config_reference_yaml(FILE *out);

#endif
