#include "read_device.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "device.h"

/* Of the one reader that there is without a mount. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct io_thread io;

static int read_held(struct device *dev, const struct wire_read *in, struct request *r)
{
    uint8_t *data = NULL;
    int rc = io.data != NULL ? 0 : io_thread_init(&io, 0);
    ssize_t n = rc == 0 ? device_read(dev, &io, in->size, in->offset, &data) : rc;

    if (n >= 0)
        request_finish(r, 0, data, (size_t)n);
    return n < 0 ? (int)n : 0;
}

void read_device(struct request *r)
{
    struct device_table *devices = &r->engine->devices;
    struct device *dev = NULL;
    struct wire_read in;
    int rc = -EPERM;

    memcpy(&in, r->body, sizeof in);
    if (r->engine->options.fuse_fd < 0) {
        rc = in.size > WIRE_READ_MAX ? -EINVAL : -ENODEV;
        dev = rc == -EINVAL ? NULL : device_table_find(devices, in.node);
    }
    if (dev != NULL) {
        pthread_mutex_lock(&lock);
        rc = read_held(dev, &in, r);
        pthread_mutex_unlock(&lock);
        device_table_leave(devices, dev);
    }
    if (rc != 0)
        request_finish(r, rc, NULL, 0);
}
