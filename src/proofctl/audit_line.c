#include "proofctl/audit_line.h"

#include "base/clock.h"
#include "proofctl/moment.h"
#include "proofctl/record_json.h"

char *audit_line(const struct session *s, const char *action, const char *id, const json_t *before,
                 const json_t *after)
{
    json_t *old_values, *new_values;
    char now[MOMENT_TEXT_MAX];
    if (!record_json_differences(before, after, &old_values, &new_values)) return NULL;
    json_t *line = json_pack("{s:s, s:s, s:s, s:s, s:s?, s:o, s:o}", "time",
                             moment_rfc3339(clock_wall_ms(), now), "by", s->by, "os_user", s->os_user,
                             "action", action, "partner_id", id, "before", old_values, "after", new_values);
    char *text = line ? json_dumps(line, 0) : NULL;
    json_decref(line);
    return text;
}
