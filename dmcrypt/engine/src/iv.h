/** Initialisation vectors: what dm-crypt computes from a sector's number.
 *
 * Source: Linux drivers/md/dm-crypt.c, "Different IV generation algorithms". All are the size of the cipher's
 * block. plain: 32-bit little-endian number. plain64: 64-bit little-endian. plain64be: 64-bit big-endian, at
 * the end. essiv:HASH: plain64, enciphered with HASH(key) as key. eboiv: the byte offset, 64-bit
 * little-endian, enciphered with the key itself. benbi: the number of the cipher block, from 1, 64-bit
 * big-endian, at the end. null: zeros.
 */
#ifndef FUSECRYPT_IV_H
#define FUSECRYPT_IV_H

#include <gcrypt.h>
#include <stdint.h>

enum iv_kind { IV_NONE, IV_NULL, IV_PLAIN, IV_PLAIN64, IV_PLAIN64BE, IV_BENBI, IV_ESSIV, IV_EBOIV };

#define IV_SIZE_MAX 16u

/** How to make the IVs of one device. */
struct iv {
    enum iv_kind kind;
    unsigned size;        /* bytes: the cipher's block */
    uint32_t sector_size; /* bytes */
    uint64_t step;        /* from one sector's number to the next one's */
};

/** Find a kind by name, as "plain64" or "essiv". @return 0 or -EOPNOTSUPP */
int iv_find(enum iv_kind *kind, const char *name);

/** Make the IVs of `count` sectors in a row.
 *
 * @param cipher  ECB handle for essiv and eboiv, else NULL; used by this thread only
 * @param sector  the first one's number, as dm-crypt's iv_sector
 * @param out     count * iv->size bytes
 * @return 0 or -EIO when libgcrypt refuses, which self-tests exclude
 */
int iv_fill(const struct iv *iv, gcry_cipher_hd_t cipher, uint64_t sector, unsigned count, uint8_t *out);

#endif
