/** Adiantum: a sector as one wide block, for processors without AES instructions.
 *
 * Source: P. Crowley, E. Biggers, "Adiantum: length-preserving encryption for entry-level processors" (2018), and
 * Linux crypto/adiantum.c, crypto/nhpoly1305.c. Of XChaCha20, AES-256, NH and Poly1305; libgcrypt has ChaCha20, AES
 * and Poly1305. It has no ChaCha with 12 rounds, so none of xchacha12.
 */
#ifndef FUSECRYPT_ADIANTUM_H
#define FUSECRYPT_ADIANTUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ADIANTUM_KEY_SIZE 32u
#define ADIANTUM_IV_SIZE 32u

struct adiantum;

/** Expand a key of ADIANTUM_KEY_SIZE bytes, for one thread. @return 0; -ENOSPC: the arena is full */
int adiantum_open(struct adiantum **out, const uint8_t *key);

/** Wipe and free. NULL is allowed. */
void adiantum_close(struct adiantum *a);

/** Encipher or decipher one sector.
 *
 * @param iv   ADIANTUM_IV_SIZE bytes
 * @param dst  size bytes, 512 to 4096; may be src
 * @return 0 or -EIO when libgcrypt refuses, which self-tests exclude
 */
int adiantum_crypt(struct adiantum *a, const uint8_t *iv, uint8_t *dst, const uint8_t *src, size_t size, bool encrypt);

#endif
