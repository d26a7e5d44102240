/* The command table, and the command line taken apart by it. */
#include "proofctl/args.h"
#include "proofctl/reference.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* --- table ---------------------------------------------------------------------------------------- */

static void every_command_is_complete(void **state)
{
    (void)state;
    for (size_t i = 0; i < ncommands; i++) {
        const struct command *c = &commands[i], *found;
        assert_true(c->words && c->arguments && c->summary && c->details && c->examples && c->run);
        assert_in_range(c->summary[0], 'a', 'z');
        assert_int_equal(c->summary[strlen(c->summary) - 1] != '.', 1);
        assert_non_null(strstr(c->examples, c->words));
        assert_true(c->positional_min <= c->positional_max);
        assert_int_equal((c->options >> OPT_STORE & 1), c->needs == NEEDS_STORE);
        assert_true(command_find(c->words, &found));
        assert_ptr_equal(found, c);
    }
}

/* One command must not be the beginning of another: the first match would hide it. */
static void no_command_begins_another(void **state)
{
    (void)state;
    for (size_t i = 0; i < ncommands; i++)
        for (size_t k = 0; k < ncommands; k++)
            if (i != k)
                assert_int_not_equal(strncmp(commands[k].words, commands[i].words, strlen(commands[i].words)),
                                     0);
}

static void options_with_one_name_never_meet(void **state)
{
    (void)state;
    for (size_t i = 0; i < ncommands; i++)
        for (enum option a = 0; a < OPT_COUNT; a++)
            for (enum option b = a + 1; b < OPT_COUNT; b++)
                if (command_takes(&commands[i], a) && command_takes(&commands[i], b))
                    assert_string_not_equal(option_defs[a].name, option_defs[b].name);
}

static void wrong_words_get_a_suggestion(void **state)
{
    (void)state;
    const struct command *found;
    assert_false(command_find("partnr", &found));
    assert_false(command_find("partner addd", &found));
    assert_false(command_find("partner add ", &found));
    assert_string_equal(command_suggest("partnr"), "partner");
    assert_string_equal(command_suggest("token rotat"), "token rotate");
    assert_string_equal(command_suggest("verfy"), "verify");
    assert_null(command_suggest("qqqqqqqq"));
}

static char *printed(void (*print)(FILE *out))
{
    char *text;
    size_t n;
    FILE *out = open_memstream(&text, &n);
    assert_non_null(out);
    print(out);
    assert_int_equal(fclose(out), 0);
    return text;
}

static void reference_and_completion_name_every_command_and_option(void **state)
{
    (void)state;
    char *markdown = printed(reference_markdown), *bash = printed(reference_bash),
         *help = printed(reference_help);
    for (size_t i = 0; i < ncommands; i++) {
        assert_non_null(strstr(markdown, commands[i].words));
        assert_non_null(strstr(markdown, commands[i].examples));
        assert_non_null(strstr(bash, commands[i].words));
        assert_non_null(strstr(help, commands[i].summary));
    }
    for (enum option o = 0; o < OPT_COUNT; o++) {
        char name[40];
        (void)snprintf(name, sizeof name, "--%s", option_defs[o].name);
        assert_non_null(strstr(markdown, name));
        if (o != OPT_VERSION) assert_non_null(strstr(bash, name));
    }
    free(markdown);
    free(bash);
    free(help);
}

/* --- command line --------------------------------------------------------------------------------- */

enum { WORDS_MAX = 16 };

/* Takes a command line apart that is written with single spaces. */
static enum err parse(struct args *a, const char *line, struct errmsg *why)
{
    static char memory[512];
    static char *argv[WORDS_MAX + 1];
    int argc = 0;
    (void)snprintf(memory, sizeof memory, "%s", line);
    for (char *p = memory; p && argc < WORDS_MAX; argc++) {
        argv[argc] = p;
        p = strchr(p, ' ');
        if (p) *p++ = '\0';
    }
    argv[argc] = NULL;
    why->text[0] = '\0';
    return args_parse(a, argc, argv, why);
}

static void refused(const char *line, const char *sentence)
{
    struct args a;
    struct errmsg why;
    assert_int_equal(parse(&a, line, &why), ERR_PARSE);
    assert_string_equal(why.text, sentence);
    args_deinit(&a);
}

static void options_may_stand_anywhere_and_in_every_form(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "proofctl --config=f --yes ip add acme 10.0.0.1 --env sandbox",
        "proofctl -c f ip -y add acme --env=sandbox 10.0.0.1",
        "proofctl ip add -cf --yes acme 10.0.0.1 --env sandbox",
        "proofctl ip add --env sandbox -y -c f -- acme 10.0.0.1",
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        struct args a;
        struct errmsg why;
        assert_int_equal(parse(&a, lines[i], &why), ERR_OK);
        assert_string_equal(a.command->words, "ip add");
        assert_string_equal(args_value(&a, OPT_CONFIG), "f");
        assert_string_equal(args_value(&a, OPT_ENV), "sandbox");
        assert_true(args_has(&a, OPT_YES));
        assert_false(args_has(&a, OPT_JSON));
        assert_int_equal(a.npositional, 2);
        assert_string_equal(a.positional[1], "10.0.0.1");
        args_deinit(&a);
    }
}

static void repeated_values_keep_their_order(void **state)
{
    (void)state;
    struct args a;
    struct errmsg why;
    assert_int_equal(parse(&a, "proofctl partner add --ip 1 --sandbox-ip 2 --ip 3", &why), ERR_OK);
    size_t at = 0;
    assert_string_equal(args_next(&a, OPT_IP, &at), "1");
    assert_string_equal(args_next(&a, OPT_IP, &at), "3");
    assert_null(args_next(&a, OPT_IP, &at));
    args_deinit(&a);
}

static void off_ramp_is_a_flag_or_a_switch_by_command(void **state)
{
    (void)state;
    struct args a;
    struct errmsg why;
    assert_int_equal(parse(&a, "proofctl partner add --off-ramp --id x", &why), ERR_OK);
    assert_true(args_has(&a, OPT_OFF_RAMP));
    assert_string_equal(args_value(&a, OPT_ID), "x");
    args_deinit(&a);
    assert_int_equal(parse(&a, "proofctl partner set acme --off-ramp off", &why), ERR_OK);
    assert_string_equal(args_value(&a, OPT_OFF_RAMP_SWITCH), "off");
    args_deinit(&a);
}

static void wrong_command_lines_are_refused_with_a_sentence(void **state)
{
    (void)state;
    refused("proofctl partnr list", "there is no command \"partnr\"; did you mean \"partner\"?");
    refused("proofctl partner list --compny x", "partner list has no option --compny");
    refused("proofctl partner add --compny=secret",
            "partner add has no option --compny; did you mean --company?");
    refused("proofctl --by me partner list", "partner list has no option --by");
    refused("proofctl partner add --id", "--id needs a value: --id ID");
    refused("proofctl partner add --id a --id b", "--id is given twice; keep one of them");
    refused("proofctl partner list --json=yes", "--json takes no value");
    refused("proofctl partner show", "an argument is missing: proofctl partner show ID");
    refused("proofctl partner show a b", "partner show takes one argument only");
    refused("proofctl partner list a", "partner list takes no argument");
    refused("proofctl ip add acme",
            "an argument is missing: proofctl ip add ID CIDR... [--env production|sandbox]");
    refused("proofctl -x partner list", "proofctl has no option -x");
    refused("proofctl --wait=3 partner disable acme", "--wait stands behind its command");
}

static void help_needs_no_arguments(void **state)
{
    (void)state;
    struct args a;
    struct errmsg why;
    assert_int_equal(parse(&a, "proofctl partner show --help", &why), ERR_OK);
    assert_true(args_has(&a, OPT_HELP));
    args_deinit(&a);
    assert_int_equal(parse(&a, "proofctl partner --help", &why), ERR_OK);
    assert_null(a.command);
    assert_string_equal(a.words, "partner");
    args_deinit(&a);
}

static void a_word_of_any_length_is_refused(void **state)
{
    (void)state;
    char line[400] = "proofctl ";
    struct args a;
    struct errmsg why;
    memset(line + 9, 'p', sizeof line - 10);
    line[sizeof line - 1] = '\0';
    assert_int_equal(parse(&a, line, &why), ERR_PARSE);
    args_deinit(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_command_is_complete),
        cmocka_unit_test(no_command_begins_another),
        cmocka_unit_test(options_with_one_name_never_meet),
        cmocka_unit_test(wrong_words_get_a_suggestion),
        cmocka_unit_test(reference_and_completion_name_every_command_and_option),
        cmocka_unit_test(options_may_stand_anywhere_and_in_every_form),
        cmocka_unit_test(repeated_values_keep_their_order),
        cmocka_unit_test(off_ramp_is_a_flag_or_a_switch_by_command),
        cmocka_unit_test(wrong_command_lines_are_refused_with_a_sentence),
        cmocka_unit_test(help_needs_no_arguments),
        cmocka_unit_test(a_word_of_any_length_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
