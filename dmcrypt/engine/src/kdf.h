/** How a secret becomes a key: PBKDF2 and Argon2, and what they are to cost.
 *
 * Source: RFC 8018 (PBKDF2); RFC 9106 (Argon2). Every buffer that holds something secret is arena memory, but for
 * Argon2's matrix (large.h).
 */
#ifndef FUSECRYPT_KDF_H
#define FUSECRYPT_KDF_H

#include <stddef.h>
#include <stdint.h>

#include "wire.h"

#define KDF_OUTPUT_MAX WIRE_DIGEST_MAX

/** Derive `size` bytes (arena memory, at most KDF_OUTPUT_MAX) from a secret. One Argon2 runs at a time.
 *
 * @return 0; -EOPNOTSUPP: hash, or kind of KDF; -EINVAL: parameters; -ENOMEM: Argon2's matrix; -E2BIG: more
 *         memory than kdf_init allows; -ENOSPC: the arena is full
 */
int kdf_derive(const struct wire_kdf *kdf, const uint8_t *secret, size_t secret_length, uint8_t *out,
               size_t size);

/** Set the most memory that one KDF may take (KiB), and start `lanes` helper threads for Argon2. Before the
 *  sandbox closes. Later calls change the limit, and may add threads. @return 0 or a negative errno */
int kdf_init(uint32_t memory_limit, unsigned lanes);

/** @return the most memory to choose for a new keyslot, KiB: that limit, half of physical memory, and less
 *          than 4 GiB, which would run in one thread (argon2_single.h). */
uint32_t kdf_memory_ceiling(void);

/** Choose PBKDF2 iterations, or Argon2 time and memory, that take about b->milliseconds here.
 *
 * The rules are cryptsetup's (lib/utils_benchmark.c, lib/crypto_backend/pbkdf_check.c): PBKDF2 at least 1000
 * iterations; Argon2 time at least 4, memory at most the ceiling and half of physical memory, at least
 * 64 MiB where the ceiling allows.
 * @param out  b->kdf with iterations, and memory, filled in
 * @return 0, or as kdf_derive
 */
int kdf_benchmark(const struct wire_benchmark *b, struct wire_kdf *out);

#endif
