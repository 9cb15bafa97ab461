/** Initialisation vectors: what dm-crypt computes from a sector's number.
 *
 * Source: Linux drivers/md/dm-crypt.c, "Different IV generation algorithms". All are as long as the mode's IV.
 * plain: 32-bit little-endian number. plain64: 64-bit little-endian. plain64be: 64-bit big-endian, at
 * the end. benbi: the number of the cipher's block, from 1, 64-bit big-endian, at the end. null: zeros.
 * eboiv: the byte offset, 64-bit little-endian, enciphered with the key itself; elephant the same. tcw: the
 * number, 64-bit little-endian, twice, XORed with the seed in the key. essiv:HASH: plain64, enciphered
 * with HASH(key) as key. What lmk, tcw and elephant do with the data is sector_tweak.h's.
 */
#ifndef FUSECRYPT_IV_H
#define FUSECRYPT_IV_H

#include <stddef.h>
#include <stdint.h>

#include "cipher_spec.h"

#define IV_SIZE_MAX 32u

/** How to make the IVs of one device. */
struct iv {
    enum iv_kind kind;
    size_t size;          /* bytes; 0: none */
    uint32_t sector_size; /* bytes */
    uint64_t step;        /* from one sector's number to the next one's, in 512-byte sectors */
    unsigned shift;       /* from 512-byte sectors to what the IV counts */
    unsigned benbi_shift; /* from that to the cipher's blocks */
    const uint8_t *seed;  /* of tcw: `size` bytes */
};

/** Make the IVs of `count` sectors in a row, as they are before any cipher.
 *
 * @param sector  the first one's number, in 512-byte sectors, IV offset included (dm-crypt's cc_sector)
 * @param out     count * iv->size bytes
 */
void iv_fill(const struct iv *iv, uint64_t sector, unsigned count, uint8_t *out);

/** What the IV counts: dm-crypt's iv_sector. */
static inline uint64_t iv_number(const struct iv *iv, uint64_t sector)
{
    return sector >> iv->shift;
}

#endif
