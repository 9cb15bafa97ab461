#include <endian.h>
#include <errno.h>
#include <string.h>

#include "sector_tweak.h"

#define SECTOR_KEY 32u

/* Source: N. Ferguson, AES-CBC + Elephant diffuser, sections 4.4 to 4.6; its figures 3 and 4 are decryption. */
static inline uint32_t rotate(uint32_t v, unsigned n)
{
    return n ? v << n | v >> (32 - n) : v;
}

static inline uint32_t get(const uint8_t *data, size_t i)
{
    uint32_t word;
    memcpy(&word, data + 4 * i, sizeof(word));
    return le32toh(word);
}

static inline void set(uint8_t *data, size_t i, uint32_t value)
{
    value = htole32(value);
    memcpy(data + 4 * i, &value, sizeof(value));
}

/* d[i] += or -= d[i + near] ^ (d[i + far] <<< turn), all i in turn, indices modulo the number of words. */
static void diffuse(uint8_t *data, size_t words, size_t near, size_t far, const unsigned turns[4], unsigned rounds,
                    bool encrypt)
{
    const size_t mask = words - 1; /* a power of 2 */
    while (rounds-- > 0) {
        for (size_t n = 0; n < words; n++) {
            const size_t i = encrypt ? words - 1 - n : n;
            const uint32_t mixed = get(data, (i + near) & mask) ^ rotate(get(data, (i + far) & mask), turns[i % 4]);
            set(data, i, encrypt ? get(data, i) - mixed : get(data, i) + mixed);
        }
    }
}

static void diffuse_a(uint8_t *data, size_t words, bool encrypt)
{
    static const unsigned TURNS[4] = {9, 0, 13, 0};
    diffuse(data, words, words - 2, words - 5, TURNS, 5, encrypt);
}

static void diffuse_b(uint8_t *data, size_t words, bool encrypt)
{
    static const unsigned TURNS[4] = {0, 10, 0, 25};
    diffuse(data, words, 2, 5, TURNS, 3, encrypt);
}

static void xor_key(uint8_t *data, size_t size, const uint8_t *key)
{
    for (size_t at = 0; at < size; at += 8) {
        uint64_t a, b;
        memcpy(&a, data + at, 8);
        memcpy(&b, key + at % SECTOR_KEY, 8);
        a ^= b;
        memcpy(data + at, &a, 8);
    }
}

int elephant_mix(uint8_t *work, gcry_cipher_hd_t tweak, uint8_t *data, size_t size, uint64_t offset, bool encrypt)
{
    const uint64_t le = htole64(offset);
    memset(work, 0, SECTOR_KEY);
    memcpy(work, &le, sizeof(le));
    memcpy(work + 16, &le, sizeof(le));
    work[31] = 0x80;
    if (gcry_cipher_encrypt(tweak, work, SECTOR_KEY, NULL, 0))
        return -EIO;
    if (encrypt) {
        xor_key(data, size, work);
        diffuse_a(data, size / 4, true);
        diffuse_b(data, size / 4, true);
    } else {
        diffuse_b(data, size / 4, false);
        diffuse_a(data, size / 4, false);
        xor_key(data, size, work);
    }
    return 0;
}
