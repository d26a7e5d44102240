/* command.h - the commands of proofctl and their options: the one table that the parser, the help texts, the
 * completion and docs/PROOFCTL.md are made from.
 *
 * Thread: [any, pure].
 */
#ifndef PROOFCTL_COMMAND_H
#define PROOFCTL_COMMAND_H

#include "base/span.h"

struct session;

enum ctl_exit {
    CTL_OK = 0,
    CTL_FAILED = 1,      /* failed or refused: nothing was changed */
    CTL_USAGE = 2,       /* wrong command line */
    CTL_UNAVAILABLE = 3, /* the store is away or not ready: try again later */
    CTL_CONFLICT = 4,    /* somebody else changed the same record meanwhile: nothing was changed */
    CTL_PENDING = 5,     /* done, but not every gateway has it (--wait) */
};

enum option {
    OPT_STORE = 0,
    OPT_CONFIG,
    OPT_JSON,
    OPT_USER,
    OPT_PASSWORD_FILE,
    OPT_BY,
    OPT_YES,
    OPT_WAIT,
    OPT_HELP,
    OPT_VERSION,
    OPT_COMMON_COUNT, /* what many commands take ends here */
    OPT_ID = OPT_COMMON_COUNT,
    OPT_COMPANY,
    OPT_CONTACT,
    OPT_IP,
    OPT_SANDBOX_IP,
    OPT_OFF_RAMP,        /* partner add: a flag */
    OPT_OFF_RAMP_SWITCH, /* partner set: on or off */
    OPT_WEBHOOK,
    OPT_CLIENT_CERT,
    OPT_ENV,
    OPT_GRACE,
    OPT_SLOT,
    OPT_STDIN,
    OPT_DRY_RUN,
    OPT_LIMIT,
    OPT_REPAIR,
    OPT_ROLE,
    OPT_LINE_PASSWORD, /* acl: the file with the password of the line */
    OPT_SOCKET,
    OPT_HOST,
    OPT_CALLER, /* explain: --ip of one caller */
    OPT_PATH,
    OPT_TOKEN_STDIN,
    OPT_TOKEN_SHA256,
    OPT_REQUEST_ID,
    OPT_PARTNER,
    OPT_ALL,
    OPT_PLAN,
    OPT_COUNT
};

struct option_def {
    const char *name;    /* without the dashes */
    char letter;         /* short form; 0 = none */
    const char *value;   /* what it takes, for people; NULL = a flag */
    bool may_lack_value; /* then it takes one only as --name=VALUE */
    bool may_repeat;
    bool is_path;        /* its value is a file: for the completion */
    const char *choices; /* the words it takes, separated by spaces, for the completion; NULL = free text */
    const char *help;
};

/* By enum option. */
extern const struct option_def option_defs[OPT_COUNT];

enum command_needs {
    NEEDS_NOTHING = 0,
    NEEDS_CONFIG, /* the gateway's configuration */
    NEEDS_STORE,
};

struct command {
    const char *words;                      /* "partner add" */
    const char *arguments;                  /* for the usage line */
    const char *summary;                    /* one line, after the words and a dash */
    const char *details;                    /* sentences, wrapped */
    const char *examples;                   /* whole lines, without indentation */
    uint64_t options;                       /* bit i: takes enum option i; --help goes with every command */
    uint8_t positional_min, positional_max; /* UINT8_MAX: no maximum */
    enum command_needs needs;
    enum ctl_exit (*run)(struct session *s);
};

extern const struct command commands[];
extern const size_t ncommands;

/* True for the command's own options and for --help. */
bool command_takes(const struct command *c, enum option o);

/* True when `words` is the name of a command or the first word of one. `*found` is the command, or NULL. */
bool command_find(const char *words, const struct command **found);

/* The nearest command, or first word of one, or NULL. */
const char *command_suggest(const char *words);

#endif
