/* Threads at the same device: reads, writes inside shared sectors, syncs, other sizes, suspends with keys dropped and given back.
 * Built with a sanitizer and run by test_sanitizers.py; prints "ok" and exits 0 when every byte was right. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "arena.h"
#include "device_table.h"
#include "forgotten_key.h"
#include "registers.h"
#include "session.h"

#define SIZE (4u << 20)
#define WORKERS 4u
#define ROUNDS 400u
#define NODE 5u

static struct device_table devices;
static struct wire_stats stats[DEVICE_SLOTS];
static struct wire_token token;
static _Atomic int failures;

static void fail(const char *what, long rc)
{
    fprintf(stderr, "%s: %ld\n", what, rc);
    failures++;
}

/* Each worker owns the bytes with its number modulo WORKERS, in runs of 7: every sector has bytes of all. */
static void *work(void *arg)
{
    unsigned self = (unsigned)(uintptr_t)arg, seed = self + 1;
    struct io_thread io;
    uint8_t byte[7];

    io_thread_init(&io, self);
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint64_t slot = (uint64_t)rand_r(&seed) % (SIZE / (7 * WORKERS) - 1);
        uint64_t at = (slot * WORKERS + self) * 7;
        struct device *dev = device_table_find(&devices, NODE);
        if (dev == NULL)
            continue;
        if (device_is_active(dev)) {
            memset(byte, (int)round, sizeof byte);
            ssize_t n = device_write(dev, &io, byte, sizeof byte, at);
            uint8_t *data = NULL;
            if (n == -ENOSPC || (n > 0 && n < (ssize_t)sizeof byte)) {
                device_table_leave(&devices, dev); /* it is smaller just now */
                continue;
            }
            if (n != sizeof byte)
                fail("write", n);
            n = device_read(dev, &io, round % 16 == 0 ? DEVICE_IO_MAX : sizeof byte, at, &data);
            if (n < (ssize_t)sizeof byte || memcmp(data, byte, sizeof byte) != 0)
                fail("read", n);
            if (round % 32 == 0 && device_sync(dev) != 0)
                fail("sync", 0);
            /* Within a sector a hole is zeros that are written, allowed or not. */
            if (round % 48 == 0
                && device_fallocate(dev, &io, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, 7) != 0)
                fail("punch", 0);
            if (round % 64 == 0 && device_fallocate(dev, &io, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, at, 7) != 0)
                fail("zero", 0);
        }
        device_table_leave(&devices, dev);
        wipe_registers();
    }
    free(io.data);
    free(io.piece);
    return NULL;
}

/* Another session, under I/O: a device with a clear key goes on, and its token is another one. */
static void bump_session(void)
{
    static struct stopped stopped;
    struct session next;
    struct parked *parked;
    int rc = session_prepare(&next);

    if (rc == 0) {
        rc = device_table_begin_session(&devices, &next, &stopped, &parked);
        session_discard(&next);
    }
    if (rc != 0 || parked != NULL || stopped.count != 0)
        fail("bump", rc);
    rc = device_table_copy_token(&devices, NODE, 0, &token);
    if (rc != 0)
        fail("token", rc);
}

static void *administrate(void *arg)
{
    (void)arg;
    for (unsigned round = 0; round < 30; round++) {
        struct parked *parked;
        bump_session();
        int rc = device_table_resize(&devices, NODE, round % 2 == 0 ? SIZE : SIZE / 2 + SIZE / 4, &parked);
        if (rc != 0 || parked != NULL)
            fail("resize", rc);
        rc = device_table_resize(&devices, NODE, SIZE, &parked);
        if (rc != 0 || parked != NULL)
            fail("resize", rc);
        rc = device_table_refresh(&devices, NODE, round % 2 == 0, &parked);
        if (rc != 0 || parked != NULL)
            fail("refresh", rc);
        rc = device_table_suspend(&devices, NODE, true, false, &parked);
        if (rc != 0)
            fail("suspend", rc);
        rc = device_table_rekey(&devices, NODE, 0, &token, WORKERS);
        if (rc != 0)
            fail("rekey", rc);
        rc = device_table_resume(&devices, NODE, &parked);
        if (rc != 0 || parked != NULL)
            fail("resume", rc);
        usleep(1000);
    }
    return NULL;
}

static int park(struct device *dev, uint64_t unique)
{
    struct fuse_in_header *h = calloc(1, sizeof *h);

    *h = (struct fuse_in_header){ .len = sizeof *h, .unique = unique };
    int rc = device_table_park(&devices, dev, -1, (uint8_t *)h);
    if (rc != 0)
        free(h);
    return rc;
}

static unsigned count_and_free(struct parked *parked)
{
    unsigned n = 0;

    while (parked != NULL) {
        struct parked *next = parked->next;
        free(parked->request);
        free(parked);
        parked = next;
        n++;
    }
    return n;
}

/* So many requests wait and no more; each can be interrupted, before or after it waits. */
static void check_parking(void)
{
    struct device *dev = device_table_find(&devices, NODE);
    struct parked *parked;
    unsigned n = 0;

    if (device_table_interrupt(&devices, 1) != NULL || park(dev, 1) != -EAGAIN)
        fail("parking while active", 0);
    device_table_leave(&devices, dev);
    device_table_suspend(&devices, NODE, true, false, &parked);
    dev = device_table_find(&devices, NODE);
    if (device_table_interrupt(&devices, 3) != NULL || park(dev, 3) != -EINTR || park(dev, 5) != 0)
        fail("interrupted before", 0);
    if (count_and_free(device_table_interrupt(&devices, 5)) != 1 || device_table_interrupt(&devices, 5) != NULL)
        fail("interrupted after", 0);
    while (n <= PARKED_MAX && park(dev, 100 + n) == 0)
        n++;
    if (n != PARKED_MAX)
        fail("bound", (long)n);
    for (unsigned i = 0; i < 3; i++) /* first, last, middle */
        if (count_and_free(device_table_interrupt(&devices, 100 + (i == 0 ? 0 : i == 1 ? n - 1 : n / 2))) != 1)
            fail("interrupt", (long)i);
    if (park(dev, 5000) != 0)
        fail("room again", 0);
    device_table_leave(&devices, dev);
    if (device_table_suspend(&devices, NODE, true, true, &parked) != 0 || count_and_free(parked) != n - 2
        || park(dev, 6000) != -EIO || device_table_suspend(&devices, NODE, true, true, &parked) != -EALREADY)
        fail("end of waiting", 0);
    device_table_rekey(&devices, NODE, 0, &token, WORKERS);
    device_table_resume(&devices, NODE, &parked);
    if (parked != NULL || devices.parked_count != 0 || devices.parked_bytes != 0
        || devices.suspended != 0)
        fail("resumed", (long)devices.parked_count);
}

int main(void)
{
    uint8_t key[64];
    pthread_t threads[WORKERS + 1];
    uint32_t slot;

    int fd = memfd_create("stress", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, SIZE) != 0 || arena_init(1 << 20, 4 << 20, true) != 0 || arena_init_gcrypt() != 0
        || session_init() != 0)
        return 2;
    for (unsigned i = 0; i < sizeof key; i++)
        key[i] = (uint8_t)(i * 7 + 1);
    if (session_wrap(key, sizeof key, &token) != 0)
        return 2;
    device_table_init(&devices, stats);
    struct wire_device d = { .node = NODE, .size = SIZE, .sector_size = 512, .segments = 1 };
    struct wire_segment s = { .length = SIZE, .target = WIRE_CRYPT, .cipher = "aes-xts-plain64", .token = token };
    int rc = device_table_add(&devices, &d, &s, &fd, 1, WORKERS, &slot);
    if (rc != 0) {
        fail("add", rc);
        return 2;
    }
    for (unsigned i = 0; i < WORKERS; i++)
        pthread_create(&threads[i], NULL, work, (void *)(uintptr_t)i);
    pthread_create(&threads[WORKERS], NULL, administrate, NULL);
    for (unsigned i = 0; i <= WORKERS; i++)
        pthread_join(threads[i], NULL);
    check_parking();
    struct parked *parked;
    rc = device_table_remove(&devices, NODE, &parked);
    if (rc != 0)
        fail("remove", rc);
    if (arena_info().used > 4096)
        fail("key memory left", (long)arena_info().used);
    if (failures == 0)
        puts("ok");
    return failures == 0 ? 0 : 1;
}
