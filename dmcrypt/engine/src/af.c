#include "af.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "arena.h"
#include "hash.h"
#include "random.h"

/* Replace each digest-sized piece of the block, also a shorter last one, by as much of its digest. */
static void diffuse(struct hash *h, uint8_t *block, size_t size)
{
    uint32_t number = 0;
    for (size_t done = 0; done < size; done += h->size) {
        size_t piece = size - done < h->size ? size - done : h->size;
        uint32_t counter = htobe32(number++);
        hash_reset(h);
        hash_write(h, &counter, sizeof(counter));
        hash_write(h, block + done, piece);
        hash_read(h, block + done, piece);
    }
}

/* Fold all stripes but the last into `block`: xor one in, diffuse, and so on. */
static void fold(struct hash *h, const uint8_t *material, size_t size, uint32_t stripes, uint8_t *block)
{
    memset(block, 0, size);
    for (uint32_t s = 0; s + 1 < stripes; s++) {
        for (size_t i = 0; i < size; i++)
            block[i] ^= material[s * size + i];
        diffuse(h, block, size);
    }
}

static int open_hash(struct hash *h, const char *name, size_t size, uint32_t stripes)
{
    h->md = NULL;
    if (size == 0 || stripes == 0)
        return -EINVAL;
    return hash_open(h, name, NULL, 0);
}

int af_split(const char *hash, const uint8_t *key, size_t size, uint32_t stripes, uint8_t *material)
{
    struct hash h;
    int error = open_hash(&h, hash, size, stripes);
    if (error)
        return error;
    uint8_t *last = material + (size_t)(stripes - 1) * size;
    error = random_fill(material, (size_t)(stripes - 1) * size);
    if (!error) {
        fold(&h, material, size, stripes, last);
        for (size_t i = 0; i < size; i++)
            last[i] ^= key[i];
    }
    hash_close(&h);
    wipe_stack();
    return error;
}

int af_merge(const char *hash, const uint8_t *material, size_t size, uint32_t stripes, uint8_t *key)
{
    struct hash h;
    int error = open_hash(&h, hash, size, stripes);
    if (error)
        return error;
    const uint8_t *last = material + (size_t)(stripes - 1) * size;
    fold(&h, material, size, stripes, key);
    for (size_t i = 0; i < size; i++)
        key[i] ^= last[i];
    hash_close(&h);
    wipe_stack();
    return 0;
}
