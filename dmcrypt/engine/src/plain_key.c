#include "plain_key.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "hash.h"

/** A hash as cryptsetup's --hash names it: NAME, or NAME:LENGTH. */
struct hash_spec {
    char name[WIRE_NAME_MAX];
    size_t length; /* bytes of the key that come from the secret; the rest is zero */
};

static int parse_hash(struct hash_spec *spec, const struct wire_plain_key *p)
{
    size_t end = strnlen(p->hash, sizeof(p->hash));
    if (end == sizeof(p->hash))
        return -EINVAL;
    memcpy(spec->name, p->hash, end + 1);
    spec->length = p->hash_length ? p->hash_length : p->key_size;

    char *number = strchr(spec->name, ':');
    if (number) {
        char *rest;
        *number++ = '\0';
        unsigned long length = strtoul(number, &rest, 10);
        if (*number < '0' || *number > '9' || *rest || p->hash_length)
            return -EINVAL;
        spec->length = length;
    }
    return spec->length > p->key_size ? -EINVAL : 0;
}

/* Digests of the secret, of "A" and the secret, of "AA" and the secret, … until the key is full. */
static int hash_rounds(const char *name, const struct secret *secret, uint8_t *key, size_t size)
{
    struct hash h;
    int error = hash_open(&h, name, NULL, 0);
    for (size_t round = 0; size > 0 && !error; round++) {
        size_t piece = size < h.size ? size : h.size;
        hash_reset(&h);
        for (size_t i = 0; i < round; i++)
            hash_write(&h, "A", 1);
        hash_write(&h, secret->bytes, secret->length);
        hash_read(&h, key, piece);
        key += piece;
        size -= piece;
    }
    hash_close(&h);
    return error;
}

static int fill_key(const struct wire_plain_key *p, const struct secret *secret, uint8_t *key)
{
    struct hash_spec spec;
    int error = parse_hash(&spec, p);
    if (error)
        return error;
    bool raw = spec.name[0] == '\0', plain = strcmp(spec.name, "plain") == 0;
    if (raw && secret->length < spec.length)
        return -ENODATA;
    if (!raw && !plain)
        return hash_rounds(spec.name, secret, key, spec.length);
    if (secret->length > 0)
        memcpy(key, secret->bytes, secret->length < spec.length ? secret->length : spec.length);
    return 0;
}

int plain_key(const struct wire_plain_key *p, const struct secret *secret, uint8_t **key)
{
    *key = NULL;
    if (p->key_size == 0 || p->key_size > PLAIN_KEY_MAX)
        return -EINVAL;
    uint8_t *bytes = arena_alloc(p->key_size);
    if (!bytes)
        return -ENOSPC;
    int error = fill_key(p, secret, bytes);
    wipe_stack();
    bool halves = (p->flags & WIRE_KEY_XTS) && p->key_size % 2 == 0;
    if (!error && halves && equal_const_time(bytes, bytes + p->key_size / 2, p->key_size / 2))
        error = -EKEYREJECTED;
    if (error) {
        arena_free(bytes);
        return error;
    }
    *key = bytes;
    return 0;
}
