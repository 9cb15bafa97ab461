#include "iv.h"

#include <endian.h>
#include <string.h>

static void put(uint8_t *out, uint64_t value)
{
    memcpy(out, &value, sizeof(value));
}

static void fill_tcw(const struct iv *iv, uint64_t number, uint8_t *out)
{
    const uint64_t le = htole64(number);
    for (size_t i = 0; i < iv->size; i += sizeof(le)) {
        uint64_t seed;
        memcpy(&seed, iv->seed + i, sizeof(seed));
        put(out + i, seed ^ le);
    }
}

void iv_fill(const struct iv *iv, uint64_t sector, unsigned count, uint8_t *out)
{
    const size_t tail = iv->size - sizeof(uint64_t);
    memset(out, 0, count * iv->size);
    if (iv->kind == IV_PLAIN64) { /* nearly always */
        for (unsigned i = 0; i < count; i++, sector += iv->step, out += iv->size)
            put(out, htole64(iv_number(iv, sector)));
        return;
    }
    for (unsigned i = 0; i < count; i++, sector += iv->step, out += iv->size) {
        const uint64_t number = iv_number(iv, sector);
        switch (iv->kind) {
        case IV_PLAIN:
            put(out, htole64(number & UINT32_MAX));
            break;
        case IV_EBOIV:
        case IV_ELEPHANT:
            put(out, htole64(number * iv->sector_size));
            break;
        case IV_PLAIN64BE:
            put(out + tail, htobe64(number));
            break;
        case IV_BENBI:
            put(out + tail, htobe64((number << iv->benbi_shift) + 1));
            break;
        case IV_TCW:
            fill_tcw(iv, number, out);
            break;
        case IV_PLAIN64: /* above */
        case IV_LMK:     /* made of the data */
        case IV_NULL:
        case IV_NONE:
            break;
        }
    }
}
