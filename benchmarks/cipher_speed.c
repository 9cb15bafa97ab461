/* How fast the engine's cipher calls are, beside libgcrypt's own on the same sectors: one core, memory only.
 *
 * Usage: cipher_speed SPEC KEY-SIZE SECTOR-SIZE ALGORITHM MODE MILLISECONDS
 * ALGORITHM and MODE are libgcrypt's, of the peer: "AES256" "xts"; its key is as long as it needs.
 * Prints four numbers, MB/s: ours enciphering and deciphering, the peer's likewise. They run in short turns, of which
 * the best counts: on a busy machine each finds a quiet one.
 */
#include <errno.h>
#include <gcrypt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "arena.h"
#include "cipher.h"
#include "device.h"

#define TURN 0.002 /* seconds: short enough to find the machine quiet now and then */

static uint8_t data[DEVICE_PIECE] __attribute__((aligned(4096)));
static uint8_t key[2080];

struct peer {
    gcry_cipher_hd_t handle;
    int mode;
    size_t iv_size;
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void die(const char *what)
{
    fprintf(stderr, "cipher_speed: %s\n", what);
    exit(1);
}

static int find_mode(const char *name)
{
    static const struct {
        const char *name;
        int mode;
    } MODES[] = {{"xts", GCRY_CIPHER_MODE_XTS}, {"cbc", GCRY_CIPHER_MODE_CBC}, {"ctr", GCRY_CIPHER_MODE_CTR},
                 {"ecb", GCRY_CIPHER_MODE_ECB}, {"stream", GCRY_CIPHER_MODE_STREAM}};
    for (size_t i = 0; i < sizeof(MODES) / sizeof(MODES[0]); i++)
        if (strcmp(MODES[i].name, name) == 0)
            return MODES[i].mode;
    die("no such mode");
    return 0;
}

static void open_peer(struct peer *p, const char *algorithm, const char *mode)
{
    const int number = gcry_cipher_map_name(algorithm);
    p->mode = find_mode(mode);
    size_t key_size = gcry_cipher_get_algo_keylen(number);
    p->iv_size = p->mode == GCRY_CIPHER_MODE_STREAM ? 16 : p->mode == GCRY_CIPHER_MODE_ECB ? 0
                                                                 : gcry_cipher_get_algo_blklen(number);
    if (p->mode == GCRY_CIPHER_MODE_XTS)
        key_size *= 2;
    if (number == 0 || gcry_cipher_open(&p->handle, number, p->mode, 0))
        die("no such cipher in libgcrypt");
    gcry_cipher_ctl(p->handle, GCRYCTL_SET_ALLOW_WEAK_KEY, NULL, 1);
    gcry_cipher_setkey(p->handle, key, key_size);
}

static void run_peer(struct peer *p, size_t sector_size, uint64_t sector, int encrypt)
{
    uint8_t iv[16] = {0};
    for (size_t at = 0; at < sizeof(data); at += sector_size, sector++) {
        memcpy(iv, &sector, sizeof(sector));
        if (p->mode == GCRY_CIPHER_MODE_CTR)
            gcry_cipher_setctr(p->handle, iv, p->iv_size);
        else if (p->iv_size)
            gcry_cipher_setiv(p->handle, iv, p->iv_size);
        if (encrypt)
            gcry_cipher_encrypt(p->handle, data + at, sector_size, NULL, 0);
        else
            gcry_cipher_decrypt(p->handle, data + at, sector_size, NULL, 0);
    }
}

static double measure(struct cipher *c, struct peer *p, size_t sector_size, int encrypt, double seconds)
{
    const double start = now();
    double took;
    uint64_t rounds = 0;
    do {
        if (c && encrypt)
            cipher_encrypt(c, 0, data, data, sizeof(data), rounds * (sizeof(data) / 512));
        else if (c)
            cipher_decrypt(c, 0, data, sizeof(data), rounds * (sizeof(data) / 512));
        else
            run_peer(p, sector_size, rounds * (sizeof(data) / 512), encrypt);
        rounds++;
        took = now() - start;
    } while (took < seconds);
    return (double)(rounds * sizeof(data)) / took / 1e6;
}

int main(int count, char **words)
{
    struct cipher *c = NULL;
    struct peer peer;
    double best[4] = {0};
    if (count != 7)
        die("wanted SPEC KEY-SIZE SECTOR-SIZE ALGORITHM MODE MILLISECONDS");
    if (arena_init(1u << 20, 8u << 20, false) || arena_init_gcrypt())
        die("no key memory");
    for (size_t i = 0; i < sizeof(key); i++)
        key[i] = (uint8_t)(i * 37 + 1 + i / 256);
    const size_t key_size = strtoul(words[2], NULL, 10), sector_size = strtoul(words[3], NULL, 10);
    if (cipher_open(&c, words[1], key, key_size, (uint32_t)sector_size, 0, 1))
        die("the engine does not take it");
    open_peer(&peer, words[4], words[5]);
    const double end = now() + strtod(words[6], NULL) / 1e3;
    do {
        for (unsigned k = 0; k < 4; k++) {
            const double speed = measure(k < 2 ? c : NULL, &peer, sector_size, k % 2 == 0, TURN);
            best[k] = speed > best[k] ? speed : best[k];
        }
    } while (now() < end);
    printf("%.0f %.0f %.0f %.0f\n", best[0], best[1], best[2], best[3]);
    return 0;
}
