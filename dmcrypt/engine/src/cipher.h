/** Sector ciphers: dm-crypt's `cipher-mode-iv` over libgcrypt.
 *
 * Source: Linux drivers/md/dm-crypt.c. cipher_spec.h says what there is, iv.h and sector_tweak.h how IVs are
 * made, chain.h how a sector is enciphered with one. Each device has one expanded key per I/O thread, since a libgcrypt
 * handle keeps its IV in itself; all of it is in the arena.
 */
#ifndef FUSECRYPT_CIPHER_H
#define FUSECRYPT_CIPHER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cipher;

#define CIPHER_IV_LARGE_SECTORS 1u /* count IV sectors in units of the sector size */
#define CIPHER_ANY_XTS_KEY 2u      /* take an XTS key with equal halves, as the kernel does */

/** Expand a key.
 *
 * @param spec        dm-crypt's spelling, as "aes-xts-plain64" or "aes-cbc-essiv:sha256"
 * @param key         key_size bytes; may be freed after the call
 * @param sector_size 512, 1024, 2048 or 4096
 * @param flags       CIPHER_IV_LARGE_SECTORS, CIPHER_ANY_XTS_KEY
 * @param threads     how many threads will call; each uses its own index
 * @return 0; -EOPNOTSUPP: unknown cipher, mode or IV; -EINVAL: key size, or a sector size that the IV cannot
 *         serve; -EKEYREJECTED: XTS key with equal halves; -ENOSPC: the arena is full
 */
int cipher_open(struct cipher **out, const char *spec, const uint8_t *key, size_t key_size,
                uint32_t sector_size, unsigned flags, unsigned threads);

/** Say what cipher_open would say of a spec and a key's size, without a key. @return as cipher_open */
int cipher_check(const char *spec, size_t key_size);

/** Whether a spec is of no cipher at all: cipher_null. */
bool cipher_is_null(const char *spec);

/** Wipe and free. NULL is allowed. No thread may be inside. */
void cipher_close(struct cipher *c);

/** Decipher whole sectors in place.
 *
 * @param thread  index below `threads`; no two callers at once with one index
 * @param sector  number of the first 512-byte sector, IV offset included (dm-crypt's cc_sector)
 * @param length  bytes, a multiple of the sector size
 * @return 0, or -EIO when libgcrypt refuses, which self-tests exclude
 */
int cipher_decrypt(struct cipher *c, unsigned thread, void *buf, size_t length, uint64_t sector);

/** Encipher whole sectors from src into dst (they may be the same). As cipher_decrypt. */
int cipher_encrypt(struct cipher *c, unsigned thread, void *dst, const void *src, size_t length,
                   uint64_t sector);

#endif
