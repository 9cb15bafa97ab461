#include "iv.h"

#include <endian.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

static const struct {
    const char *name;
    enum iv_kind kind;
} KINDS[] = {
    {"plain64", IV_PLAIN64}, {"plain", IV_PLAIN}, {"plain64be", IV_PLAIN64BE}, {"essiv", IV_ESSIV},
    {"benbi", IV_BENBI},     {"eboiv", IV_EBOIV}, {"null", IV_NULL},
};

int iv_find(enum iv_kind *kind, const char *name)
{
    for (size_t i = 0; i < sizeof(KINDS) / sizeof(KINDS[0]); i++) {
        if (strcmp(name, KINDS[i].name) == 0) {
            *kind = KINDS[i].kind;
            return 0;
        }
    }
    return -EOPNOTSUPP;
}

static void put(uint8_t *out, uint64_t value)
{
    memcpy(out, &value, sizeof(value));
}

static void fill_one(const struct iv *iv, uint64_t sector, uint8_t *out)
{
    uint8_t *tail = out + iv->size - sizeof(uint64_t);
    memset(out, 0, iv->size);
    switch (iv->kind) {
    case IV_PLAIN:
        put(out, htole64(sector & UINT32_MAX));
        break;
    case IV_PLAIN64:
    case IV_ESSIV:
        put(out, htole64(sector));
        break;
    case IV_EBOIV:
        put(out, htole64(sector * iv->sector_size));
        break;
    case IV_PLAIN64BE:
        put(tail, htobe64(sector));
        break;
    case IV_BENBI: /* sectors of 512 bytes to blocks; dm-crypt.c: crypt_iv_benbi_gen */
        put(tail, htobe64(sector * (512 / iv->size) + 1));
        break;
    case IV_NULL:
    case IV_NONE:
        break;
    }
}

int iv_fill(const struct iv *iv, gcry_cipher_hd_t cipher, uint64_t sector, unsigned count, uint8_t *out)
{
    for (unsigned i = 0; i < count; i++)
        fill_one(iv, sector + i * iv->step, out + (size_t)i * iv->size);
    if (cipher && gcry_cipher_encrypt(cipher, out, (size_t)count * iv->size, NULL, 0))
        return -EIO;
    return 0;
}
