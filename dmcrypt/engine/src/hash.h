/** Hashes by the names that LUKS headers, cryptsetup and dm-crypt use, and their HMAC.
 *
 * Every context is arena memory: libgcrypt's one-call gcry_md_hash_buffer would keep it on the stack.
 */
#ifndef FUSECRYPT_HASH_H
#define FUSECRYPT_HASH_H

#include <gcrypt.h>
#include <stddef.h>
#include <stdint.h>

#define HASH_SIZE_MAX 64u

struct hash {
    gcry_md_hd_t md;
    size_t size; /* bytes of a digest */
};

/** @return libgcrypt's number of a hash; 0 when there is none of that name, in whatever case: cryptsetup writes
 *  "SHA256" into a LUKS2 header as it was typed. A name that lacks its NUL is found to be none. */
int hash_find(const char *name);

/** Open. Until hash_close, which takes place in the same thread, libgcrypt has the arena's reserve.
 *
 * @param key of HMAC, or NULL: none
 * @return 0; -EOPNOTSUPP: name; -ENOSPC: the arena is full. Then h is closed
 */
int hash_open(struct hash *h, const char *name, const void *key, size_t key_size);

/** Close and wipe; nothing when h->md is NULL. */
void hash_close(struct hash *h);

/** Start a new message (HMAC: with the same key). */
void hash_reset(struct hash *h);
void hash_write(struct hash *h, const void *data, size_t size);

/** Finish, and copy the first `size` bytes of the digest, at most h->size. Then hash_reset or hash_close. */
void hash_read(struct hash *h, void *digest, size_t size);

/** What an error of libgcrypt is here. @return 0 or a negative errno */
int hash_errno(gcry_error_t error);

#endif
