/* helper_expect.h - a good partner record, its fields replaced one by one, and what is said about it. */
#ifndef STORE_HELPER_EXPECT_H
#define STORE_HELPER_EXPECT_H

#include "store/record.h"

#define DIGEST_A        "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8"
#define DIGEST_B        "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
#define COUNT_OF(array) (sizeof(array) / sizeof *(array))

#define TWO_DIGESTS   "\"" DIGEST_A "\",\"" DIGEST_B "\""
#define EIGHT_DIGESTS "[" TWO_DIGESTS "," TWO_DIGESTS "," TWO_DIGESTS "," TWO_DIGESTS

enum { TEXT_MAX = 32768 };

/* A record with all fields that is good. With the value of `key` replaced (a key that is not in it is added),
 * or left out (NULL). Valid until the next call. */
const char *record_with(const char *key, const char *value);

/* record_parse() as line 7 of a file; what it reports is in `reported`. */
enum err expect_parse(const char *text, struct partner_record *out);
extern struct record_report reported;

void expect_accepted(const char *text);
void expect_value_accepted(const char *key, const char *value);

/* The text is refused for one reason, at `column`, with `words` in the message. */
void expect_refused(const char *text, unsigned column, const char *words);
/* The value is refused, at its place, by a message that starts with the name of its field. */
void expect_value_refused(const char *key, const char *value);

/* Where `place` stands in `text`. */
unsigned column_of(const char *text, const char *place);

#endif
