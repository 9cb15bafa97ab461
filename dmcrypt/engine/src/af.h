/** The anti-forensic splitter: a key spread over stripes, so that losing any one loses the key.
 *
 * Source: LUKS1 On-Disk Format Specification 1.2.3, section 2.4. Both functions work in arena memory.
 */
#ifndef FUSECRYPT_AF_H
#define FUSECRYPT_AF_H

#include <stddef.h>
#include <stdint.h>

/** Spread `size` bytes of key over stripes * size bytes.
 *
 * @param hash  name of the diffusing hash
 * @return 0; -EOPNOTSUPP: hash; -EINVAL: no stripes; -ENOSPC: the arena is full
 */
int af_split(const char *hash, const uint8_t *key, size_t size, uint32_t stripes, uint8_t *material);

/** The way back. As af_split; key is size bytes. */
int af_merge(const char *hash, const uint8_t *material, size_t size, uint32_t stripes, uint8_t *key);

#endif
