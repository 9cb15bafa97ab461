/* Threads at the same device: reads, writes inside shared sectors, syncs, suspends with keys dropped and given back.
 * Built with a sanitizer and run by test_sanitizers.py; prints "ok" and exits 0 when every byte was right. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "arena.h"
#include "device_table.h"
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
            if (n != sizeof byte)
                fail("write", n);
            n = device_read(dev, &io, round % 16 == 0 ? DEVICE_IO_MAX : sizeof byte, at, &data);
            if (n < (ssize_t)sizeof byte || memcmp(data, byte, sizeof byte) != 0)
                fail("read", n);
            if (round % 32 == 0 && device_sync(dev) != 0)
                fail("sync", 0);
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

static void *administrate(void *arg)
{
    (void)arg;
    for (unsigned round = 0; round < 30; round++) {
        struct parked *parked;
        int rc = device_table_suspend(&devices, NODE, true);
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
