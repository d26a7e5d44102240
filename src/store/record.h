/* record.h - the one validator of a partner record: one JSON object in, a checked struct out.
 *
 * The file store, Redis and the operator's command all read records through this function, so that a record
 * is good everywhere or nowhere. Every fault of a record is reported in one go, each with line and column and
 * with what to write instead; a message never repeats the value of a token digest. The format is described
 * for operators in docs/PARTNERS-FILE.md.
 *
 * Example:  struct record_report report = {0};
 *           if (record_parse(line, 1, &record, &report) == ERR_PARSE)
 *               ... report.faults.list[0..report.faults.n)
 *
 * Thread: [any, pure].
 */
#ifndef STORE_RECORD_H
#define STORE_RECORD_H

#include "base/err.h"
#include "base/span.h"
#include "policy/partner.h"

enum { RECORD_MESSAGES_MAX = 32 };

struct partner_record {
    struct partner partner; /* what the data plane needs */
    char *company;          /* owned */
    char *contact;          /* owned */
    char *webhook_url;      /* owned; NULL = none */
};

/* The first RECORD_MESSAGES_MAX messages are kept, all are counted. Starts as zeros. */
struct record_messages {
    uint64_t total;
    uint32_t n;
    struct errmsg list[RECORD_MESSAGES_MAX];
};

struct record_report {
    struct record_messages faults;   /* the record is refused */
    struct record_messages warnings; /* the record is good, but probably not what was meant */
};

/* Empties a report without touching its 11 KiB. */
static inline void record_report_init(struct record_report *r)
{
    r->faults.total = r->warnings.total = 0;
    r->faults.n = r->warnings.n = 0;
}

/* Reads and checks one record. `line` is the 1-based number for the messages; `json` is one line of text.
 * Owns: the caller, until record_deinit(); `*out` is untouched on failure.
 * Errors: ERR_PARSE (something was reported), ERR_NOMEM. */
enum err record_parse(struct span json, unsigned line, struct partner_record *out,
                      struct record_report *report);

/* The same for whoever needs no more of the record than the partner: its texts are checked, but not copied.
 * Owns: the caller, until partner_deinit(). */
enum err record_parse_partner(struct span json, unsigned line, struct partner *out,
                              struct record_report *report);

/* Frees what the record owns and wipes the digests. */
void record_deinit(struct partner_record *r);

/* Adds one message; a column of 0 means the whole line. */
void record_messages_add(struct record_messages *m, unsigned line, unsigned column, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#endif
