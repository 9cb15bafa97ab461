#include "cipher_benchmark.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "arena.h"
#include "cipher.h"
#include "device.h"
#include "random.h"
#include "session.h"

#define BUFFER_SIZE (1u << 20) /* lib/utils_benchmark.c measures with as much */
#define MILLISECONDS_MAX 60000u

static uint64_t nanoseconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* In pieces that stay in the cache, as device.c does it. */
static int pass(struct cipher *c, uint8_t *buffer, bool encrypt)
{
    int rc = 0;

    for (size_t at = 0; at < BUFFER_SIZE && rc == 0; at += DEVICE_PIECE)
        rc = encrypt ? cipher_encrypt(c, 0, buffer + at, buffer + at, DEVICE_PIECE, at >> 9)
                     : cipher_decrypt(c, 0, buffer + at, DEVICE_PIECE, at >> 9);
    return rc;
}

static int measure(struct cipher *c, uint8_t *buffer, bool encrypt, uint64_t wanted, uint64_t *bytes, uint64_t *taken)
{
    int rc = pass(c, buffer, encrypt); /* pages and caches */
    const uint64_t start = nanoseconds();

    for (*bytes = *taken = 0; rc == 0 && *taken < wanted; *taken = nanoseconds() - start) {
        rc = pass(c, buffer, encrypt);
        *bytes += BUFFER_SIZE;
    }
    return rc;
}

static int open_with_random_key(const struct wire_cipher_benchmark *b, struct cipher **c)
{
    uint8_t *key = arena_alloc(b->key_size);

    if (key == NULL)
        return -ENOSPC;
    int rc = random_fill(key, b->key_size);
    if (rc == 0)
        rc = cipher_open(c, b->cipher, key, b->key_size, b->sector_size, 0, 1);
    arena_free(key);
    return rc;
}

int cipher_benchmark(const struct wire_cipher_benchmark *b, struct wire_cipher_speed *out)
{
    const uint64_t wanted = (uint64_t)b->milliseconds * 1000000u;
    struct cipher *c = NULL;

    if (memchr(b->cipher, 0, sizeof b->cipher) == NULL || b->key_size == 0 || b->key_size > SESSION_KEY_MAX
        || b->milliseconds == 0 || b->milliseconds > MILLISECONDS_MAX || b->sector_size > DEVICE_SECTOR_MAX)
        return -EINVAL;
    uint8_t *buffer = aligned_alloc(4096, BUFFER_SIZE);
    if (buffer == NULL)
        return -ENOMEM;
    memset(buffer, 0, BUFFER_SIZE);
    int rc = open_with_random_key(b, &c);
    if (rc == 0)
        rc = measure(c, buffer, true, wanted, &out->encrypted, &out->encrypt_time);
    if (rc == 0)
        rc = measure(c, buffer, false, wanted, &out->decrypted, &out->decrypt_time);
    cipher_close(c);
    free(buffer);
    return rc;
}
