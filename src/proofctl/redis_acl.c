#include "proofctl/redis_acl.h"

static const struct role_def {
    const char *name;
    bool is_of_sentinels, is_off;
    const char *keys[8]; /* rights on keys, "gw:{TAG}:" between the two halves of each */
    const char *rest;
} roles[ACL_ROLES] = {
    /* Off, and yet with all rights: with less, Redis 7.0 drops the writes of scripts when it reads its own
     * append-only file. */
    [ACL_DEFAULT] = {.name = "default", .is_off = true, .rest = "~* resetchannels &* +@all resetpass"},
    [ACL_ADMIN] = {.name = "admin", .rest = "~* resetchannels &* +@all"},
    [ACL_GATEWAY] = {.name = "gateway",
                     .keys = {"%R~", "p:*", "%R~", "log", "%R~", "meta", "%W~", "g:*"},
                     .rest =
                         "resetchannels -@all +auth +ping +role +client|setname +scan +hget +hmget +hgetall "
                         "+xread +xrange +set +del"},
    [ACL_OPERATOR] =
        {.name = "operator",
         .keys = {"%RW~", "*"},
         .rest = "resetchannels -@all +auth +ping +role +client|setname +scan +get +mget +hget +hmget "
                 "+hgetall +xrange +xrevrange +eval +evalsha +incr +set +hset +del +xadd +wait"},
    [ACL_SENTINEL] =
        {.name = "sentinel",
         .rest = "resetchannels &__sentinel__:hello -@all +auth +ping +info +role +publish +subscribe "
                 "+multi +exec +slaveof +config|rewrite +client|setname +client|kill +script|kill"},
    [ACL_REPLICA] = {.name = "replica", .rest = "resetchannels -@all +auth +ping +psync +replconf"},
    [ACL_ASKER] = {.name = "asker",
                   .is_of_sentinels = true,
                   .rest = "resetchannels -@all +auth +ping +client|setname "
                           "+sentinel|get-master-addr-by-name"},
};

const char *acl_role_name(enum acl_role role)
{
    return roles[role].name;
}

bool acl_role_is_of_sentinels(enum acl_role role)
{
    return roles[role].is_of_sentinels;
}

bool acl_role_has_password(enum acl_role role)
{
    return !roles[role].is_off;
}

void acl_line(enum acl_role role, const char *name, const char *hash, const char *tag, struct outbuf *o)
{
    const struct role_def *def = &roles[role];
    outbuf_fmt(o, "user %s %s", name, def->is_off ? "off" : "on");
    if (hash) outbuf_fmt(o, " #%s", hash);
    outbuf_str(o, " resetkeys");
    for (size_t i = 0; i < sizeof def->keys / sizeof *def->keys && def->keys[i]; i += 2)
        outbuf_fmt(o, " %sgw:{%s}:%s", def->keys[i], tag, def->keys[i + 1]);
    outbuf_fmt(o, " %s", def->rest);
}
