#include "device_requests.h"

#include <errno.h>
#include <string.h>

/* The table in a request's body, or -EINVAL. Its descriptors are the callee's from then on. */
static int table_of(struct request *r, struct wire_device *d, int fds[WIRE_FDS_MAX])
{
    memcpy(d, r->body, sizeof *d);
    if (d->segments > WIRE_SEGMENTS_MAX || r->length != sizeof *d + d->segments * sizeof(struct wire_segment))
        return -EINVAL;
    for (unsigned i = 0; i < r->fd_count; i++) {
        fds[i] = r->fds[i];
        r->fds[i] = -1;
    }
    return 0;
}

static unsigned cipher_threads(const struct engine *e)
{
    return fuse_loop_io_threads(e->readers);
}

void request_add_device(struct request *r)
{
    struct wire_device d;
    uint32_t out[2] = { 0, 0 };
    int fds[WIRE_FDS_MAX];
    int rc = table_of(r, &d, fds);

    if (rc == 0)
        rc = device_table_add(&r->engine->devices, &d, (const void *)(r->body + sizeof d), fds, r->fd_count,
                              cipher_threads(r->engine), &out[0]);
    request_finish(r, rc, out, sizeof out);
}

void request_load_table(struct request *r)
{
    struct wire_device d;
    int fds[WIRE_FDS_MAX];
    int rc = table_of(r, &d, fds);

    if (rc == 0)
        rc = device_table_load(&r->engine->devices, &d, (const void *)(r->body + sizeof d), fds, r->fd_count,
                               cipher_threads(r->engine));
    request_finish(r, rc, NULL, 0);
}

void request_change_device(struct request *r)
{
    struct engine *e = r->engine;
    struct wire_node n;
    struct parked *parked = NULL;
    int rc = -EINVAL;

    memcpy(&n, r->body, sizeof n);
    switch (r->header.type) {
    case WIRE_REMOVE_DEVICE:
        rc = device_table_remove(&e->devices, n.node, &parked);
        fuse_loop_release(&e->loop, parked, EIO);
        break;
    case WIRE_SUSPEND:
        rc = device_table_suspend(&e->devices, n.node, (n.flags & WIRE_SUSPEND_WIPE) != 0,
                                  (n.flags & WIRE_SUSPEND_FAIL) != 0, &parked);
        fuse_loop_release(&e->loop, parked, EIO);
        break;
    case WIRE_RESUME:
        rc = device_table_resume(&e->devices, n.node, &parked);
        fuse_loop_release(&e->loop, parked, 0);
        break;
    case WIRE_REFRESH:
        rc = device_table_refresh(&e->devices, n.node, (n.flags & WIRE_DISCARDS) != 0, &parked);
        fuse_loop_release(&e->loop, parked, 0);
        break;
    case WIRE_FLUSH:
        rc = device_table_flush(&e->devices, n.node);
        break;
    }
    request_finish(r, rc, NULL, 0);
}

void request_rekey_device(struct request *r)
{
    struct wire_rekey k;

    memcpy(&k, r->body, sizeof k);
    request_finish(r, device_table_rekey(&r->engine->devices, k.node, k.segment, &k.token, cipher_threads(r->engine)),
                   NULL, 0);
}

void request_resize_device(struct request *r)
{
    struct wire_resize in;
    struct parked *parked;

    memcpy(&in, r->body, sizeof in);
    int rc = device_table_resize(&r->engine->devices, in.node, in.size, &parked);
    fuse_loop_release(&r->engine->loop, parked, 0);
    request_finish(r, rc, NULL, 0);
}
