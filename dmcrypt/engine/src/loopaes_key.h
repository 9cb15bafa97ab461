/** The keys of a loop-AES volume. */
#ifndef FUSECRYPT_LOOPAES_KEY_H
#define FUSECRYPT_LOOPAES_KEY_H

#include <stddef.h>
#include <stdint.h>

#include "secret.h"
#include "wire.h"

#define LOOPAES_KEY_MAX 32u /* bytes of one key */

/** The keys of a loop-AES key file: lines of one length, 1 (version 1), 64 (2) or 65 (3), each hashed.
 *
 * *key is arena memory, *count keys of p->key_size bytes, of version 3 with the IV seed as the last.
 * @return 0; -EINVAL: no such file; -ENOTUNIQ: one that gpg encrypted; -EDOM: a key size that needs a hash to be
 *         named, or is longer than its digest; -EOPNOTSUPP: hash; -ENOSPC: the arena is full
 */
int loopaes_key(const struct wire_loopaes_key *p, const struct secret *secret, uint8_t **key, unsigned *count);

#endif
