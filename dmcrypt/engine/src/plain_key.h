/** The key of a plain volume. */
#ifndef FUSECRYPT_PLAIN_KEY_H
#define FUSECRYPT_PLAIN_KEY_H

#include <stddef.h>
#include <stdint.h>

#include "secret.h"
#include "wire.h"

#define PLAIN_KEY_MAX 2080u /* bytes; what the session can wrap */

/** The key of a plain volume, as cryptsetup's lib/crypt_plain.c makes it. *key is arena memory.
 *
 * The hash may be spelt NAME:LENGTH, as cryptsetup's --hash, instead of with hash_length; LENGTH may be 0.
 * @return 0; -EOPNOTSUPP: hash; -EINVAL: hash_length longer than the key; -ENODATA: secret shorter than the
 *         key where no hash is used; -EKEYREJECTED: WIRE_KEY_XTS and equal halves; -ENOSPC: the arena is full
 */
int plain_key(const struct wire_plain_key *p, const struct secret *secret, uint8_t **key);

#endif
