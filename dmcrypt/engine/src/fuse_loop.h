/** The threads that read the FUSE connection and serve the requests that carry data.
 *
 * Source: linux/fuse.h; the kernel's fs/fuse/dev.c and file.c. READ and WRITE of a device's node are served by the
 * reader itself; FSYNC, FALLOCATE and what was parked by threads that may wait; LSEEK and FLUSH need no I/O; the rest goes to
 * forward.h.
 */
#ifndef FUSECRYPT_FUSE_LOOP_H
#define FUSECRYPT_FUSE_LOOP_H

#include <stdatomic.h>

#include "device_table.h"
#include "forward.h"
#include "jobs.h"

/** Threads beside the readers that do I/O: for FSYNC, FALLOCATE, parked requests. */
#define FUSE_SLOW_THREADS 2u

/** Readers that step in when all others wait for their backing stores. More readers than processors cost a third of the
 *  speed of small requests, since the kernel wakes them in turn; fewer would let one slow store stop every volume. */
#define FUSE_SPARE_READERS 4u

struct fuse_loop;

struct reader {
    struct fuse_loop *loop;
    unsigned index;
    int fd;
    struct io_thread io;
    uint8_t *request;           /* where requests are read to; its data begins on a page */
    _Atomic uint64_t progress;  /* odd while it serves a request; moves with each */
} __attribute__((aligned(64)));

struct fuse_loop {
    struct device_table *devices;
    struct forward forward;
    unsigned reader_count; /* without the spare ones, which follow them */
    struct reader readers[FORWARD_READERS];
    struct io_thread slow_io[FUSE_SLOW_THREADS];
    struct pool slow;
    _Atomic unsigned running;
    _Atomic bool is_over;
    void (*unmounted)(void *arg); /* called once, by the last reader to end */
    void *unmounted_arg;
};

/** Start reading.
 *
 * @param fuse_fds one a reader; the same number may stand there more than once
 * @return 0 or a negative errno
 */
int fuse_loop_start(struct fuse_loop *loop, const int *fuse_fds, unsigned readers, int session_fd,
                    struct device_table *devices, void (*unmounted)(void *arg), void *arg);

/** How many threads' worth of contexts ciphers must be opened for, with `readers` readers. */
static inline unsigned fuse_loop_io_threads(unsigned readers)
{
    return readers + FUSE_SPARE_READERS + FUSE_SLOW_THREADS;
}

/** Serve, or with `error` refuse, requests that were parked. Frees the list. */
void fuse_loop_release(struct fuse_loop *loop, struct parked *parked, int error);

#endif
