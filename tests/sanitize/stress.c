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
#include "hash.h"
#include "random.h"
#include "registers.h"
#include "session.h"

#define SIZE (4u << 20)
#define WORKERS 4u
#define ROUNDS 400u
#define NODE 5u
#define SENT_NODE 6u /* its key is one that a coprocessor sent */

static struct device_table devices;
static struct wire_stats stats[DEVICE_SLOTS];
static struct wire_token token;
static uint8_t key[64];
static _Atomic unsigned wanted;
static _Atomic bool is_over; /* the administrator has come to its end */
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

static void note_wanted(void *arg, uint64_t node)
{
    (void)arg;
    if (node != SENT_NODE)
        fail("wanted", (long)node);
    wanted++;
}

/* The key as a coprocessor sends it (session.h, kind 1), and what the session makes of that. */
static int receive_key(struct wire_token *sent)
{
    static const char INFO[] = "fusecrypt transport 1";
    uint8_t blob[33 + 12 + sizeof key + 16] = { 1 }, scalar[32], public_key[32], shared[32], aes_key[32];
    const uint8_t no_salt[32] = { 0 }, first = 1;
    struct hash h = { .md = NULL };
    gcry_cipher_hd_t gcm;

    random_fill(scalar, sizeof scalar);
    random_fill(blob + 33, 12);
    session_public_key(public_key);
    gcry_ecc_mul_point(GCRY_ECC_CURVE25519, blob + 1, scalar, NULL);
    gcry_ecc_mul_point(GCRY_ECC_CURVE25519, shared, scalar, public_key);
    hash_open(&h, "sha256", no_salt, sizeof no_salt);
    hash_write(&h, shared, sizeof shared);
    hash_read(&h, aes_key, sizeof aes_key);
    hash_close(&h);
    hash_open(&h, "sha256", aes_key, sizeof aes_key);
    hash_write(&h, INFO, sizeof INFO - 1);
    hash_write(&h, blob + 1, 32);
    hash_write(&h, public_key, sizeof public_key);
    hash_write(&h, &first, 1);
    hash_read(&h, aes_key, sizeof aes_key);
    hash_close(&h);
    gcry_cipher_open(&gcm, GCRY_CIPHER_AES256, GCRY_CIPHER_MODE_GCM, 0);
    gcry_cipher_setkey(gcm, aes_key, sizeof aes_key);
    gcry_cipher_setiv(gcm, blob + 33, 12);
    gcry_cipher_authenticate(gcm, blob, 33);
    gcry_cipher_encrypt(gcm, blob + 45, sizeof key, key, sizeof key);
    gcry_cipher_gettag(gcm, blob + 45 + sizeof key, 16);
    gcry_cipher_close(gcm);
    return session_import(blob, sizeof blob, sizeof key, sent);
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

static int park(struct device *dev, uint64_t unique)
{
    struct fuse_in_header *h = calloc(1, sizeof *h);

    *h = (struct fuse_in_header){ .len = sizeof *h, .unique = unique };
    int rc = device_table_park(&devices, dev, -1, (uint8_t *)h);
    if (rc != 0)
        free(h);
    return rc;
}

/* I/O on the device whose key comes and goes: where it is gone, requests wait. */
static void *use_sent_key(void *arg)
{
    const unsigned self = WORKERS + (unsigned)(uintptr_t)arg;
    struct io_thread io;
    uint8_t sector[512];

    io_thread_init(&io, self);
    memset(sector, (int)self, sizeof sector);
    for (uint64_t round = 0; !is_over; round++) {
        struct device *dev = device_table_find(&devices, SENT_NODE);
        uint8_t *data = NULL;
        if (!device_is_active(dev)) {
            int rc = park(dev, (round * 2 + self - WORKERS) * 2 + 100000);
            if (rc != 0 && rc != -EAGAIN && rc != -EIO)
                fail("wait for a key", rc);
            usleep(200);
        } else if (device_write(dev, &io, sector, sizeof sector, self * 512) != sizeof sector
                   || device_read(dev, &io, sizeof sector, self * 512, &data) != sizeof sector
                   || memcmp(data, sector, sizeof sector) != 0) {
            fail("sent key", 0);
        }
        device_table_leave(&devices, dev);
        wipe_registers();
    }
    free(io.data);
    free(io.piece);
    return NULL;
}

/* The key comes again; or is denied first, and comes then. */
static void bring_key(bool denies)
{
    struct wire_token sent;
    struct parked *parked;
    int rc = receive_key(&sent);

    if (rc == 0 && denies) {
        rc = device_table_deny_key(&devices, SENT_NODE, 2, &parked);
        count_and_free(parked);
        usleep(3000);
    }
    if (rc == 0)
        rc = device_table_renew_key(&devices, SENT_NODE, 0, &sent, WORKERS + 2, &parked);
    count_and_free(parked);
    if (rc != 0)
        fail("bring the key", rc);
    if (device_table_renew_key(&devices, SENT_NODE, 0, &sent, WORKERS + 2, &parked) != -EALREADY)
        fail("bring it twice", 0);
}

static void forget_key(bool denies)
{
    const unsigned before = wanted;
    int rc = device_table_forget_key(&devices, SENT_NODE);

    if (rc != 0 || device_table_forget_key(&devices, NODE) != -EINVAL)
        fail("forget", rc);
    for (unsigned i = 0; i < 100000 && wanted == before; i++)
        usleep(100);
    if (wanted == before)
        fail("nobody asked for a key", 0);
    bring_key(denies);
}

/* Another session, under I/O: a device with a clear key goes on, and its token is another one; a sent key is gone. */
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
    if (rc != 0 || parked != NULL || stopped.count != 1)
        fail("bump", rc);
    rc = device_table_finish_forgetting(&devices, stopped.nodes[0]);
    if (rc != 0)
        fail("rest", rc);
    bring_key(false);
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
        forget_key(round % 5 == 0);
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
    is_over = true;
    return NULL;
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
    pthread_t threads[WORKERS + 3];
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
    devices.key_wanted = note_wanted;
    struct wire_device d = { .node = NODE, .size = SIZE, .sector_size = 512, .segments = 1 };
    struct wire_segment s = { .length = SIZE, .target = WIRE_CRYPT, .cipher = "aes-xts-plain64", .token = token };
    int rc = device_table_add(&devices, &d, &s, &fd, 1, WORKERS, &slot);
    if (rc != 0) {
        fail("add", rc);
        return 2;
    }
    d.node = SENT_NODE;
    d.size = s.length = SIZE / 4;
    fd = memfd_create("sent", MFD_CLOEXEC);
    rc = ftruncate(fd, SIZE / 4) != 0 ? -errno : receive_key(&s.token);
    if (rc == 0)
        rc = device_table_add(&devices, &d, &s, &fd, 1, WORKERS + 2, &slot);
    if (rc != 0) {
        fail("add another", rc);
        return 2;
    }
    for (unsigned i = 0; i < WORKERS; i++)
        pthread_create(&threads[i], NULL, work, (void *)(uintptr_t)i);
    pthread_create(&threads[WORKERS], NULL, administrate, NULL);
    for (unsigned i = 0; i < 2; i++)
        pthread_create(&threads[WORKERS + 1 + i], NULL, use_sent_key, (void *)(uintptr_t)i);
    for (unsigned i = 0; i < WORKERS + 3; i++)
        pthread_join(threads[i], NULL);
    check_parking();
    struct parked *parked;
    if (devices.parked_for_key_count != 0 || devices.parked_for_key_bytes != 0)
        fail("waited for a key", (long)devices.parked_for_key_count);
    rc = device_table_remove(&devices, SENT_NODE, &parked);
    if (rc != 0 || parked != NULL)
        fail("remove", rc);
    rc = device_table_remove(&devices, NODE, &parked);
    if (rc != 0)
        fail("remove", rc);
    if (arena_info().used > 4096)
        fail("key memory left", (long)arena_info().used);
    if (failures == 0)
        puts("ok");
    return failures == 0 ? 0 : 1;
}
