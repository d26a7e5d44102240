/* skip.h - tests that cannot be run here. */
#ifndef SUPPORT_SKIP_H
#define SUPPORT_SKIP_H

/* Ends the running test, saying why: cmocka itself prints only the name. Needs <cmocka.h>. */
#define SKIP(reason)                                                                                         \
    do {                                                                                                     \
        print_message("skipped: %s\n", (reason));                                                            \
        skip();                                                                                              \
    } while (0)

#endif
