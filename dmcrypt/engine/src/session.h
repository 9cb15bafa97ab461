/** The session: what makes a protected key, and what alone can use one.
 *
 * A token: 00 000000, version 01, 000000, u32 key type, u32 data length (both big-endian), wrapped key, and
 * the 32-byte pattern of the session's wrapping key; the data of a single AES key are padded to 64 bytes
 * (pkey.h, struct protaeskeytoken). The wrapping key never leaves the arena and dies with the session: with the
 * process, or when session_replace begins another one. The pattern tells a token of another session (as IBM Z's
 * WKVP does). Any thread may call what is here; what one call makes belongs to one session.
 * Wrapping is AES-256-XTS over the whole key with the key type and length as tweak: it keeps the length
 * and takes 16 bytes at least: shorter keys are padded with zeros.
 */
#ifndef FUSECRYPT_SESSION_H
#define FUSECRYPT_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "transport.h"
#include "wire.h"

/** Key type of a volume key of any length; 1 to 12 are IBM Z's (pkey.h). */
#define SESSION_VOLUME_KEY 0x46435601u
/** The same, of a key that a coprocessor sent, and can send again: nobody is shown it. */
#define SESSION_IMPORTED_KEY 0x46435602u
/** The same, of a random protected key: nobody can make it again in another session. */
#define SESSION_RANDOM_KEY 0x46435603u

/** Bytes: the 65 keys of loop-AES are what the largest volume key is. */
#define SESSION_KEY_MAX 2080u

/** IBM Z's key types of protected AES keys: PKEY_KEYTYPE_AES_128 and so on (pkey.h). */
enum session_key_type {
    SESSION_AES_128 = 1,
    SESSION_AES_192 = 2,
    SESSION_AES_256 = 3,
    SESSION_AES_XTS_128 = 10, /* both keys in one token */
    SESSION_AES_XTS_256 = 11,
};

/** Wrapping key, pattern and X25519 pair. */
struct session {
    struct gcry_cipher_handle *wrapping;
    uint8_t pattern[32];
    struct transport_pair pair;
    uint8_t *scratch; /* arena memory for one key: session_rewrap does not fail for lack of it */
};

/** Make the first session. Once. @return 0 or a negative errno */
int session_init(void);

/** Make another session, and change nothing yet. @return 0 or a negative errno, after which nothing is due */
int session_prepare(struct session *next);

/** From now on it is the session: tokens and transport blobs of the one before are void, and its RSA pair is gone.
 *  @param next the one before, from then on; session_discard is due */
void session_replace(struct session *next);

/** Wrap a clear key's token of the session `old` anew. @return 0; -EINVAL: no token of a clear key; -EKEYEXPIRED:
 *  of another session than `old` */
int session_rewrap(const struct session *old, struct wire_token *token);
void session_discard(struct session *old);

void session_public_key(uint8_t out[32]);
void session_pattern(uint8_t out[32]);

/** Wrap a clear key of 1 to SESSION_KEY_MAX bytes. @return 0, -EINVAL: size */
int session_wrap(const uint8_t *key, size_t size, struct wire_token *token);

/** Unwrap. On success *key is arena memory of *size bytes that the caller frees.
 *
 * @return 0; -EINVAL: not a token; -EKEYEXPIRED: a token of another session; -ENOSPC: the arena is full
 */
int session_unwrap(const struct wire_token *token, uint8_t **key, size_t *size);

/** SESSION_VOLUME_KEY, SESSION_IMPORTED_KEY or SESSION_RANDOM_KEY; 0: none of these. Of whichever session. */
uint32_t session_kind(const struct wire_token *token);

/** Whether a token is of a key that came from a coprocessor, or is none of ours. */
bool session_is_imported(const struct wire_token *token);

/** A random key as a protected key token of IBM Z's layout: what a read of the pkey attributes gives there.
 *
 * @return 0; -EINVAL: not one of session_key_type
 */
int session_make_pkey(uint32_t key_type, struct wire_token *token);

/** The volume key that protected key tokens of IBM Z's layout make: one, or for XTS two AES ones.
 *
 * @return 0; -EINVAL: no such tokens; -EKEYEXPIRED: of another session; -ENOSPC: the arena is full
 */
int session_join_pkeys(const uint8_t *bytes, size_t size, struct wire_token *token);

/** Take the key out of a transport blob, and wrap it.
 *
 * Kind 1: 01, ephemeral X25519 public key (32), nonce (12), AES-256-GCM ciphertext and tag (16). The AES key
 * is HKDF-SHA256 (RFC 5869) of the shared secret, without salt, with info = "fusecrypt transport 1",
 * ephemeral and session public keys; the additional data is the first 33 bytes.
 * Kind 2: 02, hash (1 SHA-1, 2 SHA-256), number of AES keys (1, or 2 for XTS), their RSAES-OAEP ciphertexts
 * (RFC 8017, no label, the hash for its mask generation too) under the key of rsa_modulus, in order.
 * A blob is taken once. After so many of them the key pairs are others, without a new session.
 * @return 0; -EOPNOTSUPP: another kind; -EINVAL: length; -EKEYREJECTED: not authentic (kind 2: any fault);
 *         -EEXIST: used before; -EDQUOT: there are other key pairs now
 */
int session_import(const uint8_t *blob, size_t length, size_t key_size, struct wire_token *token);

#endif
