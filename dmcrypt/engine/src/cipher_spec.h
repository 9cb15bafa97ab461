/** What a cipher is called, and what it needs: dm-crypt's spelling taken apart.
 *
 * Source: Linux drivers/md/dm-crypt.c, crypt_ctr_cipher_old (cipher[:keycount]-mode-iv[:ivopts]),
 * crypt_ctr_cipher_new (capi:mode(cipher)-iv, capi:essiv(mode(cipher),hash)-iv) and crypt_ctr_ivmode.
 */
#ifndef FUSECRYPT_CIPHER_SPEC_H
#define FUSECRYPT_CIPHER_SPEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire.h"

/** How blocks are chained within a sector. */
enum chaining {
    CHAIN_NULL, /* cipher_null: no cipher at all */
    CHAIN_ECB,
    CHAIN_CBC,
    CHAIN_PCBC,
    CHAIN_CTR,
    CHAIN_XTS,
    CHAIN_LRW,
    CHAIN_ADIANTUM,
};

/** How a sector's IV is made; iv.h says how each. */
enum iv_kind {
    IV_NONE,
    IV_NULL,
    IV_PLAIN,
    IV_PLAIN64,
    IV_PLAIN64BE,
    IV_BENBI,
    IV_EBOIV,
    IV_ELEPHANT,
    IV_LMK,
    IV_TCW,
};

struct cipher_spec {
    enum chaining chaining;
    enum iv_kind iv;
    int algorithm;          /* libgcrypt's */
    int essiv_algorithm;    /* the cipher that enciphers IVs; 0: none */
    char essiv_hash[WIRE_NAME_MAX]; /* of the key, which is then its key */
    size_t block;           /* bytes that the chaining works on: 1 of CTR */
    size_t iv_size;         /* bytes; 0: it takes none */
    unsigned keys;          /* a power of 2; each sector takes one by its number */
    size_t key_size;        /* bytes of one of them, with what its chaining needs */
    size_t iv_key_size;     /* bytes behind them that are the IV's: of lmk (version 3), tcw, elephant */
};

#define CIPHER_KEYS_MAX 64u
#define TCW_WHITENING_SIZE 16u

/** Take a spec apart.
 *
 * @param key_size  bytes of the whole key
 * @return 0; -EOPNOTSUPP: unknown cipher, mode or IV, or they do not go together; -EINVAL: key size
 */
int cipher_spec_parse(struct cipher_spec *out, const char *text, size_t key_size);

/** Whether dm-crypt takes the IV with sectors of this size. */
bool cipher_spec_takes_sector_size(const struct cipher_spec *s, uint32_t sector_size);

#endif
