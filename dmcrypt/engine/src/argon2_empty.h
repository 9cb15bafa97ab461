/** Argon2 of an empty passphrase, which libgcrypt refuses to take, by libargon2.
 *
 * Such keyslots are made in numbers: systemd-repart makes them when it has no key, and images wait with one
 * for their first enrolment. What is derived from nothing and a salt that stands in the header is no secret:
 * so nothing here is wiped but the matrix, nor kept from branches and the stack.
 */
#ifndef FUSECRYPT_ARGON2_EMPTY_H
#define FUSECRYPT_ARGON2_EMPTY_H

#include <stddef.h>
#include <stdint.h>

#include "wire.h"

/** Derive `size` bytes as RFC 9106 has it, version 0x13, in this thread alone.
 *
 * @param kdf WIRE_ARGON2I or WIRE_ARGON2ID; at least one iteration and lane, and 8 KiB for each lane
 * @return 0; -ENOMEM: the matrix; -EINVAL: parameters that the library does not take
 */
int argon2_of_nothing(const struct wire_kdf *kdf, uint8_t *out, size_t size);

#endif
