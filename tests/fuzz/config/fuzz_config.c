/* Any bytes as a configuration file: an error or a configuration, never a crash, a leak or a control
 * character. */
#include "config/config.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *report = NULL;
    size_t n = 0;
    struct config *config = NULL;
    FILE *out = open_memstream(&report, &n);
    if (out == NULL) return 0;
    enum err e = config_load_text("fuzz.yaml", span_of((const char *)data, size), &config, out);
    fclose(out);
    BUG_IF(e != ERR_OK && e != ERR_PARSE, "neither a configuration nor an error");
    BUG_IF((e == ERR_OK) != (config != NULL), "result and error disagree");
    BUG_IF((e == ERR_OK) != (n == 0), "report and error disagree");
    for (size_t i = 0; i < n; i++)
        BUG_IF(report[i] != '\n' && (unsigned char)report[i] < ' ', "control in report");
    config_unref(config);
    free(report);
    return 0;
}
