#include "proofctl/command.h"

#include "config/suggest.h"
#include "proofctl/commands.h"

#define BIT(option) (UINT64_C(1) << OPT_##option)

/* What goes with every command that reads the store, and with every one that changes it. */
#define READS   (BIT(STORE) | BIT(CONFIG) | BIT(USER) | BIT(PASSWORD_FILE) | BIT(JSON))
#define CHANGES (READS | BIT(BY) | BIT(YES) | BIT(WAIT))

/* What goes with every command that asks a running gateway. */
#define ASKS (BIT(SOCKET) | BIT(CONFIG) | BIT(JSON))

const struct option_def option_defs[OPT_COUNT] = {
    [OPT_STORE] = {"store", 0, "FILE", .is_path = true,
                   .help = "the partner file (default: $PROOFCTL_STORE, or what the configuration names)"},
    [OPT_CONFIG] = {"config", 'c', "FILE", .is_path = true,
                    .help =
                        "the configuration, which names partner file or Redis (default: $PROOFCTL_CONFIG)"},
    [OPT_USER] = {"user", 0, "NAME",
                  .help = "Redis: log in as this user (default: $PROOFCTL_USER, or the gateway's)"},
    [OPT_PASSWORD_FILE] =
        {"password-file", 0, "FILE", .is_path = true,
         .help = "Redis: file with the password (default: $PROOFCTL_PASSWORD_FILE, or the gateway's)"},
    [OPT_JSON] = {"json", 0, NULL, .help = "print JSON; errors on stderr too"},
    [OPT_HELP] = {"help", 'h', NULL, .help = "print the help of the command"},
    [OPT_VERSION] = {"version", 'V', NULL, .help = "print version and commit"},
    [OPT_BY] = {"by", 0, "NAME", .help = "who changes this, for the audit (default: your user name)"},
    [OPT_YES] = {"yes", 'y', NULL, .help = "do not ask before live access is cut"},
    [OPT_WAIT] =
        {"wait", 0, "SECONDS", .may_lack_value = true,
         .help = "Redis: wait until every gateway has applied it (default: 5 seconds; else exit code 5)"},
    [OPT_ID] = {"id", 0, "ID", .help = "the partner_id (default: made from the company)"},
    [OPT_COMPANY] = {"company", 0, "NAME", .help = "company or product name"},
    [OPT_CONTACT] = {"contact", 0, "EMAIL", .help = "e-mail address for technical questions"},
    [OPT_IP] = {"ip", 0, "CIDR", .may_repeat = true,
                .help = "address or prefix that may call production; repeat it for more"},
    [OPT_SANDBOX_IP] = {"sandbox-ip", 0, "CIDR", .may_repeat = true,
                        .help = "the same for the sandbox; without it nobody gets in there"},
    [OPT_OFF_RAMP] = {"off-ramp", 0, NULL, .help = "the partner may sell (default: it may not)"},
    [OPT_OFF_RAMP_SWITCH] = {"off-ramp", 0, "on|off", .choices = "on off",
                             .help = "whether the partner may sell"},
    [OPT_WEBHOOK] = {"webhook", 0, "URL",
                     .help = "https:// address for events; with `partner set`, `none` takes it away"},
    [OPT_CLIENT_CERT] =
        {"client-cert-sha256", 0, "HEX", .may_repeat = true,
         .help =
             "SHA-256 of a client certificate. `partner set`: one that must be shown with the token; repeat "
             "it for more, `none` for no certificate at all. `explain`: the one that was shown"},
    [OPT_ENV] = {"env", 0, "production|sandbox", .choices = "production sandbox",
                 .help = "which list (default: production; `ip list` shows both)"},
    [OPT_GRACE] = {"grace", 0, "DURATION",
                   .help = "how long the old token stays valid: 30m, 24h, 7d; at most 90d, 0s for not at all "
                           "(default: 24h)"},
    [OPT_SLOT] = {"slot", 0, "previous|current", .choices = "previous current", .help = "which token"},
    [OPT_STDIN] = {"stdin", 0, NULL, .help = "read the token from standard input"},
    [OPT_DRY_RUN] = {"dry-run", 0, NULL, .help = "only say what would change"},
    [OPT_LIMIT] = {"limit", 0, "N", .help = "the last N changes (default: 20)"},
    [OPT_REPAIR] = {"repair", 0, NULL, .help = "Redis: put right what can be put right"},
    [OPT_ROLE] = {"role", 0, "ROLE", .choices = "default admin gateway operator sentinel replica asker",
                  .help = "only this user: default, admin, gateway, operator, sentinel, replica or asker"},
    [OPT_LINE_PASSWORD] =
        {"password-file", 0, "FILE", .is_path = true,
         .help = "file with the password that the user of --role gets; the line holds its hash"},
    [OPT_SOCKET] = {"socket", 0, "FILE", .is_path = true,
                    .help =
                        "the gateway's control socket (default: admin.control_socket of the configuration)"},
    [OPT_HOST] = {"host", 0, "NAME", .help = "the host that the request is for"},
    [OPT_CALLER] = {"ip", 0, "ADDRESS", .help = "the address that calls"},
    [OPT_PATH] = {"path", 0, "PATH", .help = "the path that is asked for (default: /widget/)"},
    [OPT_TOKEN_STDIN] = {"token-stdin", 0, NULL,
                         .help = "read the token from standard input; only its SHA-256 goes to the gateway"},
    [OPT_TOKEN_SHA256] = {"token-sha256", 0, "HEX", .help = "the SHA-256 of the token"},
    [OPT_REQUEST_ID] = {"request-id", 0, "ID", .help = "the X-Request-Id of a request"},
    [OPT_PARTNER] = {"partner", 0, "ID", .help = "only those of this partner"},
    [OPT_ALL] = {"all", 0, NULL, .help = "those of everybody"},
    [OPT_PLAN] = {"plan", 0, NULL, .help = "only say what would change, and whether it needs a restart"},
};

/* clang-format off */
const struct command commands[] = {
    {.words = "partner add",
     .arguments = "--company NAME --contact EMAIL --ip CIDR [--ip CIDR ...] [--sandbox-ip CIDR ...] [--off-ramp]"
                  " [--webhook URL] [--id ID]",
     .summary = "add a partner and issue its token",
     .details = "Prints the partner_id, the client token, the widget_id, the base URLs (with a configuration), and a\n"
                "curl line to try. The token is shown this once: the record keeps only its SHA-256. When the partner\n"
                "file does not exist, it is made; in Redis, `proofctl init` comes first.",
     .examples = "proofctl partner add --company \"Acme Exchange GmbH\" --contact ops@acme.example --ip 192.0.2.7\n"
                 "proofctl partner add --company Acme --contact ops@acme.example --id acme --off-ramp \\\n"
                 "    --ip 198.51.100.0/24 --ip 2001:db8:1::/48 --sandbox-ip 203.0.113.16/28 \\\n"
                 "    --webhook https://hooks.acme.example/proof",
     .options = CHANGES | BIT(ID) | BIT(COMPANY) | BIT(CONTACT) | BIT(IP) | BIT(SANDBOX_IP) | BIT(OFF_RAMP) | BIT(WEBHOOK),
     .needs = NEEDS_STORE, .run = cmd_partner_add},
    {.words = "partner list",
     .arguments = "",
     .summary = "list the partners",
     .details = "One line each: id, state, numbers of production and sandbox prefixes, previous token, company.",
     .examples = "proofctl partner list\n"
                 "proofctl partner list --json | jq -r '.[] | select(.enabled | not) | .partner_id'",
     .options = READS,
     .needs = NEEDS_STORE, .run = cmd_partner_list},
    {.words = "partner show",
     .arguments = "ID",
     .summary = "show one partner",
     .details = "Tokens are shown by fingerprint, the first 8 hexadecimal digits of their SHA-256, as\n"
                "`proofctl token inspect` prints it.",
     .examples = "proofctl partner show acme\n"
                 "proofctl partner show acme --json | jq .production_cidrs",
     .options = READS, .positional_min = 1, .positional_max = 1,
     .needs = NEEDS_STORE, .run = cmd_partner_show},
    {.words = "partner set",
     .arguments = "ID [--company NAME] [--contact EMAIL] [--webhook URL|none] [--off-ramp on|off]"
                  " [--client-cert-sha256 HEX|none ...]",
     .summary = "change what is known of a partner",
     .details = "What is not named stays as it is. Client certificates count only on listeners that ask for them; once a\n"
                "partner has any, its token alone is refused (401). The fingerprint: openssl x509 -in cert.pem -outform DER |\n"
                "sha256sum.",
     .examples = "proofctl partner set acme --contact api@acme.example --off-ramp on\n"
                 "proofctl partner set acme --webhook none\n"
                 "proofctl partner set acme --client-cert-sha256 0f3c...",
     .options = CHANGES | BIT(COMPANY) | BIT(CONTACT) | BIT(WEBHOOK) | BIT(OFF_RAMP_SWITCH) | BIT(CLIENT_CERT),
     .positional_min = 1, .positional_max = 1,
     .needs = NEEDS_STORE, .run = cmd_partner_set},
    {.words = "partner disable",
     .arguments = "ID",
     .summary = "stop a partner",
     .details = "Its tokens are refused from now on, like unknown ones (401). Everything else is kept, and `partner enable` brings it back.",
     .examples = "proofctl partner disable acme\n"
                 "proofctl partner disable acme --yes --by incident-42",
     .options = CHANGES, .positional_min = 1, .positional_max = 1,
     .needs = NEEDS_STORE, .run = cmd_partner_disable},
    {.words = "partner enable",
     .arguments = "ID",
     .summary = "let a disabled partner in again",
     .details = "Its tokens and addresses are those from before.",
     .examples = "proofctl partner enable acme",
     .options = CHANGES, .positional_min = 1, .positional_max = 1,
     .needs = NEEDS_STORE, .run = cmd_partner_enable},
    {.words = "partner remove",
     .arguments = "ID",
     .summary = "remove a partner for good",
     .details = "The record is gone; only the audit remembers it. The last partner of a file can only be disabled:\n"
                "gateways take an empty file for an accident and keep what they have.",
     .examples = "proofctl partner remove acme",
     .options = CHANGES, .positional_min = 1, .positional_max = 1,
     .needs = NEEDS_STORE, .run = cmd_partner_remove},
    {.words = "ip add",
     .arguments = "ID CIDR... [--env production|sandbox]",
     .summary = "allow addresses or prefixes",
     .details = "All of them are added, or none.",
     .examples = "proofctl ip add acme 192.0.2.8 2001:db8:2::/48\n"
                 "proofctl ip add acme 203.0.113.16/28 --env sandbox",
     .options = CHANGES | BIT(ENV), .positional_min = 2, .positional_max = UINT8_MAX,
     .needs = NEEDS_STORE, .run = cmd_ip_add},
    {.words = "ip remove",
     .arguments = "ID CIDR... [--env production|sandbox]",
     .summary = "take addresses or prefixes off a list",
     .details = "Each must be on the list as such: a prefix is not removed in part. All of them are removed, or none.",
     .examples = "proofctl ip remove acme 192.0.2.7\n"
                 "proofctl ip remove acme 203.0.113.16/28 --env sandbox --yes",
     .options = CHANGES | BIT(ENV), .positional_min = 2, .positional_max = UINT8_MAX,
     .needs = NEEDS_STORE, .run = cmd_ip_remove},
    {.words = "ip list",
     .arguments = "ID [--env production|sandbox]",
     .summary = "list the addresses of a partner",
     .details = "",
     .examples = "proofctl ip list acme\n"
                 "proofctl ip list acme --env sandbox",
     .options = READS | BIT(ENV), .positional_min = 1, .positional_max = 1,
     .needs = NEEDS_STORE, .run = cmd_ip_list},
    {.words = "token rotate",
     .arguments = "ID [--grace DURATION]",
     .summary = "issue a new token; the old one stays valid for a grace period",
     .details = "Prints the new token, this once, and the exact end of the old one. A token from an earlier rotation that\n"
                "is still in its grace period ends now: a partner has two tokens at most. (It stays where the current one\n"
                "was revoked, unless the grace is 0s.)",
     .examples = "proofctl token rotate acme --grace 24h --wait\n"
                 "proofctl token rotate acme --grace 0s --yes    # the old one has leaked",
     .options = CHANGES | BIT(GRACE), .positional_min = 1, .positional_max = 1,
     .needs = NEEDS_STORE, .run = cmd_token_rotate},
    {.words = "token revoke",
     .arguments = "ID --slot previous|current",
     .summary = "end a token at once",
     .details = "After `--slot current` the partner has no current token until `token rotate` issues one; a previous\n"
                "token in its grace period stays valid. In the record, a digest that no token can have takes its place.",
     .examples = "proofctl token revoke acme --slot current\n"
                 "proofctl token revoke acme --slot previous --yes",
     .options = CHANGES | BIT(SLOT), .positional_min = 1, .positional_max = 1,
     .needs = NEEDS_STORE, .run = cmd_token_revoke},
    {.words = "token finish",
     .arguments = "ID",
     .summary = "end the grace period now",
     .details = "The previous token ends; the current one is not touched.",
     .examples = "proofctl token finish acme",
     .options = CHANGES, .positional_min = 1, .positional_max = 1,
     .needs = NEEDS_STORE, .run = cmd_token_finish},
    {.words = "token inspect",
     .arguments = "[TOKEN | --stdin]",
     .summary = "check a token for typing errors, offline",
     .details = "Prints the shape, whether the check characters are right, and the fingerprint. Exit code 1 for a token\n"
                "with a typing error, or one that no gateway would take. Prefer --stdin: other users of the machine can\n"
                "see the arguments of a command.",
     .examples = "read -rs TOKEN && printf %s \"$TOKEN\" | proofctl token inspect --stdin",
     .options = BIT(JSON) | BIT(STDIN), .positional_max = 1, .run = cmd_token_inspect},
    {.words = "import",
     .arguments = "FILE [--dry-run]",
     .summary = "add and change partners from a file of records",
     .details = "FILE has the form of the partner file (docs/PARTNERS-FILE.md), with tokens of any shape as digests.\n"
                "Records with a known partner_id replace what is there, others are added, nothing is removed. A\n"
                "token that another partner has already is refused. With a partner file all of it is done, or nothing. Redis\n"
                "takes one record after the other: an import that breaks off says how far it came, and the same command does\n"
                "the rest.",
     .examples = "proofctl import new.ndjson --dry-run\n"
                 "proofctl import new.ndjson --by migration",
     .options = CHANGES | BIT(DRY_RUN), .positional_min = 1, .positional_max = 1,
     .needs = NEEDS_STORE, .run = cmd_import},
    {.words = "export",
     .arguments = "",
     .summary = "print all records, one JSON object a line",
     .details = "Each record as it stands in the store, token digests included: keep the output as you keep the store.\n"
                "Nothing is printed unless all of them could be read.",
     .examples = "proofctl export > partners-backup.ndjson",
     .options = READS,
     .needs = NEEDS_STORE, .run = cmd_export},
    {.words = "verify",
     .arguments = "[--repair]",
     .summary = "check the whole store",
     .details = "Every record is validated as the gateway does it, and no two may have the same token. In Redis, count and\n"
                "digest are computed anew, and every record is compared with its last change in the log, so that whatever was\n"
                "changed by hand is found. Prints the counts, or every fault with its place and exit code 1.\n"
                "\n"
                "--repair puts count and digest right, and writes records that were changed by hand once more, as they\n"
                "stand, so that every gateway takes them. What is not valid stays for you to replace with `import`.",
     .examples = "proofctl verify -c /etc/proofgw/gateway.yaml\n"
                 "proofctl verify --repair",
     .options = CHANGES | BIT(REPAIR),
     .needs = NEEDS_STORE, .run = cmd_verify},
    {.words = "audit",
     .arguments = "[--limit N]",
     .summary = "show who changed what, and when",
     .details = "The newest change is the last line. The audit of a partner file stands beside it; in Redis it is a stream of\n"
                "its own, written in one step with the change, that keeps the last 200,000 changes or so.",
     .examples = "proofctl audit --limit 50\n"
                 "proofctl audit --limit 1000 --json | jq '.[] | select(.partner_id == \"acme\")'",
     .options = READS | BIT(LIMIT),
     .needs = NEEDS_STORE, .run = cmd_audit},
    {.words = "init",
     .arguments = "",
     .summary = "make the data set in an empty Redis",
     .details = "Nothing is touched when there is partner data under the tag already (store.redis.tag), of this schema or\n"
                "another one.",
     .examples = "proofctl init --user operator --password-file /etc/proofgw/operator.password",
     .options = READS | BIT(BY),
     .needs = NEEDS_STORE, .run = cmd_init},
    {.words = "acl",
     .arguments = "[--role ROLE [--password-file FILE]]",
     .summary = "print the least rights of everybody who logs in to Redis",
     .details = "Lines for redis.conf and sentinel.conf; with --role one of them, for an ACL file or ACL SETUSER. gateway and\n"
                "operator are the users of the gateways and of proofctl, sentinel and replica those by which Sentinels and\n"
                "replicas log in, asker is the user by which gateways and proofctl ask the Sentinels. admin, who may do\n"
                "everything, is for whoever looks after Redis itself. The line of default keeps everybody else out, and\n"
                "leaves that user the rights with which Redis reads its append-only file. A line without a password\n"
                "lets nobody in; with --password-file it holds the hash of the password, as Redis keeps it.",
     .examples = "proofctl acl\n"
                 "proofctl acl --role gateway --password-file /etc/proofgw/redis.password >> /etc/redis/users.acl",
     .options = BIT(CONFIG) | BIT(USER) | BIT(JSON) | BIT(ROLE) | BIT(LINE_PASSWORD),
     .needs = NEEDS_CONFIG, .run = cmd_acl},
    {.words = "gateways",
     .arguments = "",
     .summary = "show how far each gateway is",
     .details = "Gateways that are alive report every few seconds in Redis. LAG is the number of changes that a gateway has\n"
                "not applied yet, STALE_S how long ago it knew its data to be that of Redis. While it has data of another\n"
                "history, as after an older dump was restored, LAG counts all changes.",
     .examples = "proofctl gateways\n"
                 "proofctl gateways --json | jq '.[] | select(.lag > 0)'",
     .options = READS,
     .needs = NEEDS_STORE, .run = cmd_gateways},
    {.words = "status",
     .arguments = "",
     .summary = "show how a running gateway is",
     .details = "Version, readiness, connections, tunnels, partner data, the last reload and the certificates.",
     .examples = "proofctl status\n"
                 "proofctl status --json | jq .store",
     .options = ASKS, .run = cmd_status},
    {.words = "reload",
     .arguments = "[--plan]",
     .summary = "make a running gateway read its configuration again",
     .details = "Returns when every worker has taken it over, and prints what has changed. A faulty configuration changes\n"
                "nothing: every error is printed, and the exit code is 1.",
     .examples = "proofctl reload --plan\n"
                 "proofctl reload",
     .options = ASKS | BIT(PLAN), .run = cmd_reload},
    {.words = "drain",
     .arguments = "",
     .summary = "take a running gateway out of service, without ending it",
     .details = "/readyz answers 503 from now on, answers close their connections, and tunnels are closed evenly over\n"
                "timeouts.drain_tunnels. Clients that still connect are served. `proofctl undrain` puts it back into service.",
     .examples = "proofctl drain --yes",
     .options = ASKS | BIT(YES), .run = cmd_drain},
    {.words = "undrain",
     .arguments = "",
     .summary = "put a drained gateway back into service",
     .details = "",
     .examples = "proofctl undrain",
     .options = ASKS, .run = cmd_undrain},
    {.words = "tunnels list",
     .arguments = "[--partner ID] [--request-id ID]",
     .summary = "list the open tunnels of a running gateway",
     .details = "One line each: request id, partner, environment, client, age, idle time, messages in and out.",
     .examples = "proofctl tunnels list --partner acme\n"
                 "proofctl tunnels list --json | jq .count",
     .options = ASKS | BIT(PARTNER) | BIT(REQUEST_ID), .run = cmd_tunnels_list},
    {.words = "tunnels close",
     .arguments = "--partner ID | --request-id ID | --all",
     .summary = "close open tunnels of a running gateway",
     .details = "Clients get the close code 1012, service restart, and may come back.",
     .examples = "proofctl tunnels close --partner acme\n"
                 "proofctl tunnels close --all --yes",
     .options = ASKS | BIT(PARTNER) | BIT(REQUEST_ID) | BIT(ALL) | BIT(YES), .run = cmd_tunnels_close},
    {.words = "log-level",
     .arguments = "debug|info|warn|error",
     .summary = "change which lines a running gateway logs",
     .details = "Until the next reload.",
     .examples = "proofctl log-level debug",
     .options = ASKS, .positional_min = 1, .positional_max = 1, .run = cmd_log_level},
    {.words = "explain",
     .arguments = "--host NAME --ip ADDRESS [--path PATH] [--token-stdin | --token-sha256 HEX]"
                  " [--client-cert-sha256 HEX] | --request-id ID",
     .summary = "explain why a running gateway accepts or refuses a request",
     .details = "Every check in its order, and the answer that the partner gets. With --request-id, why that request was\n"
                "refused, and what would become of it now: each worker remembers its last 256 denials.",
     .examples = "proofctl explain --request-id 01931c5e-7a80-7000-8000-5726c469a97f\n"
                 "read -rs TOKEN && printf %s \"$TOKEN\" | proofctl explain --host api.example.com --ip 192.0.2.7 --token-stdin",
     .options = ASKS | BIT(HOST) | BIT(CALLER) | BIT(PATH) | BIT(TOKEN_STDIN) | BIT(TOKEN_SHA256) | BIT(CLIENT_CERT) |
                BIT(REQUEST_ID),
     .run = cmd_explain},
    {.words = "confirm-deletions",
     .arguments = "",
     .summary = "let a held mass deletion go through",
     .details = "A gateway that would lose more partners than store.redis.deletion_limit by one load keeps them until\n"
                "somebody confirms. Look at `proofctl status` first, and find out who has deleted them.",
     .examples = "proofctl confirm-deletions",
     .options = ASKS | BIT(YES), .run = cmd_confirm_deletions},
    {.words = "completion bash",
     .arguments = "",
     .summary = "print the completion for bash",
     .details = "",
     .examples = "source <(proofctl completion bash)",
     .run = cmd_completion_bash},
    {.words = "reference",
     .arguments = "",
     .summary = "print docs/PROOFCTL.md",
     .details = "",
     .examples = "proofctl reference > docs/PROOFCTL.md",
     .run = cmd_reference},
};
/* clang-format on */
const size_t ncommands = sizeof commands / sizeof *commands;

bool command_takes(const struct command *c, enum option o)
{
    return o == OPT_HELP || (c->options >> o & 1);
}

bool command_find(const char *words, const struct command **found)
{
    size_t n = strlen(words);
    bool is_beginning = false;
    *found = NULL;
    for (size_t i = 0; i < ncommands && !*found; i++) {
        if (strncmp(commands[i].words, words, n) != 0) continue;
        if (commands[i].words[n] == '\0') *found = &commands[i];
        is_beginning |= commands[i].words[n] == ' ';
    }
    return *found || is_beginning;
}

const char *command_suggest(const char *words)
{
    static const char *const first_words[] = {"partner", "ip", "token", "tunnels", "completion"};
    struct suggestion s = {.word = span_str(words)};
    for (size_t i = 0; i < sizeof first_words / sizeof *first_words; i++)
        suggestion_offer(&s, first_words[i]);
    for (size_t i = 0; i < ncommands; i++)
        suggestion_offer(&s, commands[i].words);
    return s.best;
}
