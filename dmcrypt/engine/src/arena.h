/** Key memory: every clear key, schedule and passphrase of the process lives here and nowhere else.
 *
 * The arena is made of memfd_secret(2) mappings, which no other process, no core dump and not even
 * /proc/PID/mem can read; where the kernel lacks it, of locked private memory that is neither dumped nor
 * inherited. It grows by whole mappings up to its limit. All functions may be called from any thread.
 */
#ifndef FUSECRYPT_ARENA_H
#define FUSECRYPT_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct arena_info {
    uint32_t kind;       /* enum wire_arena */
    uint64_t size;       /* bytes mapped */
    uint64_t used;       /* bytes handed out */
    uint64_t kdf_memory; /* bytes of large, ordinary, undumped memory handed out to Argon2 */
};

/** Map the first part of the arena. Once, before any other function here.
 *
 * @param first bytes to map now
 * @param limit bytes that it may grow to
 * @param force_mlock use the fallback even where memfd_secret works (tests)
 * @return 0, or a negative errno: -ENOMEM or -EAGAIN when RLIMIT_MEMLOCK does not allow `first`
 */
int arena_init(size_t first, size_t limit, bool force_mlock);

/** Make libgcrypt take all its memory from here, and initialise it. Once, after arena_init.
 *
 * Requests above ARENA_LARGE (only Argon2's matrix is) get ordinary private memory that is not dumped,
 * not inherited by fork, and wiped when freed.
 */
int arena_init_gcrypt(void);

/** @return size bytes, zeroed, aligned to ARENA_ALIGN; NULL when the arena is full. */
void *arena_alloc(size_t size);

/** Wipe and give back. NULL is allowed. */
void arena_free(void *p);

/** @return how many bytes belong to an allocation (its size rounded up); 0 when p is not one of ours. */
size_t arena_size(const void *p);

/** Let this thread's allocations use ARENA_RESERVE when all else is full; or no longer. Calls nest.
 *
 * For the calls of libgcrypt that end the process when they get no memory: big numbers, HMAC, and hence
 * KDFs. Their needs are small and end with them. So that they are met, ARENA_RESERVE_USERS threads may be
 * inside; one more waits. A thread that is inside must not wait for another that is not.
 */
void arena_use_reserve(bool on);

struct arena_info arena_info(void);

/** Overwrite with zeros, in a way that no compiler removes. The one such function. */
void wipe(void *p, size_t n);

/** Zero the stack below the caller, where functions that have returned left what they worked with: local
 *  arrays of libgcrypt, registers that the compiler or the dynamic linker saved. Takes a microsecond. */
void wipe_stack(void);

/** Compare without a data-dependent branch. @return true when equal */
bool equal_const_time(const void *a, const void *b, size_t n);

#define ARENA_LARGE (1u << 20)
#define ARENA_RESERVE (128u << 10)
#define ARENA_RESERVE_USERS 8u
#define ARENA_ALIGN 64u

#endif
