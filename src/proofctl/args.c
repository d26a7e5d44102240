#include "proofctl/args.h"

#include "config/suggest.h"

#include <stdio.h>
#include <stdlib.h>

/* May stand before the command is known. */
static const uint64_t anywhere = UINT64_C(1) << OPT_STORE | UINT64_C(1) << OPT_CONFIG |
                                 UINT64_C(1) << OPT_JSON | UINT64_C(1) << OPT_BY | UINT64_C(1) << OPT_YES |
                                 UINT64_C(1) << OPT_HELP | UINT64_C(1) << OPT_USER |
                                 UINT64_C(1) << OPT_PASSWORD_FILE | UINT64_C(1) << OPT_SOCKET;

static bool is_possible(const struct args *a, enum option o)
{
    if (a->command) return command_takes(a->command, o);
    return o == OPT_VERSION || (anywhere >> o & 1);
}

/* The option that `name` (or `letter`) means here; OPT_COUNT when there is none. */
static enum option find_option(const struct args *a, struct span name, char letter)
{
    for (enum option o = 0; o < OPT_COUNT; o++) {
        const struct option_def *def = &option_defs[o];
        bool is_it = letter ? def->letter == letter : span_eq(span_str(def->name), name);
        if (is_it && is_possible(a, o)) return o;
    }
    return OPT_COUNT;
}

static enum err refuse_unknown(const struct args *a, struct span name, const char *as_written,
                               struct errmsg *why)
{
    struct suggestion s = {.word = name};
    bool is_early = false; /* some command has it */
    for (enum option o = 0; o < OPT_COUNT; o++) {
        if (is_possible(a, o)) suggestion_offer(&s, option_defs[o].name);
        is_early |= !a->command && span_eq(span_str(option_defs[o].name), name);
    }
    const char *of = a->command ? a->command->words : "proofctl";
    int n = (int)strcspn(as_written, "="); /* a value could be a secret */
    if (is_early)
        errmsg_set(why, 0, 0, "%.*s stands behind its command", n, as_written);
    else if (s.best)
        errmsg_set(why, 0, 0, "%s has no option %.*s; did you mean --%s?", of, n, as_written, s.best);
    else
        errmsg_set(why, 0, 0, "%s has no option %.*s", of, n, as_written);
    return ERR_PARSE;
}

static enum err keep_option(struct args *a, enum option o, const char *value, struct errmsg *why)
{
    if (args_has(a, o) && option_defs[o].value && !option_defs[o].may_repeat) {
        errmsg_set(why, 0, 0, "--%s is given twice; keep one of them", option_defs[o].name);
        return ERR_PARSE;
    }
    a->options[a->noptions++] = (struct args_option){o, value};
    return ERR_OK;
}

/* Reads the option argv[*i] and, if it takes one, its value. */
static enum err parse_option(struct args *a, char **argv, int *i, struct errmsg *why)
{
    const char *text = argv[*i];
    bool is_long = text[1] == '-';
    const char *equals = is_long ? strchr(text, '=') : NULL;
    struct span name =
        is_long ? span_of(text + 2, equals ? (size_t)(equals - text - 2) : strlen(text + 2)) : SPAN("");
    enum option o = find_option(a, name, is_long ? 0 : text[1]);
    if (o == OPT_COUNT) return refuse_unknown(a, name, text, why);
    const struct option_def *def = &option_defs[o];
    const char *value = equals ? equals + 1 : NULL;
    if (!is_long && text[2]) value = text + 2; /* -cFILE */
    if (!def->value && value) {
        errmsg_set(why, 0, 0, "--%s takes no value", def->name);
        return ERR_PARSE;
    }
    bool is_needed = def->value && !def->may_lack_value;
    if (is_needed && !value) value = argv[*i + 1] ? argv[++*i] : NULL;
    if (is_needed && !value) {
        errmsg_set(why, 0, 0, "--%s needs a value: --%s %s", def->name, def->name, def->value);
        return ERR_PARSE;
    }
    return keep_option(a, o, value, why);
}

/* Adds a word to the command's name. */
static enum err parse_word(struct args *a, const char *word, struct errmsg *why)
{
    char words[sizeof a->words];
    int n = snprintf(words, sizeof words, "%s%s%s", a->words, a->words[0] ? " " : "", word);
    if (n < 0 || (size_t)n >= sizeof words || !command_find(words, &a->command)) {
        const char *nearest = n > 0 && (size_t)n < sizeof words ? command_suggest(words) : NULL;
        if (nearest)
            errmsg_set(why, 0, 0, "there is no command \"%.60s\"; did you mean \"%s\"?", words, nearest);
        else
            errmsg_set(why, 0, 0, "there is no command \"%.60s\"", words);
        return ERR_PARSE;
    }
    memcpy(a->words, words, (size_t)n + 1);
    return ERR_OK;
}

/* What can be judged only when the command is known: options that stood before it, and the number of
 * arguments. */
static enum err check_whole(const struct args *a, struct errmsg *why)
{
    const struct command *c = a->command;
    if (!c || args_has(a, OPT_HELP)) return ERR_OK;
    for (size_t i = 0; i < a->noptions; i++) {
        const char *name = option_defs[a->options[i].option].name;
        if (command_takes(c, a->options[i].option)) continue;
        errmsg_set(why, 0, 0, "%s has no option --%s", c->words, name);
        return ERR_PARSE;
    }
    if (a->npositional >= c->positional_min &&
        (c->positional_max == UINT8_MAX || a->npositional <= c->positional_max))
        return ERR_OK;
    bool is_short = a->npositional < c->positional_min;
    if (is_short)
        errmsg_set(why, 0, 0, "an argument is missing: proofctl %s %s", c->words, c->arguments);
    else /* it is not repeated: it could be a token */
        errmsg_set(why, 0, 0, "%s takes %s", c->words,
                   c->positional_max ? "one argument only" : "no argument");
    return ERR_PARSE;
}

enum err args_parse(struct args *a, int argc, char **argv, struct errmsg *why)
{
    *a = (struct args){0};
    size_t room = argc > 0 ? (size_t)argc : 1;
    a->options = calloc(room, sizeof *a->options);
    a->positional = calloc(room, sizeof *a->positional);
    if (!a->options || !a->positional) return ERR_NOMEM;
    bool options_end = false;
    for (int i = 1; i < argc; i++) {
        enum err e = ERR_OK;
        if (!options_end && strcmp(argv[i], "--") == 0)
            options_end = true;
        else if (!options_end && argv[i][0] == '-' && argv[i][1])
            e = parse_option(a, argv, &i, why);
        else if (a->command)
            a->positional[a->npositional++] = argv[i];
        else
            e = parse_word(a, argv[i], why);
        if (e) return e;
    }
    return check_whole(a, why);
}

void args_deinit(struct args *a)
{
    free(a->options);
    free(a->positional);
    *a = (struct args){0};
}

bool args_has(const struct args *a, enum option o)
{
    size_t at = 0;
    while (at < a->noptions && a->options[at].option != o)
        at++;
    return at < a->noptions;
}

const char *args_next(const struct args *a, enum option o, size_t *at)
{
    while (*at < a->noptions) {
        const struct args_option *found = &a->options[(*at)++];
        if (found->option == o) return found->value;
    }
    return NULL;
}

const char *args_value(const struct args *a, enum option o)
{
    size_t at = 0;
    return args_next(a, o, &at);
}
