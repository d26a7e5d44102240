/* Partner records from any bytes: no crash, no leak, and what is accepted keeps its promises. */
#include "store/record.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

/* What the policy and the log rely on. */
static void check_record(const struct partner_record *r)
{
    const struct partner *p = &r->partner;
    size_t id = strlen(p->id);
    BUG_IF(id == 0 || id > PARTNER_ID_MAX, "partner id out of bounds");
    BUG_IF(!r->company || !r->contact, "a required text is missing");
    BUG_IF(!p->has_token[SLOT_CURRENT], "a record without a token");
    BUG_IF(p->has_token[SLOT_PREVIOUS] &&
               memcmp(p->digest[SLOT_CURRENT], p->digest[SLOT_PREVIOUS], TOKEN_DIGEST_BYTES) == 0,
           "one token in both slots");
    BUG_IF(p->ncidrs[ENV_PRODUCTION] == 0, "an empty production list");
    BUG_IF(r->webhook_url && strncasecmp(r->webhook_url, "https://", 8) != 0, "a webhook without TLS");
}

static void check_report(const struct record_report *report, size_t n)
{
    for (uint32_t i = 0; i < report->faults.n; i++) {
        const struct errmsg *m = &report->faults.list[i];
        BUG_IF(m->line != 1 || m->column == 0 || m->column > n + 1, "a place outside the record");
        BUG_IF(m->text[0] == '\0', "a fault without a text");
    }
}

/* Without its texts a record is judged the same. */
static void check_partner(struct span json, enum err verdict, const struct record_report *report)
{
    static struct record_report again;
    struct partner partner;
    again = (struct record_report){0};
    enum err e = record_parse_partner(json, 1, &partner, &again);
    BUG_IF(e != verdict, "another verdict without the texts");
    BUG_IF(memcmp(&again, report, sizeof again) != 0, "another report without the texts");
    if (!e) partner_deinit(&partner);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static struct record_report report;
    struct partner_record record;
    report = (struct record_report){0};
    enum err e = record_parse(span_of((const char *)bytes, n), 1, &record, &report);
    BUG_IF((e == ERR_OK) != (report.faults.total == 0), "a verdict without its reason");
    check_report(&report, n);
    check_partner(span_of((const char *)bytes, n), e, &report);
    if (e) return 0;
    check_record(&record);
    record_deinit(&record);
    return 0;
}
