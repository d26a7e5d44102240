/* value.h - the text of one value and what it means: typed by the schema, never guessed.
 *
 * "yes" is not true, "010" is ten and not eight, "64k" is refused with what to write instead.
 *
 * Thread: [any]; pure but for the memory of strings.
 */
#ifndef CONFIG_VALUE_H
#define CONFIG_VALUE_H

#include "base/err.h"
#include "config/schema.h"

/* "true", "false". Errors: ERR_PARSE. */
enum err value_bool(struct span text, bool *out, struct errmsg *why);
/* Decimal digits. Errors: ERR_PARSE. */
enum err value_count(struct span text, uint64_t *out, struct errmsg *why);
/* "4096", "64KiB", "10MiB", "1GiB": bytes. Errors: ERR_PARSE (also when it does not fit 64 bits). */
enum err value_size(struct span text, uint64_t *out, struct errmsg *why);
/* "250ms", "30s", "5m", "2h", "1d": milliseconds. Errors: ERR_PARSE. */
enum err value_duration(struct span text, uint64_t *out, struct errmsg *why);

enum { VALUE_TEXT_MAX = 32 };
/* The shortest exact text: 32768 -> "32KiB", 90000 -> "90s". Return `out`. */
const char *value_size_text(uint64_t bytes, char out[static VALUE_TEXT_MAX]);
const char *value_duration_text(uint64_t ms, char out[static VALUE_TEXT_MAX]);

/* Parses `text` as a value of `key` and stores it into the field of `base`. Relative paths are put behind
 * `folder` ("" = the current one). A string that was stored before is freed.
 * Owns: strings belong to the field; value_release() frees them.
 * Errors: ERR_PARSE, ERR_RANGE (`why` says what is wrong with it), ERR_NOMEM. The field is then unchanged. */
enum err value_store(const struct schema_key *key, struct span text, struct span folder, void *base,
                     struct errmsg *why);

/* Appends one name to a list of names. `*field` is where it went. Errors: as value_store(), and ERR_LIMIT,
 * ERR_EXISTS (it is in the list already). */
enum err value_append(const struct schema_key *key, struct span text, void *base, const void **field,
                      struct errmsg *why);

/* Frees the strings that the field owns and clears it. */
void value_release(const struct schema_key *key, void *base);

/* Writes what may be written for `key`: "a size from 1KiB to 512KiB". Always ends with NUL. */
void value_expected(const struct schema_key *key, char *out, size_t cap);

/* The field of `key` in `base`. */
static inline void *value_field(const struct schema_key *key, void *base)
{
    return (char *)base + key->offset;
}

#endif
