#include <endian.h>
#include <string.h>

#include "sector_tweak.h"

/* MD5 (RFC 1321). libgcrypt never shows a state that has not been padded, which is what lmk takes. */
static const uint32_t SINES[64] = {
    0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501,
    0x698098d8, 0x8b44f7af, 0xffff5bb1, 0x895cd7be, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821,
    0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453, 0xd8a1e681, 0xe7d3fbc8,
    0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a,
    0xfffa3942, 0x8771f681, 0x6d9d6122, 0xfde5380c, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70,
    0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05, 0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665,
    0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92, 0xffeff47d, 0x85845dd1,
    0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391,
};

struct lmk_work {
    uint32_t state[4];
    uint32_t tail[16]; /* the last block: data and number */
};
_Static_assert(sizeof(struct lmk_work) <= SECTOR_TWEAK_WORK, "fits the work memory");

static inline uint32_t rotate(uint32_t v, unsigned n)
{
    return v << n | v >> (32 - n);
}

/* One block of 64 bytes: RFC 1321, 3.4. */
static void md5_block(uint32_t state[4], const uint8_t *block)
{
    static const unsigned TURNS[4][4] = {{7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23}, {6, 10, 15, 21}};
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
#pragma GCC unroll 64
    for (unsigned i = 0; i < 64; i++) {
        uint32_t mixed, word;
        unsigned at;
        switch (i / 16) {
        case 0:
            mixed = d ^ (b & (c ^ d));
            at = i;
            break;
        case 1:
            mixed = c ^ (d & (b ^ c));
            at = 5 * i + 1;
            break;
        case 2:
            mixed = b ^ c ^ d;
            at = 3 * i + 5;
            break;
        default:
            mixed = c ^ (b | ~d);
            at = 7 * i;
        }
        memcpy(&word, block + 4 * (at % 16), sizeof(word));
        mixed += a + SINES[i] + le32toh(word);
        a = d;
        d = c;
        c = b;
        b += rotate(mixed, TURNS[i / 16][i % 4]);
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
}

void lmk_make_iv(uint8_t *work, const uint8_t *seed, const uint8_t *data, uint64_t number, uint8_t *out, size_t size)
{
    static const uint32_t START[4] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476};
    struct lmk_work *w = (struct lmk_work *)(void *)work;
    memcpy(w->state, START, sizeof(START));
    if (seed)
        md5_block(w->state, seed);
    for (unsigned at = 16; at < 464; at += 64)
        md5_block(w->state, data + at);
    memcpy(w->tail, data + 464, 48);
    w->tail[12] = htole32((uint32_t)number);
    w->tail[13] = htole32(((uint32_t)(number >> 32) & 0x00ffffff) | 0x80000000);
    w->tail[14] = htole32(4024); /* what loop-AES hashes, in bits, seed or not */
    w->tail[15] = 0;
    md5_block(w->state, (const uint8_t *)w->tail);
    for (unsigned i = 0; i < size / 4; i++) {
        const uint32_t le = htole32(w->state[i]);
        memcpy(out + 4 * i, &le, sizeof(le));
    }
}
