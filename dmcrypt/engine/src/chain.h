/** Chaining: one sector under one key, with an IV that is already made.
 *
 * libgcrypt has ECB, CBC, CTR and XTS. The kernel's other two are made of those:
 * pcbc (crypto/pcbc.c) is CBC over P[i] ^ P[i-1]; lrw (crypto/lrw.c, IEEE P1619 draft) is ECB between two
 * XORs with the product of the tweak key and the block's index in GF(2^128), x^128 + x^7 + x^2 + x + 1,
 * big-endian, the index starting at the IV. Adiantum is adiantum.h's.
 */
#ifndef FUSECRYPT_CHAIN_H
#define FUSECRYPT_CHAIN_H

#include <gcrypt.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cipher_spec.h"

struct lrw;
struct adiantum;

/** One expanded key of one thread. */
struct chain {
    enum chaining chaining;
    size_t iv_size;
    gcry_cipher_hd_t handle;
    struct lrw *lrw;
    struct adiantum *adiantum;
};

/** Expand a key of s->key_size bytes.
 *
 * @param any_xts_key  take one of XTS with equal halves
 * @return 0; -EKEYREJECTED: an XTS key with equal halves; -ENOSPC: the arena is full. Then chain_close is still due
 */
int chain_open(struct chain *c, const struct cipher_spec *s, const uint8_t *key, bool any_xts_key);

/** Wipe and free. */
void chain_close(struct chain *c);

/** Encipher or decipher one sector.
 *
 * @param iv   c->iv_size bytes, not in dst
 * @param dst  size bytes, at most 4096, a multiple of the cipher's block; may be src, else apart from it
 * @return 0 or -EIO when libgcrypt refuses, which self-tests exclude
 */
int chain_crypt(struct chain *c, const uint8_t *iv, uint8_t *dst, const uint8_t *src, size_t size, bool encrypt);

/** The same of `count` sectors in a row, with IVs in a row: one choice of the mode for all of them. */
int chain_crypt_many(struct chain *c, const uint8_t *ivs, uint8_t *dst, const uint8_t *src, size_t size,
                     unsigned count, bool encrypt);

/** Open a libgcrypt cipher with a key; a key that it thinks weak is taken, as dm-crypt does.
 *  @return 0 or a negative errno */
int open_handle(gcry_cipher_hd_t *out, int algorithm, int mode, const uint8_t *key, size_t key_size);

#endif
