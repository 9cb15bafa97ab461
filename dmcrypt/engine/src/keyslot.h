/** LUKS2 keyslots and what surrounds them: KDF, area encryption, anti-forensic split, digest.
 *
 * Source: LUKS2 On-Disk Format Specification 1.1.4; LUKS1 specification 1.2.3, section 2.4 (AF splitter);
 * RFC 8018 (PBKDF2); RFC 9106 (Argon2). Every buffer that holds something secret is arena memory.
 */
#ifndef FUSECRYPT_KEYSLOT_H
#define FUSECRYPT_KEYSLOT_H

#include <stddef.h>
#include <stdint.h>

#include "wire.h"

#define VOLUME_KEY_MAX 1024u /* bytes, in a keyslot: a secure key of paes is one, too */
#define KDF_OUTPUT_MAX WIRE_DIGEST_MAX

/** A secret (passphrase or key file) in the arena. */
struct secret {
    uint8_t *bytes;
    size_t length;
};

/** Read a secret from a descriptor, pipe or file, as `mode` says, straight into the arena. At most 8 MiB
 *  (cryptsetup's limit).
 *
 * From a file an offset counts from its beginning, from a pipe from what is read next. LINE may take more
 * from a pipe than the line; the rest is lost.
 * @return 0; -EINVAL: mode, or a line with a size; -ENODATA: fewer bytes than wanted; -EFBIG: longer than
 *         8 MiB; -ENOSPC: the arena is full; -errno of read
 */
int secret_load(struct secret *out, int fd, const struct wire_load_secret *how);
void secret_free(struct secret *s);

/** Derive `size` bytes (arena memory, at most KDF_OUTPUT_MAX) from a secret. One Argon2 runs at a time.
 *
 * @return 0; -EOPNOTSUPP: hash, or kind of KDF; -EINVAL: parameters; -ENOMEM: Argon2's matrix; -E2BIG: more
 *         memory than kdf_init allows; -ENOSPC: the arena is full
 */
int kdf_derive(const struct wire_kdf *kdf, const uint8_t *secret, size_t secret_length, uint8_t *out,
               size_t size);

/** Set the most memory that one KDF may take (KiB), and start `lanes` helper threads for Argon2. Before the
 *  sandbox closes. Later calls change the limit, and may add threads. @return 0 or a negative errno */
int kdf_init(uint32_t memory_limit, unsigned lanes);

/** @return the most memory to choose for a new keyslot, KiB: that limit, half of physical memory, and less
 *          than 4 GiB, which would run in one thread (argon2_single.h). */
uint32_t kdf_memory_ceiling(void);

/** Choose PBKDF2 iterations, or Argon2 time and memory, that take about b->milliseconds here.
 *
 * The rules are cryptsetup's (lib/utils_benchmark.c, lib/crypto_backend/pbkdf_check.c): PBKDF2 at least 1000
 * iterations; Argon2 time at least 4, memory at most the ceiling and half of physical memory, at least
 * 64 MiB where the ceiling allows.
 * @param out  b->kdf with iterations, and memory, filled in
 * @return 0, or as kdf_derive
 */
int kdf_benchmark(const struct wire_benchmark *b, struct wire_kdf *out);

/** Open: derive, read the area, decipher, merge, compare the digest. On success *key is slot->key_size bytes
 *  of arena memory that the caller frees.
 *
 * @return 0; -ENOKEY: the digest does not match (wrong passphrase); -ENODATA: the header ends before the area
 *         does; others as kdf_derive and cipher_open
 */
int keyslot_open(int fd, const struct wire_keyslot *slot, const struct wire_digest *digest,
                 const struct secret *secret, uint8_t **key);

/** Create: split, encipher, write the area (not synced). @return 0 or a negative errno */
int keyslot_create(int fd, const struct wire_keyslot *slot, const struct secret *secret,
                   const uint8_t *key, size_t key_size);

/** Compute a LUKS2 digest (PBKDF2 of the volume key). Writes digest_length bytes. As kdf_derive. */
int digest_compute(const struct wire_digest *d, const uint8_t *key, size_t key_size, uint8_t *out);

#define PLAIN_KEY_MAX 2080u /* bytes; what the session can wrap */

/** The key of a plain volume, as cryptsetup's lib/crypt_plain.c makes it. *key is arena memory.
 *
 * The hash may be spelt NAME:LENGTH, as cryptsetup's --hash, instead of with hash_length; LENGTH may be 0.
 * @return 0; -EOPNOTSUPP: hash; -EINVAL: hash_length longer than the key; -ENODATA: secret shorter than the
 *         key where no hash is used; -EKEYREJECTED: WIRE_KEY_XTS and equal halves; -ENOSPC: the arena is full
 */
int plain_key(const struct wire_plain_key *p, const struct secret *secret, uint8_t **key);

#define LOOPAES_KEY_MAX 32u /* bytes of one key */

/** The keys of a loop-AES key file: lines of one length, 1 (version 1), 64 (2) or 65 (3), each hashed.
 *
 * *key is arena memory, *count keys of p->key_size bytes, of version 3 with the IV seed as the last.
 * @return 0; -EINVAL: no such file; -ENOTUNIQ: one that gpg encrypted; -EDOM: a key size that needs a hash to be
 *         named, or is longer than its digest; -EOPNOTSUPP: hash; -ENOSPC: the arena is full
 */
int loopaes_key(const struct wire_loopaes_key *p, const struct secret *secret, uint8_t **key, unsigned *count);

#endif
