#include "store/redis_schema.h"

#include "base/outbuf.h"

#include <openssl/evp.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* --- keys ------------------------------------------------------------------------------------------- */

static void key_make(char *out, const char *tag, const char *rest)
{
    int n = snprintf(out, REDIS_KEY_MAX, "gw:{%s}:%s", tag, rest);
    BUG_IF(n < 0 || n >= REDIS_KEY_MAX, "a tag is longer than the configuration allows");
}

void redis_keys_init(struct redis_keys *k, const char *tag)
{
    key_make(k->seq, tag, "seq");
    key_make(k->log, tag, "log");
    key_make(k->meta, tag, "meta");
    key_make(k->audit, tag, "audit");
    key_make(k->prefix, tag, "p:");
    key_make(k->gateways, tag, "g:");
    key_make(k->pattern, tag, "p:*");
}

void redis_keys_partner(const struct redis_keys *k, struct span id, char out[static REDIS_KEY_MAX])
{
    int n = snprintf(out, REDIS_KEY_MAX, "%s%.*s", k->prefix, (int)id.n, id.p);
    BUG_IF(n < 0 || n >= REDIS_KEY_MAX, "a partner id is too long for a key");
}

bool redis_keys_id(const struct redis_keys *k, struct span key, struct span *id)
{
    struct span prefix = span_str(k->prefix);
    if (!span_starts(key, prefix)) return false;
    *id = span_of(key.p + prefix.n, key.n - prefix.n);
    return true;
}

/* --- scripts ---------------------------------------------------------------------------------------- */

const char redis_script_init[] =
    "local seq, log, meta, audit = KEYS[1], KEYS[2], KEYS[3], KEYS[4]\n"
    "if not string.find(ARGV[1] or '', '^[%w-]+$') or #ARGV[1] > 64 then\n"
    "  return redis.error_reply('BADARG the epoch must be 1 to 64 letters, digits and -')\n"
    "end\n"
    "if redis.call('HGET', meta, 'schema') then\n"
    "  return redis.error_reply('EXISTS this tag has partner data already')\n"
    "end\n"
    "if audit then\n"
    "  redis.call('XADD', audit, 'MAXLEN', '~', '200000', '*', 'n', ARGV[1], 'line', ARGV[2])\n"
    "end\n"
    "redis.call('DEL', seq, log)\n"
    "redis.call('HSET', meta, 'schema', '1', 'epoch', ARGV[1], 'seq', '0', 'count', '0',\n"
    "  'digest', '0000000000000000')\n"
    "return redis.status_reply('OK')\n";

/* A script is atomic but never rolled back, so everything is checked before the first write; the audit comes
 * first, since a line without its change is better than a change without its line; and the log, which refuses
 * a number that is not above its last one, is written before the record. */
const char redis_script_write[] =
    "local rec, seq, log, meta, audit = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]\n"
    "local op, id, nonce = ARGV[1], ARGV[2], ARGV[4]\n"
    "local expected, at, after = string.match(ARGV[3] or '', '^(%d*)(@?)([%w-]*)$')\n"
    "local function bad(text) return redis.error_reply('BADARG ' .. text) end\n"
    "local last = audit and #ARGV - 1 or #ARGV -- behind it stands the line of the audit\n"
    "if #KEYS < 4 or #KEYS > 5 or last < 4 then\n"
    "  return bad('4 or 5 keys and op, id, version, nonce are needed')\n"
    "end\n"
    "if op ~= 'set' and op ~= 'del' then return bad('op must be set or del') end\n"
    "if #id == 0 or #id > 64 or string.find(id, '[^%w._-]') then return bad('partner id') end\n"
    "if string.sub(rec, -(#id + 3)) ~= ':p:' .. id then return bad('the key is not of this partner') end\n"
    "if not expected or (at == '' and after ~= '') then return bad('expected version') end\n"
    "if not string.find(nonce, '^[%w-]+$') or #nonce > 64 then return bad('nonce') end\n"
    "if op == 'del' and last ~= 4 then return bad('del takes no fields') end\n"
    "if op == 'set' and (last < 6 or last % 2 ~= 0) then return bad('fields and values must be pairs') end\n"
    "local reserved = {v = 1, op = 1, id = 1, n = 1, c = 1, d = 1}\n"
    "for i = 5, last, 2 do\n"
    "  if reserved[ARGV[i]] then return bad('this field name is used twice or not free: ' .. ARGV[i]) end\n"
    "  reserved[ARGV[i]] = 1\n"
    "end\n"
    "local m = redis.call('HMGET', meta, 'schema', 'count', 'digest', 'seq')\n"
    "if m[1] ~= '1' then\n"
    "  return redis.error_reply('SCHEMA expected 1, found ' .. (m[1] or 'none: initialise it first'))\n"
    "end\n"
    "local count = tonumber(m[2])\n"
    "if not count or not string.find(m[3] or '', '^%x+$') or #m[3] ~= 16 then\n"
    "  return redis.error_reply('SCHEMA count or digest is damaged')\n"
    "end\n"
    "local cur = redis.call('HGET', rec, 'v')\n"
    "if expected ~= '' and expected ~= (cur or '0') then\n"
    "  return redis.error_reply('CONFLICT ' .. (cur or '0'))\n"
    "end\n"
    "if at == '@' then -- the log must still end where the writer knows it\n"
    "  local tail = redis.call('XREVRANGE', log, '+', '-', 'COUNT', '1')[1]\n"
    "  local ends_with = tail and tail[2][6] or m[4]\n"
    "  if after ~= ends_with then return redis.error_reply('NEWER ' .. (m[4] or '0')) end\n"
    "end\n"
    "if op == 'del' and not cur then return redis.error_reply('NOTFOUND no such partner') end\n"
    "local function half(hex, from) return tonumber(string.sub(hex, from, from + 7), 16) end\n"
    "local function mix(digest, version)\n"
    "  local h = redis.sha1hex(id .. ':' .. version)\n"
    "  return bit.tohex(bit.bxor(half(digest, 1), half(h, 1))) ..\n"
    "    bit.tohex(bit.bxor(half(digest, 9), half(h, 9)))\n"
    "end\n"
    "if audit then\n"
    "  redis.call('XADD', audit, 'MAXLEN', '~', '200000', '*', 'n', nonce, 'line', ARGV[#ARGV])\n"
    "end\n"
    "local s = string.format('%.0f', redis.call('INCR', seq))\n"
    "local digest = m[3]\n"
    "if cur then digest = mix(digest, cur) else count = count + 1 end\n"
    "if op == 'set' then digest = mix(digest, s) else count = count - 1 end\n"
    "count = string.format('%.0f', count)\n"
    "local entry = {'XADD', log, 'MAXLEN', '~', '100000', s .. '-1',\n"
    "  'op', op, 'id', id, 'n', nonce, 'c', count, 'd', digest}\n"
    "local hash = {'HSET', rec, 'v', s}\n"
    "for i = 5, last do\n"
    "  entry[#entry + 1] = ARGV[i]\n"
    "  hash[#hash + 1] = ARGV[i]\n"
    "end\n"
    "redis.call(unpack(entry))\n"
    "redis.call('DEL', rec)\n"
    "if op == 'set' then redis.call(unpack(hash)) end\n"
    "redis.call('HSET', meta, 'count', count, 'digest', digest, 'seq', s)\n"
    "return {s, count, digest}\n";

const char redis_script_mend[] =
    "local seq, log, meta, audit = KEYS[1], KEYS[2], KEYS[3], KEYS[4]\n"
    "local expected, s, count, digest, nonce, line = unpack(ARGV)\n"
    "local function is_number(text) return string.find(text or '', '^%d+$') end\n"
    "if #KEYS < 4 or #ARGV ~= #KEYS + 2 or not is_number(s) or not is_number(count) or #digest ~= 16 or\n"
    "   not string.find(digest, '^%x+$') then\n"
    "  return redis.error_reply('BADARG old seq, seq, count, digest, nonce, line, versions are needed')\n"
    "end\n"
    "local m = redis.call('HMGET', meta, 'schema', 'seq')\n"
    "if m[1] ~= '1' then\n"
    "  return redis.error_reply('SCHEMA expected 1, found ' .. (m[1] or 'none: initialise it first'))\n"
    "end\n"
    "if expected ~= (m[2] or '') then return redis.error_reply('CONFLICT ' .. (m[2] or '0')) end\n"
    "redis.call('XADD', audit, 'MAXLEN', '~', '200000', '*', 'n', nonce, 'line', line)\n"
    "redis.call('SET', seq, s)\n"
    "redis.call('HSET', meta, 'seq', s, 'count', count, 'digest', digest)\n"
    "for i = 5, #KEYS do redis.call('HSET', KEYS[i], 'v', ARGV[i + 2]) end\n"
    "if count == '0' then redis.call('DEL', log) end\n"
    "return redis.status_reply('OK')\n";

/* --- digest ----------------------------------------------------------------------------------------- */

struct redis_hasher {
    EVP_MD *md; /* fetched once: fetching takes longer than hashing */
    EVP_MD_CTX *ctx;
};

struct redis_hasher *redis_hasher_create(void)
{
    struct redis_hasher *h = calloc(1, sizeof *h);
    if (!h) return NULL;
    h->md = EVP_MD_fetch(NULL, "SHA1", NULL);
    h->ctx = EVP_MD_CTX_new();
    if (h->md && h->ctx) return h;
    redis_hasher_destroy(h);
    return NULL;
}

void redis_hasher_destroy(struct redis_hasher *h)
{
    if (!h) return;
    EVP_MD_CTX_free(h->ctx);
    EVP_MD_free(h->md);
    free(h);
}

uint64_t redis_hasher_record(struct redis_hasher *h, struct span id, uint64_t version)
{
    char text[REDIS_KEY_MAX];
    unsigned char hash[EVP_MAX_MD_SIZE];
    struct outbuf o = outbuf_of(text, sizeof text);
    outbuf_span(&o, id);
    outbuf_char(&o, ':');
    outbuf_u64(&o, version);
    bool ok = !o.overflow && EVP_DigestInit_ex2(h->ctx, h->md, NULL) && EVP_DigestUpdate(h->ctx, text, o.n) &&
              EVP_DigestFinal_ex(h->ctx, hash, NULL);
    BUG_IF(!ok, "libcrypto refused SHA-1");
    uint64_t first = 0;
    for (int i = 0; i < 8; i++)
        first = first << 8 | hash[i];
    return first;
}

void redis_digest_format(uint64_t digest, char out[static REDIS_DIGEST_CHARS + 1])
{
    (void)snprintf(out, REDIS_DIGEST_CHARS + 1, "%016" PRIx64, digest); /* always fits */
}

static int digit_value(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool redis_digest_parse(struct span text, uint64_t *out)
{
    uint64_t digest = 0;
    if (text.n != REDIS_DIGEST_CHARS) return false;
    for (size_t i = 0; i < text.n; i++) {
        int value = digit_value(text.p[i]);
        if (value < 0) return false;
        digest = digest << 4 | (uint64_t)value;
    }
    *out = digest;
    return true;
}
