#include "argon2_empty.h"

#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "large.h"

#define WORDS 128u /* of 64 bits in a block of 1 KiB */
#define SLICES 4u
#define VERSION 0x13u
#define HASH_MAX 64u
#define HASH_BLOCK 128u

struct block {
    uint64_t words[WORDS];
};

struct matrix {
    const struct wire_kdf *kdf;
    struct block *blocks;
    uint32_t lane_length, segment_length; /* blocks */
};

/* Where a block stands: section 3.4 calls them r, l, sl and the position in the segment. */
struct place {
    uint32_t pass, lane, slice, index;
};

static uint64_t rotate(uint64_t x, unsigned bits)
{
    return (x >> bits) | (x << (64 - bits));
}

/* RFC 7693, sections 2.6 and 2.7. */
static const uint64_t IV[8] = {
    0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
    0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179,
};
static const uint8_t SIGMA[10][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4}, {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13}, {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11}, {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5}, {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
};
/* Columns, then diagonals. */
static const uint8_t QUARTERS[8][4] = {
    {0, 4, 8, 12}, {1, 5, 9, 13}, {2, 6, 10, 14}, {3, 7, 11, 15},
    {0, 5, 10, 15}, {1, 6, 11, 12}, {2, 7, 8, 13}, {3, 4, 9, 14},
};

static void compress(uint64_t h[8], const uint8_t *message, uint64_t count, bool is_last)
{
    uint64_t v[16], m[16];
    for (size_t i = 0; i < 16; i++) {
        memcpy(&m[i], message + 8 * i, 8);
        m[i] = le64toh(m[i]);
        v[i] = i < 8 ? h[i] : IV[i - 8];
    }
    v[12] ^= count;
    v[14] ^= is_last ? UINT64_MAX : 0;
    for (size_t round = 0; round < 12; round++) {
        for (size_t i = 0; i < 8; i++) {
            uint64_t *a = &v[QUARTERS[i][0]], *b = &v[QUARTERS[i][1]], *c = &v[QUARTERS[i][2]],
                     *d = &v[QUARTERS[i][3]];
            *a += *b + m[SIGMA[round % 10][2 * i]];
            *d = rotate(*d ^ *a, 32);
            *c += *d;
            *b = rotate(*b ^ *c, 24);
            *a += *b + m[SIGMA[round % 10][2 * i + 1]];
            *d = rotate(*d ^ *a, 16);
            *c += *d;
            *b = rotate(*b ^ *c, 63);
        }
    }
    for (size_t i = 0; i < 8; i++)
        h[i] ^= v[i] ^ v[i + 8];
}

/* BLAKE2b of a whole message, `size` bytes of it, at most HASH_MAX. */
static void blake2b(uint8_t *out, size_t size, const uint8_t *message, size_t length)
{
    uint8_t last[HASH_BLOCK] = {0};
    uint64_t h[8];
    memcpy(h, IV, sizeof(h));
    h[0] ^= 0x01010000u ^ size;
    size_t done = 0;
    for (; length - done > HASH_BLOCK; done += HASH_BLOCK)
        compress(h, message + done, done + HASH_BLOCK, false);
    memcpy(last, message + done, length - done);
    compress(h, last, length, true);
    for (size_t i = 0; i < 8; i++)
        h[i] = htole64(h[i]);
    memcpy(out, h, size);
}

static size_t put32(uint8_t *at, uint32_t value)
{
    value = htole32(value);
    memcpy(at, &value, sizeof(value));
    return sizeof(value);
}

/* H' of section 3.3: `message` has room for four bytes before it begins. */
static void long_hash(uint8_t *out, size_t size, uint8_t *message, size_t length)
{
    uint8_t v[HASH_MAX];
    put32(message, (uint32_t)size);
    if (size <= HASH_MAX) {
        blake2b(out, size, message, 4 + length);
        return;
    }
    blake2b(v, HASH_MAX, message, 4 + length);
    for (; size > HASH_MAX; size -= HASH_MAX / 2) {
        memcpy(out, v, HASH_MAX / 2);
        out += HASH_MAX / 2;
        blake2b(v, size - HASH_MAX / 2 > HASH_MAX ? HASH_MAX : size - HASH_MAX / 2, v, HASH_MAX);
    }
    memcpy(out, v, size);
}

static void swap(struct block *b)
{
    for (size_t i = 0; i < WORDS; i++)
        b->words[i] = le64toh(b->words[i]);
}

static uint64_t multiply_add(uint64_t x, uint64_t y)
{
    return x + y + 2 * (uint64_t)(uint32_t)x * (uint32_t)y;
}

static inline void mix(uint64_t *a, uint64_t *b, uint64_t *c, uint64_t *d)
{
    *a = multiply_add(*a, *b);
    *d = rotate(*d ^ *a, 32);
    *c = multiply_add(*c, *d);
    *b = rotate(*b ^ *c, 24);
    *a = multiply_add(*a, *b);
    *d = rotate(*d ^ *a, 16);
    *c = multiply_add(*c, *d);
    *b = rotate(*b ^ *c, 63);
}

/* The permutation P of 16 words: first + step * row + word, two words a row. In locals, for speed. */
static void permute(struct block *b, size_t first, size_t step)
{
    uint64_t v[16];
    for (size_t i = 0; i < 16; i++)
        v[i] = b->words[first + step * (i / 2) + i % 2];
    mix(&v[0], &v[4], &v[8], &v[12]);
    mix(&v[1], &v[5], &v[9], &v[13]);
    mix(&v[2], &v[6], &v[10], &v[14]);
    mix(&v[3], &v[7], &v[11], &v[15]);
    mix(&v[0], &v[5], &v[10], &v[15]);
    mix(&v[1], &v[6], &v[11], &v[12]);
    mix(&v[2], &v[7], &v[8], &v[13]);
    mix(&v[3], &v[4], &v[9], &v[14]);
    for (size_t i = 0; i < 16; i++)
        b->words[first + step * (i / 2) + i % 2] = v[i];
}

/* The compression function G of section 3.5, XORed to what is there. */
static void fill(struct block *out, const struct block *x, const struct block *y)
{
    struct block r, z;
    for (size_t i = 0; i < WORDS; i++)
        z.words[i] = r.words[i] = x->words[i] ^ y->words[i];
    for (size_t row = 0; row < 8; row++)
        permute(&z, 16 * row, 2);
    for (size_t column = 0; column < 8; column++)
        permute(&z, 2 * column, 16);
    for (size_t i = 0; i < WORDS; i++)
        out->words[i] ^= z.words[i] ^ r.words[i];
}

/* H0 of section 3.2 without passphrase, key and associated data, four bytes behind `at`. */
static void make_first_hash(uint8_t *at, const struct wire_kdf *kdf, size_t size)
{
    uint8_t message[10 * 4 + WIRE_SALT_MAX];
    const uint32_t head[] = {kdf->lanes, (uint32_t)size, kdf->memory, kdf->iterations, VERSION,
                             kdf->type == WIRE_ARGON2I ? 1 : 2, 0, kdf->salt_length};
    size_t n = 0;
    for (size_t i = 0; i < sizeof(head) / sizeof(head[0]); i++)
        n += put32(message + n, head[i]);
    memcpy(message + n, kdf->salt, kdf->salt_length);
    n += kdf->salt_length;
    n += put32(message + n, 0);
    n += put32(message + n, 0);
    blake2b(at + 4, HASH_MAX, message, n);
}

static void fill_beginnings(const struct matrix *m, size_t size)
{
    uint8_t message[4 + HASH_MAX + 8];
    make_first_hash(message, m->kdf, size);
    for (uint32_t lane = 0; lane < m->kdf->lanes; lane++) {
        for (uint32_t i = 0; i < 2; i++) {
            struct block *b = &m->blocks[(size_t)lane * m->lane_length + i];
            put32(message + 4 + HASH_MAX, i);
            put32(message + 4 + HASH_MAX + 4, lane);
            long_hash((uint8_t *)b->words, sizeof(*b), message, HASH_MAX + 8);
            swap(b);
        }
    }
}

/* Section 3.4.1.2: 128 addresses that no data decide. */
static void make_addresses(const struct matrix *m, const struct place *at, struct block *out)
{
    const struct block zeros = {{0}};
    struct block input = {{at->pass, at->lane, at->slice, (uint64_t)m->lane_length * m->kdf->lanes,
                           m->kdf->iterations, m->kdf->type == WIRE_ARGON2I ? 1 : 2, at->index / WORDS + 1}};
    struct block once = {{0}};
    fill(&once, &zeros, &input);
    memset(out, 0, sizeof(*out));
    fill(out, &zeros, &once);
}

/* Section 3.4.2: the block that two numbers point to. */
static const struct block *find_reference(const struct matrix *m, const struct place *at, uint64_t numbers)
{
    uint32_t lane = (uint32_t)(numbers >> 32) % m->kdf->lanes;
    if (at->pass == 0 && at->slice == 0)
        lane = at->lane;
    uint32_t finished = at->pass == 0 ? at->slice * m->segment_length : m->lane_length - m->segment_length;
    uint32_t size = lane == at->lane ? finished + at->index - 1 : finished - (at->index == 0);
    uint64_t x = (numbers & UINT32_MAX) * (numbers & UINT32_MAX) >> 32;
    uint64_t relative = size - 1 - (size * x >> 32);
    uint64_t start = at->pass == 0 ? 0 : (uint64_t)(at->slice + 1) * m->segment_length;
    return &m->blocks[(size_t)lane * m->lane_length + (start + relative) % m->lane_length];
}

static void fill_segment(const struct matrix *m, struct place at)
{
    bool is_independent = m->kdf->type == WIRE_ARGON2I || (at.pass == 0 && at.slice < SLICES / 2);
    struct block addresses;
    struct block *lane = &m->blocks[(size_t)at.lane * m->lane_length];
    for (at.index = 0; at.index < m->segment_length; at.index++) {
        if (is_independent && at.index % WORDS == 0)
            make_addresses(m, &at, &addresses);
        if (at.pass == 0 && at.slice == 0 && at.index < 2)
            continue; /* fill_beginnings */
        uint32_t position = at.slice * m->segment_length + at.index;
        const struct block *previous = &lane[(position ? position : m->lane_length) - 1];
        uint64_t numbers = is_independent ? addresses.words[at.index % WORDS] : previous->words[0];
        fill(&lane[position], previous, find_reference(m, &at, numbers));
    }
}

static void finish(const struct matrix *m, uint8_t *out, size_t size)
{
    uint8_t message[4 + sizeof(struct block)];
    struct block sum = {{0}};
    for (uint32_t lane = 0; lane < m->kdf->lanes; lane++)
        for (size_t i = 0; i < WORDS; i++)
            sum.words[i] ^= m->blocks[((size_t)lane + 1) * m->lane_length - 1].words[i];
    swap(&sum);
    memcpy(message + 4, sum.words, sizeof(sum));
    long_hash(out, size, message, sizeof(sum));
}

int argon2_of_nothing(const struct wire_kdf *kdf, uint8_t *out, size_t size)
{
    struct matrix m = {.kdf = kdf, .segment_length = kdf->memory / (SLICES * kdf->lanes)};
    m.lane_length = SLICES * m.segment_length;
    m.blocks = large_alloc((size_t)m.lane_length * kdf->lanes * sizeof(struct block)); /* zeros */
    if (!m.blocks)
        return -ENOMEM;
    fill_beginnings(&m, size);
    for (struct place at = {0}; at.pass < kdf->iterations; at.pass++)
        for (at.slice = 0; at.slice < SLICES; at.slice++)
            for (at.lane = 0; at.lane < kdf->lanes; at.lane++)
                fill_segment(&m, at);
    finish(&m, out, size);
    large_free(m.blocks);
    return 0;
}
