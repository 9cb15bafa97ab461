#include "secure_key.h"

#include <string.h>

#define CCA_INTERNAL 0x01u
#define VERSION_AESDATA 0x04u
#define VERSION_AESCIPHER 0x05u
#define AESDATA_SIZE 64u
#define AESCIPHER_SIZE 136u
#define AESCIPHER_HEAD 56u /* bytes before the wrapped payload */
#define ENCRYPTED_WITH_MKVP 0xc0u
#define MKVP_SIZE 8u
/* keystore/ep11_token.py */
#define NON_CCA 0x00u
#define VERSION_EP11_OVERLAID 0x03u
#define VERSION_EP11 0x06u
#define EP11_HEADER 16u
#define EP11_SESSION 32u
#define EP11_BLOB 256u
#define EP11_BLOB_FILED 320u
#define WKVP_SIZE 16u
/* keystore/pkcs11_token.py */
#define PKCS11 0x46u
#define VERSION_PKCS11 0x01u
#define PKCS11_SIZE 96u
#define PKCS11_WRAPPED 40u
#define PKCS11_CHECK 88u
#define WRAP_KW 1u
#define WRAP_KWP 2u
#define WRAP_CBC_PAD 3u

static unsigned get16(const uint8_t *p)
{
    return (unsigned)p[0] << 8 | p[1];
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)get16(p) << 16 | get16(p + 2);
}

static bool is_zero(const uint8_t *p, size_t n)
{
    while (n > 0 && *p == 0) {
        p++;
        n--;
    }
    return n == 0;
}

static bool is_key_bits(unsigned bits)
{
    return bits == 128 || bits == 192 || bits == 256;
}

static bool is_aesdata(const uint8_t *t)
{
    uint32_t sum = 0;

    for (unsigned at = 0; at < 60; at += 4)
        sum += get32(t + at);
    return t[0] == CCA_INTERNAL && is_zero(t + 1, 3) && t[4] == VERSION_AESDATA && t[5] == 0
           && t[6] == ENCRYPTED_WITH_MKVP && is_zero(t + 48, 8) && is_key_bits(get16(t + 56)) && get16(t + 58) == 32
           && sum == get32(t + 60);
}

/* Stricter than a Z kernel (cca_check_secaescipherkey): what is reserved is zero, and so is the padding. */
static bool is_aescipher(const uint8_t *t)
{
    const unsigned length = get16(t + 2), payload_bits = get16(t + 38);

    return t[0] == CCA_INTERNAL && t[1] == 0 && t[4] == VERSION_AESCIPHER && is_zero(t + 5, 3) && t[8] == 3
           && t[9] == 1 && is_zero(t + 18, 8) && t[26] == 2 && t[27] == 2 && t[28] <= 1 && t[29] == 0
           && t[30] == 1 && t[31] == 0 && get16(t + 32) == 26 && is_zero(t + 34, 4) && t[40] == 0 && t[41] == 2
           && get16(t + 42) == 1 && t[44] == 2 && t[49] == 3
           && (payload_bits == 640 || (t[28] == 0 && (payload_bits == 512 || payload_bits == 576)))
           && length == AESCIPHER_HEAD + payload_bits / 8 && is_zero(t + length, AESCIPHER_SIZE - length);
}

/* The wrapped key's size for a way of wrapping; 0: no such way. */
static unsigned wrapped_size(unsigned way, unsigned bits)
{
    const unsigned size = bits / 8;

    return way == WRAP_KW || way == WRAP_KWP ? size + 8 : way == WRAP_CBC_PAD ? size / 16 * 16 + 16 : 0;
}

static bool is_pkcs11(const uint8_t *t)
{
    const unsigned way = t[5], bits = get16(t + 6), size = get16(t + 16);

    return t[0] == PKCS11 && is_zero(t + 1, 3) && t[4] == VERSION_PKCS11 && is_key_bits(bits) && size != 0
           && size == wrapped_size(way, bits) && is_zero(t + 18, 6) && (way == WRAP_CBC_PAD || is_zero(t + 24, 16))
           && is_zero(t + PKCS11_WRAPPED + size, PKCS11_CHECK - PKCS11_WRAPPED - size);
}

/* Bytes before the blob; what is asked is none of EP11: any. */
static size_t ep11_header(const uint8_t *t)
{
    return t[4] == VERSION_EP11 ? EP11_HEADER : 0;
}

static bool is_ep11_head(const uint8_t *t)
{
    const unsigned bits = get16(t + 6);
    const size_t length = get16(t + 2), header = ep11_header(t);

    return t[0] == NON_CCA && t[1] == 0 && (t[4] == VERSION_EP11 || t[4] == VERSION_EP11_OVERLAID) && t[5] == 0
           && length >= header + EP11_BLOB && length <= header + EP11_BLOB_FILED && (bits == 0 || is_key_bits(bits));
}

/* The size of an EP11-AES token with padding; 0: it is none. */
static size_t ep11_size(const uint8_t *t, size_t room)
{
    if (room < EP11_BLOB_FILED || !is_ep11_head(t))
        return 0;
    const size_t header = ep11_header(t), size = header + EP11_BLOB_FILED, length = get16(t + 2);
    const bool is_one = room >= size && is_zero(t + 8, (header ? header : EP11_SESSION) - 8)
                        && get16(t + header + 64) == 0x1234 && is_zero(t + length, size - length);
    return is_one ? size : 0;
}

/* The size of the one token that the bytes begin with; 0: none. */
static size_t token_size(const uint8_t *bytes, size_t room)
{
    if (room >= AESDATA_SIZE && is_aesdata(bytes))
        return AESDATA_SIZE;
    if (room >= AESCIPHER_SIZE && is_aescipher(bytes))
        return AESCIPHER_SIZE;
    if (room >= PKCS11_SIZE && is_pkcs11(bytes))
        return PKCS11_SIZE;
    return ep11_size(bytes, room);
}

bool secure_key_is_whole(const uint8_t *bytes, size_t size)
{
    const size_t first = token_size(bytes, size);

    if (first == 0 || first == size)
        return first != 0;
    if (size != 2 * first || token_size(bytes + first, first) != first || bytes[0] != bytes[first])
        return false;
    if (bytes[0] == NON_CCA) {
        /* Both are bound to one session, and wrapped by one key; where there is no header before the blob, it lies
         * over the session. */
        const size_t header = ep11_header(bytes), bound = header != 0 ? header : EP11_SESSION;
        const size_t end = header + EP11_SESSION + WKVP_SIZE;
        return memcmp(bytes + 4, bytes + first + 4, 4) == 0 && get16(bytes + 6) != 192
               && memcmp(bytes + bound, bytes + first + bound, end - bound) == 0
               && memcmp(bytes, bytes + first, first) != 0;
    }
    /* One master key wraps both, of one size that XTS has and one version; equal keys would be no XTS. */
    if (bytes[0] == PKCS11)
        return memcmp(bytes + 6, bytes + first + 6, 2 + MKVP_SIZE) == 0 && get16(bytes + 6) != 192
               && memcmp(bytes + PKCS11_CHECK, bytes + first + PKCS11_CHECK, first - PKCS11_CHECK) != 0;
    const bool is_data = first == AESDATA_SIZE;
    const size_t mkvp = is_data ? 8 : 10, bits = is_data ? 56 : 38;
    return memcmp(bytes + mkvp, bytes + first + mkvp, MKVP_SIZE) == 0
           && memcmp(bytes + bits, bytes + first + bits, 2) == 0 && get16(bytes + bits) != (is_data ? 192 : 576)
           && (is_data || bytes[28] == bytes[first + 28]) && memcmp(bytes, bytes + first, first) != 0;
}

bool secure_key_is_fragment(const uint8_t *bytes, size_t size)
{
    if (size < 16 || secure_key_is_whole(bytes, size) || bytes[1] != 0)
        return false;
    if (bytes[0] == PKCS11)
        return is_zero(bytes + 2, 2) && bytes[4] == VERSION_PKCS11 && wrapped_size(bytes[5], get16(bytes + 6)) != 0
               && is_key_bits(get16(bytes + 6));
    if (bytes[0] == NON_CCA) /* 16 bytes are enough, since keys of zeros have no length at byte 2 */
        return is_ep11_head(bytes) && is_zero(bytes + 8, 8);
    if (bytes[0] != CCA_INTERNAL)
        return false;
    if (bytes[4] == VERSION_AESDATA)
        return is_zero(bytes + 2, 2) && bytes[5] == 0 && bytes[6] == ENCRYPTED_WITH_MKVP;
    return bytes[4] == VERSION_AESCIPHER && is_zero(bytes + 5, 3) && bytes[8] == 3 && get16(bytes + 2) >= 120
           && get16(bytes + 2) <= AESCIPHER_SIZE;
}
