/** The daemon's requests (wire.h): read, checked, answered; the slow ones by threads of their own. */
#ifndef FUSECRYPT_CONTROL_H
#define FUSECRYPT_CONTROL_H

#include "engine.h"

/** One request, with what came along. Freed by request_finish. */
struct request {
    struct engine *engine;
    struct wire_header header;
    unsigned fd_count;
    int fds[WIRE_FDS_MAX]; /* -1: handed on to somebody else */
    uint32_t length;
    uint8_t body[];
};

/** Answer, close what is left of the descriptors, free. @param body may be NULL with length 0 */
void request_finish(struct request *r, int status, const void *body, size_t length);

/** Read and serve requests until the process is told to end. */
_Noreturn void control_serve(struct engine *e);

/** Tell the daemon that something happened. Errors are its absence, and ignored. */
void control_send_event(struct engine *e, enum wire_event_kind kind, uint64_t node);

/** What HELLO and STATUS answer. */
void control_describe(struct engine *e, struct wire_hello *hello);

#endif
