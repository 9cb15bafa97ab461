#include "cipher.h"

#include <errno.h>
#include <gcrypt.h>
#include <string.h>

#include "arena.h"
#include "chain.h"
#include "hash.h"
#include "iv.h"
#include "sector_tweak.h"

#define IV_BATCH 32u /* sectors whose IVs are made at once */
#define THREADS_MAX 256u

/** One of the keys that sectors take in turn, expanded. */
struct sector_key {
    struct chain chain;
    gcry_cipher_hd_t essiv; /* ECB; NULL without */
};

/** One thread's expanded keys. */
struct lane {
    _Alignas(64) uint8_t ivs[IV_BATCH * IV_SIZE_MAX];
    uint8_t work[SECTOR_TWEAK_WORK];
    gcry_cipher_hd_t iv; /* ECB, for eboiv, elephant; else NULL */
    gcry_cipher_hd_t elephant;
    struct sector_key keys[];
};

struct cipher {
    struct cipher_spec spec;
    struct iv iv;
    uint8_t iv_key[LMK_SEED_SIZE]; /* seed of lmk, with zeros; seed and whitening of tcw */
    unsigned threads;
    struct lane *lanes[];
};

/* Of several keys each has its own ESSIV: since Linux 5.4 it is a template around each (crypto/essiv.c). */
static int open_essiv(gcry_cipher_hd_t *out, const struct cipher_spec *s, const uint8_t *key)
{
    struct hash h;
    int error = hash_open(&h, s->essiv_hash, NULL, 0);
    if (error)
        return error;
    uint8_t *digest = arena_alloc(h.size);
    if (digest) {
        hash_write(&h, key, s->key_size);
        hash_read(&h, digest, h.size);
        error = open_handle(out, s->essiv_algorithm, GCRY_CIPHER_MODE_ECB, digest, h.size);
    } else {
        error = -ENOSPC;
    }
    hash_close(&h);
    arena_free(digest);
    return error;
}

/* eboiv enciphers the IV as one block of zeros would be with it: of CBC and PCBC with the bare cipher. */
static bool has_bare_iv_cipher(const struct cipher_spec *s)
{
    return (s->iv == IV_EBOIV || s->iv == IV_ELEPHANT) && (s->chaining == CHAIN_CBC || s->chaining == CHAIN_PCBC);
}

static int open_lane(struct lane *lane, const struct cipher_spec *s, const uint8_t *key, bool any_xts_key)
{
    int error = 0;
    for (unsigned i = 0; i < s->keys && !error; i++) {
        error = chain_open(&lane->keys[i].chain, s, key + i * s->key_size, any_xts_key);
        if (!error && s->essiv_algorithm)
            error = open_essiv(&lane->keys[i].essiv, s, key + i * s->key_size);
    }
    if (!error && has_bare_iv_cipher(s))
        error = open_handle(&lane->iv, s->algorithm, GCRY_CIPHER_MODE_ECB, key, s->key_size);
    if (!error && s->iv == IV_ELEPHANT) {
        const int aes = s->iv_key_size == 16 ? GCRY_CIPHER_AES128
                        : s->iv_key_size == 24 ? GCRY_CIPHER_AES192 : GCRY_CIPHER_AES256;
        error = open_handle(&lane->elephant, aes, GCRY_CIPHER_MODE_ECB, key + s->keys * s->key_size, s->iv_key_size);
    }
    return error;
}

int cipher_check(const char *spec, size_t key_size)
{
    struct cipher_spec s;
    return cipher_spec_parse(&s, spec, key_size);
}

bool cipher_is_null(const char *spec)
{
    struct cipher_spec s;
    return cipher_spec_parse(&s, spec, 0) == 0 && s.chaining == CHAIN_NULL;
}

int cipher_open(struct cipher **out, const char *spec, const uint8_t *key, size_t key_size,
                uint32_t sector_size, unsigned flags, unsigned threads)
{
    struct cipher_spec s;
    *out = NULL;
    bool power_of_2 = (sector_size & (sector_size - 1)) == 0;
    if (sector_size < 512 || sector_size > 4096 || !power_of_2 || threads == 0 || threads > THREADS_MAX)
        return -EINVAL;
    int error = cipher_spec_parse(&s, spec, key_size);
    if (error)
        return error;
    if (!cipher_spec_takes_sector_size(&s, sector_size))
        return -EINVAL;

    struct cipher *c = arena_alloc(sizeof(*c) + threads * sizeof(c->lanes[0]));
    if (!c)
        return -ENOSPC;
    c->spec = s;
    c->iv = (struct iv){.kind = s.iv,
                        .size = s.iv_size,
                        .sector_size = sector_size,
                        .step = sector_size / 512,
                        .shift = flags & CIPHER_IV_LARGE_SECTORS ? (unsigned)__builtin_ctz(sector_size / 512) : 0,
                        .benbi_shift = s.block ? 9 - (unsigned)__builtin_ctzll(s.block) : 0,
                        .seed = c->iv_key};
    if (s.iv == IV_LMK && s.iv_key_size)
        memcpy(c->iv_key, key + s.keys * s.key_size, 16); /* as much as MD5's digest is long */
    else if (s.iv == IV_TCW)
        memcpy(c->iv_key, key + s.keys * s.key_size, s.iv_key_size);
    c->threads = threads;
    for (unsigned i = 0; i < threads && !error; i++) {
        c->lanes[i] = arena_alloc(sizeof(struct lane) + s.keys * sizeof(struct sector_key));
        error = c->lanes[i] ? open_lane(c->lanes[i], &s, key, flags & CIPHER_ANY_XTS_KEY) : -ENOSPC;
    }
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
    for (unsigned i = 0; i < c->threads && c->lanes[i]; i++) {
        struct lane *lane = c->lanes[i];
        for (unsigned k = 0; k < c->spec.keys; k++) {
            chain_close(&lane->keys[k].chain);
            gcry_cipher_close(lane->keys[k].essiv);
        }
        gcry_cipher_close(lane->iv);
        gcry_cipher_close(lane->elephant);
        arena_free(lane);
    }
    arena_free(c);
}

static int make_ivs(struct cipher *c, struct lane *lane, uint64_t sector, unsigned count)
{
    static const uint8_t ZEROS[IV_SIZE_MAX];
    if (c->iv.size == 0)
        return 0;
    iv_fill(&c->iv, sector, count, lane->ivs);
    gcry_cipher_hd_t whole = c->spec.keys == 1 && c->spec.essiv_algorithm ? lane->keys[0].essiv : lane->iv;
    if (whole)
        return gcry_cipher_encrypt(whole, lane->ivs, count * c->iv.size, NULL, 0) ? -EIO : 0;
    if (c->spec.essiv_algorithm) {
        for (unsigned i = 0; i < count; i++, sector += c->iv.step) {
            gcry_cipher_hd_t essiv = lane->keys[sector & (c->spec.keys - 1)].essiv;
            if (gcry_cipher_encrypt(essiv, lane->ivs + i * c->iv.size, c->iv.size, NULL, 0))
                return -EIO;
        }
        return 0;
    }
    if (c->spec.iv != IV_EBOIV && c->spec.iv != IV_ELEPHANT)
        return 0;
    int error = 0;
    for (unsigned i = 0; i < count && !error; i++) {
        uint8_t *iv = lane->ivs + i * c->iv.size;
        error = chain_crypt(&lane->keys[0].chain, iv, lane->work, ZEROS, c->iv.size, true);
        memcpy(iv, lane->work, c->iv.size);
    }
    return error;
}

/* One sector of lmk, tcw or elephant. */
static int crypt_tweaked(struct cipher *c, struct lane *lane, struct chain *key, uint8_t *iv, uint8_t *dst,
                         const uint8_t *src, uint64_t sector, bool encrypt)
{
    const size_t size = c->iv.sector_size;
    const uint64_t number = iv_number(&c->iv, sector);
    const uint8_t *seed = c->spec.iv_key_size ? c->iv_key : NULL;
    int error = 0;
    switch (c->spec.iv) {
    case IV_LMK: /* its IV is that of the plaintext, so deciphering sees it last */
        if (encrypt)
            lmk_make_iv(lane->work, seed, src, number, iv, c->iv.size);
        error = chain_crypt(key, iv, dst, src, size, encrypt);
        if (!encrypt && !error) {
            lmk_make_iv(lane->work, seed, dst, number, iv, c->iv.size);
            for (size_t i = 0; i < c->iv.size; i++)
                dst[i] ^= iv[i];
        }
        return error;
    case IV_TCW:
        if (!encrypt) {
            memmove(dst, src, size);
            tcw_whiten(lane->work, c->iv_key + c->iv.size, dst, size, number);
            return chain_crypt(key, iv, dst, dst, size, false);
        }
        error = chain_crypt(key, iv, dst, src, size, true);
        tcw_whiten(lane->work, c->iv_key + c->iv.size, dst, size, number);
        return error;
    default: /* elephant */
        if (encrypt) {
            memmove(dst, src, size);
            error = elephant_mix(lane->work, lane->elephant, dst, size, number * size, true);
            return error ? error : chain_crypt(key, iv, dst, dst, size, true);
        }
        error = chain_crypt(key, iv, dst, src, size, false);
        return error ? error : elephant_mix(lane->work, lane->elephant, dst, size, number * size, false);
    }
}

static int crypt_sectors(struct cipher *c, unsigned thread, uint8_t *dst, const uint8_t *src, size_t length,
                         uint64_t sector, bool encrypt)
{
    struct lane *lane = c->lanes[thread];
    const size_t size = c->iv.sector_size;
    const bool tweaked = c->spec.iv == IV_LMK || c->spec.iv == IV_TCW || c->spec.iv == IV_ELEPHANT;
    const unsigned key_mask = c->spec.keys - 1;

    while (length > 0) {
        unsigned count = length / size < IV_BATCH ? (unsigned)(length / size) : IV_BATCH;
        if (count == 0 || make_ivs(c, lane, sector, count) < 0)
            return -EIO;
        length -= count * size;
        if (!tweaked && key_mask == 0) {
            if (chain_crypt_many(&lane->keys[0].chain, lane->ivs, dst, src, size, count, encrypt))
                return -EIO;
            dst += count * size;
            src += count * size;
            sector += count * c->iv.step;
            continue;
        }
        for (unsigned i = 0; i < count; i++) {
            struct chain *key = &lane->keys[sector & key_mask].chain;
            uint8_t *iv = lane->ivs + i * c->iv.size;
            int error = tweaked ? crypt_tweaked(c, lane, key, iv, dst, src, sector, encrypt)
                                : chain_crypt(key, iv, dst, src, size, encrypt);
            if (error)
                return -EIO;
            dst += size;
            src += size;
            sector += c->iv.step;
        }
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
