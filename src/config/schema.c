#include "config/schema.h"

#include "config/config.h"
#include "config/suggest.h"

#define KIB ((uint64_t)1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

#define SECOND ((uint64_t)1000)
#define MINUTE (60 * SECOND)
#define HOUR   (60 * MINUTE)
#define DAY    (24 * HOUR)

/* One tick of the timer wheel: a shorter time would be rounded up to it. */
#define TICK_MS ((uint64_t)100)

#define MEMBER(type, member)        .offset = offsetof(type, member), .size = sizeof(((type *)0)->member)
#define FIELD(member)               MEMBER(struct config, member)
#define COUNTED_BY(member)          .count_offset = offsetof(struct config, member)
#define LISTENER_FIELD(member)      MEMBER(struct config_listener, member)
#define SENTINEL_FIELD(member)      MEMBER(struct config_sentinel, member)
#define CERTIFICATE_FIELD(member)   MEMBER(struct config_certificate, member)
#define LISTENER_COUNTED_BY(member) .count_offset = offsetof(struct config_listener, member)
#define RANGE(from, to)             .min = (from), .max = (to)
#define RELOAD                      .change = CHANGE_RELOAD
#define RESTART                     .change = CHANGE_RESTART

static const char *const auto_word[] = {"auto", NULL};
static const char *const off_word[] = {"off", NULL};
static const char *const alias_words[] = {
    [ALIAS_DROP] = "drop", [ALIAS_REJECT] = "reject", [ALIAS_ALLOW] = "allow", NULL};
static const char *const none_word[] = {"none", NULL};
static const char *const store_words[] = {[STORE_FILE] = "file", [STORE_REDIS] = "redis", NULL};
static const char *const access_words[] = {"stdout", "stderr", "off", NULL};
static const char *const operations_words[] = {"stderr", "stdout", NULL};
static const char *const level_words[] = {"debug", "info", "warn", "error", NULL};

static const char *const client_certificates_words[] = {[CLIENT_CERTIFICATES_OFF] = "off",
                                                        [CLIENT_CERTIFICATES_OPTIONAL] = "optional",
                                                        [CLIENT_CERTIFICATES_REQUIRED] = "required",
                                                        NULL};
static const char *const tls_minimum_words[] = {[TLS_MINIMUM_1_2] = "1.2", [TLS_MINIMUM_1_3] = "1.3", NULL};
static const char *const unknown_names_words[] = {
    [TLS_UNKNOWN_NAMES_REFUSE] = "refuse", [TLS_UNKNOWN_NAMES_FIRST] = "first", NULL};
static const char *const control_socket_words[] = {"none", "auto", NULL};

/* clang-format off */

/* The same five keys wherever the gateway is a TLS client. */
#define TLS_CLIENT_KEYS(section, member, moment, what)                                                       \
    {section, SCHEMA_SECTION, moment, .help = "TLS to " what "."},                                           \
    {section ".enabled", SCHEMA_BOOL, moment, FIELD(member.enabled), .value = "false",                       \
     .help = "Speak TLS (1.2 or 1.3), and check certificate and name."},                                     \
    {section ".ca_file", SCHEMA_PATH, moment, FIELD(member.ca_file), .words = none_word, .value = "none",    \
     .help = "PEM file of the authorities that may have signed the certificate. none = the system's."},      \
    {section ".server_name", SCHEMA_NAME, moment, FIELD(member.server_name), .words = none_word,             \
     .value = "none",                                                                                        \
     .help = "The name that the certificate must have. none = the name or address that is connected to."},   \
    {section ".certificate_file", SCHEMA_PATH, moment, FIELD(member.certificate_file), .words = none_word,   \
     .value = "none",                                                                                        \
     .help = "PEM chain that the gateway shows, where the other side asks for one. none = it has none."},    \
    {section ".key_file", SCHEMA_PATH, moment, FIELD(member.key_file), .words = none_word, .value = "none",  \
     .help = "PEM key of certificate_file."}

const struct schema_key schema_keys[] = {
    {"workers", SCHEMA_COUNT, RESTART, FIELD(workers), RANGE(1, CONFIG_WORKERS_MAX), .words = auto_word,
     .value = "auto",
     .help = "Threads that serve connections. auto = the processors this process may use (affinity and "
             "cgroup quota)."},
    {"reload_on_change", SCHEMA_BOOL, RELOAD, FIELD(reload_on_change), .value = "true",
     .help = "Take over a changed configuration file by itself; false = only on SIGHUP and proofctl reload."},

    {"listeners", SCHEMA_LIST, RELOAD, .required = true, FIELD(listeners), COUNTED_BY(nlisteners),
     .element_size = sizeof(struct config_listener), .value = "[{address: \"127.0.0.1:8080\"}]",
     .help = "Where partners connect, over HTTP/1.1. Without tls: true, put it on loopback or behind something that ends TLS."},
    {"listeners[].address", SCHEMA_LISTEN, RELOAD, .required = true, LISTENER_FIELD(address),
     .value = "127.0.0.1:8080",
     .help = "IPv4:PORT, [IPv6]:PORT, *:PORT (every interface, IPv6 and IPv4) or unix:PATH (whose callers have no address, so no allowlist has them: 403, unless proxy_protocol or forwarded_for says who it is). Port 0 lets "
             "the kernel choose."},
    {"listeners[].backlog", SCHEMA_COUNT, RELOAD, LISTENER_FIELD(backlog), RANGE(1, 65535), .value = "4096",
     .help = "Connections that may wait to be accepted, per worker. The kernel caps it at "
             "net.core.somaxconn."},
    {"listeners[].tls", SCHEMA_BOOL, RELOAD, LISTENER_FIELD(tls), .value = "false",
     .help = "Speak HTTPS here, with the certificates of tls.certificates."},
    {"listeners[].client_certificates", SCHEMA_ENUM, RELOAD, LISTENER_FIELD(client_certificates),
     .words = client_certificates_words, .value = "off",
     .help = "Ask clients for a certificate of their own, signed by client_ca_file. optional = one that is shown must be good; required = no connection without."},
    {"listeners[].client_ca_file", SCHEMA_PATH, RELOAD, LISTENER_FIELD(client_ca_file), .words = none_word,
     .value = "none",
     .help = "PEM file of the authorities that sign the clients' certificates."},
    {"listeners[].trusted_proxies", SCHEMA_NETWORKS, RELOAD, LISTENER_FIELD(trusted_proxies),
     LISTENER_COUNTED_BY(ntrusted), .value = "[]",
     .help = "Load balancers that are believed when they say who is calling, by proxy_protocol or forwarded_for. Nobody else ever is."},
    {"listeners[].proxy_protocol", SCHEMA_BOOL, RELOAD, LISTENER_FIELD(proxy_protocol), .value = "false",
     .help = "Each connection begins with a PROXY header, version 1 or 2. Connections of others than trusted_proxies are refused."},
    {"listeners[].forwarded_for", SCHEMA_BOOL, RELOAD, LISTENER_FIELD(forwarded_for), .value = "false",
     .help = "Of requests that come from trusted_proxies, believe X-Forwarded-For: from right to left, the first address that is no trusted proxy is the caller."},
    {"listeners[].shield", SCHEMA_BOOL, RELOAD, LISTENER_FIELD(shield), .value = "false",
     .help = "Drop connections whose address is on no partner's list, without an answer and before TLS."},

    {"tls", SCHEMA_SECTION, RELOAD,
     .help = "For the listeners with tls: true. Certificate files are watched: a new pair is checked, and taken over when it is good."},
    {"tls.minimum", SCHEMA_ENUM, RELOAD, FIELD(tls.minimum), .words = tls_minimum_words, .value = "1.2",
     .help = "The oldest version of TLS that is spoken."},
    {"tls.unknown_names", SCHEMA_ENUM, RELOAD, FIELD(tls.unknown_names), .words = unknown_names_words,
     .value = "refuse",
     .help = "For a name that no certificate has: refuse = the handshake fails; first = the first certificate is shown."},
    {"tls.ticket_keys_file", SCHEMA_PATH, RELOAD, FIELD(tls.ticket_keys_file), .words = none_word,
     .value = "none",
     .help = "Keys of session tickets that several gateways share: docs/TLS.md. none = keys of its own."},
    {"tls.ticket_rotation", SCHEMA_DURATION, RELOAD, FIELD(tls.ticket_rotation_ms),
     RANGE(1 * MINUTE, 7 * DAY), .value = "12h",
     .help = "How often the gateway makes itself a new ticket key; the one before is still accepted. Tickets are good for so long, with a ticket_keys_file too."},
    {"tls.certificates", SCHEMA_LIST, RELOAD, FIELD(tls.certificates), COUNTED_BY(tls.ncertificates),
     .element_size = sizeof(struct config_certificate),
     .help = "The name that a client asks for (SNI) chooses among them; ECDSA and RSA may stand side by side. The first one is for clients that ask for none."},
    {"tls.certificates[].chain_file", SCHEMA_PATH, RELOAD, .required = true, CERTIFICATE_FIELD(chain_file),
     .value = "tls/fullchain.pem",
     .help = "PEM file: the certificate, then its intermediates."},
    {"tls.certificates[].key_file", SCHEMA_PATH, RELOAD, .required = true, CERTIFICATE_FIELD(key_file),
     .value = "tls/privkey.pem",
     .help = "PEM file with its key, without passphrase, not readable by everybody."},

    {"environments", SCHEMA_SECTION, RELOAD, .required = true,
     .value = "{production: {hosts: [api.example.com], upstream: \"127.0.0.1:9000\"}}",
     .help = "The host of a request chooses the environment: the backend, and which of the partner's two "
             "allowlists counts. At least one of production and sandbox."},
    {"environments.production", SCHEMA_SECTION, RELOAD, FIELD(environments[ENV_PRODUCTION].present),
     .help = "Real money."},
    {"environments.production.hosts", SCHEMA_HOSTS, RELOAD, .required = true,
     FIELD(environments[ENV_PRODUCTION].hosts),
     COUNTED_BY(environments[ENV_PRODUCTION].nhosts), .value = "[api.example.com]",
     .help = "Host names of this environment, without port; no wildcards."},
    {"environments.production.upstream", SCHEMA_CONNECT, RELOAD, .required = true,
     FIELD(environments[ENV_PRODUCTION].upstream), .value = "127.0.0.1:9000",
     .help = "The backend: ADDRESS:PORT, NAME:PORT (resolved again while running) or unix:PATH."},
    TLS_CLIENT_KEYS("environments.production.upstream_tls", environments[ENV_PRODUCTION].upstream_tls, RELOAD,
                    "the backend"),
    {"environments.sandbox", SCHEMA_SECTION, RELOAD, FIELD(environments[ENV_SANDBOX].present),
     .help = "Where partners try out. Leave it out to have none."},
    {"environments.sandbox.hosts", SCHEMA_HOSTS, RELOAD, .required = true,
     FIELD(environments[ENV_SANDBOX].hosts),
     COUNTED_BY(environments[ENV_SANDBOX].nhosts), .value = "[sandbox.example.com]",
     .help = "Host names of this environment, without port; no wildcards."},
    {"environments.sandbox.upstream", SCHEMA_CONNECT, RELOAD, .required = true,
     FIELD(environments[ENV_SANDBOX].upstream), .value = "127.0.0.1:9001",
     .help = "The backend: ADDRESS:PORT, NAME:PORT (resolved again while running) or unix:PATH."},
    TLS_CLIENT_KEYS("environments.sandbox.upstream_tls", environments[ENV_SANDBOX].upstream_tls, RELOAD,
                    "the backend"),

    {"identity", SCHEMA_SECTION, RELOAD,
     .help = "What the backend is told about the caller. Whatever a client claims in X-Proof-*, "
             "X-Forwarded-*, Forwarded and the like is always removed."},
    {"identity.pass_authorization", SCHEMA_BOOL, RELOAD, FIELD(identity.pass_authorization), .value = "false",
     .help = "Forward the client's Authorization field, and with it the partner's token. The backend does "
             "not need it."},
    {"identity.remove", SCHEMA_FIELD_NAMES, RELOAD, FIELD(identity.remove), COUNTED_BY(identity.nremove),
     .value = "[]",
     .help = "Further request fields that never reach the backend."},

    {"fields", SCHEMA_SECTION, RELOAD,
     .help = "Field names with '_' or '.', which many backends read as '-': X_Forwarded_For must not pass "
             "for X-Forwarded-For."},
    {"fields.alias", SCHEMA_ENUM, RELOAD, FIELD(fields.alias), .words = alias_words, .value = "drop",
     .help = "drop = remove such fields and count them; reject = answer with 400; allow = pass them on, "
             "but for those that spell a field that the gateway knows, such as X_Forwarded_For or Content_Length."},
    {"fields.alias_allowed", SCHEMA_FIELD_NAMES, RELOAD, FIELD(fields.alias_allowed),
     COUNTED_BY(fields.nalias_allowed),
     .value = "[]",
     .help = "Names with '_' or '.' that pass all the same, for example [x_legacy_id]."},

    {"limits", SCHEMA_SECTION, RELOAD,
     .help = "A limit that ends or refuses something is counted: proofgw_limits_hit_total."},
    {"limits.head", SCHEMA_SIZE, RELOAD, FIELD(limits.head_bytes), RANGE(1 * KIB, 512 * KIB),
     .value = "32KiB",
     .help = "Request line and fields together. More is answered with 431. At most half of limits.buffer."},
    {"limits.header_count", SCHEMA_COUNT, RELOAD, FIELD(limits.header_count), RANGE(8, HTTP_FIELDS_MAX),
     .value = "100",
     .help = "Fields of one head. More is answered with 431, of the backend's with 502."},
    {"limits.target", SCHEMA_SIZE, RELOAD, FIELD(limits.target_bytes), RANGE(64, 64 * KIB), .value = "8KiB",
     .help = "Path and query. More is answered with 414."},
    {"limits.body", SCHEMA_SIZE, RELOAD, FIELD(limits.body_bytes), RANGE(1, 64 * GIB), .value = "10MiB",
     .help = "Request body. Bodies are streamed, so this costs no memory. More is answered with 413."},
    {"limits.chunk_extension", SCHEMA_SIZE, RELOAD, FIELD(limits.chunk_extension_bytes), RANGE(0, 64 * KIB),
     .value = "4KiB",
     .help = "Chunk extensions of one body together; they are read and dropped. More is answered with 400."},
    {"limits.trailer", SCHEMA_SIZE, RELOAD, FIELD(limits.trailer_bytes), RANGE(0, 64 * KIB), .value = "8KiB",
     .help = "Trailer section of one body; it is read and dropped. More is answered with 400."},
    {"limits.pipelined", SCHEMA_SIZE, RELOAD, FIELD(limits.pipelined_bytes), RANGE(1 * KIB, 1 * MIB),
     .value = "64KiB",
     .help = "Bytes a client may send ahead while its current request is being answered; one read (limits.buffer) more may be held."},
    {"limits.requests_per_connection", SCHEMA_COUNT, RELOAD, FIELD(limits.requests_per_connection),
     RANGE(0, 1000000000),
     .value = "100000",
     .help = "After so many requests a connection is closed in an orderly way. 0 = never."},
    {"limits.connections_per_worker", SCHEMA_COUNT, RELOAD, FIELD(limits.connections_per_worker),
     RANGE(1, 1000000),
     .value = "20000",
     .help = "Client connections, tunnels included. Each takes a descriptor, and a tunnel two. More are answered with 503, with TLS reset."},
    {"limits.connections_per_source", SCHEMA_COUNT, RELOAD, FIELD(limits.connections_per_source),
     RANGE(0, 1000000),
     .value = "8192",
     .help = "Client connections of one address (IPv6: of one /64), at all workers of the process together. A partner opens a tunnel per "
             "transaction from few addresses: keep it in the thousands. More are answered with 503, with TLS reset. 0 = no limit."},
    {"limits.tunnels_per_worker", SCHEMA_COUNT, RELOAD, FIELD(limits.tunnels_per_worker), RANGE(0, 1000000),
     .value = "8192",
     .help = "WebSocket tunnels. More are answered with 503. 0 = none at all."},
    {"limits.rate_per_partner", SCHEMA_COUNT, RELOAD, FIELD(limits.rate_per_partner), RANGE(0, 1000000),
     .value = "0",
     .help = "Requests per second of one partner, both environments and all workers of the process together. More are answered "
             "with 429. Each gateway counts for itself: behind n of them, a partner may have n times as much. 0 = no limit."},
    {"limits.burst_per_partner", SCHEMA_COUNT, RELOAD, FIELD(limits.burst_per_partner), RANGE(0, 1000000),
     .value = "0",
     .help = "How many requests of limits.rate_per_partner may come at once after a pause. 0 = those of one second."},
    {"limits.concurrency_per_partner", SCHEMA_COUNT, RELOAD, FIELD(limits.concurrency_per_partner),
     RANGE(0, 1000000),
     .value = "0",
     .help = "Requests of one partner under way at once, tunnels apart, counted like limits.rate_per_partner. More are answered "
             "with 429. 0 = no limit."},
    {"limits.tunnels_per_partner", SCHEMA_COUNT, RELOAD, FIELD(limits.tunnels_per_partner), RANGE(0, 1000000),
     .value = "0",
     .help = "WebSocket tunnels of one partner, open or being opened, counted like limits.rate_per_partner. More are answered "
             "with 429. 0 = no limit."},
    {"limits.tls_handshakes_per_worker", SCHEMA_COUNT, RELOAD, FIELD(limits.tls_handshakes_per_worker),
     RANGE(1, 1000000),
     .value = "2048",
     .help = "TLS handshakes going on at the same time. More connections are reset."},
    {"limits.response_head", SCHEMA_SIZE, RELOAD, FIELD(limits.response_head_bytes),
     RANGE(1 * KIB, 512 * KIB),
     .value = "64KiB",
     .help = "Head of a backend's answer. More is answered with 502. At most half of limits.buffer."},
    {"limits.upstream_connections", SCHEMA_COUNT, RELOAD, FIELD(limits.upstream_connections),
     RANGE(1, 1000000),
     .value = "10000",
     .help = "Connections to the backend, tunnels included, per worker and environment."},
    {"limits.upstream_idle_connections", SCHEMA_COUNT, RELOAD, FIELD(limits.upstream_idle_connections),
     RANGE(0, 100000),
     .value = "256",
     .help = "Idle connections to the backend kept for reuse, per worker and environment."},
    {"limits.upstream_waiting", SCHEMA_COUNT, RELOAD, FIELD(limits.upstream_waiting), RANGE(0, 100000),
     .value = "1024",
     .help = "Requests that may wait for a connection to the backend, per worker and environment. More are "
             "answered with 503."},
    {"limits.buffer", SCHEMA_SIZE, RESTART, FIELD(limits.buffer_bytes), RANGE(64 * KIB, 1 * MIB),
     .value = "256KiB",
     .help = "The read buffer that all connections of a worker share. Larger ones make large bodies "
             "cheaper."},
    {"limits.splice", SCHEMA_SIZE, RELOAD, FIELD(limits.splice_bytes), RANGE(0, 1024 * MIB),
     .value = "64KiB",
     .help = "An answer with Content-Length of which at least this much is still to come goes from the backend's "
             "socket to the client's inside the kernel, uncopied, when neither has TLS. 0: never."},

    {"timeouts", SCHEMA_SECTION, RELOAD,
     .help = "How long somebody may do nothing. They are kept to about a tenth of a second."},
    {"timeouts.proxy_header", SCHEMA_DURATION, RELOAD, FIELD(timeouts.proxy_header_ms),
     RANGE(TICK_MS, 5 * MINUTE),
     .value = "3s",
     .help = "From a connection to the end of its PROXY header, on listeners with proxy_protocol."},
    {"timeouts.tls_handshake", SCHEMA_DURATION, RELOAD, FIELD(timeouts.tls_handshake_ms),
     RANGE(TICK_MS, 5 * MINUTE),
     .value = "10s",
     .help = "A TLS handshake with a client. One with a backend is part of upstream_connect."},
    {"timeouts.request_head", SCHEMA_DURATION, RELOAD, FIELD(timeouts.request_head_ms),
     RANGE(TICK_MS, 5 * MINUTE),
     .value = "10s",
     .help = "From the first byte of a request head to its last. Longer is answered with 408."},
    {"timeouts.request_body", SCHEMA_DURATION, RELOAD, FIELD(timeouts.request_body_ms),
     RANGE(TICK_MS, 1 * HOUR),
     .value = "10s",
     .help = "A request body may take this long before request_body_rate applies, and may pause this long."},
    {"timeouts.request_body_rate", SCHEMA_SIZE, RELOAD, FIELD(timeouts.request_body_rate), RANGE(1, 1 * GIB),
     .value = "500", .per = " per second",
     .help = "The slowest a request body may arrive on average, in bytes per second."},
    {"timeouts.keep_alive", SCHEMA_DURATION, RELOAD, FIELD(timeouts.keep_alive_ms), RANGE(TICK_MS, 1 * DAY),
     .value = "75s",
     .help = "An idle client connection is closed after it; also a new one that sends nothing."},
    {"timeouts.upstream_connect", SCHEMA_DURATION, RELOAD, FIELD(timeouts.upstream_connect_ms),
     RANGE(TICK_MS, 5 * MINUTE), .value = "3s",
     .help = "Waiting for a free connection to the backend (longer: 503), and connecting to an address of it (longer: 504): so long for each."},
    {"timeouts.upstream_response", SCHEMA_DURATION, RELOAD, FIELD(timeouts.upstream_response_ms),
     RANGE(TICK_MS, 1 * HOUR), .value = "30s",
     .help = "From the end of the request to the end of the head of the backend's answer; interim answers (1xx) do "
             "not extend it. Longer is answered with 504."},
    {"timeouts.upstream_idle", SCHEMA_DURATION, RELOAD, FIELD(timeouts.upstream_idle_ms),
     RANGE(TICK_MS, 1 * HOUR),
     .value = "30s",
     .help = "Between two bytes of the backend's answer, and while it does not read the request. Not while an answer has "
             "begun early and the client still sends: then its clock runs."},
    {"timeouts.upstream_keep_alive", SCHEMA_DURATION, RELOAD, FIELD(timeouts.upstream_keep_alive_ms),
     RANGE(TICK_MS, 1 * DAY), .value = "60s",
     .help = "An idle connection to the backend is closed after it. Keep it below the backend's own "
             "keep-alive time."},
    {"timeouts.client_write", SCHEMA_DURATION, RELOAD, FIELD(timeouts.client_write_ms),
     RANGE(TICK_MS, 1 * HOUR),
     .value = "30s",
     .help = "A client that takes no byte of its answer for so long is cut off."},
    {"timeouts.tunnel_idle", SCHEMA_DURATION, RELOAD, FIELD(timeouts.tunnel_idle_ms),
     RANGE(TICK_MS, 7 * DAY),
     .value = "1h",
     .help = "A tunnel in which no byte moves either way is closed after it. WebSocket pings count."},
    {"timeouts.linger", SCHEMA_DURATION, RELOAD, FIELD(timeouts.linger_ms), RANGE(0, 1 * MINUTE),
     .value = "2s",
     .help = "After an answer that closes, a client's bytes are read and dropped so long, so that it sees "
             "the answer. 0s = do not."},
    {"timeouts.drain_delay", SCHEMA_DURATION, RELOAD, FIELD(timeouts.drain_delay_ms), RANGE(0, 1 * HOUR),
     .value = "0s",
     .help = "After SIGTERM, SIGINT, SIGQUIT and proofctl drain, go on serving so long while /readyz answers 503, so that load balancers stop sending traffic."},
    {"timeouts.drain_keep_alive", SCHEMA_DURATION, RELOAD, FIELD(timeouts.drain_keep_alive_ms), RANGE(0, 1 * DAY),
     .value = "5s",
     .help = "When draining, an idle client connection waits so long for one more request, whose answer says "
             "`Connection: close`. As long as the clients' own keep-alive time, and no request is ever lost."},
    {"timeouts.drain_tunnels", SCHEMA_DURATION, RELOAD, FIELD(timeouts.drain_tunnels_ms), RANGE(0, 1 * DAY),
     .value = "10s",
     .help = "Tunnels are closed evenly over this time when draining, so that partners do not come back all at once."},
    {"timeouts.shutdown", SCHEMA_DURATION, RELOAD, FIELD(timeouts.shutdown_ms), RANGE(0, 1 * DAY),
     .value = "30s",
     .help = "After SIGTERM, SIGINT, SIGQUIT and an upgrade, what is in flight may take this long. Keep it below the "
             "supervisor's own limit."},
    {"timeouts.upgrade", SCHEMA_DURATION, RELOAD, FIELD(timeouts.upgrade_ms), RANGE(TICK_MS, 1 * HOUR),
     .value = "60s",
     .help = "After SIGUSR2, the new process has this long to load its partners and serve; else it is ended and nothing has changed."},

    {"store", SCHEMA_SECTION, RESTART, .required = true, .value = "{file: partners.ndjson}",
     .help = "Where partners, tokens and allowlists come from."},
    {"store.kind", SCHEMA_ENUM, RESTART, FIELD(store.kind), .words = store_words, .value = "file",
     .help = "file = one JSON record per line in store.file; redis = from Redis, followed change by change: docs/DATA.md."},
    {"store.file", SCHEMA_PATH, RESTART, .required = true, .only_with = "file", FIELD(store.file),
     .value = "partners.ndjson",
     .help = "The partner file. It is watched: a change is taken over at once, a file with errors changes "
             "nothing."},
    {"store.snapshot", SCHEMA_PATH, RESTART, FIELD(store.snapshot), .words = none_word, .value = "none",
     .help = "With redis: a copy of the partners on this machine, kept up to date, from which the gateway "
             "starts when Redis is away. It holds no token, only their hashes."},
    {"store.redis", SCHEMA_SECTION, RESTART,
     .help = "Only with kind: redis. Give either address, or sentinel.master and sentinel.addresses."},
    {"store.redis.address", SCHEMA_CONNECT, RESTART, FIELD(store.redis.address), .words = none_word,
     .value = "none",
     .help = "The Redis server. It must be a master."},
    {"store.redis.user", SCHEMA_NAME, RESTART, FIELD(store.redis.user), .words = none_word, .value = "none",
     .help = "ACL user; docs/DATA.md has the rights that it needs. none = the default user."},
    {"store.redis.password_file", SCHEMA_PATH, RESTART, FIELD(store.redis.password_file),
     .words = none_word, .value = "none",
     .help = "File with the password and nothing else, not readable by everybody. It is read again at each "
             "connect. none = no password."},
    {"store.redis.tag", SCHEMA_NAME, RESTART, FIELD(store.redis.tag), .value = "cfg",
     .help = "Every key begins with gw:{TAG}: so that several sets of partners can share a server."},
    {"store.redis.connect_timeout", SCHEMA_DURATION, RESTART, FIELD(store.redis.connect_timeout_ms),
     RANGE(TICK_MS, 1 * MINUTE), .value = "2s",
     .help = "Connecting and logging in."},
    {"store.redis.command_timeout", SCHEMA_DURATION, RESTART, FIELD(store.redis.command_timeout_ms),
     RANGE(TICK_MS, 5 * MINUTE), .value = "5s",
     .help = "A server that takes longer for an answer is given up, and connected to again."},
    {"store.redis.max_staleness", SCHEMA_DURATION, RESTART, FIELD(store.redis.max_staleness_ms),
     RANGE(0, 365 * DAY), .value = "0s",
     .help = "When Redis has been out of reach for so long (15s or more), the gateway is no longer ready; it goes on "
             "serving whoever comes. 0s = ready without limit."},
    {"store.redis.deletion_limit", SCHEMA_COUNT, RESTART, FIELD(store.redis.deletion_limit), RANGE(0, 100),
     .value = "20",
     .help = "Percent of the partners. A complete reload that would drop more of them is held until an "
             "operator confirms it (proofctl confirm-deletions). 100 = never hold."},
    {"store.redis.scrub_interval", SCHEMA_DURATION, RESTART, FIELD(store.redis.scrub_interval_ms),
     RANGE(1 * SECOND, 7 * DAY), .value = "1h",
     .help = "How often all records are compared with those in memory, to find changes by hand."},
    TLS_CLIENT_KEYS("store.redis.tls", store.redis.tls, RESTART, "Redis and the Sentinels"),
    {"store.redis.sentinel", SCHEMA_SECTION, RESTART,
     .help = "Who knows which server is the master at the moment."},
    {"store.redis.sentinel.master", SCHEMA_NAME, RESTART, FIELD(store.redis.sentinel_master),
     .words = none_word, .value = "none",
     .help = "The name that the Sentinels have given to the master."},
    {"store.redis.sentinel.user", SCHEMA_NAME, RESTART, FIELD(store.redis.sentinel_user), .words = none_word,
     .value = "none",
     .help = "ACL user at the Sentinels. none = the default user."},
    {"store.redis.sentinel.password_file", SCHEMA_PATH, RESTART, FIELD(store.redis.sentinel_password_file),
     .words = none_word, .value = "none",
     .help = "File with the password for the Sentinels and nothing else. none = no password."},
    {"store.redis.sentinel.addresses", SCHEMA_LIST, RESTART, FIELD(store.redis.sentinels),
     COUNTED_BY(store.redis.nsentinels), .element_size = sizeof(struct config_sentinel),
     .help = "The Sentinels. Any one that answers is enough."},
    {"store.redis.sentinel.addresses[].address", SCHEMA_CONNECT, RESTART, .required = true,
     SENTINEL_FIELD(address), .value = "127.0.0.1:26379",
     .help = "ADDRESS:PORT or NAME:PORT."},

    {"logs", SCHEMA_SECTION, RELOAD,
     .help = "SIGUSR1 opens log files again after rotation."},
    {"logs.access", SCHEMA_PATH, RELOAD, FIELD(logs.access), .words = access_words, .value = "stdout",
     .help = "One JSON line per request. Tokens, cookies and query strings are never in it."},
    {"logs.operations", SCHEMA_PATH, RELOAD, FIELD(logs.operations), .words = operations_words,
     .value = "stderr",
     .help = "What happens to the gateway itself, in lines of key=value."},
    {"logs.level", SCHEMA_WORD, RELOAD, FIELD(logs.level), .words = level_words, .value = "info",
     .help = "The least important operations line that is written."},
    {"logs.ring", SCHEMA_SIZE, RESTART, FIELD(logs.ring_bytes), RANGE(64 * KIB, 64 * MIB), .value = "1MiB",
     .help = "Lines of one thread that wait to be written. When it is full, lines are dropped and counted; "
             "traffic goes on."},

    {"admin", SCHEMA_SECTION, RESTART,
     .help = "Health, readiness and metrics: /healthz, /readyz, /metrics."},
    {"admin.address", SCHEMA_LISTEN, RESTART, FIELD(admin.address), .words = off_word,
     .value = "127.0.0.1:9901",
     .help = "A loopback address or unix:PATH: whoever reaches it is trusted. off = none."},
    {"admin.control_socket", SCHEMA_PATH, RESTART, FIELD(admin.control_socket), .words = control_socket_words,
     .value = "auto",
     .help = "Unix socket for proofctl status, reload, drain, explain; only the user of the gateway and root can open it. auto = /run/proofgw/control.sock where that folder exists."},
};
/* clang-format on */

const unsigned schema_nkeys = sizeof schema_keys / sizeof schema_keys[0];

/* The name when `key` stands directly in `section`, else an empty span. */
static struct span name_in(const struct schema_key *section, const struct schema_key *key)
{
    struct span path = span_str(key->path);
    if (section) {
        struct span prefix = span_str(section->path);
        struct span dot = section->type == SCHEMA_LIST ? SPAN("[].") : SPAN(".");
        if (!span_starts(path, prefix)) return span_of(NULL, 0);
        path = span_of(path.p + prefix.n, path.n - prefix.n);
        if (!span_starts(path, dot)) return span_of(NULL, 0);
        path = span_of(path.p + dot.n, path.n - dot.n);
    }
    return memchr(path.p, '.', path.n) ? span_of(NULL, 0) : path;
}

const struct schema_key *schema_next(const struct schema_key *section, const struct schema_key *previous)
{
    const struct schema_key *key = previous ? previous + 1 : section ? section + 1 : schema_keys;
    for (; key < schema_keys + schema_nkeys; key++)
        if (name_in(section, key).n) return key;
    return NULL;
}

const struct schema_key *schema_find(const struct schema_key *section, struct span name)
{
    for (const struct schema_key *key = NULL; (key = schema_next(section, key)) != NULL;)
        if (span_eq(name_in(section, key), name)) return key;
    return NULL;
}

const char *schema_name(const struct schema_key *key)
{
    const char *dot = strrchr(key->path, '.');
    return dot ? dot + 1 : key->path;
}

const char *schema_suggest(const struct schema_key *section, struct span word)
{
    for (unsigned i = 0; i < schema_nkeys; i++) /* right name, wrong section */
        if (span_eq(span_str(schema_name(&schema_keys[i])), word)) return schema_keys[i].path;
    struct suggestion nearest = {.word = word};
    for (const struct schema_key *key = NULL; (key = schema_next(section, key)) != NULL;)
        suggestion_offer(&nearest, schema_name(key));
    return nearest.best;
}
