#include "proofctl/reference.h"

#include "gw_version.h"
#include "proofctl/commands.h"

static const char exit_codes[] =
    "exit codes: 0 done, 1 failed or refused (nothing was changed), 2 wrong usage, 3 Redis is away or not\n"
    "ready, 4 somebody else changed the same record meanwhile (nothing was changed), 5 done, but not every\n"
    "gateway has it (--wait)\n";

/* The option with its short form and what it takes. */
static int write_option(const struct option_def *def, char *out, size_t cap)
{
    char letter[5] = "";
    if (def->letter) (void)snprintf(letter, sizeof letter, "-%c, ", def->letter);
    if (def->may_lack_value) return snprintf(out, cap, "%s--%s[=%s]", letter, def->name, def->value);
    return snprintf(out, cap, "%s--%s%s%s", letter, def->name, def->value ? " " : "",
                    def->value ? def->value : "");
}

static void print_option(enum option o, FILE *out)
{
    char text[80];
    (void)write_option(&option_defs[o], text, sizeof text);        /* names and values are short */
    (void)fprintf(out, "  %-25s %s\n", text, option_defs[o].help); /* main() looks at the state of stdout */
}

/* Prints `text` with `indent` before each of its lines. */
static void print_indented(const char *text, const char *indent, FILE *out)
{
    while (*text) {
        size_t n = strcspn(text, "\n");
        (void)fprintf(out, "%s%.*s\n", indent, (int)n, text);
        text += n + (text[n] == '\n');
    }
}

static void print_summaries(const char *words, FILE *out)
{
    size_t n = strlen(words);
    for (size_t i = 0; i < ncommands; i++)
        if (strncmp(commands[i].words, words, n) == 0)
            (void)fprintf(out, "  %-17s  %s\n", commands[i].words, commands[i].summary);
}

void reference_help(FILE *out)
{
    (void)fputs(
        "proofctl - add partners, change their addresses, rotate their tokens; ask a running gateway\n"
        "\n"
        "usage: proofctl [--store FILE | -c CONFIG] COMMAND [OPTION...] [ARGUMENT...]\n"
        "       proofctl COMMAND --help\n"
        "\n"
        "commands:\n",
        out);
    print_summaries("", out);
    (void)fputs("\noptions of most commands:\n", out);
    static const enum option common[] = {OPT_STORE, OPT_CONFIG, OPT_USER, OPT_PASSWORD_FILE, OPT_JSON,
                                         OPT_BY,    OPT_YES,    OPT_WAIT, OPT_HELP,          OPT_VERSION};
    for (size_t i = 0; i < sizeof common / sizeof *common; i++)
        print_option(common[i], out);
    (void)fprintf(out,
                  "\nWithout any of --store, --config, $PROOFCTL_STORE and $PROOFCTL_CONFIG the "
                  "configuration is\n" GW_DEFAULT_CONFIG ".\n\n%s",
                  exit_codes);
}

void reference_help_group(const char *words, FILE *out)
{
    (void)fprintf(out, "usage: proofctl %s COMMAND [OPTION...]\n\ncommands:\n", words);
    print_summaries(words, out);
}

void reference_help_command(const struct command *c, FILE *out)
{
    (void)fprintf(out, "proofctl %s - %s\n\nusage: proofctl %s%s%s\n", c->words, c->summary, c->words,
                  *c->arguments ? " " : "", c->arguments);
    if (*c->details) (void)fprintf(out, "\n%s\n", c->details);
    (void)fputs("\noptions:\n", out);
    /* What is special to the command first, what all have last. */
    for (enum option o = OPT_COMMON_COUNT; o < OPT_COUNT; o++)
        if (command_takes(c, o)) print_option(o, out);
    for (enum option o = 0; o < OPT_COMMON_COUNT; o++)
        if (command_takes(c, o)) print_option(o, out);
    (void)fputs("\nexamples:\n", out);
    print_indented(c->examples, "  ", out);
}

/* ---- docs/PROOFCTL.md ---- */

static const char intro[] =
    "# proofctl\n"
    "\n"
    "The operator's command: adds partners, changes their addresses, rotates and ends their tokens. This "
    "page is printed\n"
    "by `proofctl reference` from the table that the program itself uses.\n"
    "\n"
    "- **What it works on.** What the gateway's configuration names (`-c CONFIG`): Redis (docs/DATA.md) or a "
    "partner file\n"
    "  (docs/PARTNERS-FILE.md). `--store FILE` or `$PROOFCTL_STORE` names a partner file directly. Without "
    "any "
    "of them the configuration is\n"
    "  `$PROOFCTL_CONFIG`, or the default one. A running gateway follows within a second; nothing is "
    "restarted.\n"
    "- **Login to Redis.** Address, TLS, Sentinels and tag are those of the configuration. Its user may only "
    "read; proofctl logs\n"
    "  in with `--user` and `--password-file`, or `$PROOFCTL_USER` and `$PROOFCTL_PASSWORD_FILE`. `proofctl "
    "acl` "
    "prints the rights.\n"
    "  A password never stands on a command line.\n"
    "- **Changes** are made as a whole or not at all. Every record is judged by the validator of the "
    "gateway. "
    "A new partner file\n"
    "  is read back by the gateway's reader before it replaces the old one by renaming; lines that are not "
    "concerned stay as they\n"
    "  are, byte for byte; mode, owner and access control list are kept. In Redis one script writes record, "
    "log, "
    "counts and audit\n"
    "  in one step. What is wrong is said in one sentence, with what to write instead.\n"
    "- **Several operators** do not overwrite each other. A change of a record that somebody else has "
    "changed "
    "since it was read\n"
    "  is refused: exit code 4. Writers of a file wait for each other (`FILE.lock`).\n"
    "- **Waiting.** `--wait` waits after a change in Redis until every gateway that is alive has applied it, "
    "and names those that\n"
    "  have not (exit code 5). proofctl warns when Redis has replicas and none has confirmed the change.\n"
    "- **Questions.** proofctl asks before it cuts access that works at this moment: a token that stops "
    "working, a prefix that\n"
    "  leaves a list, a client certificate that is wanted from now on, a partner that is disabled or\n"
    "  removed; also when an import does it. `drain`, `tunnels close`, `confirm-deletions` and\n"
    "  `verify --repair` ask too. `--yes` answers. Without a terminal and without `--yes` nothing is done.\n"
    "- **Tokens** are `proof_live_`, 43 random characters (256 bits) and 6 check characters (CRC-32), 60 in "
    "all. A token is\n"
    "  printed once, by `partner add` and `token rotate`, and stored nowhere. Fingerprints are the first 8 "
    "hexadecimal digits\n"
    "  of a token's SHA-256. When Redis does not say whether the change was made (exit code 3), the token is "
    "printed too: it is\n"
    "  in force only if `partner show` has its fingerprint.\n"
    "- **Audit.** Each change appends a line to `FILE.audit` (mode 0600) before it is made, or to a stream "
    "in "
    "Redis in the same\n"
    "  step: `time`, `by`, `os_user`, `action`, `partner_id`, and the fields that changed in `before` and "
    "`after`; tokens by\n"
    "  fingerprint. `by` is "
    "`--by`, or `$SUDO_USER`\n"
    "  under sudo, or the user name; `os_user` is always the user that the process ran as. A machine that "
    "loses power at the\n"
    "  wrong moment may keep a line without its change, never a change without its line.\n"
    "- **JSON.** With `--json` results are JSON on stdout. Failures are `{\"error\": ..., \"messages\": "
    "[...]}` on stderr, with\n"
    "  `failed`, `usage`, `unavailable`, `conflict` or `pending` as the error.\n"
    "\n"
    "| exit code | meaning |\n"
    "| --- | --- |\n"
    "| 0 | done, or there was nothing to change |\n"
    "| 1 | failed or refused; nothing was changed, unless it says so |\n"
    "| 2 | wrong usage |\n"
    "| 3 | Redis is away, silent, loading, or a replica: try again later; nothing was changed, unless it "
    "says "
    "that this is not known |\n"
    "| 4 | conflict: somebody else changed the same record meanwhile; nothing was changed, unless an import "
    "says "
    "how far it came |\n"
    "| 5 | done, but not every gateway has applied it in time (`--wait`) |\n"
    "\n"
    "Options of most commands; `--by` and `--yes` go with those that change something:\n"
    "\n"
    "| option | meaning |\n"
    "| --- | --- |\n";

/* A cell of a table: a bar would end it. */
static void print_cell(const char *text, FILE *out)
{
    for (; *text; text++) {
        if (*text == '|') (void)fputc('\\', out);
        (void)fputc(*text, out);
    }
}

static void print_option_row(enum option o, FILE *out)
{
    char text[80];
    (void)write_option(&option_defs[o], text, sizeof text);
    (void)fputs("| `", out);
    print_cell(text, out);
    (void)fputs("` | ", out);
    print_cell(option_defs[o].help, out);
    (void)fputs(" |\n", out);
}

static void print_section(const struct command *c, FILE *out)
{
    (void)fprintf(out, "\n## %s\n\n%c%s.\n", c->words, c->summary[0] - 'a' + 'A', c->summary + 1);
    if (*c->details) (void)fprintf(out, "\n%s\n", c->details);
    (void)fprintf(out, "\n```\nproofctl %s%s%s\n```\n", c->words, *c->arguments ? " " : "", c->arguments);
    bool has_table = false;
    for (enum option o = OPT_COMMON_COUNT; o < OPT_COUNT; o++) {
        if (!command_takes(c, o)) continue;
        if (!has_table) (void)fputs("\n| option | meaning |\n| --- | --- |\n", out);
        has_table = true;
        print_option_row(o, out);
    }
    (void)fprintf(out, "\n```sh\n%s\n```\n", c->examples);
}

void reference_markdown(FILE *out)
{
    (void)fputs(intro, out);
    for (enum option o = 0; o < OPT_COMMON_COUNT; o++)
        print_option_row(o, out);
    (void)fputs("\n| command | |\n| --- | --- |\n", out);
    for (size_t i = 0; i < ncommands; i++)
        (void)fprintf(out, "| `%s` | %s |\n", commands[i].words, commands[i].summary);
    for (size_t i = 0; i < ncommands; i++)
        print_section(&commands[i], out);
}

/* ---- completion ---- */

/* A statement that offers what compgen makes of `arguments`. */
static void print_compgen(const char *arguments, FILE *out)
{
    (void)fprintf(out, "mapfile -t COMPREPLY < <(compgen %s -- \"$current\")", arguments);
}

/* What follows an option that takes a value. `command`: the one for which that is so; "*" = any. */
static void print_bash_value(const char *command, const struct option_def *def, FILE *out)
{
    char words[80];
    bool is_any = *command == '*';
    (void)fprintf(out, "        %s%s --%s') ", is_any ? "*'" : "'", is_any ? "" : command, def->name);
    if (def->choices) (void)snprintf(words, sizeof words, "-W '%s'", def->choices); /* a few words */
    if (def->choices || def->is_path) {
        print_compgen(def->choices ? words : "-f", out);
        (void)fputs("; ", out);
    }
    (void)fputs("return ;;\n", out);
}

/* Choices command by command: what --off-ramp takes differs. */
static void print_bash_values(FILE *out)
{
    for (enum option o = 0; o < OPT_COUNT; o++) {
        if (option_defs[o].may_lack_value || o == OPT_LINE_PASSWORD)
            continue; /* the latter is known by its name */
        if (option_defs[o].value && !option_defs[o].choices) print_bash_value("*", &option_defs[o], out);
        for (size_t i = 0; option_defs[o].choices && i < ncommands; i++)
            if (command_takes(&commands[i], o)) print_bash_value(commands[i].words, &option_defs[o], out);
    }
}

static void print_bash_command(const struct command *c, FILE *out)
{
    char words[400];
    struct outbuf o = outbuf_of(words, sizeof words - 1);
    bool takes_file = c->run == cmd_import, is_single = strchr(c->words, ' ') == NULL;
    outbuf_fmt(&o, "%s-W '", takes_file ? "-f " : "");
    for (enum option option = 0; option < OPT_COUNT; option++)
        if (command_takes(c, option)) outbuf_fmt(&o, "--%s ", option_defs[option].name);
    outbuf_char(&o, '\'');
    BUG_IF(o.overflow, "the options of a command are longer than their buffer");
    words[o.n] = '\0';
    (void)fprintf(out, "        '%s'%s) ", c->words, is_single ? "*" : "");
    print_compgen(words, out);
    (void)fputs(" ;;\n", out);
}

void reference_bash(FILE *out)
{
    (void)fputs("# bash completion for proofctl; printed by `proofctl completion bash`\n"
                "_proofctl() {\n"
                "    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} words=() "
                "known word i\n"
                "    COMPREPLY=()\n"
                "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
                "        word=${COMP_WORDS[i]}\n"
                "        case $word in\n"
                "            --store|--config|-c|--user|--password-file|--by) ((i++)) ;;\n"
                "            -*) ;;\n"
                "            *) words+=(\"$word\") ;;\n"
                "        esac\n"
                "    done\n"
                "    case \"${words[*]:0:2} ${previous/#-c/--config}\" in\n",
                out);
    print_bash_values(out);
    (void)fputs("    esac\n"
                "    case \"${words[*]:0:2}\" in\n",
                out);
    for (size_t i = 0; i < ncommands; i++)
        print_bash_command(&commands[i], out);
    (void)fputs("        *)\n"
                "            i=${#words[@]}\n"
                "            while read -ra known; do\n"
                "                if [[ \"${known[*]:0:i}\" == \"${words[*]}\" && \"${known[i]}\" == "
                "\"$current\"* ]]; then\n"
                "                    COMPREPLY+=(\"${known[i]}\")\n"
                "                fi\n"
                "            done <<'END'\n",
                out);
    for (size_t i = 0; i < ncommands; i++)
        (void)fprintf(out, "%s\n", commands[i].words);
    (void)fputs("END\n            ;;\n    esac\n}\ncomplete -F _proofctl proofctl\n", out);
}

enum ctl_exit cmd_completion_bash(struct session *s)
{
    (void)s;
    reference_bash(stdout);
    return CTL_OK;
}

enum ctl_exit cmd_reference(struct session *s)
{
    (void)s;
    reference_markdown(stdout);
    return CTL_OK;
}
