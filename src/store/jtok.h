/* jtok.h - a strict JSON tokenizer that pulls one token at a time from memory.
 *
 * It allocates nothing, builds no tree and copies no string, and it knows the place of every token. That is
 * why it exists beside the JSON libraries: building a tree of 10,000 partner records takes jansson 51 ms and
 * forgets where the values stood, this takes 4 ms, and every complaint about a value can name its line and
 * column. jansson remains as the twin that the tests compare it with.
 *
 * Strict: RFC 8259 and nothing else (no comments, no trailing comma, no byte order mark), valid UTF-8 only,
 * no lone surrogates, no U+0000, at most JTOK_DEPTH_MAX containers deep.
 *
 * Example:  struct jtok r;
 *           jtok_init(&r, text);
 *           while ((t = jtok_next(&r)) != JTOK_END && t != JTOK_BAD) ...   r.text, r.at, r.depth
 *
 * Thread: [any, pure].
 */
#ifndef STORE_JTOK_H
#define STORE_JTOK_H

#include "base/err.h"
#include "base/span.h"

enum { JTOK_DEPTH_MAX = 32 };

enum jtok_kind {
    JTOK_BAD = 0, /* not JSON: r.problem says why, r.at where; every further call says the same */
    JTOK_END,     /* the value is complete and nothing but white space follows */
    JTOK_OBJECT_BEGIN,
    JTOK_OBJECT_END,
    JTOK_ARRAY_BEGIN,
    JTOK_ARRAY_END,
    JTOK_KEY, /* the name of a member; its value is the next token */
    JTOK_STRING,
    JTOK_NUMBER, /* r.text is the number as written */
    JTOK_TRUE,
    JTOK_FALSE,
    JTOK_NULL,
};

/* What the grammar allows at this point. */
enum jtok_expect {
    JTOK_EXPECT_VALUE = 0,
    JTOK_EXPECT_FIRST_ITEM, /* value or ] */
    JTOK_EXPECT_FIRST_KEY,  /* key or } */
    JTOK_EXPECT_COMMA,      /* comma, or the end of the container */
    JTOK_EXPECT_END,
    JTOK_EXPECT_NOTHING, /* after JTOK_END or JTOK_BAD */
};

struct jtok {
    const char *begin, *end; /* borrowed input */
    const char *p;           /* next unread byte */
    enum jtok_expect expect;
    uint32_t depth;      /* containers that are open now */
    uint32_t objects;    /* bit i: the container at depth i + 1 is an object */
    enum jtok_kind last; /* what jtok_next() returned last */
    const char *at;      /* first byte of the last token, or the place of the problem */
    struct span text;    /* of a key or string: between its quotes, as written; of a number: all of it */
    bool escaped;        /* `text` has backslashes: see jtok_unescape() */
    const char *problem; /* for people; static; with JTOK_BAD. Never quotes the input */
};

/* `text` is borrowed as long as the reader is used. */
void jtok_init(struct jtok *r, struct span text);

/* Reads the next token. */
enum jtok_kind jtok_next(struct jtok *r);

/* Passes over the rest of the value that starts with the token just read: after a begin token to its end
 * token, otherwise nothing. Errors: ERR_PARSE (JTOK_BAD was met). */
enum err jtok_skip(struct jtok *r);

/* Turns the escapes of a key or string into UTF-8; `out` has room for `cap` bytes, no NUL is added.
 * `text`: from a token of this reader, so that its escapes are known to be well-formed.
 * Errors: ERR_LIMIT (longer than `cap`). */
enum err jtok_unescape(struct span text, char *out, size_t cap, size_t *n);

/* The 1-based column of `at`, counted in characters from the start of the input. */
unsigned jtok_column(const struct jtok *r, const char *at);

#endif
