#include "proofctl/commands.h"

#include "config/value.h"
#include "policy/token.h"
#include "proofctl/edit.h"
#include "proofctl/issue.h"
#include "proofctl/moment.h"
#include "proofctl/record_json.h"

#include <openssl/crypto.h>

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

enum { GRACE_DAYS_MAX = 90 }; /* longer is a typing error, or no rotation */

static const uint64_t grace_max_ms = GRACE_DAYS_MAX * UINT64_C(86400000);

/* --- rotate --------------------------------------------------------------------------------------- */

static enum ctl_exit chosen_grace(struct session *s, uint64_t *grace_ms)
{
    struct errmsg why;
    const char *text = args_value(s->args, OPT_GRACE);
    if (!value_duration(span_str(text ? text : "24h"), grace_ms, &why) && *grace_ms <= grace_max_ms)
        return CTL_OK;
    return session_fail(
        s, CTL_USAGE,
        "--grace must be a duration such as 30m, 24h or 7d, at most %dd; 0s ends the old token now",
        GRACE_DAYS_MAX);
}

static void drop_previous(json_t *record)
{
    (void)record_json_set(record, record_json_token_key(SLOT_PREVIOUS), NULL); /* deleting cannot fail */
    (void)record_json_set(record, "previous_token_expires_at", NULL);
}

/* Moves the current token to the previous slot until `end_ms`. */
static bool keep_as_previous(json_t *record, uint64_t end_ms)
{
    char end[MOMENT_TEXT_MAX];
    const char *digest = json_string_value(json_object_get(record, record_json_token_key(SLOT_CURRENT)));
    return digest && record_json_set(record, record_json_token_key(SLOT_PREVIOUS), digest) &&
           record_json_set(record, "previous_token_expires_at", moment_rfc3339(end_ms, end));
}

static bool is_current_revoked(const struct partner *p)
{
    uint8_t revoked[TOKEN_DIGEST_BYTES];
    return !token_text_revoked_digest(p->id, revoked) &&
           memcmp(revoked, p->digest[SLOT_CURRENT], sizeof revoked) == 0;
}

/* Puts the new token into the record and the old one where it belongs. */
static enum ctl_exit rotate_record(struct session *s, struct edit *e, const struct issued *issued,
                                   uint64_t grace_ms)
{
    bool is_ok = true;
    if (grace_ms == 0) {
        drop_previous(e->record);
    } else if (!is_current_revoked(&e->was.partner)) {
        /* Whole seconds, upwards: never shorter than promised, and easy to put into a mail. */
        is_ok = keep_as_previous(e->record, (s->now_ms + grace_ms + 999) / 1000 * 1000);
    } /* else: a revoked token gets no grace, and a previous one keeps what it has */
    is_ok = is_ok && record_json_set(e->record, record_json_token_key(SLOT_CURRENT), issued->digest);
    return is_ok ? CTL_OK : session_fail_memory(s);
}

static enum ctl_exit print_rotated(struct session *s, const struct edit *e, const struct issued *issued)
{
    char end[MOMENT_TEXT_MAX], words[MOMENT_TEXT_MAX];
    const struct partner *p = &e->becomes.partner;
    bool has_previous = p->has_token[SLOT_PREVIOUS];
    enum ctl_exit code = CTL_OK;
    if (s->is_json) {
        json_t *rest = json_pack("{s:s, s:O, s:O}", "partner_id", p->id, "current_token",
                                 json_object_get(e->after, "current_token"), "previous_token",
                                 json_object_get(e->after, "previous_token"));
        code = issue_print_json(s, issued, p->id, rest);
    } else {
        (void)printf("partner_id    %s\nclient_token  %s\n", p->id,
                     issued->token); /* issue_flush() looks at the result */
        if (has_previous)
            (void)printf("old token     valid until %s (%s)\n", moment_rfc3339(p->previous_expires_ms, end),
                         moment_in_words(p->previous_expires_ms, s->now_ms, words));
        else
            (void)printf("old token     no longer valid\n");
        (void)printf("\nThe new token is not shown again.\n");
    }
    return code == CTL_OK ? issue_flush(s, issued, p->id) : code;
}

static enum ctl_exit rotate(struct session *s, struct edit *e, struct issued *issued, uint64_t grace_ms)
{
    enum ctl_exit code = rotate_record(s, e, issued, grace_ms);
    if (code == CTL_OK) code = edit_check(s, e);
    if (code == CTL_OK) code = edit_commit(s, "token rotate", e);
    return code == CTL_OK || s->backend->is_outcome_unknown ? print_rotated(s, e, issued) : code;
}

enum ctl_exit cmd_token_rotate(struct session *s)
{
    struct edit e;
    struct issued issued;
    uint64_t grace_ms;
    enum ctl_exit code = chosen_grace(s, &grace_ms);
    if (code != CTL_OK) return code;
    code = edit_load(s, s->args->positional[0], &e);
    if (code == CTL_OK) code = issue_token(s, &issued);
    if (code == CTL_OK) code = rotate(s, &e, &issued, grace_ms);
    issue_wipe(&issued);
    edit_deinit(&e);
    return code;
}

/* --- revoke, finish ------------------------------------------------------------------------------- */

static enum ctl_exit end_previous(struct session *s, const char *action, const char *done)
{
    struct edit e;
    enum ctl_exit code = edit_load(s, s->args->positional[0], &e);
    if (code == CTL_OK && !e.was.partner.has_token[SLOT_PREVIOUS])
        code = session_fail(s, CTL_FAILED, "%s has no previous token; nothing was changed", e.plan.id);
    if (code == CTL_OK) {
        drop_previous(e.record);
        code = edit_finish(s, action, &e, done);
    }
    edit_deinit(&e);
    return code;
}

static enum ctl_exit revoke_current(struct session *s)
{
    struct edit e;
    uint8_t digest[TOKEN_DIGEST_BYTES];
    char hex[2 * TOKEN_DIGEST_BYTES + 1];
    enum ctl_exit code = edit_load(s, s->args->positional[0], &e);
    if (code == CTL_OK && token_text_revoked_digest(e.plan.id, digest)) code = session_fail_memory(s);
    if (code == CTL_OK) {
        token_text_hex(digest, hex);
        if (!record_json_set(e.record, record_json_token_key(SLOT_CURRENT), hex))
            code = session_fail_memory(s);
    }
    if (code == CTL_OK)
        code = edit_finish(s, "token revoke", &e,
                           "current token revoked; `proofctl token rotate` issues a new one");
    edit_deinit(&e);
    return code;
}

enum ctl_exit cmd_token_revoke(struct session *s)
{
    const char *slot = args_value(s->args, OPT_SLOT);
    if (slot && strcmp(slot, token_slot_name(SLOT_CURRENT)) == 0) return revoke_current(s);
    if (slot && strcmp(slot, token_slot_name(SLOT_PREVIOUS)) == 0)
        return end_previous(s, "token revoke", "previous token revoked");
    return session_fail(s, CTL_USAGE, "token revoke needs --slot previous or --slot current");
}

enum ctl_exit cmd_token_finish(struct session *s)
{
    return end_previous(s, "token finish", "grace period ended");
}

/* --- inspect -------------------------------------------------------------------------------------- */

/* A token under inspection; wiped at the end. */
struct inspected {
    char text[sizeof "Bearer " + TOKEN_BYTES_MAX +
              2]; /* as in the header field; one byte too many shows as too long */
    size_t n;
};

static const struct span bearer = {"Bearer ", 7};

static struct span token_of(const struct inspected *i)
{
    return span_of(i->text + bearer.n, i->n);
}

static bool read_stdin(struct inspected *i)
{
    ssize_t got = token_text_read(STDIN_FILENO, i->text + bearer.n, sizeof i->text - bearer.n);
    if (got >= 0) i->n = (size_t)got;
    return got >= 0;
}

/* Takes the token out of the arguments, where ps(1) shows it. */
static void take_argument(struct inspected *i, char *argument)
{
    size_t n = strlen(argument);
    i->n = n < sizeof i->text - bearer.n ? n : sizeof i->text - bearer.n;
    memcpy(i->text + bearer.n, argument, i->n);
    OPENSSL_cleanse(argument, n);
}

/* Would the gateway take it as a token at all? */
static bool is_acceptable(const struct inspected *i)
{
    struct span token;
    return token_parse_authorization(span_of(i->text, bearer.n + i->n), &token) == TOKEN_OK &&
           token.n == i->n;
}

static const char *shape_name(enum token_shape shape)
{
    switch (shape) {
    case TOKEN_SHAPE_PROOF: return "proof";
    case TOKEN_SHAPE_TYPO: return "typo";
    case TOKEN_SHAPE_OTHER: return "other";
    }
    return "other";
}

static void print_inspected(enum token_shape shape, bool is_good, const char *fingerprint, size_t n)
{
    if (shape == TOKEN_SHAPE_PROOF)
        (void)printf("a token of Proof, check characters right; fingerprint %s\n", fingerprint);
    else if (shape == TOKEN_SHAPE_TYPO && n != TOKEN_TEXT_CHARS)
        (void)printf("mistyped: a token of Proof has %d characters, this has %zu\n", TOKEN_TEXT_CHARS, n);
    else if (shape == TOKEN_SHAPE_TYPO)
        (void)printf("mistyped: the check characters do not fit; a character is wrong, or two are swapped\n");
    else if (is_good)
        (void)printf(
            "not of Proof's shape, so it cannot be checked; a gateway would look it up; fingerprint %s\n",
            fingerprint);
    else
        (void)printf(
            "no token: a gateway takes %d to %d characters out of A-Z a-z 0-9 - . _ ~ + / and = at the end\n",
            TOKEN_BYTES_MIN, TOKEN_BYTES_MAX);
}

static enum ctl_exit inspect(struct session *s, const struct inspected *i)
{
    uint8_t digest[TOKEN_DIGEST_BYTES];
    char fingerprint[2 * TOKEN_DIGEST_BYTES + 1];
    enum token_shape shape = token_text_shape(token_of(i));
    bool is_good = shape != TOKEN_SHAPE_TYPO && is_acceptable(i);
    if (token_text_digest(token_of(i), digest)) return session_fail_memory(s);
    token_text_hex(digest, fingerprint);
    fingerprint[TOKEN_FINGERPRINT_CHARS] = '\0';
    enum ctl_exit code = CTL_OK;
    if (s->is_json)
        code = session_print_json(s, json_pack("{s:s, s:b, s:s?}", "shape", shape_name(shape), "acceptable",
                                               is_good, "fingerprint", is_good ? fingerprint : NULL));
    else
        print_inspected(shape, is_good, fingerprint, i->n);
    return code == CTL_OK && !is_good ? CTL_FAILED : code;
}

enum ctl_exit cmd_token_inspect(struct session *s)
{
    struct inspected i = {.text = "Bearer "};
    bool from_stdin = args_has(s->args, OPT_STDIN), is_read = true;
    if (from_stdin == (s->args->npositional == 1))
        return session_fail(
            s, CTL_USAGE,
            "token inspect needs the token on standard input, with --stdin, or as its argument");
    if (from_stdin)
        is_read = read_stdin(&i);
    else
        take_argument(&i, s->args->positional[0]);
    enum ctl_exit code =
        is_read ? inspect(s, &i)
                : session_fail(s, CTL_FAILED, "standard input cannot be read: %s", strerror(errno));
    OPENSSL_cleanse(&i, sizeof i);
    return code;
}
