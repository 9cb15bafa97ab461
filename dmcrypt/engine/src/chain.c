#include "chain.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "adiantum.h"
#include "arena.h"
#include "hash.h"

#define BLOCK 16u
#define SECTOR_MAX 4096u

typedef unsigned __int128 u128;

/** A tweak key, multiplied, and room for one sector's tweaks. */
struct lrw {
    u128 of_bit[128];   /* key * 2^i */
    u128 of_change[129]; /* key * (2^(i + 1) - 1): from an index whose i lowest bits are 1 to the next */
    u128 tweaks[SECTOR_MAX / BLOCK];
};

int open_handle(gcry_cipher_hd_t *out, int algorithm, int mode, const uint8_t *key, size_t key_size)
{
    gcry_error_t error = gcry_cipher_open(out, algorithm, mode, 0);
    if (!error)
        error = gcry_cipher_ctl(*out, GCRYCTL_SET_ALLOW_WEAK_KEY, NULL, 1);
    if (!error) {
        error = gcry_cipher_setkey(*out, key, key_size);
        if (gcry_err_code(error) == GPG_ERR_WEAK_KEY)
            error = 0; /* the key is set all the same: one Blowfish key in 30000 is "weak" */
    }
    return hash_errno(error);
}

static u128 load_be(const uint8_t *p)
{
    uint64_t high, low;
    memcpy(&high, p, 8);
    memcpy(&low, p + 8, 8);
    return (u128)be64toh(high) << 64 | be64toh(low);
}

static u128 swap(u128 v)
{
    return (u128)htobe64((uint64_t)v) << 64 | htobe64((uint64_t)(v >> 64));
}

static int open_lrw(struct chain *c, const uint8_t *tweak_key)
{
    struct lrw *l = c->lrw = arena_alloc(sizeof(*l));
    if (!l)
        return -ENOSPC;
    u128 product = load_be(tweak_key), sum = 0;
    for (unsigned i = 0; i < 128; i++) {
        l->of_bit[i] = product;
        sum ^= product;
        l->of_change[i] = sum;
        product = product << 1 ^ (product >> 127 ? 0x87 : 0);
    }
    l->of_change[128] = sum; /* from the last index to 0 */
    return 0;
}

int chain_open(struct chain *c, const struct cipher_spec *s, const uint8_t *key, bool any_xts_key)
{
    static const int MODES[] = {
        [CHAIN_ECB] = GCRY_CIPHER_MODE_ECB,  [CHAIN_CBC] = GCRY_CIPHER_MODE_CBC,
        [CHAIN_PCBC] = GCRY_CIPHER_MODE_CBC, [CHAIN_CTR] = GCRY_CIPHER_MODE_CTR,
        [CHAIN_XTS] = GCRY_CIPHER_MODE_XTS,  [CHAIN_LRW] = GCRY_CIPHER_MODE_ECB,
    };
    size_t cipher_key = s->key_size;
    c->chaining = s->chaining;
    c->iv_size = s->iv_size;
    if (s->chaining == CHAIN_NULL)
        return 0;
    if (s->chaining == CHAIN_ADIANTUM)
        return adiantum_open(&c->adiantum, key);
    if (s->chaining == CHAIN_XTS && !any_xts_key && equal_const_time(key, key + s->key_size / 2, s->key_size / 2))
        return -EKEYREJECTED;
    if (s->chaining == CHAIN_LRW) {
        cipher_key -= BLOCK;
        int error = open_lrw(c, key + cipher_key);
        if (error)
            return error;
    }
    return open_handle(&c->handle, s->algorithm, MODES[s->chaining], key, cipher_key);
}

void chain_close(struct chain *c)
{
    gcry_cipher_close(c->handle);
    arena_free(c->lrw);
    adiantum_close(c->adiantum);
    *c = (struct chain){.handle = NULL};
}

static gcry_error_t run(struct chain *c, uint8_t *dst, const uint8_t *src, size_t size, bool encrypt)
{
    return encrypt ? gcry_cipher_encrypt(c->handle, dst, size, src, size)
                   : gcry_cipher_decrypt(c->handle, dst, size, src, size);
}

/* The tweak of each block, in the order of its bytes. */
static void fill_tweaks(struct lrw *l, const uint8_t *iv, size_t blocks)
{
    u128 index = load_be(iv), tweak = 0;
    for (u128 left = index; left; left &= left - 1) {
        uint64_t low = (uint64_t)left;
        tweak ^= l->of_bit[low ? __builtin_ctzll(low) : 64 + __builtin_ctzll((uint64_t)(left >> 64))];
    }
    for (size_t i = 0; i < blocks; i++) {
        l->tweaks[i] = swap(tweak);
        const uint64_t low = ~(uint64_t)index, high = ~(uint64_t)(index >> 64);
        const int ones = low ? __builtin_ctzll(low) : high ? 64 + __builtin_ctzll(high) : 128;
        tweak ^= l->of_change[ones];
        index++;
    }
}

static void xor_into(uint8_t *dst, const uint8_t *a, const uint8_t *b, size_t size)
{
    for (size_t i = 0; i < size; i += 8) {
        uint64_t x, y;
        memcpy(&x, a + i, 8);
        memcpy(&y, b + i, 8);
        x ^= y;
        memcpy(dst + i, &x, 8);
    }
}

static gcry_error_t crypt_lrw(struct chain *c, const uint8_t *iv, uint8_t *dst, const uint8_t *src, size_t size,
                              bool encrypt)
{
    const uint8_t *tweaks = (const uint8_t *)c->lrw->tweaks;
    fill_tweaks(c->lrw, iv, size / BLOCK);
    xor_into(dst, src, tweaks, size);
    gcry_error_t error = run(c, dst, dst, size, encrypt);
    xor_into(dst, dst, tweaks, size);
    return error;
}

static gcry_error_t crypt_pcbc(struct chain *c, const uint8_t *iv, uint8_t *dst, const uint8_t *src, size_t size,
                               bool encrypt)
{
    const size_t block = c->iv_size; /* 8 or 16 */
    gcry_error_t error = gcry_cipher_setiv(c->handle, iv, c->iv_size);
    if (error)
        return error;
    if (!encrypt) {
        error = run(c, dst, src, size, false);
        for (size_t at = block; at < size; at += block)
            xor_into(dst + at, dst + at, dst + at - block, block);
        return error;
    }
    for (size_t at = size - block; at > 0; at -= block) /* from the end, as src may be dst */
        xor_into(dst + at, src + at, src + at - block, block);
    memmove(dst, src, block);
    return run(c, dst, dst, size, true);
}

int chain_crypt(struct chain *c, const uint8_t *iv, uint8_t *dst, const uint8_t *src, size_t size, bool encrypt)
{
    gcry_error_t error = 0;
    switch (c->chaining) {
    case CHAIN_XTS:
    case CHAIN_CBC:
        error = gcry_cipher_setiv(c->handle, iv, c->iv_size);
        if (!error)
            error = run(c, dst, src, size, encrypt);
        break;
    case CHAIN_CTR:
        error = gcry_cipher_setctr(c->handle, iv, c->iv_size);
        if (!error)
            error = run(c, dst, src, size, encrypt);
        break;
    case CHAIN_ECB:
        error = run(c, dst, src, size, encrypt);
        break;
    case CHAIN_LRW:
        error = crypt_lrw(c, iv, dst, src, size, encrypt);
        break;
    case CHAIN_PCBC:
        error = crypt_pcbc(c, iv, dst, src, size, encrypt);
        break;
    case CHAIN_ADIANTUM:
        return adiantum_crypt(c->adiantum, iv, dst, src, size, encrypt);
    case CHAIN_NULL:
        if (dst != src)
            memcpy(dst, src, size);
        break;
    }
    return error ? -EIO : 0;
}

int chain_crypt_many(struct chain *c, const uint8_t *ivs, uint8_t *dst, const uint8_t *src, size_t size,
                     unsigned count, bool encrypt)
{
    const bool is_ctr = c->chaining == CHAIN_CTR;
    if (!is_ctr && c->chaining != CHAIN_XTS && c->chaining != CHAIN_CBC) {
        int error = 0;
        for (; count > 0 && !error; count--, ivs += c->iv_size, dst += size, src += size)
            error = chain_crypt(c, ivs, dst, src, size, encrypt);
        return error;
    }
    for (; count > 0; count--, ivs += c->iv_size, dst += size, src += size) {
        gcry_error_t error = is_ctr ? gcry_cipher_setctr(c->handle, ivs, c->iv_size)
                                    : gcry_cipher_setiv(c->handle, ivs, c->iv_size);
        if (error || run(c, dst, src, size, encrypt))
            return -EIO;
    }
    return 0;
}
