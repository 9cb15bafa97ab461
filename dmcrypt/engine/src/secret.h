/** Passphrases and key files, in arena memory. */
#ifndef FUSECRYPT_SECRET_H
#define FUSECRYPT_SECRET_H

#include <stddef.h>
#include <stdint.h>

#include "wire.h"

/** A secret (passphrase or key file) in the arena. */
struct secret {
    uint8_t *bytes;
    size_t length;
};

/** Read a secret from a descriptor, pipe or file, as `mode` says, straight into the arena. At most 8 MiB
 *  (cryptsetup's limit).
 *
 * From a file an offset counts from its beginning, from a pipe from what is read next. LINE may take more
 * from a pipe than the line; the rest is lost.
 * @return 0; -EINVAL: mode, or a line with a size; -ENODATA: fewer bytes than wanted; -EFBIG: longer than
 *         8 MiB; -ENOSPC: the arena is full; -errno of read
 */
int secret_load(struct secret *out, int fd, const struct wire_load_secret *how);
void secret_free(struct secret *s);

#endif
