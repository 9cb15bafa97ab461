/** Transport blobs: keys that a coprocessor sends to this session, and nobody else can open.
 *
 * The layout stands in session.h. Sources: RFC 7748 (X25519), RFC 5869 (HKDF), NIST SP 800-38D (GCM);
 * rsa.h for kind 2.
 */
#ifndef FUSECRYPT_TRANSPORT_H
#define FUSECRYPT_TRANSPORT_H

#include <stddef.h>
#include <stdint.h>

/** Make the key pair. Once. @return 0 or a negative errno */
int transport_init(void);

const uint8_t *transport_public_key(void); /* 32 bytes */

/** Open a blob, once.
 *
 * @param most  bytes that its key may have
 * @param key   on success arena memory of *size bytes that the caller frees
 * @return 0; -EOPNOTSUPP: kind; -EINVAL: length; -EKEYREJECTED: not authentic, or anything of kind 2; -EEXIST: opened before;
 *         -EDQUOT: TRANSPORT_BLOBS_MAX were; -ENOSPC: the arena is full
 */
int transport_open(const uint8_t *blob, size_t length, size_t most, uint8_t **key, size_t *size);

/** How many blobs a session opens: so many ephemeral keys, or ciphertexts of kind 2, it remembers. */
#define TRANSPORT_BLOBS_MAX 65536u

#endif
