/** The way of FUSE requests that carry no data: to pyfuse3 and back, over a SOCK_SEQPACKET pair.
 *
 * The pair stands in for pyfuse3's /dev/fuse. What is out is remembered: if pyfuse3 dies, it is answered
 * with EIO, and so is all that comes later. A request's reader is kept in the top byte of `unique`, so that
 * its reply goes to the cloned descriptor it came from.
 */
#ifndef FUSECRYPT_FORWARD_H
#define FUSECRYPT_FORWARD_H

#include <linux/fuse.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "device_table.h"

#define FORWARD_READERS 64u
/* A reply, or a request other than WRITE, stays below this, so that it fits any net.core.wmem_max. */
#define FORWARD_MESSAGE_MAX (128u << 10)
#define FORWARD_READ_MAX (64u << 10)

struct outstanding {
    uint64_t unique;
    uint64_t node;
    uint32_t opcode;
    unsigned reader;
};

struct forward {
    int session_fd;
    int fuse_fds[FORWARD_READERS];
    struct device_table *devices;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t work;
    bool is_dead;
    struct outstanding *out;
    size_t out_count, out_capacity;
    struct queued *queue, **queue_last; /* requests that did not fit the socket */
    struct queued *notifications, **notifications_last;
    pthread_cond_t notify;
};

/** Start the threads that carry replies, notifications and what did not fit. @return 0 or a negative errno */
int forward_start(struct forward *f, int session_fd, const int *fuse_fds, unsigned readers,
                  struct device_table *devices);

/** Pass a request on, or answer it with EIO. Never blocks on pyfuse3. @param h its whole message, changed */
void forward_request(struct forward *f, unsigned reader, struct fuse_in_header *h);

/** Queue a notification for the kernel (a fuse_out_header and its body); done by a thread of its own.
 *
 * @param done called by that thread with 0 or a negative errno; NULL for none
 * @return 0 or -ENOMEM
 */
int forward_notify(struct forward *f, const void *message, size_t length, void (*done)(void *arg, int status),
                   void *arg);

/** Write a reply to the kernel. A request that the kernel gave up meanwhile (ENOENT) is no error. */
void fuse_reply(int fd, uint64_t unique, int error, const void *body, size_t length);

#endif
