/** Transport blobs: keys that a coprocessor sends to this session, and nobody else can open.
 *
 * The layout stands in session.h. Sources: RFC 7748 (X25519), RFC 5869 (HKDF), NIST SP 800-38D (GCM);
 * rsa.h for kind 2.
 */
#ifndef FUSECRYPT_TRANSPORT_H
#define FUSECRYPT_TRANSPORT_H

#include <stddef.h>
#include <stdint.h>

/** A key pair of X25519. */
struct transport_pair {
    uint8_t *private_key; /* 32 bytes of arena memory */
    uint8_t public_key[32];
};

/** Make a key pair. @return 0 or a negative errno; transport_discard is due in any case */
int transport_prepare(struct transport_pair *pair);

/** Make it the session's: no blob for the one before is taken any more. @param pair  the one before, from then on */
void transport_replace(struct transport_pair *pair);
void transport_discard(struct transport_pair *pair);

void transport_public_key(uint8_t out[32]);

/** Open a blob, once.
 *
 * @param most  bytes that its key may have
 * @param key   on success arena memory of *size bytes that the caller frees
 * @return 0; -EOPNOTSUPP: kind; -EINVAL: length; -EKEYREJECTED: not authentic, or anything of kind 2; -EEXIST: opened before;
 *         -EDQUOT: TRANSPORT_BLOBS_MAX were, and
 *         there is another key pair from now on; -ENOSPC: the arena is full
 */
int transport_open(const uint8_t *blob, size_t length, size_t most, uint8_t **key, size_t *size);

/** How many blobs a key pair opens: so many ephemeral keys, or ciphertexts of kind 2, are remembered. */
#define TRANSPORT_BLOBS_MAX 4096u

#endif
