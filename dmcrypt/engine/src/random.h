/** Random bytes of the kernel, straight into the caller's memory: no generator state of ours to guard. */
#ifndef FUSECRYPT_RANDOM_H
#define FUSECRYPT_RANDOM_H

#include <stddef.h>

/** Fill with getrandom(2), which waits until the kernel's generator is seeded.
 *
 * @return 0 or a negative errno
 */
int random_fill(void *out, size_t size);

#endif
