/** Argon2 in one thread, by libargon2: for what libgcrypt's refuses, or gets wrong.
 *
 * That is an empty passphrase (systemd-repart makes such keyslots when it has no key, and images wait with
 * one for their first enrolment), and a matrix of 4 GiB and more, whose size wraps to nothing there. In all
 * else libgcrypt is better: its lanes run side by side, in threads that were there before the sandbox.
 */
#ifndef FUSECRYPT_ARGON2_SINGLE_H
#define FUSECRYPT_ARGON2_SINGLE_H

#include <stddef.h>
#include <stdint.h>

#include "wire.h"

/** Derive `size` bytes as RFC 9106 has it, version 0x13.
 *
 * The matrix is large memory (large.h), and all the memory that the library takes; what it leaves on the
 * stack, parts of the passphrase among it, is the caller's to wipe.
 * @param kdf WIRE_ARGON2I or WIRE_ARGON2ID; at least one iteration and lane, and 8 KiB for each lane
 * @return 0; -ENOMEM: the matrix; -EINVAL: parameters that the library does not take
 */
int argon2_single(const struct wire_kdf *kdf, const uint8_t *secret, size_t secret_length, uint8_t *out,
                  size_t size);

#endif
