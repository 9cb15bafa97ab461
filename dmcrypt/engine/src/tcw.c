#include <endian.h>
#include <string.h>

#include "sector_tweak.h"

/* CRC-32 of 4 bytes, reflected, polynomial 0x04c11db7, neither start nor end inverted (crypto/crc32_generic.c). */
static uint32_t crc32_of(uint32_t word)
{
    for (unsigned i = 0; i < 32; i++)
        word = word >> 1 ^ (word & 1 ? 0xedb88320 : 0);
    return word;
}

void tcw_whiten(uint8_t *work, const uint8_t *whitening, uint8_t *data, size_t size, uint64_t number)
{
    uint32_t *words = (uint32_t *)(void *)work;
    const uint64_t le = htole64(number);
    uint64_t mask;
    for (unsigned i = 0; i < 2; i++) {
        memcpy(&mask, whitening + 8 * i, 8);
        mask ^= le;
        memcpy(words + 2 * i, &mask, 8);
    }
    for (unsigned i = 0; i < 4; i++)
        words[i] = htole32(crc32_of(le32toh(words[i])));
    words[0] ^= words[3];
    words[1] ^= words[2];
    memcpy(&mask, words, 8);
    for (size_t at = 0; at < size; at += 8) {
        uint64_t eight;
        memcpy(&eight, data + at, 8);
        eight ^= mask;
        memcpy(data + at, &eight, 8);
    }
}
