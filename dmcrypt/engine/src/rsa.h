/** The session's RSA key pair: for keys that come out of a PKCS#11 token, which wraps with nothing else.
 *
 * It is made at the first use, which takes about a second, and dies with the session. Sources: RFC 8017
 * section 7.1.2 (RSAES-OAEP decryption, without a label); PKCS #11 3.0 section 2.1.8 (CKM_RSA_PKCS_OAEP).
 */
#ifndef FUSECRYPT_RSA_H
#define FUSECRYPT_RSA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RSA_BITS 3072u /* as strong as AES-128; what NIST SP 800-57 allows beyond 2030 */
#define RSA_SIZE (RSA_BITS / 8u)
#define RSA_PLAIN_MAX 32u /* bytes: the longest AES key */

/** The hash of OAEP and of its mask generation. */
enum rsa_hash { RSA_SHA1 = 1, RSA_SHA256 = 2 };

/** The modulus, big-endian; the exponent is 65537. Makes the key pair if there is none yet.
 *
 * @return 0; -ENOSPC: the arena is full; -EIO: no key pair
 */
int rsa_modulus(uint8_t modulus[RSA_SIZE]);

/** Forget the key pair: the next use makes another one. */
void rsa_forget(void);

/** Decipher one AES key.
 *
 * @param out  RSA_PLAIN_MAX bytes of arena memory
 * @param size 16, 24 or 32 on success
 * @return 0; -EKEYREJECTED: whatever is wrong with the ciphertext; -ENOSPC: the arena is full
 */
int rsa_decipher(enum rsa_hash hash, const uint8_t ciphertext[RSA_SIZE], uint8_t *out, size_t *size);

/** Whether there is a key pair, and its modulus is this one. */
bool rsa_is_own(const uint8_t modulus[RSA_SIZE]);

#endif
