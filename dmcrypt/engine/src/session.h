/** The session: what makes a protected key, and what alone can use one.
 *
 * A token: 00 000000, version 01, 000000, u32 key type, u32 data length (both big-endian), wrapped key, and
 * the 32-byte pattern of the session's wrapping key; the data of a single AES key are padded to 64 bytes
 * (pkey.h, struct protaeskeytoken). The wrapping key never leaves the arena and dies with the process; the
 * pattern tells a token of another session (as IBM Z's WKVP does).
 * Wrapping is AES-256-XTS over the whole key with the key type and length as tweak: it keeps the length
 * and takes 16 bytes at least: shorter keys are padded with zeros.
 */
#ifndef FUSECRYPT_SESSION_H
#define FUSECRYPT_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire.h"

/** Key type of a volume key of any length; 1 to 12 are IBM Z's (pkey.h). */
#define SESSION_VOLUME_KEY 0x46435601u
/** The same, of a key that a coprocessor sent or protected: nobody is shown it. */
#define SESSION_IMPORTED_KEY 0x46435602u

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

/** Make wrapping key, pattern and X25519 pair. Once. @return 0 or a negative errno */
int session_init(void);

const uint8_t *session_public_key(void); /* 32 bytes */
const uint8_t *session_pattern(void);    /* 32 bytes */

/** Wrap a clear key of 1 to SESSION_KEY_MAX bytes. @return 0, -EINVAL: size */
int session_wrap(const uint8_t *key, size_t size, struct wire_token *token);

/** Unwrap. On success *key is arena memory of *size bytes that the caller frees.
 *
 * @return 0; -EINVAL: not a token; -EKEYEXPIRED: a token of another session; -ENOSPC: the arena is full
 */
int session_unwrap(const struct wire_token *token, uint8_t **key, size_t *size);

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
 * A blob is taken once.
 * @return 0; -EOPNOTSUPP: another kind; -EINVAL: length; -EKEYREJECTED: not authentic (kind 2: any fault);
 *         -EEXIST: used before
 */
int session_import(const uint8_t *blob, size_t length, size_t key_size, struct wire_token *token);

#endif
