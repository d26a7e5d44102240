/* main.c - arguments, process set-up, exit code. */
#include "base/process.h"
#include "config/config.h"
#include "control/certificates.h"
#include "control/control.h"
#include "control/upgrade.h"
#include "gw_version.h"
#include "http/reply.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <llhttp.h>
#include <openssl/crypto.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>
#include <yaml.h>

enum { REFERENCE_BYTES_MAX = 64 * 1024 };

static const char help[] =
    "proofgw - the API gateway in front of Proof's partner API\n"
    "\n"
    "usage:\n"
    "  proofgw [run] [-c FILE]      run in the foreground\n"
    "  proofgw check [-c] FILE      check a configuration: exit 0, or 1 with every error and its place\n"
    "  proofgw config-reference     print docs/CONFIG.md; --yaml prints conf/gateway.yaml\n"
    "  proofgw metrics-reference    print docs/METRICS.md\n"
    "  proofgw errors-reference     print docs/API-ERRORS.md\n"
    "\n"
    "options:\n"
    "  -c, --config FILE   configuration file (default: " GW_DEFAULT_CONFIG ")\n"
    "  -t, --test          the same as check\n"
    "      --foreground    accepted and ignored: it always runs in the foreground\n"
    "  -V, --version       version, commit and library versions\n"
    "  -h, --help          this text\n"
    "\n"
    "signals:\n"
    "  TERM INT QUIT   stop accepting, finish what is in flight, exit; a second one ends at once\n"
    "  HUP             load the configuration and the partner data again\n"
    "  USR1            open the log files again\n"
    "  USR2            start the binary anew, hand the sockets over to it, then drain\n"
    "\n"
    "exit codes: 0 stopped in order, 1 cannot start or the configuration is wrong, 2 wrong usage or forced\n"
    "quit, 3 the shutdown bound was met and connections were cut\n";

/* A descriptor 0, 1 or 2 that is closed would be given to the next file or socket, and log lines would go
 * there. */
static bool hold_standard_descriptors(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == STDIN_FILENO ? O_RDONLY : O_WRONLY) != fd)
            return false;
    return true;
}

/* The parent may have blocked signals; then nobody could stop us. A limit on the size of files is an error of
 * the write. The last three: until control watches them. */
static void set_up_signals(void)
{
    sigset_t none;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL); /* cannot fail with these arguments */
    (void)signal(SIGPIPE, SIG_IGN);              /* signal() fails only for numbers that do not exist */
    (void)signal(SIGXFSZ, SIG_IGN);
    (void)signal(SIGHUP, SIG_IGN);
    (void)signal(SIGUSR1, SIG_IGN);
    (void)signal(SIGUSR2, SIG_IGN);
}

/* A page that is cut must not look like success. */
static int finish_output(bool written)
{
    if (written && fflush(stdout) == 0 && !ferror(stdout)) return EXIT_OK;
    (void)fprintf(stderr, "proofgw: the result cannot be printed: %s\n", strerror(errno));
    return EXIT_CONFIG;
}

static int print_version(void)
{
    int major, minor, patch;
    yaml_get_version(&major, &minor, &patch);
    (void)printf("proofgw %s (%s)\nlibuv %s\nllhttp %d.%d.%d\n%s\nlibyaml %d.%d.%d\n", GW_VERSION, GW_COMMIT,
                 uv_version_string(), LLHTTP_VERSION_MAJOR, LLHTTP_VERSION_MINOR, LLHTTP_VERSION_PATCH,
                 OpenSSL_version(OPENSSL_VERSION), major, minor, patch);
    return finish_output(true);
}

static int print_reference(void (*write)(struct outbuf *o), const char *title)
{
    char *memory = malloc(REFERENCE_BYTES_MAX);
    if (!memory) return EXIT_CONFIG;
    struct outbuf o = outbuf_of(memory, REFERENCE_BYTES_MAX);
    outbuf_str(&o, title);
    write(&o);
    BUG_IF(o.overflow, "a reference page is larger than its buffer");
    bool written = fwrite(o.p, 1, o.n, stdout) == o.n;
    free(memory);
    return finish_output(written);
}

static int check(const char *path)
{
    struct config *config;
    if (config_load(path, &config, stderr)) return EXIT_CONFIG;
    enum err e = certificates_check(config, stderr);
    store_check(config, stderr);
    config_unref(config);
    if (e) return EXIT_CONFIG;
    return finish_output(printf("%s: ok\n", path) > 0);
}

static int run(const char *path)
{
    struct config *config;
    if (!hold_standard_descriptors()) return EXIT_CONFIG;
    set_up_signals();
    process_protect_memory();
    if (config_load(path, &config, stderr)) return EXIT_CONFIG;
    return control_run(config, GW_VERSION, GW_COMMIT);
}

static int usage_hint(void)
{
    (void)fprintf(stderr, "Try 'proofgw --help'.\n");
    return EXIT_USAGE;
}

static int usage(const char *what, const char *word)
{
    (void)fprintf(stderr, "proofgw: %s: %s\n", what, word);
    return usage_hint();
}

static const char metrics_title[] =
    "# Metrics\n\nPrinted by `proofgw metrics-reference`; a test keeps this page in step. Served as "
    "Prometheus text on\n"
    "`/metrics` of the admin listener. A rate over a counter is the usual way to look at them.\n\n";

struct options {
    const char *config;
    bool test, yaml;
};

static int dispatch(const char *command, const struct options *o)
{
    const char *path = o->config ? o->config : GW_DEFAULT_CONFIG;
    if (strcmp(command, "run") == 0) return o->test ? check(path) : run(path);
    if (strcmp(command, "check") == 0) return check(path);
    if (strcmp(command, "metrics-reference") == 0)
        return print_reference(control_metrics_reference, metrics_title);
    if (strcmp(command, "errors-reference") == 0) return print_reference(reply_reference, "");
    if (strcmp(command, "config-reference") == 0) {
        (o->yaml ? config_reference_yaml : config_reference_markdown)(stdout);
        return finish_output(true);
    }
    return usage("unknown command", command);
}

int main(int argc, char **argv)
{
    upgrade_remember(argv);
    static const struct option longs[] = {
        {"config", required_argument, NULL, 'c'},
        {"test", no_argument, NULL, 't'},
        {"version", no_argument, NULL, 'V'},
        {"help", no_argument, NULL, 'h'},
        {"yaml", no_argument, NULL, 'y'},
        {"foreground", no_argument, NULL, 'f'},
        {NULL, 0, NULL, 0},
    };
    struct options o = {0};
    for (int c; (c = getopt_long(argc, argv, "c:tVh", longs, NULL)) != -1;) {
        switch (c) {
        case 'c': o.config = optarg; break;
        case 't': o.test = true; break;
        case 'y': o.yaml = true; break;
        case 'f': break; /* what it does anyway; scripts for other gateways say so */
        case 'V': return print_version();
        case 'h': return finish_output(fputs(help, stdout) >= 0);
        default: return usage_hint(); /* getopt has said why */
        }
    }
    const char *command = optind < argc ? argv[optind++] : "run";
    bool takes_file = strcmp(command, "check") == 0 || strcmp(command, "run") == 0;
    if (takes_file && optind < argc && !o.config) o.config = argv[optind++];
    if (optind < argc) return usage("unexpected argument", argv[optind]);
    return dispatch(command, &o);
}
