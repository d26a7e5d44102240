#include "proofctl/prefixes.h"

uint32_t prefixes_find(const struct cidr *list, uint32_t n, const struct cidr *wanted)
{
    uint32_t i = 0;
    while (i < n && cidr_compare(&list[i], wanted) != 0)
        i++;
    return i;
}

const struct cidr *prefixes_find_covering(const struct cidr *list, uint32_t n, const struct cidr *c)
{
    for (uint32_t i = 0; i < n; i++)
        if (list[i].len <= c->len && cidr_contains(&list[i], &c->net)) return &list[i];
    return NULL;
}

enum ctl_exit prefixes_check_new(struct session *s, const struct partner *p, enum environment env,
                                 uint32_t nold)
{
    const struct cidr *list = p->cidrs[env];
    for (uint32_t i = nold; i < p->ncidrs[env]; i++) {
        uint32_t first = prefixes_find(list, i, &list[i]);
        if (first == i) continue;
        char text[CIDR_TEXT_MAX];
        text[cidr_format(&list[i], text)] = '\0';
        return session_fail(s, CTL_FAILED, "%s is %s; nothing was changed: leave it out", text,
                            first < nold ? "on the list already" : "named twice");
    }
    return CTL_OK;
}
