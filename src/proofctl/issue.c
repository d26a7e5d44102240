#include "proofctl/issue.h"

#include <openssl/crypto.h>

#include <stdio.h>
#include <stdlib.h>

enum ctl_exit issue_token(struct session *s, struct issued *out)
{
    uint8_t digest[TOKEN_DIGEST_BYTES];
    if (token_text_make(out->token))
        return session_fail(s, CTL_FAILED, "the kernel gave no random bytes; nothing was changed");
    if (token_text_digest(span_of(out->token, TOKEN_TEXT_CHARS), digest)) return session_fail_memory(s);
    token_text_hex(digest, out->digest);
    s->has_token = true;
    return CTL_OK;
}

void issue_wipe(struct issued *i)
{
    OPENSSL_cleanse(i, sizeof *i);
}

static enum ctl_exit fail_lost(const struct session *s, const char *partner_id)
{
    return session_fail(
        s, CTL_FAILED,
        "the change %s in force, but the token could not be printed and is lost; issue another with "
        "`proofctl token rotate %s --grace 0s`, which ends all older ones: tell the partner first, if it "
        "uses one",
        s->backend->is_outcome_unknown ? "may be" : "is", partner_id);
}

enum ctl_exit issue_print_json(const struct session *s, const struct issued *i, const char *partner_id,
                               json_t *rest)
{
    /* Put in front by hand: a tree or a string made by the library would keep the token in freed memory. It
     * has no character that needs an escape. */
    char *text = rest ? json_dumps(rest, JSON_INDENT(2)) : NULL;
    json_decref(rest);
    if (!text) return fail_lost(s, partner_id);
    (void)printf("{\n  \"client_token\": \"%s\",%s\n", i->token,
                 text + 1); /* issue_flush() looks at the result */
    free(text);
    return CTL_OK;
}

enum ctl_exit issue_flush(const struct session *s, const struct issued *i, const char *partner_id)
{
    bool is_lost = fflush(stdout) || ferror(stdout);
    session_release_signals(s);
    if (is_lost) return fail_lost(s, partner_id);
    if (!s->backend->is_outcome_unknown) return CTL_OK;
    return session_fail(
        s, CTL_UNAVAILABLE,
        "keep the printed token: it is in force only if `proofctl partner show %s` has fingerprint %.*s",
        partner_id, TOKEN_FINGERPRINT_CHARS, i->digest);
}
