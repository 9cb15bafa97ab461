/** Large work memory: Argon2's matrix, the one thing with key-derived content that does not fit the arena.
 *
 * Ordinary private memory, neither dumped nor inherited by fork, wiped when freed. Any thread may call.
 */
#ifndef FUSECRYPT_LARGE_H
#define FUSECRYPT_LARGE_H

#include <stddef.h>
#include <stdint.h>

/** @return size bytes, zeroed; NULL when the system has no more, or LARGE_MAX pieces are out. */
void *large_alloc(size_t size);

/** Wipe and unmap. @return 0; -ENOENT: not one of ours */
int large_free(void *p);

/** @return bytes of one of ours, or 0. */
size_t large_size(const void *p);

/** @return bytes handed out now. */
uint64_t large_total(void);

#define LARGE_MAX 16u

#endif
