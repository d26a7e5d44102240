/* worker.h - one thread of the demo backend: a loop, a listener, and the scratch memory its connections
 * share.
 *
 * The demo backend stands where Proof's backend stands: it answers the partner API with made-up data, and has
 * a few endpoints whose only use is to test or load a gateway in front of it. It is built on the same http/
 * and net/ floors as the gateway, so it checks what reaches it as strictly.
 *
 * Thread: [worker]; each thread has its own.
 */
#ifndef DEMO_WORKER_H
#define DEMO_WORKER_H

#include "base/random.h"
#include "http/head.h"
#include "net/listener.h"

enum {
    DEMO_READ_BYTES = 64 * 1024,
    DEMO_BODY_KEPT_MAX = 4096,        /* of a request body: what echo shows and a session looks into */
    DEMO_JSON_BYTES_MAX = 256 * 1024, /* a head of 64 KiB, escaped, fits mostly */
    DEMO_STEP_BYTES = 64 * 1024,      /* of a long body, in one write */
    DEMO_OUT_BYTES = DEMO_JSON_BYTES_MAX + 8 * 1024,
};

struct demo_worker {
    struct loop loop;
    struct listener listener;
    struct http_parser *parser;           /* owned */
    struct random_source random;          /* for session identifiers */
    uint32_t update_interval_ms;          /* between tx.update events */
    struct req_head head;                 /* of the request being answered; dies with the callback */
    char alphabets[DEMO_STEP_BYTES + 26]; /* abc...zabc...: what long bodies are made of */
    char json[DEMO_JSON_BYTES_MAX];       /* body of the answer being made */
    char out[DEMO_OUT_BYTES];             /* bytes of one write */
};

#endif
