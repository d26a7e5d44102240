/* text.h - the characters of a configuration file, before anybody reads YAML in them.
 *
 * libyaml stops at the first byte it cannot read and counts exotic characters as line ends, so positions in
 * its messages drift from what an editor shows. What passes here is UTF-8 with ordinary line ends and without
 * control characters: from then on, line and column mean the same to everybody.
 *
 * Thread: [any, pure].
 */
#ifndef CONFIG_TEXT_H
#define CONFIG_TEXT_H

#include "base/span.h"

struct report;

/* A character that must not reach a terminal or a line of a file: C0, DEL and C1 controls. */
bool code_is_control(uint32_t code);

/* UTF-8 without control characters. */
bool text_is_clean(struct span s);

/* Reports what is not plain text. False when it cannot be read as YAML either; a tab in the indentation is
 * reported and leaves the rest readable. */
bool text_check(struct span text, struct report *report);

/* Line `line` (1-based) without its end; empty when there is no such line. */
struct span text_line(struct span text, unsigned line);

/* Characters of valid UTF-8, and the offset of character `index` (0-based; s.n when there are fewer). */
unsigned text_length(struct span s);
size_t text_offset(struct span s, unsigned index);

enum { TEXT_SHOWN_MAX = 80 };

/* Copies `s` for use in a message: cut at a character and marked with "..." when it is long. Returns `out`.
 */
const char *text_shown(struct span s, char out[static TEXT_SHOWN_MAX]);

#endif
