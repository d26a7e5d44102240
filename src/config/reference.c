#include "config/config.h"

#include "config/schema.h"
#include "config/value.h"

enum { COMMENT_COLUMNS = 100 };

/* ---- docs/CONFIG.md ---- */

static const char intro[] =
    "# Configuration\n"
    "\n"
    "One YAML file. `proofgw check FILE` says whether it is right, and everything that is wrong with it, "
    "each with line,\n"
    "column and what to write instead. This page is printed by `proofgw config-reference`, and\n"
    "[gateway.yaml](../conf/gateway.yaml), every key with its default, by `proofgw config-reference --yaml`; "
    "both come\n"
    "from the table that the program itself uses.\n"
    "\n"
    "- **Values.** Sizes: `4096`, `64KiB`, `10MiB`, `1GiB`. Durations: `250ms`, `30s`, `5m`, `2h`, `1d`. "
    "Booleans: `true`,\n"
    "  `false`. Quotes are needed only where YAML asks for them, as in `\"*:8080\"`.\n"
    "- **Environment variables.** `${NAME}`, or `${NAME:-default}` for when it is unset or empty; `$$` is a "
    "dollar. They\n"
    "  stand inside a value and stay text: they cannot add keys or list entries. Unset without a default is "
    "an error.\n"
    "- **Files** and `unix:` sockets are relative to the folder of the configuration file, wherever the "
    "gateway is started.\n"
    "- **Not used:** anchors, aliases, tags, several documents, tabs in the indentation. Unknown and "
    "repeated keys are\n"
    "  errors.\n"
    "- The last column says what a change of the key asks of a running process: *reload*, which drops "
    "nothing, or *restart*:\n"
    "  [RELOAD.md](RELOAD.md).\n";

static void print_default(const struct schema_key *key, FILE *out)
{
    if (key->required)
        fprintf(out, "**required**%s%s%s, such as `%s`", key->only_with ? " with `" : "",
                key->only_with ? key->only_with : "", key->only_with ? "`" : "", key->value);
    else
        fprintf(out, "`%s`", key->value);
}

static void print_heading(const struct schema_key *key, FILE *out)
{
    bool is_nested = strchr(key->path, '.') != NULL;
    fprintf(out, "\n%s %s\n\n%s", is_nested ? "###" : "##", key->path, key->help);
    if (key->required) fprintf(out, " Required.");
    if (key->type == SCHEMA_LIST) fprintf(out, " A list of 1 to %zu entries.", key->size / key->element_size);
    fprintf(out, "\n");
}

static void print_row(const struct schema_key *key, FILE *out)
{
    char expected[320];
    value_expected(key, expected, sizeof expected);
    fprintf(out, "| `%s` | %s | ", schema_name(key), expected);
    print_default(key, out);
    fprintf(out, " | %s | %s |\n", key->help, key->change == CHANGE_RELOAD ? "reload" : "restart");
}

void config_reference_markdown(FILE *out)
{
    fputs(intro, out);
    fprintf(out, "\n## Process\n");
    bool in_table = false;
    for (unsigned i = 0; i < schema_nkeys; i++) {
        const struct schema_key *key = &schema_keys[i];
        if (schema_is_container(key)) {
            print_heading(key, out);
            in_table = false;
            continue;
        }
        if (!in_table)
            fprintf(out, "\n| key | value | default | meaning | change |\n|---|---|---|---|---|\n");
        in_table = true;
        print_row(key, out);
    }
}

/* ---- conf/gateway.yaml ---- */

/* Writes `text` as comment lines at an indentation. */
static void print_comment(unsigned indent, const char *text, FILE *out)
{
    size_t room = COMMENT_COLUMNS - indent - 2;
    while (*text) {
        size_t n = strlen(text);
        if (n > room) {
            n = room;
            while (n > 1 && text[n] != ' ')
                n--;
        }
        fprintf(out, "%*s# %.*s\n", (int)indent, "", (int)n, text);
        text += n;
        while (*text == ' ')
            text++;
    }
}

static unsigned depth_of(const struct schema_key *key)
{
    unsigned depth = 0;
    for (const char *p = key->path; *p; p++)
        depth += *p == '.' || *p == '[';
    return depth;
}

static bool needs_quotes(const struct schema_key *key)
{
    return key->type == SCHEMA_LISTEN || key->type == SCHEMA_CONNECT;
}

void config_reference_yaml(FILE *out)
{
    fputs(
        "# Every key of the gateway with its default. Only listeners, environments and store are required.\n"
        "# Printed by `proofgw config-reference --yaml`; docs/CONFIG.md has the ranges.\n",
        out);
    bool opens_entry = false; /* the next key is the first of a list entry */
    for (unsigned i = 0; i < schema_nkeys; i++) {
        const struct schema_key *key = &schema_keys[i];
        unsigned indent = depth_of(key) * 2;
        if (indent == 0) fputc('\n', out);
        print_comment(opens_entry ? indent - 2 : indent, key->help, out);
        if (schema_is_container(key)) {
            fprintf(out, "%*s%s:\n", (int)indent, "", schema_name(key));
        } else {
            const char *quote = needs_quotes(key) ? "\"" : "";
            fprintf(out, "%*s%s%s: %s%s%s\n", (int)(opens_entry ? indent - 2 : indent), "",
                    opens_entry ? "- " : "", schema_name(key), quote, key->value, quote);
        }
        opens_entry = key->type == SCHEMA_LIST;
    }
}
