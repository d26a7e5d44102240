#include "helper_records.h"

#include <inttypes.h>

/* splitmix64: spreads small numbers over 64 bits. */
static uint64_t mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static void add_digest(FILE *out, const char *name, uint64_t seed)
{
    fprintf(out, "\"%s\":\"", name);
    for (unsigned i = 0; i < 4; i++)
        fprintf(out, "%016" PRIx64, mix(seed * 4 + i));
    fputs("\",", out);
}

static void add_production(FILE *out, unsigned number)
{
    unsigned n = number % 100 == 7 ? 30 : 1 + number % 4;
    fputs("\"production_cidrs\":[", out);
    for (unsigned i = 0; i < n; i++) {
        unsigned x = (unsigned)mix((uint64_t)number << 8 | i);
        if (i) fputc(',', out);
        if (x % 8 == 0) {
            fprintf(out, "\"2001:db8:%x:%x::/64\"", x >> 16, number & 0xffff);
        } else {
            fprintf(out, "\"%u.%u.%u.%u/%u\"", 20 + x % 150, x >> 8 & 255, x >> 16 & 255, (x >> 24) & 240,
                    28 + x % 5 % 2);
        }
    }
    fputs("],", out);
}

size_t record_line(unsigned number, unsigned edition, char out[static RECORD_LINE_MAX])
{
    FILE *line = fmemopen(out, RECORD_LINE_MAX, "w");
    if (!line) return 0;
    fprintf(line,
            "{\"partner_id\":\"partner-%06u\",\"company\":\"Company %u "
            "GmbH\",\"contact\":\"ops%u@partner.example\",",
            number, number, number);
    add_digest(line, "client_token_sha256", 2 * (uint64_t)number);
    if (number % 5 == 0) {
        add_digest(line, "previous_token_sha256", 2 * (uint64_t)number + 1);
        fputs("\"previous_token_expires_at\":\"2037-01-01T00:00:00Z\",", line);
    }
    fprintf(line, "\"widget_id\":\"0190c5b2-7a64-7000-8000-%012x\",\"off_ramp\":%s,", number,
            (number + edition) % 3 ? "false" : "true");
    if (number % 3 == 0) fprintf(line, "\"webhook_url\":\"https://hooks.partner.example/proof/%u\",", number);
    add_production(line, number);
    if (number % 2) fprintf(line, "\"sandbox_cidrs\":[\"192.0.2.%u\"],", number % 256);
    fputs("\"enabled\":true}\n", line);
    size_t n = (size_t)ftell(line);
    fclose(line);
    return n;
}

void records_write(FILE *out, unsigned n, unsigned edition)
{
    char line[RECORD_LINE_MAX];
    for (unsigned i = 0; i < n; i++)
        fwrite(line, 1, record_line(i, edition, line), out);
}
