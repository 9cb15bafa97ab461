/** Secure keys: whether a volume key is one. Nothing here has a clear key or can make one.
 *
 * What is asked decides whether bytes out of a keyslot may leave the engine, so the tests are as strict as the
 * formats allow. Layouts: linux/arch/s390 pkey, struct secaeskeytoken and struct cipherkeytoken
 * (drivers/s390/crypto/zcrypt_ccamisc.h), struct ep11keyblob (zcrypt_ep11misc.h); the same, and our own for PKCS#11 tokens, in keystore/.
 */
#ifndef FUSECRYPT_SECURE_KEY_H
#define FUSECRYPT_SECURE_KEY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Whether the bytes are one CCA-AESDATA, CCA-AESCIPHER, EP11-AES or PKCS11-AES token, or two of one type and master key (for XTS). */
bool secure_key_is_whole(const uint8_t *bytes, size_t size);

/** Whether the bytes begin as such a token does, without being whole: a volume made with too small a key size. */
bool secure_key_is_fragment(const uint8_t *bytes, size_t size);

#endif
