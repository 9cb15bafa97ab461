/** Threads for the lanes of Argon2. They are made once, before the sandbox forbids new ones.
 *
 * One batch of jobs at a time: the caller (kdf.c) sees to that.
 */
#ifndef FUSECRYPT_WORKER_POOL_H
#define FUSECRYPT_WORKER_POOL_H

#include <gcrypt.h>

/** Start threads until there are `count`. All signals are blocked in them. @return 0 or a negative errno */
int worker_pool_start(unsigned count);

/** For gcry_kdf_compute: hands a lane's job to a thread, and waits for a slice's jobs, working meanwhile. */
extern const gcry_kdf_thread_ops_t WORKER_POOL_OPS;

#endif
