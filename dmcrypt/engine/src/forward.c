#include "forward.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "thread.h"

#define READER_SHIFT 56
#define READ_AHEAD (1u << 20) /* bytes */

struct queued {
    struct queued *next;
    void (*done)(void *arg, int status);
    void *arg;
    size_t length;
    uint8_t message[];
};

void fuse_reply(int fd, uint64_t unique, int error, const void *body, size_t length)
{
    struct fuse_out_header h = { .len = (uint32_t)(sizeof h + length), .error = -error, .unique = unique };
    struct iovec iov[2] = { { &h, sizeof h }, { (void *)(uintptr_t)body, length } };

    while (writev(fd, iov, length != 0 ? 2 : 1) < 0 && errno == EINTR)
        ;
}

static bool wants_reply(uint32_t opcode)
{
    return opcode != FUSE_FORGET && opcode != FUSE_BATCH_FORGET && opcode != FUSE_INTERRUPT;
}

/* With f->lock held. */
static bool remember(struct forward *f, unsigned reader, const struct fuse_in_header *h)
{
    if (f->out_count == f->out_capacity) {
        size_t capacity = f->out_capacity != 0 ? 2 * f->out_capacity : 64;
        struct outstanding *more = reallocarray(f->out, capacity, sizeof *more);
        if (more == NULL)
            return false;
        f->out = more;
        f->out_capacity = capacity;
    }
    f->out[f->out_count++] =
        (struct outstanding){ .unique = h->unique, .node = h->nodeid, .opcode = h->opcode, .reader = reader };
    return true;
}

/* With f->lock held. */
static bool recall(struct forward *f, uint64_t unique, struct outstanding *found)
{
    for (size_t i = 0; i < f->out_count; i++)
        if (f->out[i].unique == unique) {
            *found = f->out[i];
            f->out[i] = f->out[--f->out_count];
            return true;
        }
    return false;
}

static void die(struct forward *f)
{
    pthread_mutex_lock(&f->lock);
    f->is_dead = true;
    for (size_t i = 0; i < f->out_count; i++)
        fuse_reply(f->fuse_fds[f->out[i].reader], f->out[i].unique, EIO, NULL, 0);
    f->out_count = 0;
    pthread_cond_broadcast(&f->work);
    pthread_mutex_unlock(&f->lock);
}

/* With f->lock held. */
static bool enqueue(struct queued ***last, const void *message, size_t length, void (*done)(void *, int), void *arg)
{
    struct queued *q = malloc(sizeof *q + length);

    if (q == NULL)
        return false;
    *q = (struct queued){ .done = done, .arg = arg, .length = length };
    memcpy(q->message, message, length);
    **last = q;
    *last = &q->next;
    return true;
}

/* What pyfuse3 can be sent: a directory is read in smaller steps, an interrupt names a request it has. */
static bool prepare(struct forward *f, struct fuse_in_header *h)
{
    switch (h->opcode) {
    case FUSE_READ:
    case FUSE_READDIR:
    case FUSE_READDIRPLUS: {
        struct fuse_read_in *in = (void *)(h + 1);
        if (in->size > FORWARD_READ_MAX)
            in->size = FORWARD_READ_MAX;
        return true;
    }
    case FUSE_INTERRUPT: {
        struct fuse_interrupt_in *in = (void *)(h + 1);
        for (size_t i = 0; i < f->out_count; i++)
            if (f->out[i].unique == in->unique) {
                in->unique |= (uint64_t)f->out[i].reader << READER_SHIFT;
                return true;
            }
        return false;
    }
    default:
        return true;
    }
}

void forward_request(struct forward *f, unsigned reader, struct fuse_in_header *h)
{
    const uint64_t unique = h->unique;
    bool refuse = false;

    if (h->len > FORWARD_MESSAGE_MAX) {
        fuse_reply(f->fuse_fds[reader], unique, h->opcode == FUSE_WRITE ? EBADF : E2BIG, NULL, 0);
        return;
    }
    pthread_mutex_lock(&f->lock);
    if (f->is_dead) {
        refuse = true;
    } else if (prepare(f, h)) {
        if (wants_reply(h->opcode) && !remember(f, reader, h)) {
            refuse = true;
        } else {
            h->unique |= (uint64_t)reader << READER_SHIFT;
            /* Behind what waits already, or the order of a FORGET and its LOOKUP could turn. */
            if (f->queue != NULL || send(f->session_fd, h, h->len, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
                if (!enqueue(&f->queue_last, h, h->len, NULL, NULL)) {
                    struct outstanding lost;
                    refuse = recall(f, unique, &lost);
                }
                pthread_cond_signal(&f->work);
            }
        }
    }
    pthread_mutex_unlock(&f->lock);
    if (refuse && wants_reply(h->opcode))
        fuse_reply(f->fuse_fds[reader], unique, EIO, NULL, 0);
}

static void *send_queued(void *arg)
{
    struct forward *f = arg;

    for (;;) {
        pthread_mutex_lock(&f->lock);
        while (f->queue == NULL)
            pthread_cond_wait(&f->work, &f->lock);
        struct queued *q = f->queue;
        pthread_mutex_unlock(&f->lock);
        /* It stays at the head of the queue while it is sent, so that nobody overtakes it. */
        while (send(f->session_fd, q->message, q->length, MSG_NOSIGNAL) < 0 && errno == EINTR)
            ;
        pthread_mutex_lock(&f->lock);
        f->queue = q->next;
        if (f->queue == NULL)
            f->queue_last = &f->queue;
        pthread_mutex_unlock(&f->lock);
        free(q);
    }
    return NULL;
}

static void *send_notifications(void *arg)
{
    struct forward *f = arg;

    for (;;) {
        pthread_mutex_lock(&f->lock);
        while (f->notifications == NULL)
            pthread_cond_wait(&f->notify, &f->lock);
        struct queued *q = f->notifications;
        f->notifications = q->next;
        if (f->notifications == NULL)
            f->notifications_last = &f->notifications;
        pthread_mutex_unlock(&f->lock);
        ssize_t n;
        do
            n = write(f->fuse_fds[0], q->message, q->length);
        while (n < 0 && errno == EINTR);
        if (q->done != NULL)
            q->done(q->arg, n < 0 ? -errno : 0);
        free(q);
    }
    return NULL;
}

int forward_notify(struct forward *f, const void *message, size_t length, void (*done)(void *arg, int status),
                   void *arg)
{
    pthread_mutex_lock(&f->lock);
    bool queued = enqueue(&f->notifications_last, message, length, done, arg);
    pthread_cond_signal(&f->notify);
    pthread_mutex_unlock(&f->lock);
    return queued ? 0 : -ENOMEM;
}

/* What pyfuse3 cannot set. */
static void edit_reply(struct forward *f, const struct outstanding *request, uint8_t *body, size_t length)
{
    if (request->opcode == FUSE_INIT && length >= FUSE_COMPAT_22_INIT_OUT_SIZE) {
        struct fuse_init_out init = { 0 };
        memcpy(&init, body, length < sizeof init ? length : sizeof init);
        /* ATOMIC_O_TRUNC would hide a truncation in OPEN; WRITEBACK_CACHE would hold plaintext that fsync
         * alone brings here; AUTO_INVAL_DATA would ask for the attributes before each cached read. */
        init.flags &= ~(uint32_t)(FUSE_ATOMIC_O_TRUNC | FUSE_WRITEBACK_CACHE | FUSE_AUTO_INVAL_DATA);
        /* Else the kernel asks for security.capability before each write (no device has any, nor suid bits). */
        init.flags |= FUSE_HANDLE_KILLPRIV_V2;
        init.max_readahead = READ_AHEAD;
        init.max_write = DEVICE_IO_MAX;
        init.max_pages = (uint16_t)(DEVICE_IO_MAX / (unsigned)getpagesize());
        /* Read-ahead that waits for suspended devices counts, and is not to stop that of the others. */
        init.max_background = PARKED_MAX + 64;
        init.congestion_threshold = PARKED_MAX + 48;
        memcpy(body, &init, length < sizeof init ? length : sizeof init);
    } else if (request->opcode == FUSE_OPEN && length >= sizeof(struct fuse_open_out)) {
        struct device *dev = device_table_find(f->devices, request->node);
        if (dev != NULL) {
            struct fuse_open_out open;
            memcpy(&open, body, sizeof open);
            open.open_flags |= FOPEN_PARALLEL_DIRECT_WRITES;
            memcpy(body, &open, sizeof open);
            device_table_leave(f->devices, dev);
        }
    }
}

static void *pass_replies(void *arg)
{
    struct forward *f = arg;
    uint8_t *message = malloc(FORWARD_MESSAGE_MAX);

    while (message != NULL) {
        ssize_t n = recv(f->session_fd, message, FORWARD_MESSAGE_MAX, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < (ssize_t)sizeof(struct fuse_out_header))
            break;
        struct fuse_out_header h;
        memcpy(&h, message, sizeof h);
        if (h.unique == 0) {
            forward_notify(f, message, (size_t)n, NULL, NULL);
            continue;
        }
        struct outstanding request;
        h.unique &= (UINT64_C(1) << READER_SHIFT) - 1;
        memcpy(message, &h, sizeof h);
        pthread_mutex_lock(&f->lock);
        bool known = recall(f, h.unique, &request);
        pthread_mutex_unlock(&f->lock);
        if (!known)
            continue;
        if (h.error == 0)
            edit_reply(f, &request, message + sizeof h, (size_t)n - sizeof h);
        while (write(f->fuse_fds[request.reader], message, (size_t)n) < 0 && errno == EINTR)
            ;
    }
    free(message);
    die(f);
    return NULL;
}

int forward_start(struct forward *f, int session_fd, const int *fuse_fds, unsigned readers,
                  struct device_table *devices)
{
    *f = (struct forward){ .session_fd = session_fd, .devices = devices };
    f->queue_last = &f->queue;
    f->notifications_last = &f->notifications;
    for (unsigned i = 0; i < readers; i++)
        f->fuse_fds[i] = fuse_fds[i];
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->work, NULL);
    pthread_cond_init(&f->notify, NULL);
    int rc = thread_start("fuse-replies", pass_replies, f);
    if (rc == 0)
        rc = thread_start("fuse-forward", send_queued, f);
    if (rc == 0)
        rc = thread_start("fuse-notify", send_notifications, f);
    return rc;
}
