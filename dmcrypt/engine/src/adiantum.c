#include "adiantum.h"

#include <endian.h>
#include <errno.h>
#include <gcrypt.h>
#include <string.h>

#include "arena.h"
#include "chain.h"

#define BLOCK 16u
#define NH_MESSAGE 1024u /* bytes that one NH takes */
#define NH_UNIT 16u
#define NH_PASSES 4u
#define NH_KEY (NH_MESSAGE + NH_UNIT * (NH_PASSES - 1))
#define CHACHA_BLOCK 64u

typedef unsigned __int128 u128;

struct adiantum {
    gcry_cipher_hd_t hchacha; /* ChaCha20 with the key: its block function makes each sector's key */
    gcry_cipher_hd_t chacha;  /* with the sector's key */
    gcry_cipher_hd_t aes;
    gcry_mac_hd_t header_hash, message_hash; /* Poly1305 with s = 0 */
    uint32_t nh_key[NH_KEY / 4];
    uint8_t derived[32 + 2 * BLOCK + NH_KEY];
    uint8_t poly_key[2 * BLOCK];
    uint8_t block[CHACHA_BLOCK];
    uint8_t middle[BLOCK]; /* the last block between the two hashes */
    uint64_t nh[NH_PASSES];
};

/* HChaCha20 (draft-irtf-cfrg-xchacha, 2.2): what ChaCha20's block is before the state is added to it. */
static gcry_error_t set_sector_key(struct adiantum *a, const uint8_t nonce[24])
{
    static const char WORDS[] = "expand 32-byte k";
    uint8_t iv[16] = {0}; /* block counter; the nonce's end */
    memset(a->block, 0, sizeof(a->block));
    gcry_error_t error = gcry_cipher_setiv(a->hchacha, nonce, 16);
    if (!error)
        error = gcry_cipher_encrypt(a->hchacha, a->block, CHACHA_BLOCK, NULL, 0);
    for (unsigned i = 0; i < 4; i++) {
        uint32_t word, known;
        memcpy(&word, a->block + 4 * i, 4);
        memcpy(&known, WORDS + 4 * i, 4);
        word = htole32(le32toh(word) - le32toh(known));
        memcpy(a->block + 4 * i, &word, 4);
        memcpy(&word, a->block + 48 + 4 * i, 4);
        memcpy(&known, nonce + 4 * i, 4);
        word = htole32(le32toh(word) - le32toh(known));
        memcpy(a->block + 16 + 4 * i, &word, 4);
    }
    if (!error)
        error = gcry_cipher_setkey(a->chacha, a->block, 32);
    memcpy(iv + 8, nonce + 16, 8);
    return error ? error : gcry_cipher_setiv(a->chacha, iv, sizeof(iv));
}

static gcry_error_t open_hash(struct adiantum *a, gcry_mac_hd_t *out, const uint8_t *key)
{
    memset(a->poly_key, 0, sizeof(a->poly_key));
    memcpy(a->poly_key, key, BLOCK);
    gcry_error_t error = gcry_mac_open(out, GCRY_MAC_POLY1305, 0, NULL);
    return error ? error : gcry_mac_setkey(*out, a->poly_key, sizeof(a->poly_key));
}

int adiantum_open(struct adiantum **out, const uint8_t *key)
{
    static const uint8_t NONCE[24] = {1};
    struct adiantum *a = *out = arena_alloc(sizeof(*a));
    if (!a)
        return -ENOSPC;
    int error = open_handle(&a->hchacha, GCRY_CIPHER_CHACHA20, GCRY_CIPHER_MODE_STREAM, key, ADIANTUM_KEY_SIZE);
    if (!error)
        error = open_handle(&a->chacha, GCRY_CIPHER_CHACHA20, GCRY_CIPHER_MODE_STREAM, key, ADIANTUM_KEY_SIZE);
    if (!error && (set_sector_key(a, NONCE)
                   || gcry_cipher_encrypt(a->chacha, a->derived, sizeof(a->derived), NULL, 0)))
        error = -ENOSPC;
    const uint8_t *rest = a->derived + 32;
    if (!error)
        error = open_handle(&a->aes, GCRY_CIPHER_AES256, GCRY_CIPHER_MODE_ECB, a->derived, 32);
    if (!error && (open_hash(a, &a->header_hash, rest) || open_hash(a, &a->message_hash, rest + BLOCK)))
        error = -ENOSPC;
    for (unsigned i = 0; i < NH_KEY / 4; i++) {
        memcpy(&a->nh_key[i], rest + 2 * BLOCK + 4 * i, 4);
        a->nh_key[i] = le32toh(a->nh_key[i]);
    }
    return error;
}

void adiantum_close(struct adiantum *a)
{
    if (!a)
        return;
    gcry_cipher_close(a->hchacha);
    gcry_cipher_close(a->chacha);
    gcry_cipher_close(a->aes);
    gcry_mac_close(a->header_hash);
    gcry_mac_close(a->message_hash);
    arena_free(a);
}

/* NH of whole units: nhpoly1305.c, nh_generic. */
static void hash_nh(struct adiantum *a, const uint8_t *message, size_t size)
{
    uint64_t sums[NH_PASSES] = {0};
    const uint32_t *key = a->nh_key;
    for (size_t at = 0; at < size; at += NH_UNIT, key += NH_UNIT / 4) {
        uint32_t m[4];
        memcpy(m, message + at, sizeof(m));
        for (unsigned pass = 0; pass < NH_PASSES; pass++) {
            const uint32_t *k = key + 4 * pass;
            sums[pass] += (uint64_t)(uint32_t)(le32toh(m[0]) + k[0]) * (uint32_t)(le32toh(m[2]) + k[2]);
            sums[pass] += (uint64_t)(uint32_t)(le32toh(m[1]) + k[1]) * (uint32_t)(le32toh(m[3]) + k[3]);
        }
    }
    for (unsigned pass = 0; pass < NH_PASSES; pass++)
        a->nh[pass] = htole64(sums[pass]);
}

static gcry_error_t read_hash(gcry_mac_hd_t h, u128 *out)
{
    uint8_t digest[BLOCK];
    size_t size = sizeof(digest);
    uint64_t low, high;
    gcry_error_t error = gcry_mac_read(h, digest, &size);
    memcpy(&low, digest, 8);
    memcpy(&high, digest + 8, 8);
    *out += (u128)le64toh(high) << 64 | le64toh(low);
    return error;
}

/* The hash of length, tweak and all of the message but its last block: adiantum.c. */
static gcry_error_t hash_all(struct adiantum *a, const uint8_t *iv, const uint8_t *message, size_t size, u128 *out)
{
    const uint64_t length[2] = {htole64(8 * size), 0};
    *out = 0;
    gcry_error_t error = gcry_mac_reset(a->header_hash);
    if (!error)
        error = gcry_mac_write(a->header_hash, length, sizeof(length));
    if (!error)
        error = gcry_mac_write(a->header_hash, iv, ADIANTUM_IV_SIZE);
    if (!error)
        error = read_hash(a->header_hash, out);
    if (!error)
        error = gcry_mac_reset(a->message_hash);
    for (size_t at = 0; at < size && !error; at += NH_MESSAGE) {
        hash_nh(a, message + at, size - at < NH_MESSAGE ? size - at : NH_MESSAGE);
        error = gcry_mac_write(a->message_hash, a->nh, sizeof(a->nh));
    }
    return error ? error : read_hash(a->message_hash, out);
}

static u128 load(const uint8_t *p)
{
    uint64_t low, high;
    memcpy(&low, p, 8);
    memcpy(&high, p + 8, 8);
    return (u128)le64toh(high) << 64 | le64toh(low);
}

static void store(uint8_t *p, u128 value)
{
    const uint64_t low = htole64((uint64_t)value), high = htole64((uint64_t)(value >> 64));
    memcpy(p, &low, 8);
    memcpy(p + 8, &high, 8);
}

int adiantum_crypt(struct adiantum *a, const uint8_t *iv, uint8_t *dst, const uint8_t *src, size_t size, bool encrypt)
{
    const size_t bulk = size - BLOCK;
    uint8_t nonce[24] = {0};
    u128 hash;
    gcry_error_t error = hash_all(a, iv, src, bulk, &hash);
    const u128 last = load(src + bulk) + hash;
    uint8_t *middle = a->middle;
    store(middle, last);
    if (!error && encrypt)
        error = gcry_cipher_encrypt(a->aes, middle, BLOCK, NULL, 0);
    memcpy(nonce, middle, BLOCK);
    nonce[BLOCK] = 1;
    if (!error)
        error = set_sector_key(a, nonce);
    if (!error)
        error = gcry_cipher_encrypt(a->chacha, dst, bulk, src, bulk);
    if (!error && !encrypt)
        error = gcry_cipher_decrypt(a->aes, middle, BLOCK, NULL, 0);
    if (!error)
        error = hash_all(a, iv, dst, bulk, &hash);
    store(dst + bulk, load(middle) - hash);
    return error ? -EIO : 0;
}
