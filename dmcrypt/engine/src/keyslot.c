#include "keyslot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "af.h"
#include "arena.h"
#include "cipher.h"
#include "hash.h"
#include "kdf.h"
#include "whole_io.h"

#define SECTOR 512u
#define STRIPES_MAX 4000u
#define AREA_KEY_MAX 128u

/** A keyslot's area in memory. All of it is arena memory. */
struct area {
    uint8_t *material; /* the stripes, and what fills up their last sector */
    size_t length;     /* bytes, whole sectors */
    uint8_t *key;      /* what the KDF makes of the secret */
    struct cipher *cipher;
};

static size_t area_sectors(const struct wire_keyslot *slot)
{
    return ((size_t)slot->key_size * slot->stripes + SECTOR - 1) / SECTOR;
}

static int check_slot(const struct wire_keyslot *slot)
{
    if (slot->key_size == 0 || slot->key_size > VOLUME_KEY_MAX || slot->stripes == 0
        || slot->stripes > STRIPES_MAX || slot->area_key_size == 0 || slot->area_key_size > AREA_KEY_MAX)
        return -EINVAL;
    if (slot->area_length < area_sectors(slot) * SECTOR
        || slot->area_offset > INT64_MAX - (uint64_t)VOLUME_KEY_MAX * STRIPES_MAX)
        return -EINVAL;
    if (cipher_is_null(slot->area_cipher))
        return -EOPNOTSUPP; /* what it would keep is no secret */
    int error = cipher_check(slot->area_cipher, slot->area_key_size); /* before the KDF takes its seconds */
    return error || hash_find(slot->af_hash) ? error : -EOPNOTSUPP;
}

static void close_area(struct area *a)
{
    cipher_close(a->cipher);
    arena_free(a->key);
    arena_free(a->material);
}

/* Derive the area's key and expand it: seconds, and what it asks of memory, come before the area's buffer. */
static int open_area(struct area *a, const struct wire_keyslot *slot, const struct secret *secret)
{
    a->length = area_sectors(slot) * SECTOR;
    a->key = arena_alloc(slot->area_key_size);
    if (!a->key)
        return -ENOSPC;
    int error = kdf_derive(&slot->kdf, secret->bytes, secret->length, a->key, slot->area_key_size);
    if (!error)
        error = cipher_open(&a->cipher, slot->area_cipher, a->key, slot->area_key_size, SECTOR, 0, 1);
    if (!error) {
        a->material = arena_alloc(a->length);
        error = a->material ? 0 : -ENOSPC;
    }
    return error;
}

/* @return 0; -ENOKEY: the key is not the one that the digest is of */
static int compare_digest(const struct wire_digest *digest, const uint8_t *key, size_t key_size)
{
    uint8_t *computed = arena_alloc(WIRE_DIGEST_MAX);
    if (!computed)
        return -ENOSPC;
    int error = digest_compute(digest, key, key_size, computed);
    if (!error && !equal_const_time(computed, digest->digest, digest->digest_length))
        error = -ENOKEY;
    arena_free(computed);
    return error;
}

int keyslot_open(int fd, const struct wire_keyslot *slot, const struct wire_digest *digest,
                 const struct secret *secret, uint8_t **key)
{
    struct area a = {.material = NULL};
    *key = NULL;
    int error = check_slot(slot);
    if (!error && !hash_find(digest->hash))
        error = -EOPNOTSUPP;
    if (error)
        return error;
    uint8_t *candidate = arena_alloc(slot->key_size);
    if (!candidate)
        return -ENOSPC;

    error = open_area(&a, slot, secret);
    if (!error)
        error = pread_whole(fd, a.material, a.length, slot->area_offset);
    if (!error)
        error = cipher_decrypt(a.cipher, 0, a.material, a.length, 0);
    if (!error)
        error = af_merge(slot->af_hash, a.material, slot->key_size, slot->stripes, candidate);
    if (!error)
        error = compare_digest(digest, candidate, slot->key_size);
    close_area(&a);
    if (error) {
        arena_free(candidate);
        return error;
    }
    *key = candidate;
    return 0;
}

/* Enciphered it is no secret any more: out of ordinary memory, which direct I/O and strace(1) can read, too. */
static int write_area(int fd, const struct area *a, uint64_t offset)
{
    uint8_t *copy = malloc(a->length);
    if (!copy)
        return -ENOMEM;
    memcpy(copy, a->material, a->length);
    int error = pwrite_whole(fd, copy, a->length, offset);
    free(copy);
    return error;
}

int keyslot_create(int fd, const struct wire_keyslot *slot, const struct secret *secret,
                   const uint8_t *key, size_t key_size)
{
    struct area a = {.material = NULL};
    int error = check_slot(slot);
    if (!error && key_size != slot->key_size)
        error = -EINVAL;
    if (!error)
        error = open_area(&a, slot, secret);
    if (!error)
        error = af_split(slot->af_hash, key, key_size, slot->stripes, a.material);
    if (!error)
        error = cipher_encrypt(a.cipher, 0, a.material, a.material, a.length, 0);
    if (!error)
        error = write_area(fd, &a, slot->area_offset);
    close_area(&a);
    return error;
}

int digest_compute(const struct wire_digest *d, const uint8_t *key, size_t key_size, uint8_t *out)
{
    struct wire_kdf kdf = {.type = WIRE_PBKDF2, .iterations = d->iterations, .salt_length = d->salt_length};
    if (d->digest_length == 0 || d->digest_length > WIRE_DIGEST_MAX || d->salt_length > WIRE_SALT_MAX)
        return -EINVAL;
    memcpy(kdf.hash, d->hash, sizeof(kdf.hash));
    memcpy(kdf.salt, d->salt, sizeof(kdf.salt));
    return kdf_derive(&kdf, key, key_size, out, d->digest_length);
}
