#include "cipher.h"

#include <errno.h>
#include <gcrypt.h>
#include <string.h>

#include "arena.h"
#include "hash.h"
#include "iv.h"
#include "wire.h"

#define IV_BATCH 32u /* sectors whose IVs are made at once */
#define THREADS_MAX 256u

static const struct {
    const char *name;
    size_t key_size; /* bytes; 0: any that libgcrypt takes */
    int algorithm;
} ALGORITHMS[] = {
    {"aes", 16, GCRY_CIPHER_AES128},
    {"aes", 24, GCRY_CIPHER_AES192},
    {"aes", 32, GCRY_CIPHER_AES256},
    {"serpent", 16, GCRY_CIPHER_SERPENT128},
    {"serpent", 24, GCRY_CIPHER_SERPENT192},
    {"serpent", 32, GCRY_CIPHER_SERPENT256},
    {"twofish", 16, GCRY_CIPHER_TWOFISH128},
    {"twofish", 32, GCRY_CIPHER_TWOFISH},
    {"camellia", 16, GCRY_CIPHER_CAMELLIA128},
    {"camellia", 24, GCRY_CIPHER_CAMELLIA192},
    {"camellia", 32, GCRY_CIPHER_CAMELLIA256},
    {"sm4", 16, GCRY_CIPHER_SM4},
    {"seed", 16, GCRY_CIPHER_SEED},
    {"cast5", 16, GCRY_CIPHER_CAST5},
    {"blowfish", 0, GCRY_CIPHER_BLOWFISH},
    {"des3_ede", 24, GCRY_CIPHER_3DES},
    {"des", 8, GCRY_CIPHER_DES},
};

static const struct mode {
    const char *name;
    int mode;
    unsigned keys; /* cipher keys in one volume key */
} MODES[] = {
    {"xts", GCRY_CIPHER_MODE_XTS, 2},
    {"cbc", GCRY_CIPHER_MODE_CBC, 1},
    {"ctr", GCRY_CIPHER_MODE_CTR, 1},
    {"ecb", GCRY_CIPHER_MODE_ECB, 1},
};

/** One thread's expanded keys. */
struct lane {
    _Alignas(64) gcry_cipher_hd_t data; /* no cache line of two threads */
    gcry_cipher_hd_t iv; /* ECB, for essiv and eboiv; else NULL */
    uint8_t ivs[IV_BATCH * IV_SIZE_MAX];
};

struct cipher {
    const struct mode *mode;
    struct iv iv;
    unsigned iv_shift; /* from 512-byte sectors to what the IV counts */
    unsigned threads;
    struct lane lanes[];
};

/** A spec, taken apart: cipher[:keycount]-mode-iv[:ivopts]. Pointers into `text`. */
struct spec {
    char text[WIRE_NAME_MAX];
    const char *cipher, *mode, *iv, *iv_hash;
};

static int parse_spec(struct spec *s, const char *text)
{
    size_t length = strnlen(text, sizeof(s->text));
    if (length == sizeof(s->text) || strncmp(text, "capi:", 5) == 0)
        return -EOPNOTSUPP;
    memcpy(s->text, text, length + 1);

    char *rest = s->text;
    char *cipher = strsep(&rest, "-");
    s->mode = strsep(&rest, "-");
    s->iv = strsep(&rest, ":");
    s->iv_hash = rest; /* may have a "-" in it: sha3-256 */
    s->cipher = strsep(&cipher, ":");
    if (cipher && strcmp(cipher, "1") != 0)
        return -EOPNOTSUPP;
    /* dm-crypt.c, crypt_ctr_cipher_old: only a cipher, or cipher-plain, is the first dm-crypt's format. */
    if (!s->mode || (strcmp(s->mode, "plain") == 0 && !s->iv)) {
        s->mode = "cbc";
        s->iv = "plain";
    }
    return 0;
}

/* @return 0; -EOPNOTSUPP: no such cipher; -EINVAL: not with such a key */
static int find_algorithm(const char *name, size_t key_size, int *algorithm)
{
    int error = -EOPNOTSUPP;
    for (size_t i = 0; i < sizeof(ALGORITHMS) / sizeof(ALGORITHMS[0]); i++) {
        if (strcmp(name, ALGORITHMS[i].name) != 0)
            continue;
        if (ALGORITHMS[i].key_size == key_size || ALGORITHMS[i].key_size == 0) {
            *algorithm = ALGORITHMS[i].algorithm;
            return 0;
        }
        error = -EINVAL;
    }
    return error;
}

static const struct mode *find_mode(const char *name)
{
    for (size_t i = 0; i < sizeof(MODES) / sizeof(MODES[0]); i++) {
        if (strcmp(name, MODES[i].name) == 0)
            return &MODES[i];
    }
    return NULL;
}

static int open_handle(gcry_cipher_hd_t *out, int algorithm, int mode, const uint8_t *key, size_t key_size)
{
    gcry_error_t error = gcry_cipher_open(out, algorithm, mode, 0);
    if (!error)
        error = gcry_cipher_setkey(*out, key, key_size);
    return hash_errno(error);
}

/* The key that enciphers IVs: of essiv the hash of the volume key, of eboiv the volume key. Arena memory. */
static int make_iv_key(const struct spec *s, enum iv_kind kind, const uint8_t *key, size_t key_size,
                       uint8_t **out, size_t *size)
{
    struct hash h = {.md = NULL};
    int error = 0;
    *size = key_size;
    if (kind == IV_ESSIV) {
        error = hash_open(&h, s->iv_hash, NULL, 0);
        *size = h.size;
    }
    *out = error ? NULL : arena_alloc(*size);
    if (!error && !*out)
        error = -ENOSPC;
    if (!error && kind == IV_ESSIV) {
        hash_write(&h, key, key_size);
        hash_read(&h, *out, *size);
    } else if (!error) {
        memcpy(*out, key, key_size);
    }
    hash_close(&h);
    return error;
}

static int open_lanes(struct cipher *c, const struct spec *s, const uint8_t *key, size_t key_size)
{
    int algorithm = 0, iv_algorithm = 0, error;
    uint8_t *iv_key = NULL;
    size_t iv_key_size = 0;

    error = find_algorithm(s->cipher, key_size / c->mode->keys, &algorithm);
    if (!error && (c->iv.kind == IV_ESSIV || c->iv.kind == IV_EBOIV)) {
        error = make_iv_key(s, c->iv.kind, key, key_size, &iv_key, &iv_key_size);
        if (!error)
            error = find_algorithm(s->cipher, iv_key_size, &iv_algorithm);
    }
    for (unsigned i = 0; i < c->threads && !error; i++) {
        error = open_handle(&c->lanes[i].data, algorithm, c->mode->mode, key, key_size);
        if (!error && iv_key)
            error = open_handle(&c->lanes[i].iv, iv_algorithm, GCRY_CIPHER_MODE_ECB, iv_key, iv_key_size);
    }
    arena_free(iv_key);
    return error;
}

/* Find the mode and the kind of IV, and see whether they and the key's size go together. */
static int resolve(const struct spec *s, size_t key_size, const struct mode **mode, struct iv *iv)
{
    int algorithm = 0;
    *mode = find_mode(s->mode);
    iv->kind = IV_NONE;
    if (!*mode)
        return -EOPNOTSUPP;
    bool ecb = (*mode)->mode == GCRY_CIPHER_MODE_ECB, xts = (*mode)->mode == GCRY_CIPHER_MODE_XTS;
    if (ecb != (s->iv == NULL))
        return -EOPNOTSUPP;
    int error = s->iv ? iv_find(&iv->kind, s->iv) : 0;
    if (error)
        return error;
    if ((iv->kind == IV_ESSIV) != (s->iv_hash != NULL))
        return -EOPNOTSUPP; /* essiv without its hash; or options to what has none */
    if (iv->kind == IV_EBOIV && (*mode)->mode != GCRY_CIPHER_MODE_CBC)
        return -EOPNOTSUPP;
    error = key_size % (*mode)->keys ? -EINVAL : 0;
    if (!error)
        error = find_algorithm(s->cipher, key_size / (*mode)->keys, &algorithm);
    if (error)
        return error;
    iv->size = (unsigned)gcry_cipher_get_algo_blklen(algorithm);
    if (xts && iv->size != GCRY_XTS_BLOCK_LEN)
        return -EOPNOTSUPP;
    if (iv->kind != IV_ESSIV)
        return 0;
    int hash = hash_find(s->iv_hash);
    return hash ? find_algorithm(s->cipher, gcry_md_get_algo_dlen(hash), &algorithm) : -EOPNOTSUPP;
}

int cipher_check(const char *spec, size_t key_size)
{
    struct spec s;
    struct iv iv = {.size = 0};
    const struct mode *mode;
    int error = parse_spec(&s, spec);
    return error ? error : resolve(&s, key_size, &mode, &iv);
}

int cipher_open(struct cipher **out, const char *spec, const uint8_t *key, size_t key_size,
                uint32_t sector_size, bool iv_large_sectors, unsigned threads)
{
    struct spec s;
    const struct mode *mode;
    struct iv iv = {.sector_size = sector_size, .step = iv_large_sectors ? 1 : sector_size / 512};
    *out = NULL;

    bool power_of_2 = (sector_size & (sector_size - 1)) == 0;
    if (sector_size < 512 || sector_size > 4096 || !power_of_2 || threads == 0 || threads > THREADS_MAX)
        return -EINVAL;
    int error = parse_spec(&s, spec);
    if (!error)
        error = resolve(&s, key_size, &mode, &iv);
    if (error)
        return error;
    if (mode->mode == GCRY_CIPHER_MODE_XTS && equal_const_time(key, key + key_size / 2, key_size / 2))
        return -EKEYREJECTED;

    struct cipher *c = arena_alloc(sizeof(*c) + threads * sizeof(c->lanes[0]));
    if (!c)
        return -ENOSPC;
    c->mode = mode;
    c->iv = iv;
    c->iv_shift = iv_large_sectors ? (unsigned)__builtin_ctz(sector_size / 512) : 0;
    c->threads = threads;
    error = open_lanes(c, &s, key, key_size);
    wipe_stack();
    if (error) {
        cipher_close(c);
        return error;
    }
    *out = c;
    return 0;
}

void cipher_close(struct cipher *c)
{
    if (!c)
        return;
    for (unsigned i = 0; i < c->threads; i++) {
        gcry_cipher_close(c->lanes[i].data);
        gcry_cipher_close(c->lanes[i].iv);
    }
    arena_free(c);
}

static gcry_error_t set_iv(const struct cipher *c, struct lane *lane, unsigned i)
{
    const uint8_t *iv = lane->ivs + (size_t)i * c->iv.size;
    if (c->iv.kind == IV_NONE)
        return 0;
    if (c->mode->mode == GCRY_CIPHER_MODE_CTR)
        return gcry_cipher_setctr(lane->data, iv, c->iv.size);
    return gcry_cipher_setiv(lane->data, iv, c->iv.size);
}

static int crypt_sectors(struct cipher *c, unsigned thread, uint8_t *dst, const uint8_t *src, size_t length,
                         uint64_t sector, bool encrypt)
{
    struct lane *lane = &c->lanes[thread];
    const size_t size = c->iv.sector_size;
    uint64_t iv_sector = sector >> c->iv_shift;

    while (length > 0) {
        unsigned count = length / size < IV_BATCH ? (unsigned)(length / size) : IV_BATCH;
        if (count == 0 || iv_fill(&c->iv, lane->iv, iv_sector, count, lane->ivs) < 0)
            return -EIO;
        for (unsigned i = 0; i < count; i++) {
            gcry_error_t error = set_iv(c, lane, i);
            if (!error && encrypt)
                error = gcry_cipher_encrypt(lane->data, dst, size, src, size);
            else if (!error)
                error = gcry_cipher_decrypt(lane->data, dst, size, src, size);
            if (error)
                return -EIO;
            dst += size;
            src += size;
        }
        iv_sector += count * c->iv.step;
        length -= count * size;
    }
    return 0;
}

int cipher_decrypt(struct cipher *c, unsigned thread, void *buf, size_t length, uint64_t sector)
{
    return crypt_sectors(c, thread, buf, buf, length, sector, false);
}

int cipher_encrypt(struct cipher *c, unsigned thread, void *dst, const void *src, size_t length,
                   uint64_t sector)
{
    return crypt_sectors(c, thread, dst, src, length, sector, true);
}
