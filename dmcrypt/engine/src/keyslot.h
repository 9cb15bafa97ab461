/** LUKS keyslots and the digest that tells the right key: KDF, area encryption, anti-forensic split.
 *
 * Source: LUKS2 On-Disk Format Specification 1.1.4; LUKS1 specification 1.2.3, section 2.4 (AF splitter). Every
 * buffer that holds something secret is arena memory.
 */
#ifndef FUSECRYPT_KEYSLOT_H
#define FUSECRYPT_KEYSLOT_H

#include <stddef.h>
#include <stdint.h>

#include "secret.h"
#include "wire.h"

#define VOLUME_KEY_MAX 1024u /* bytes, in a keyslot: a secure key of paes is one, too */

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

#endif
