#include "fuse_loop.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "registers.h"
#include "thread.h"

/* fs/fuse/dev.c, fuse_dev_do_read: a read must have room for max_write and FUSE_BUFFER_HEADER_SIZE. */
#define HEADER_ROOM 4096u
#define REQUEST_MAX (DEVICE_IO_MAX + HEADER_ROOM)

/* fuse.h: what precedes the data of a WRITE; the data itself then begins on a page. */
#define WRITE_PREFIX (sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in))

struct slow_job {
    struct fuse_loop *loop;
    struct device *device; /* held */
    int reply_fd;
    uint8_t *request;
};

static void serve_read(struct device *dev, struct io_thread *io, int fd, const struct fuse_in_header *h)
{
    const struct fuse_read_in *in = (const void *)(h + 1);
    uint8_t *data = NULL;
    ssize_t n = device_read(dev, io, in->size, in->offset, &data);

    fuse_reply(fd, h->unique, n < 0 ? (int)-n : 0, data, n > 0 ? (size_t)n : 0);
}

static void serve_write(struct device *dev, struct io_thread *io, int fd, const struct fuse_in_header *h)
{
    const struct fuse_write_in *in = (const void *)(h + 1);
    size_t there = h->len - WRITE_PREFIX;
    ssize_t n = device_write(dev, io, (const uint8_t *)(in + 1), in->size < there ? in->size : there, in->offset);
    struct fuse_write_out out = { .size = n > 0 ? (uint32_t)n : 0 };

    fuse_reply(fd, h->unique, n < 0 ? (int)-n : 0, &out, n < 0 ? 0 : sizeof out);
}

/* A device has no holes: every byte is data, up to one hole at its end (lseek(2)). */
static void serve_lseek(const struct device *dev, int fd, const struct fuse_in_header *h)
{
    const struct fuse_lseek_in *in = (const void *)(h + 1);
    struct fuse_lseek_out out = { .offset = in->whence == SEEK_HOLE ? dev->size : in->offset };
    int error = 0;

    if (in->whence != SEEK_HOLE && in->whence != SEEK_DATA)
        error = EINVAL;
    else if (in->offset >= dev->size)
        error = ENXIO;
    fuse_reply(fd, h->unique, error, &out, error != 0 ? 0 : sizeof out);
}

static size_t least_length(uint32_t opcode)
{
    switch (opcode) {
    case FUSE_READ:
        return sizeof(struct fuse_in_header) + sizeof(struct fuse_read_in);
    case FUSE_WRITE:
        return WRITE_PREFIX;
    case FUSE_FLUSH:
        return sizeof(struct fuse_in_header) + sizeof(struct fuse_flush_in);
    case FUSE_FSYNC:
        return sizeof(struct fuse_in_header) + sizeof(struct fuse_fsync_in);
    case FUSE_FALLOCATE:
        return sizeof(struct fuse_in_header) + sizeof(struct fuse_fallocate_in);
    case FUSE_LSEEK:
        return sizeof(struct fuse_in_header) + sizeof(struct fuse_lseek_in);
    default:
        return 0;
    }
}

/* Any data request of an active device, by a thread that may wait. */
static void serve(struct device *dev, struct io_thread *io, int fd, const struct fuse_in_header *h)
{
    int rc;

    switch (h->opcode) {
    case FUSE_READ:
        serve_read(dev, io, fd, h);
        return;
    case FUSE_WRITE:
        serve_write(dev, io, fd, h);
        return;
    case FUSE_LSEEK:
        serve_lseek(dev, fd, h);
        return;
    case FUSE_FLUSH: /* each close(2): nothing is kept back here that could be written now */
        rc = 0;
        break;
    case FUSE_FSYNC:
        rc = device_sync(dev);
        break;
    case FUSE_FALLOCATE: {
        const struct fuse_fallocate_in *in = (const void *)(h + 1);
        rc = device_fallocate(dev, io, in->mode, in->offset, in->length);
        break;
    }
    default:
        rc = -ENOSYS;
    }
    fuse_reply(fd, h->unique, -rc, NULL, 0);
}

static void run_slow(void *arg, unsigned thread)
{
    struct slow_job *job = arg;
    struct fuse_in_header *h = (struct fuse_in_header *)job->request;
    /* The device may have been suspended while the job was in the queue. */
    int rc = device_is_active(job->device)
                 ? -EAGAIN
                 : device_table_park(job->loop->devices, job->device, job->reply_fd, job->request);

    if (rc == -EAGAIN)
        serve(job->device, &job->loop->slow_io[thread], job->reply_fd, h);
    else if (rc != 0)
        fuse_reply(job->reply_fd, h->unique, rc == -ENODEV ? EIO : -rc, NULL, 0);
    if (rc != 0)
        free(job->request);
    device_table_leave(job->loop->devices, job->device);
    free(job);
}

/* Takes `request` and the hold on the device over; answers with ENOMEM if that fails. */
static void submit_slow(struct fuse_loop *loop, struct device *dev, int fd, uint8_t *request)
{
    struct slow_job *job = malloc(sizeof *job);

    if (job != NULL) {
        *job = (struct slow_job){ .loop = loop, .device = dev, .reply_fd = fd, .request = request };
        if (pool_submit(&loop->slow, run_slow, job) == 0)
            return;
        free(job);
    }
    fuse_reply(fd, ((struct fuse_in_header *)request)->unique, ENOMEM, NULL, 0);
    device_table_leave(loop->devices, dev);
    free(request);
}

static uint8_t *copy_request(const struct fuse_in_header *h)
{
    uint8_t *copy = malloc(h->len);

    if (copy != NULL)
        memcpy(copy, h, h->len);
    return copy;
}

static bool is_quick(const struct device *dev, uint32_t opcode)
{
    switch (opcode) {
    case FUSE_READ:
    case FUSE_WRITE:
        return device_is_active(dev);
    case FUSE_LSEEK:
    case FUSE_FLUSH:
        return true; /* no I/O: a suspended device answers, too */
    default:
        return false;
    }
}

/* The device is held, and let go here or by whoever it is handed to. */
static void dispatch(struct reader *r, struct device *dev, struct fuse_in_header *h)
{
    struct fuse_loop *loop = r->loop;

    if (is_quick(dev, h->opcode)) {
        serve(dev, &r->io, r->fd, h);
        device_table_leave(loop->devices, dev);
        return;
    }
    uint8_t *copy = copy_request(h);
    int rc = copy == NULL ? -ENOMEM : -EAGAIN;
    if (rc == -EAGAIN && !device_is_active(dev))
        rc = device_table_park(loop->devices, dev, r->fd, copy);
    if (rc == -EAGAIN) {
        submit_slow(loop, dev, r->fd, copy);
        return;
    }
    if (rc != 0) {
        free(copy);
        fuse_reply(r->fd, h->unique, rc == -ENODEV ? EIO : -rc, NULL, 0);
    }
    device_table_leave(loop->devices, dev);
}

/* A signal for somebody who waits. What pyfuse3 has to do with it, it is told; what waits here ends here. */
static void interrupt(struct reader *r, struct fuse_in_header *h)
{
    const struct fuse_interrupt_in *in = (const void *)(h + 1);
    struct parked *parked = h->len < sizeof *h + sizeof *in ? NULL : device_table_interrupt(r->loop->devices, in->unique);

    if (parked != NULL)
        fuse_loop_release(r->loop, parked, EINTR);
    else
        forward_request(&r->loop->forward, r->index, h);
}

/* @return false when the connection is over */
static bool serve_next(struct reader *r)
{
    ssize_t n = read(r->fd, r->request, REQUEST_MAX);

    /* ENOENT: interrupted in the queue. EAGAIN: another reader was first. ENODEV: unmounted. ECONNABORTED: aborted. */
    if (n < 0)
        return errno == EINTR || errno == EAGAIN || errno == ENOENT;
    struct fuse_in_header *h = (struct fuse_in_header *)r->request;
    if ((size_t)n < sizeof *h || h->len != (size_t)n)
        return false;
    atomic_fetch_add_explicit(&r->progress, 1, memory_order_relaxed);
    size_t least = least_length(h->opcode);
    struct device *dev = least != 0 && h->len >= least ? device_table_find(r->loop->devices, h->nodeid) : NULL;
    if (dev != NULL)
        dispatch(r, dev, h);
    else if (h->opcode == FUSE_INTERRUPT)
        interrupt(r, h);
    else if (h->opcode == FUSE_WRITE || h->opcode == FUSE_FALLOCATE || h->opcode == FUSE_LSEEK)
        /* None of our files takes data but devices; of a device that was just closed nothing is left. */
        fuse_reply(r->fd, h->unique, EIO, NULL, 0);
    else
        forward_request(&r->loop->forward, r->index, h);
    wipe_registers();
    atomic_fetch_add_explicit(&r->progress, 1, memory_order_relaxed);
    return true;
}

static void end_reader(struct fuse_loop *loop)
{
    atomic_store(&loop->is_over, true);
    if (atomic_fetch_sub(&loop->running, 1) == 1)
        loop->unmounted(loop->unmounted_arg);
}

static void *read_requests(void *arg)
{
    struct reader *r = arg;

    while (serve_next(r))
        ;
    end_reader(r->loop);
    return NULL;
}

/* Whether every reader before this one has been in one and the same request since the last look. */
static bool are_stuck(const struct reader *spare, uint64_t *seen)
{
    bool stuck = true;

    for (unsigned i = 0; i < spare->index; i++) {
        uint64_t progress = atomic_load_explicit(&spare->loop->readers[i].progress, memory_order_relaxed);
        stuck = stuck && (progress & 1) != 0 && progress == seen[i];
        seen[i] = progress;
    }
    return stuck;
}

static void *read_when_others_wait(void *arg)
{
    const struct timespec look = { .tv_nsec = 200000000 };
    struct reader *r = arg;
    uint64_t seen[FORWARD_READERS] = { 0 };

    while (!atomic_load(&r->loop->is_over)) {
        nanosleep(&look, NULL);
        if (are_stuck(r, seen) && !serve_next(r))
            break;
    }
    end_reader(r->loop);
    return NULL;
}

static int start_reader(struct fuse_loop *loop, unsigned index, int fd)
{
    struct reader *r = &loop->readers[index];
    uint8_t *page = aligned_alloc(4096, REQUEST_MAX + 4096);
    int rc = page == NULL ? -ENOMEM : io_thread_init(&r->io, index);

    if (rc != 0)
        return rc;
    r->loop = loop;
    r->index = index;
    r->fd = fd;
    r->request = page + HEADER_ROOM - WRITE_PREFIX;
    if (index < loop->reader_count)
        return thread_start("fuse-io", read_requests, r);
    return thread_start("fuse-spare", read_when_others_wait, r);
}

int fuse_loop_start(struct fuse_loop *loop, const int *fuse_fds, unsigned readers, int session_fd,
                    struct device_table *devices, void (*unmounted)(void *arg), void *arg)
{
    const unsigned all = readers + FUSE_SPARE_READERS;
    int all_fds[FORWARD_READERS];
    int rc;

    for (unsigned i = 0; i < all; i++)
        all_fds[i] = fuse_fds[i < readers ? i : 0];
    loop->devices = devices;
    loop->reader_count = readers;
    loop->unmounted = unmounted;
    loop->unmounted_arg = arg;
    atomic_init(&loop->running, all);
    for (unsigned i = 0; i < FUSE_SLOW_THREADS; i++) {
        rc = io_thread_init(&loop->slow_io[i], all + i);
        if (rc != 0)
            return rc;
    }
    rc = pool_start(&loop->slow, "fuse-sync", FUSE_SLOW_THREADS);
    if (rc == 0)
        rc = forward_start(&loop->forward, session_fd, all_fds, all, devices);
    for (unsigned i = 0; i < all && rc == 0; i++)
        rc = start_reader(loop, i, all_fds[i]);
    return rc;
}

void fuse_loop_release(struct fuse_loop *loop, struct parked *parked, int error)
{
    while (parked != NULL) {
        struct parked *next = parked->next;
        struct fuse_in_header *h = (struct fuse_in_header *)parked->request;
        struct device *dev = error == 0 ? device_table_find(loop->devices, h->nodeid) : NULL;
        if (dev != NULL) {
            submit_slow(loop, dev, parked->reply_fd, parked->request);
        } else {
            fuse_reply(parked->reply_fd, h->unique, error != 0 ? error : EIO, NULL, 0);
            free(parked->request);
        }
        free(parked);
        parked = next;
    }
}
