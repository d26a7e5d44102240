/* main.c - process set-up, command line, exit code. */
#include "base/process.h"
#include "gw_version.h"
#include "proofctl/gateways.h"
#include "proofctl/reference.h"

#include <openssl/crypto.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>

/* The one buffer of stdio that tokens pass through, so that it can be wiped. */
static char stdout_buffer[16 * 1024];

/* A closed pipe or a limit on file sizes must become an error that is reported, not the end in the middle. */
static void ignore_write_signals(void)
{
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGXFSZ, SIG_IGN);
}

static enum ctl_exit fail_output(const struct session *s)
{
    return session_fail(s, CTL_FAILED, "the result cannot be printed: %s", strerror(errno));
}

static enum ctl_exit run_command(const struct args *args)
{
    struct session s;
    enum ctl_exit code = session_open(&s, args);
    if (code == CTL_OK) code = args->command->run(&s);
    if (code == CTL_OK && s.wait_ms && s.committed && !fflush(stdout)) code = gateways_wait(&s, s.committed);
    bool is_lost = fflush(stdout) || ferror(stdout);
    if (code == CTL_OK && is_lost) code = fail_output(&s);
    session_close(&s);
    return code;
}

static enum ctl_exit dispatch(const struct args *args)
{
    const struct session to_stderr = {.args = args, .is_json = args_has(args, OPT_JSON)};
    if (args_has(args, OPT_VERSION)) {
        (void)printf("proofctl %s (%s)\n", GW_VERSION, GW_COMMIT);
    } else if (args_has(args, OPT_HELP)) {
        if (args->command)
            reference_help_command(args->command, stdout);
        else if (*args->words)
            reference_help_group(args->words, stdout);
        else
            reference_help(stdout);
    } else if (args->command) {
        return run_command(args);
    } else if (*args->words) {
        return session_fail(&to_stderr, CTL_USAGE,
                            "\"%s\" is the first half of a command; `proofctl %s --help` shows them",
                            args->words, args->words);
    } else {
        return session_fail(&to_stderr, CTL_USAGE, "name a command; `proofctl --help` shows them");
    }
    return fflush(stdout) ? fail_output(&to_stderr) : CTL_OK;
}

/* After a command line that could not be taken apart: was JSON asked for, before or behind the mistake? */
static bool has_word(char **argv, const char *word)
{
    while (*argv && strcmp(*argv, word) != 0)
        argv++;
    return *argv != NULL;
}

int main(int argc, char **argv)
{
    struct args args;
    struct errmsg why;
    process_protect_memory();
    ignore_write_signals();
    (void)setvbuf(stdout, stdout_buffer, _IOFBF, sizeof stdout_buffer); /* ours: cannot fail */
    enum err e = args_parse(&args, argc, argv, &why);
    const struct session to_stderr = {.args = &args, .is_json = e && has_word(argv, "--json")};
    enum ctl_exit code = CTL_OK;
    if (e == ERR_PARSE) {
        const char *joint = why.text[strlen(why.text) - 1] == '?' ? "" : ";";
        code = session_fail(&to_stderr, CTL_USAGE, "%s%s `proofctl %s%s--help` tells more", why.text, joint,
                            args.words, *args.words ? " " : "");
    } else if (e) {
        code = session_fail(&to_stderr, CTL_FAILED, "out of memory");
    } else {
        code = dispatch(&args);
    }
    args_deinit(&args);
    OPENSSL_cleanse(stdout_buffer, sizeof stdout_buffer);
    return (int)code;
}
