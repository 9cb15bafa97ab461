#include "session_requests.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "forgotten_key.h"
#include "session.h"

/* A bump whose devices come to rest, side by side: a store that hangs keeps only its own device. */
struct bump {
    struct request *request;
    _Atomic unsigned left;
    struct stopped stopped;
};

struct rest {
    struct bump *bump;
    uint64_t node;
};

void request_forget_key(struct request *r)
{
    struct wire_node n;

    memcpy(&n, r->body, sizeof n);
    request_finish(r, device_table_forget_key(&r->engine->devices, n.node), NULL, 0);
}

void request_renew_key(struct request *r)
{
    struct engine *e = r->engine;
    struct wire_rekey k;
    struct parked *parked;

    memcpy(&k, r->body, sizeof k);
    const int rc = device_table_renew_key(&e->devices, k.node, k.segment, &k.token, fuse_loop_io_threads(e->readers),
                                          &parked);
    fuse_loop_release(&e->loop, parked, 0);
    request_finish(r, rc, NULL, 0);
}

void request_deny_key(struct request *r)
{
    struct wire_node n;
    struct parked *parked;

    memcpy(&n, r->body, sizeof n);
    const int rc = device_table_deny_key(&r->engine->devices, n.node, n.flags, &parked);
    fuse_loop_release(&r->engine->loop, parked, EIO);
    request_finish(r, rc, NULL, 0);
}

/* One of those that were counted is done. */
static void count_down(struct bump *b)
{
    struct wire_hello out;

    if (atomic_fetch_sub(&b->left, 1) != 1)
        return;
    control_describe(b->request->engine, &out);
    request_finish(b->request, 0, &out, sizeof out);
    free(b);
}

static void come_to_rest(void *arg, unsigned thread)
{
    struct rest *rest = arg;

    (void)thread;
    /* The error of a sync is told at the device's next fsync. */
    (void)device_table_finish_forgetting(&rest->bump->request->engine->devices, rest->node);
    count_down(rest->bump);
    free(rest);
}

void request_bump_session(struct request *r)
{
    struct engine *e = r->engine;
    struct bump *b = malloc(sizeof *b);
    struct session next;
    struct parked *parked;
    int rc = b == NULL ? -ENOMEM : session_prepare(&next);

    if (rc != 0) {
        free(b);
        request_finish(r, rc, NULL, 0);
        return;
    }
    rc = device_table_begin_session(&e->devices, &next, &b->stopped, &parked);
    session_discard(&next);
    fuse_loop_release(&e->loop, parked, 0);
    if (rc != 0) {
        free(b);
        request_finish(r, rc, NULL, 0);
        return;
    }
    b->request = r;
    atomic_init(&b->left, b->stopped.count + 1);
    for (unsigned i = 0; i < b->stopped.count; i++) {
        struct rest *rest = malloc(sizeof *rest);
        if (rest != NULL)
            *rest = (struct rest){ .bump = b, .node = b->stopped.nodes[i] };
        if (rest != NULL && pool_submit(&e->admin, come_to_rest, rest) == 0)
            continue;
        free(rest);
        (void)device_table_finish_forgetting(&e->devices, b->stopped.nodes[i]);
        count_down(b);
    }
    count_down(b);
}
